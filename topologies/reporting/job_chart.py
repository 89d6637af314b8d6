"""A plot of a job's result: lines over its windows, or bars of its keys.

Owns the choice of what is drawn: the first column of numbers (`mean` where there is one), with the span from
`min` to `max` behind a single line. Series are labelled where they end, in the figure itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from re import split
from typing import TYPE_CHECKING, Any

from gateway.mapreduce.results import Table
from topologies.reporting.palette import GRID, INK, MUTED

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SERIES_COLOURS = ("#2a78d6", "#e0762f", "#1d9a6c", "#a54bc0", "#c8a21c", "#d2435c", "#3aa8b8", "#7a6a58")
LINES_MAX = len(SERIES_COLOURS)
"""More than that are not told apart by colour: the others are grey, and say so."""
BARS_MAX = 30


def job_figure(name: str, table: Table, window_s: float) -> Figure | None:
    """The figure; None where the result has no numbers to draw.

    Args:
        window_s: where it is not 0, the key's last column is a time.
    """
    column = _drawn(table)
    if column is None or not table.rows:
        return None
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), dpi=120, layout="constrained")
    axes = figure.add_subplot()
    left_out = (_lines if window_s else _bars)(axes, table, column)
    by = ", ".join(table.columns[: table.keys])
    title = f"{name}: {table.columns[column]} by {by}" + (f"  ({left_out})" if left_out else "")
    axes.set_title(title, loc="left", color=INK, fontsize=11, fontweight="bold")
    axes.xaxis.offsetText.set(color=MUTED, fontsize=8.5)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(GRID)
    axes.tick_params(colors=MUTED, labelsize=8.5, length=0)
    return figure


def _drawn(table: Table) -> int | None:
    """Which column: `mean` if there is one, else the first that is numbers."""
    numeric = [
        at for at in range(table.keys, len(table.columns)) if any(_is_number(row[at]) for row in table.rows)
    ]
    named = [at for at in numeric if table.columns[at] == "mean"]
    return next(iter((*named, *numeric)), None)


def _lines(axes: Axes, table: Table, column: int) -> str:
    """A line for each key; what is not told apart, in words."""
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter, date2num

    varying = [at for at in range(table.keys - 1) if len({str(row[at]) for row in table.rows}) > 1]
    series: dict[str, list[tuple[float, Sequence[Any]]]] = {}
    for row in table.rows:
        key = ", ".join(str(row[at]) for at in varying)
        if _is_number(row[column]):
            at = float(date2num(_time(row[table.keys - 1])))  # type: ignore[no-untyped-call]
            series.setdefault(key, []).append((at, row))
    ends = []
    for n, key in enumerate(sorted(series, key=_natural)):
        points = sorted(series[key], key=lambda point: point[0])
        times = [time for time, _ in points]
        values = [row[column] for _, row in points]
        told = n < LINES_MAX
        colour = SERIES_COLOURS[n] if told else GRID
        marker = "o" if len(points) < 40 else ""
        axes.plot(
            times, values, color=colour, linewidth=1.8, marker=marker, markersize=3, zorder=3 if told else 1
        )
        if told and key:
            ends.append((float(values[-1]), key, colour))
        if len(series) == 1 and {"min", "max"} <= set(table.columns):
            low, high = ([row[table.columns.index(name)] for _, row in points] for name in ("min", "max"))
            axes.fill_between(times, low, high, color=colour, alpha=0.15, linewidth=0)
    _label(axes, ends)
    axes.grid(axis="y", color=GRID, linewidth=0.8)
    axes.margins(x=0.02)
    locator = AutoDateLocator()  # type: ignore[no-untyped-call]
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))  # type: ignore[no-untyped-call]
    more = len(series) - LINES_MAX
    return f"{more} more in grey" if more > 0 else ""


def _label(axes: Axes, ends: list[tuple[float, str, str]]) -> None:
    """Each line's name beside its end, in its colour, none upon another."""
    low, high = axes.get_ylim()
    apart = (high - low) * 0.045
    at = float("-inf")
    for value, key, colour in sorted(ends):
        at = max(value, at + apart)
        axes.annotate(
            key,
            (1.01, at),
            xycoords=("axes fraction", "data"),
            color=colour,
            fontsize=8.5,
            va="center",
            annotation_clip=False,
        )


def _bars(axes: Axes, table: Table, column: int) -> str:
    """A bar for each key, the largest first; what is left out, in words."""
    rows = [row for row in table.rows if _is_number(row[column])]
    rows.sort(key=lambda row: -row[column])
    shown = rows[:BARS_MAX][::-1]
    names = [", ".join(str(part) for part in row[: table.keys]) for row in shown]
    values = [row[column] for row in shown]
    axes.barh(names, values, color=SERIES_COLOURS[0], height=0.7)
    for at, value in enumerate(values):
        axes.annotate(
            f"{value:.4g}",
            (value, at),
            xytext=(4, 0),
            textcoords="offset points",
            color=INK,
            fontsize=8.5,
            va="center",
        )
    axes.margins(x=0.1)
    axes.set_xticks([])
    return f"the {BARS_MAX} largest of {len(rows)}" if len(rows) > BARS_MAX else ""


def _natural(text: str) -> list[tuple[int, str]]:
    """cam2 before cam10."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in split(r"(\d+)", text) if part]


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
