"""The terminal's tables: architectures beside each other, and two runs against each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich import box
from rich.markup import escape
from rich.table import Table

from topologies.captures import CaptureAnalysis, protocol_rows
from topologies.difference import Diff
from topologies.metrics.comparison import architectures, lines
from topologies.metrics.summary import Summary

OUTAGES_MAX = 4
"""That have lines of their own; of more, the table shows the worst, and the report and summary.json each."""


def comparison(summaries: Sequence[Summary]) -> Table:
    """A column for each architecture, a row for each number; means over the seeds, with their range.

    The best of a row is bold. A run that is not valid is marked in its column's heading and below the table,
    where processes that ended by themselves are named too.
    """
    groups = architectures(summaries)
    table = _table(_title(summaries), _caption(summaries))
    table.add_column("", no_wrap=True)
    for name, runs in groups.items():
        mark = "" if all(run.run.validity == "valid" for run in runs) else " *"
        table.add_column(name + mark, justify="right")
    part = ""
    for line in lines(summaries, OUTAGES_MAX):
        if line.part != part:
            part = line.part
            table.add_section()
            table.add_row(f"[bold]{part}[/bold]")
        best = line.best()
        cells = (f"[bold green]{line.text(n)}[/]" if n in best else line.text(n) for n in groups)
        table.add_row(f"  {line.label}", *cells)
    return table


def protocols(analyses: Mapping[str, CaptureAnalysis]) -> Table:
    """Captured bytes on air by protocol, a column for each run; protocols with none at all are left out."""
    table = _table("bytes on air by protocol", _agreement(analyses))
    table.add_column("", no_wrap=True)
    for name in analyses:
        table.add_column(name, justify="right")
    for protocol, shares in protocol_rows(analyses):
        table.add_row(protocol, *shares)
    return table


def difference(diff: Diff) -> Table:
    """Numbers of two runs, those first that changed most in proportion."""
    table = _table(f"{diff.a} → {diff.b}", _facts(diff))
    table.add_column("number", no_wrap=True)
    table.add_column("a", justify="right")
    table.add_column("b", justify="right")
    table.add_column("change", justify="right")
    if diff.across_fabrics:
        table.add_column("parity")
    for change in diff.changes:
        if change.a == change.b and change.within is None:
            continue
        relative = f"{change.relative:+.1%}" if change.relative is not None else ""
        parity = {True: "within", False: "[bold red]outside[/]", None: ""}[change.within]
        cells = (_number(change.a), _number(change.b), relative, *([parity] if diff.across_fabrics else []))
        table.add_row(change.name, *cells)
    return table


def _table(title: str, caption: str | None) -> Table:
    return Table(
        title=title,
        title_style="bold",
        title_justify="left",
        caption=caption,
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        min_width=64,  # a single column would squeeze title and caption
    )


def _title(summaries: Sequence[Summary]) -> str:
    if not summaries:
        return "no runs"
    run = summaries[0].run
    seeds = sorted({summary.run.seed for summary in summaries})
    seeded = f"seed {seeds[0]}" if len(seeds) == 1 else f"{len(seeds)} seeds, mean (lowest–highest)"
    fabric = (
        "[bold yellow]SIMULATED[/]" if any(summary.run.simulated for summary in summaries) else run.fabric
    )
    receivers = "the sink" if run.subscribers == "storage" else "every birdhouse and the sink"
    return f"{run.name} · {fabric} · to {receivers} · {seeded}"


def _caption(summaries: Sequence[Summary]) -> str | None:
    doubtful = [
        f"* {run.architecture}, seed {run.seed}: {run.validity.upper()}, {run.reason}"
        for run in (summary.run for summary in summaries)
        if run.validity != "valid"
    ]
    ended = [
        f"{summary.run.architecture}, seed {summary.run.seed}: on {what}"
        for summary in summaries
        for what in summary.health.ended_processes
    ]
    return escape("\n".join(doubtful + ended)) or None  # what a process said may look like markup


def _agreement(analyses: Mapping[str, CaptureAnalysis]) -> str:
    wrong = [name for name, analysis in analyses.items() if not analysis.agrees]
    if wrong:
        return f"[bold red]captures and the ether's counters disagree: {', '.join(wrong)}[/]"
    return "captures and the ether's counters agree, frame by frame"


def _facts(diff: Diff) -> str:
    facts = [f"{setting.name}: {setting.a} → {setting.b}" for setting in diff.settings]
    if diff.same_trace:
        facts.append("the traces are the same, byte for byte")
    elif diff.first_difference is not None:
        facts.append(f"the traces part at line {diff.first_difference}")
    return "\n".join(facts)


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.6g}"
