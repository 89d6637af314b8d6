"""The report's sections about jobs: how each went in every run, what it came to in one of them."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec

from topologies.job_results import JobResult, OnTheWay
from topologies.metrics.comparison import percent, seconds, size
from topologies.reporting.palette import Palette

Jobs = Sequence[tuple[str, Sequence[JobResult]]]
"""Of each run, its architecture and its jobs."""

ROWS_SHOWN = 12


class JobRow(NamedTuple):
    """A job in one run."""

    architecture: str
    cells: list[str]


class JobSection(NamedTuple):
    """One job in all runs."""

    name: str
    told: str
    runs: list[JobRow]
    shown: str
    """The architecture whose result is shown."""
    caption: str
    svg: str
    columns: tuple[str, ...]
    rows: list[list[str]]
    more: int


def job_sections(jobs: Jobs) -> list[JobSection]:
    """A section for each name."""
    names = dict.fromkeys(job.name for _, found in jobs for job in found)
    return [
        _section(name, [(run, job) for run, found in jobs for job in found if job.name == name])
        for name in names
    ]


def job_cells(job: JobResult) -> list[str]:
    """Records, rows, what was read, what moved, how much less, maps, time, what combining on the way took."""
    if job.state != "done":
        return [job.state, *[""] * 9]
    saved, way = job.saved, job.on_the_way
    return [
        str(job.records),
        str(job.rows),
        size(job.read_bytes),
        size(job.read_far_bytes),
        size(job.shuffled_bytes),
        size(job.result_bytes),
        "–" if saved is None else f"{saved:.1f}×",
        f"{job.local_maps} of {job.maps} local",
        seconds(job.seconds),
        "" if way is None else f"{size(way.hop_bytes)} of {size(way.raw_hop_bytes)}",
    ]


def plain(value: Any) -> str:
    """A cell of a result, for people."""
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:.6g}"
    return msgspec.json.encode(value).decode() if isinstance(value, dict | list) else str(value)


def _section(name: str, found: list[tuple[str, JobResult]]) -> JobSection:
    done = [(run, job) for run, job in found if job.state == "done" and job.table.rows]
    shown, job = done[0] if done else ("", None)
    rows = [] if job is None else [[plain(cell) for cell in row] for row in job.table.rows[:ROWS_SHOWN]]
    return JobSection(
        name=name,
        told=_told(found),
        runs=[JobRow(run, job_cells(job)) for run, job in found],
        shown=shown,
        caption="" if job is None else f"{', '.join(job.table.columns)}",
        svg="" if job is None else _svg(job),
        columns=() if job is None else job.table.columns,
        rows=rows,
        more=0 if job is None else max(0, len(job.table.rows) - ROWS_SHOWN),
    )


def _told(found: list[tuple[str, JobResult]]) -> str:
    failed = [(run, job) for run, job in found if job.state != "done"]
    if failed:
        return " ".join(f"In {run} it {job.state}: {job.problem or 'no reason'}." for run, job in failed)
    answers = {job.digest for _, job in found}
    same = (
        "The answer is the same in every run."
        if len(answers) == 1
        else "Answers differ with what was stored."
    )
    ways = [job.on_the_way for _, job in found if job.on_the_way is not None]
    way = _told_on_the_way(found, ways) if ways else ""
    return (
        f"{same}{way} “Saved” is how many times fewer bytes went from host to host than the records have, "
        "is what shipping them would have cost."
    )


def _told_on_the_way(found: list[tuple[str, JobResult]], ways: list[OnTheWay]) -> str:
    equal = sum(job.on_the_way is not None and job.on_the_way.digest == job.rows_digest for _, job in found)
    measured = sum(way.ratio for way in ways) / len(ways)
    predicted = sum(way.predicted_ratio for way in ways) / len(ways)
    return (
        " “On the way” is the same job merged hop by hop to the gateway, in bytes over all hops, beside what "
        f"shipping every observation there takes at least: {percent(measured)} of it. The rule K(key + s) / "
        f"(N r) says {percent(predicted)}, were all combined at once; each epoch begins anew. Its answer "
        f"was the storage hosts’ in {equal} of {len(ways)} runs; the others had lost observations."
    )


def _svg(job: JobResult) -> str:
    from matplotlib import rc_context

    from topologies.reporting.job_chart import job_figure

    figure = job_figure(job.name, job.table, job.window_s)
    if figure is None:
        return ""
    text = io.StringIO()
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": f"job-{job.name}"}):
        figure.savefig(
            text,
            format="svg",
            transparent=True,
            metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")),
        )
    drawing = text.getvalue()
    drawing = drawing[drawing.index("<svg") :]
    drawing = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>job-{job.name}-", drawing)
    for side in ("height", "width"):  # the page's affair
        drawing = re.sub(rf'(<svg[^>]*?) {side}="[^"]*"', r"\1", drawing, count=1)
    return Palette(()).resolve(drawing)
