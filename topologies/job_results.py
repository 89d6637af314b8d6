"""What the jobs of a run came to: collected from its trace into `jobs.json`, `job-<name>.csv` and a plot.

Owns these files. What a job computes is its own, how it went is in the trace (`gateway.mapreduce.events`).
"""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Callable, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec

from gateway.mapreduce.inputs import Selection
from gateway.mapreduce.on_the_way import NAME as COMBINE
from gateway.mapreduce.records import Record
from gateway.mapreduce.results import Result, Table
from gateway.mapreduce.runs import frame, merged, pairs_of
from underlay.trace import read_trace

FILE = "jobs.json"


class OnTheWay(msgspec.Struct, frozen=True):
    """The same job, combined hop by hop on the way to the gateway."""

    records: int
    rows: int
    digest: str
    """Of the result's rows in the order of their keys; compare with `JobResult.rows_digest`."""
    hop_bytes: int
    """Of all batches, on each hop that they took."""
    raw_hop_bytes: int
    """Of the observations as they were made, on each hop to the gateway: shipping them takes no less."""
    predicted_ratio: float
    """K (key + s) / (N r): packed keys and states at the gateway over the observations they are of."""

    @property
    def ratio(self) -> float:
        """Bytes combined over bytes shipped."""
        return self.hop_bytes / self.raw_hop_bytes if self.raw_hop_bytes else 0.0


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
    rows_digest: str
    """Of its rows in the order of their keys."""
    table: Table
    on_the_way: OnTheWay | None = None

    @property
    def saved(self) -> float | None:
        """How many times fewer bytes went between hosts than the records have."""
        moved = self.read_far_bytes + self.shuffled_bytes + self.result_bytes
        return self.read_bytes / moved if moved else None


def collect(
    folder: Path, selections: Mapping[str, Selection] | None = None, levels: Mapping[str, int] | None = None
) -> tuple[JobResult, ...]:
    """Read a run's trace and write its jobs' files; nothing is written where there were none.

    Args:
        selections: of the jobs that were combined on the way too, by name.
        levels: hops of each device to the gateway.
    """
    ended: dict[str, dict[str, Any]] = {}
    chunks: dict[str, dict[tuple[int, int], bytes]] = {}
    ways = {name: _Way(selection.takes(), levels or {}) for name, selection in (selections or {}).items()}
    for record in read_trace(folder / "trace.jsonl"):
        match record["event"]:
            case "job-ended":
                ended[record["job"]] = record
            case "job-rows":
                place = record["part"], record["chunk"]
                chunks.setdefault(record["job"], {})[place] = b64decode(record["data"])
            case "generated" | "combined-rows" | "messages-sent":
                for name, way in ways.items():
                    way.see(name, record)
    found = tuple(
        _result(fields, chunks.get(job, {}), ways.get(fields["name"])) for job, fields in ended.items()
    )
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


def _result(fields: dict[str, Any], chunks: dict[tuple[int, int], bytes], way: _Way | None) -> JobResult:
    parts: dict[int, bytes] = {}
    for part, chunk in sorted(chunks):
        parts[part] = parts.get(part, b"") + chunks[part, chunk]
    result = Result(tuple(fields["key_names"]), fields["window_s"], tuple(parts[n] for n in sorted(parts)))
    whole = fields["state"] == "done" and len(result.data) == fields["result_bytes"]
    return JobResult(
        **{name: value for name, value in fields.items() if name in JobResult.__struct_fields__},
        digest=result.digest if whole else "",
        rows_digest=_rows_digest(result),
        table=result.table(),
        on_the_way=None if way is None else way.told(),
    )


class _Way:
    """What the trace says of one job that was combined on the way."""

    def __init__(self, takes: Callable[[Record], bool], levels: Mapping[str, int]) -> None:
        self._takes = takes
        self._levels = levels
        self._raw_bytes = self._raw_hop_bytes = self._hop_bytes = self._records = self._states_bytes = 0
        self._rows: dict[int, bytes] = {}
        self._names: tuple[str, ...] = ()

    def see(self, name: str, record: dict[str, Any]) -> None:
        match record["event"]:
            case "generated":
                made = Record(record["device"], 0, record["kind"], record["t_event"], 0.0, b"")
                if self._takes(made):
                    self._raw_bytes += record["size_bytes"]
                    self._raw_hop_bytes += record["size_bytes"] * self._levels.get(record["device"], 0)
            case "messages-sent":
                if record.get("node") == COMBINE and record["message"] == "Partial":
                    self._hop_bytes += record["bytes"]  # a parent is one hop away
            case "combined-rows" if record["name"] == name:
                self._rows[record["chunk"]] = b64decode(record["data"])
                self._records, self._states_bytes = record["records"], record["states_bytes"]
                self._names = tuple(record["key_names"])

    def told(self) -> OnTheWay | None:
        if not self._rows:
            return None
        result = Result(self._names, 0.0, tuple(self._rows[n] for n in sorted(self._rows)))
        return OnTheWay(
            self._records,
            sum(1 for _ in result.rows()),
            _rows_digest(result),
            self._hop_bytes,
            self._raw_hop_bytes,
            self._states_bytes / self._raw_bytes if self._raw_bytes else 0.0,
        )


def _rows_digest(result: Result) -> str:
    """Of the same rows the same, however they are divided into parts."""
    pairs = merged([pairs_of(part) for part in result.parts])
    return sha256(b"".join(frame(key, row) for key, row in pairs)).hexdigest()
