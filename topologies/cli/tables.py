"""What commands print: tables for people, JSON for programs. Tables of metrics are `topologies.table`'s."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from topologies.api import Checked
from topologies.metrics.survivability import SurvivalCurve
from topologies.results import Comparison, Row
from topologies.table import comparison as table_of

if TYPE_CHECKING:
    from topologies.deployment import Reach

_PLAIN_WIDTH = 160
FAULTS_SHOWN = 12
"""Of a timeline; random failures make long ones."""


def console() -> Console:
    """Standard output; wide enough for whole rows where it is no terminal."""
    return Console() if sys.stdout.isatty() else Console(width=_PLAIN_WIDTH, no_color=True)


def print_json(value: Any) -> None:
    """One JSON document."""
    print(msgspec.json.format(msgspec.json.encode(value), indent=2).decode())


def comparison_tables(comparison: Comparison) -> Iterator[Table]:
    """What is set side by side."""
    for group in comparison.together():
        table = table_of(group.summaries)
        setting = ", ".join(f"{key} = {_plain(value)}" for key, value in group.settings.items())
        if setting:
            table.title = f"{table.title}\n{setting}"
        yield table


def survival_table(curves: Sequence[SurvivalCurve]) -> Table:
    """Delivery among survivors by the number of machines that failed."""
    table = _table("delivered in time among survivors, after k failures: mean, 95 % interval")
    table.add_column("architecture")
    for k in sorted({point.k for curve in curves for point in curve.points}):
        table.add_column(f"k = {k}", justify="right")
    table.add_column("area", justify="right")
    for curve in curves:
        cells = [f"{point.ratio:.1%}\n{point.low:.1%} to {point.high:.1%}" for point in curve.points]
        table.add_row(curve.architecture, *cells, "-" if curve.area is None else f"{curve.area:.3f}")
    return table


def check_table(checked: Checked) -> Table:
    """What a spec means."""
    table = _table(checked.name)
    table.show_header = False
    table.add_row("architectures", ", ".join(checked.architectures))
    table.add_row(
        "network",
        f"{checked.birdhouses} birdhouses, {checked.relays} relays, hub, sink; {checked.links} links, "
        f"{checked.channels} channels; up to {checked.hops_max} hops to the sink",
    )
    counts = ", ".join(f"{count:,} {kind}" for kind, count in checked.observations.items())
    table.add_row("observations counted", f"about {counts}")
    for n, fault in enumerate(checked.faults[:FAULTS_SHOWN]):
        table.add_row("faults" if n == 0 else "", f"{fault['at_s']:g} s  {_fault_text(fault)}")
    if len(checked.faults) > FAULTS_SHOWN:
        last_s = checked.faults[-1]["at_s"]
        table.add_row(
            "", f"and {len(checked.faults) - FAULTS_SHOWN} more until {last_s:g} s (--json lists all)"
        )
    weak = ", ".join(f"{name} cuts off {count}" for name, count in checked.single_points_of_failure.items())
    table.add_row("single points of failure", weak or "none")
    return table


def rows_table(rows: Iterable[Row]) -> Table:
    """Rows as they are."""
    rows = list(rows)
    table = _table("")
    for column in rows[0] if rows else ():
        table.add_column(column)
    for row in rows:
        table.add_row(*(escape(_plain(value)) for value in row.values()))
    return table


def reach_table(ways: Iterable[Reach]) -> Table:
    """Ways into a network that is up, each with a command to try."""
    table = _table("")
    for column in ("way in", "to", "try"):
        table.add_column(column, overflow="fold")
    for way in ways:
        table.add_row(way.name, way.device, escape(way.command))
    return table


def _fault_text(fault: Mapping[str, Any]) -> str:
    """What happens to whom; a `degrade` that changes nothing ends one."""
    kind = "restore" if fault["fault"] == "degrade" and not fault["changes"] else fault["fault"]
    if "groups" in fault:
        return f"{kind} {' | '.join(_plain(group) for group in fault['groups'])} | the rest"
    about = (_plain(value) for key, value in fault.items() if key not in ("at_s", "fault") and value)
    return f"{kind} {', '.join(about)}"


def _table(title: str) -> Table:
    return Table(box=box.SIMPLE_HEAD, title=title or None, title_justify="left", title_style="bold")


def _plain(value: Any) -> str:
    match value:
        case None:
            return "-"
        case float():
            return f"{value:,.4g}" if abs(value) < 1e4 else f"{value:,.0f}"
        case list() | tuple():
            return ", ".join(_plain(item) for item in value)
        case dict():
            return ", ".join(f"{k} = {_plain(v)}" for k, v in value.items())
    return str(value)
