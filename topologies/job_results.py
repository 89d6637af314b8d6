"""What the jobs of a run came to: collected from its trace into `jobs.json`, `job-<name>.csv` and a plot.

Owns these files. What a job computes is its own, how it went is in the trace (`gateway.mapreduce.events`).
"""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from gateway.mapreduce.results import Result, Table
from underlay.trace import read_trace

FILE = "jobs.json"


class JobResult(msgspec.Struct, frozen=True):
    """One job of a run."""

    name: str
    state: str
    problem: str
    seconds: float
    maps: int
    local_maps: int
    records: int
    rows: int
    read_bytes: int
    """Of encoded observations that the maps read."""
    read_far_bytes: int
    """Of these, from other hosts than the map's."""
    shuffled_bytes: int
    """Of pairs that went from one host to another."""
    result_bytes: int
    backups: int
    lost_attempts: int
    bad_records: int
    window_s: float
    digest: str
    """SHA-256 of the result's bytes, in hex; empty: there is none."""
    table: Table

    @property
    def saved(self) -> float | None:
        """How many times fewer bytes went between hosts than the records have."""
        moved = self.read_far_bytes + self.shuffled_bytes + self.result_bytes
        return self.read_bytes / moved if moved else None


def collect(folder: Path) -> tuple[JobResult, ...]:
    """Read a run's trace and write its jobs' files; nothing is written where there were none."""
    ended: dict[str, dict[str, Any]] = {}
    chunks: dict[str, dict[tuple[int, int], bytes]] = {}
    for record in read_trace(folder / "trace.jsonl"):
        if record["event"] == "job-ended":
            ended[record["job"]] = record
        elif record["event"] == "job-rows":
            place = record["part"], record["chunk"]
            chunks.setdefault(record["job"], {})[place] = b64decode(record["data"])
    found = tuple(_result(fields, chunks.get(job, {})) for job, fields in ended.items())
    if found:
        (folder / FILE).write_bytes(msgspec.json.format(msgspec.json.encode(found), indent=1))
    for n, each in enumerate(found):
        if each.digest:
            (folder / file_name(found, n, ".csv")).write_text(each.table.csv(), encoding="utf-8")
            _draw(each, folder / file_name(found, n, ".svg"))
    return found


def read_jobs(folder: Path) -> tuple[JobResult, ...]:
    """What `collect` found."""
    path = folder / FILE
    return msgspec.json.decode(path.read_bytes(), type=tuple[JobResult, ...]) if path.exists() else ()


def file_name(found: Sequence[JobResult], n: int, suffix: str) -> str:
    """Of the n-th job's file: its name, and its number where the name comes twice."""
    name = found[n].name
    again = sum(each.name == name for each in found[:n])
    return f"job-{name}{f'-{again + 1}' if again else ''}{suffix}"


def _draw(job: JobResult, path: Path) -> None:
    from topologies.reporting.job_chart import job_figure  # brings matplotlib

    figure = job_figure(job.name, job.table, job.window_s)
    if figure is not None:
        figure.savefig(path, metadata={"Date": None})


def _result(fields: dict[str, Any], chunks: dict[tuple[int, int], bytes]) -> JobResult:
    parts: dict[int, bytes] = {}
    for part, chunk in sorted(chunks):
        parts[part] = parts.get(part, b"") + chunks[part, chunk]
    result = Result(tuple(fields["key_names"]), fields["window_s"], tuple(parts[n] for n in sorted(parts)))
    whole = fields["state"] == "done" and len(result.data) == fields["result_bytes"]
    return JobResult(
        **{name: value for name, value in fields.items() if name in JobResult.__struct_fields__},
        digest=result.digest if whole else "",
        table=result.table(),
    )
