"""The charts: age and delivery over time, latency, the front, load and energy, survivability.

Each function takes summaries and gives one SVG element; nothing is computed here that is not in a summary,
but means and ranges over the seeds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from topologies.metrics.comparison import (
    architectures,
    in_words,
    percent,
    seconds,
    shared_outages,
)
from topologies.metrics.delivery import QUANTILES
from topologies.metrics.outages import Outage
from topologies.metrics.summary import Summary
from topologies.metrics.survivability import survivability
from topologies.reporting.canvas import LETTER_PX, SMALL_PX, Canvas
from topologies.reporting.palette import ALERT, GRID, INK, MUTED, PAPER, Palette

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from numpy.typing import NDArray

Series = tuple["NDArray[np.float64]", "NDArray[np.float64]"]
"""Times and values of one run."""

ROWS_MAX = 36


def age_over_time(summaries: Sequence[Summary], palette: Palette, *, wide: bool) -> str:
    """Mean age over the sources at the sink, with the failures shaded."""

    def series(summary: Summary) -> Series:
        age = summary.age.series
        times = age.start_s + age.step_s * np.arange(len(age.mean_s), dtype=np.float64)
        return times, np.array(age.mean_s, dtype=np.float64)

    canvas = _over_time(summaries, series, palette, wide=wide, height_px=300, step=False)
    canvas.axes.set_ylim(bottom=0)
    _seconds_axis(canvas.axes)
    _mark_outages(canvas, summaries, wide=wide)
    _label_lines(canvas, summaries, series, palette)
    return canvas.svg(f"age-{_width(wide)}", "Age of information at the sink over time", palette)


def delivery_over_time(summaries: Sequence[Summary], palette: Palette, *, wide: bool) -> str:
    """Share delivered within the deadline, by the time of observation, in windows."""

    def series(summary: Summary) -> Series:
        windows = summary.series
        times = windows.start_s + windows.step_s * np.arange(len(windows.expected), dtype=np.float64)
        expected = np.array(windows.expected, dtype=np.float64)
        on_time = np.array(windows.on_time, dtype=np.float64)
        ratios = np.divide(on_time, expected, out=np.full_like(expected, np.nan), where=expected > 0)
        return times, ratios

    canvas = _over_time(summaries, series, palette, wide=wide, height_px=210, step=True)
    canvas.axes.set_ylim(0, 1.04)
    _percent_axis(canvas.axes)
    _mark_outages(canvas, summaries, wide=wide, labelled=False)
    _label_lines(canvas, summaries, series, palette)
    return canvas.svg(f"delivery-{_width(wide)}", "Delivery within the deadline over time", palette)


def latency(summaries: Sequence[Summary], palette: Palette) -> str:
    """Cumulative share of all pairs over latency: a curve that ends below 1 never delivered the rest."""
    canvas = Canvas(480, 330, left=44, right=_room(summaries, " 99.9 %"), top=22, bottom=42)
    axes = canvas.axes
    finite = [q for s in summaries for q in s.delivery.quantiles_s if q is not None and q > 0]
    deadline_s = summaries[0].run.deadline_s
    low = max(1e-3, min(finite, default=0.01) / 2)
    high = 1.4 * max([*finite, deadline_s])
    grid = np.geomspace(low, high, 300)
    ends = []
    for name, runs in architectures(summaries).items():
        curves = np.array([_cumulative(run, grid) for run in runs])
        mean = curves.mean(axis=0)
        _band(axes, grid, curves, palette[name])
        last_s = max((q for run in runs for q in run.delivery.quantiles_s if q is not None), default=low)
        drawn = grid <= last_s
        final = mean[-1]
        axes.plot(grid[drawn], mean[drawn], color=palette[name], linewidth=2.2)
        axes.plot([last_s, high], [final, final], color=palette[name], linewidth=1, linestyle=(0, (1, 2.5)))
        axes.plot([last_s], [final], "o", color=palette[name], markersize=5, clip_on=False)
        ends.append((float(final), f"{name} {percent(float(final))}", palette[name]))
    axes.axvline(deadline_s, color=MUTED, linewidth=1, linestyle=(0, (4, 3)))
    axes.text(deadline_s, 1.06, "deadline", color=MUTED, fontsize=SMALL_PX, ha="center")
    axes.set_xscale("log")
    axes.set_xlim(low, high)
    axes.set_ylim(0, 1.02)
    _percent_axis(axes)
    axes.xaxis.set_major_formatter(lambda value, _: seconds(value))
    axes.minorticks_off()
    axes.set_xlabel("latency from observation to first arrival", fontsize=SMALL_PX, labelpad=6)
    canvas.label_ends(ends)
    return canvas.svg("latency", "Cumulative distribution of latency, undelivered included", palette)


def front(summaries: Sequence[Summary], palette: Palette, *, against: str) -> str:
    """Packets on air per delivered observation against median latency, or against delivery under failures."""
    value = _latency_value if against == "latency" else survival_value
    canvas = Canvas(480, 300, left=52, right=24, top=22, bottom=42)
    axes = canvas.axes
    highest = 0.0
    means = {}
    for name, runs in architectures(summaries).items():
        points = [
            (x, y) for run in runs if (x := _messages(run)) is not None and (y := value(run)) is not None
        ]
        if points:
            xs, ys = zip(*points, strict=True)
            if len(points) > 1:
                axes.plot(xs, ys, "o", color=palette[name], alpha=0.35, markersize=5, markeredgewidth=0)
            means[name] = sum(xs) / len(xs), sum(ys) / len(ys)
            highest = max(highest, *xs)
    top = max([y for _, y in means.values()], default=1.0) * 1.25 if against == "latency" else 1.08
    axes.set_xlim(0, highest * 1.25 or 1)
    axes.set_ylim(0, top or 1.0)
    for name, (x, y) in means.items():
        axes.plot([x], [y], "o", color=palette[name], markersize=11, clip_on=False, zorder=4)
    axes.locator_params(nbins=6, steps=[1, 2, 5, 10])
    if against == "latency":
        latencies = [y for _, y in means.values() if y > 0]
        if latencies and max(latencies) > 8 * min(latencies):
            axes.set_yscale("log")
            axes.set_ylim(min(latencies) / 3, max(latencies) * 3)
            axes.minorticks_off()
        axes.yaxis.set_major_formatter(lambda y, _: seconds(y))
    else:
        _percent_axis(axes)
    axes.grid(axis="x", color=GRID, linewidth=1)
    canvas.label_points([(x, y, name, palette[name], x < highest * 0.8) for name, (x, y) in means.items()])
    axes.set_xlabel("packets on air for each delivered observation", fontsize=SMALL_PX, labelpad=6)
    return canvas.svg(f"front-{against}", f"Messages against {against}", palette)


def by_device(
    values: Mapping[str, Mapping[str, float]],
    palette: Palette,
    *,
    name: str,
    about: str,
    write: Callable[[float], str],
) -> str:
    """One row a device, one dot an architecture: `values[architecture][device]`. The largest are shown."""
    devices = list(dict.fromkeys(device for row in values.values() for device in row))
    if len(devices) > ROWS_MAX:
        largest = sorted(devices, key=lambda d: -max(row.get(d, 0.0) for row in values.values()))[:ROWS_MAX]
        devices = [device for device in devices if device in largest]
    row_px = 19
    canvas = Canvas(480, 58 + row_px * len(devices), left=74, right=30, top=26, bottom=12)
    axes = canvas.axes
    highest = max((value for row in values.values() for value in row.values()), default=1.0) or 1.0
    rows = range(len(devices))
    for y, device in zip(rows, devices, strict=True):
        there = [row[device] for row in values.values() if device in row]
        axes.plot([min(there), max(there)], [y, y], color=GRID, linewidth=3, solid_capstyle="round", zorder=1)
    for n, (architecture, row) in enumerate(values.items()):
        xs = [row.get(device, float("nan")) for device in devices]
        # A little apart, so that equal ones do not hide each other.
        ys = [y + 0.16 * (n - (len(values) - 1) / 2) for y in rows]
        axes.plot(
            xs,
            ys,
            "o",
            color=palette[architecture],
            markersize=8,
            markeredgecolor=PAPER,
            zorder=3,
            clip_on=False,
        )
    axes.set_yticks(list(rows), devices)
    axes.tick_params(axis="y", labelcolor=INK)
    axes.set_ylim(len(devices) - 0.4, -0.6)
    axes.set_xlim(0, highest * 1.06)
    axes.xaxis.tick_top()
    axes.spines["bottom"].set_visible(False)
    axes.grid(axis="y", visible=False)
    axes.grid(axis="x", color=GRID, linewidth=1)
    axes.locator_params(axis="x", nbins=5)
    axes.xaxis.set_major_formatter(lambda value, _: write(value) if value else "0")
    return canvas.svg(name, about, palette)


def survival(summaries: Sequence[Summary], palette: Palette) -> str:
    """survivability(k) with its intervals."""
    canvas = Canvas(480, 300, left=44, right=_room(summaries), top=14, bottom=42)
    axes = canvas.axes
    ends = []
    for curve in survivability(summaries):
        ks = [point.k for point in curve.points]
        ratios = [point.ratio for point in curve.points]
        colour = palette[curve.architecture]
        lows, highs = [p.low for p in curve.points], [p.high for p in curve.points]
        axes.fill_between(ks, lows, highs, color=colour, alpha=0.16, linewidth=0)
        axes.plot(
            ks, ratios, "o-", color=colour, linewidth=2.2, markersize=6, markeredgecolor=PAPER, clip_on=False
        )
        ends.append((ratios[-1], curve.architecture, colour))
    axes.set_ylim(0, 1.02)
    _percent_axis(axes)
    axes.locator_params(axis="x", integer=True)
    axes.set_xlabel("machines that failed for good", fontsize=SMALL_PX, labelpad=6)
    canvas.label_ends(ends)
    return canvas.svg("survival", "Delivery among survivors over the number of failures", palette)


def survival_value(summary: Summary) -> float | None:
    """How well a run came through: delivery among survivors, or at the worst during an outage."""
    if summary.survivors.k:
        return summary.survivors.ratio
    return min((e.during.ratio for e in summary.effects if e.during.ratio is not None), default=None)


# ----------------------------------------------------------------------------------------------------- pieces


def _over_time(
    summaries: Sequence[Summary],
    series: Callable[[Summary], Series],
    palette: Palette,
    *,
    wide: bool,
    height_px: float,
    step: bool,
) -> Canvas:
    room = _room(summaries)
    canvas = (
        Canvas(1040, height_px, left=52, right=room, top=30, bottom=34)
        if wide
        else Canvas(400, max(200, height_px - 40), left=42, right=room, top=30, bottom=34)
    )
    axes = canvas.axes
    run = summaries[0].run
    for name, runs in architectures(summaries).items():
        times, values = _aligned([series(run) for run in runs])
        if not len(times):
            continue
        if step:
            # The last window is drawn to its end.
            times = np.append(times, run.stop_s)
            values = np.hstack([values, values[:, -1:]])
        if len(runs) > 1:
            low, high = _extremes(values)
            axes.fill_between(
                times, low, high, color=palette[name], alpha=0.16, linewidth=0, step="post" if step else None
            )
        axes.plot(
            times,
            _mean(values),
            color=palette[name],
            linewidth=2.2,
            drawstyle="steps-post" if step else "default",
            solid_joinstyle="round",
        )
    axes.set_xlim(run.warmup_s, run.stop_s)
    axes.locator_params(axis="x", nbins=12 if wide else 5, steps=[1, 2, 5, 10])
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:.0f} s")
    return canvas


def _aligned(runs: Iterable[Series]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Values of several runs over the same times, shape (runs, times)."""
    runs = list(runs)
    length = min(len(times) for times, _ in runs)
    return runs[0][0][:length], np.array([values[:length] for _, values in runs])


def _mean(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Over the runs; nan only where no run has a value."""
    known = ~np.isnan(values)
    total = np.where(known, values, 0.0).sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean: NDArray[np.float64] = total / known.sum(axis=0)
    return mean


def _extremes(values: NDArray[np.float64]) -> Series:
    return (
        np.min(np.where(np.isnan(values), np.inf, values), axis=0),
        np.max(np.where(np.isnan(values), -np.inf, values), axis=0),
    )


def _room(summaries: Sequence[Summary], after: str = "") -> float:
    """Pixels right of a chart for the names of its lines, each with `after` behind it."""
    longest = max((len(name) for name in architectures(summaries)), default=0)
    return 14.0 + LETTER_PX * (longest + len(after))


def _label_lines(
    canvas: Canvas, summaries: Sequence[Summary], series: Callable[[Summary], Series], palette: Palette
) -> None:
    ends = []
    for name, runs in architectures(summaries).items():
        _, values = _aligned([series(run) for run in runs])
        known = [value for value in _mean(values) if not np.isnan(value)]
        if known:
            ends.append((float(known[-1]), name, palette[name]))
    canvas.label_ends(ends)


def _mark_outages(canvas: Canvas, summaries: Sequence[Summary], *, wide: bool, labelled: bool = True) -> None:
    axes = canvas.axes
    run = summaries[0].run
    per_px = (run.stop_s - run.warmup_s) / (canvas.width_px * axes.get_position().width)
    free_from_s = -1.0
    for outage in shared_outages(summaries):
        end_s = outage.until(run.stop_s)
        axes.axvspan(outage.start_s, end_s, color=ALERT, alpha=0.10, linewidth=0, zorder=0)
        axes.axvline(outage.start_s, color=ALERT, linewidth=1, zorder=1)
        text = _short(outage)
        if labelled and outage.start_s >= free_from_s:
            axes.annotate(
                text, (outage.start_s, 1.0), xycoords=("data", "axes fraction"), xytext=(0, 8),
                textcoords="offset points", color=ALERT, fontsize=SMALL_PX, fontweight="bold",
            )  # fmt: skip
            free_from_s = outage.start_s + per_px * (7.0 * len(text) + 8)


def _short(outage: Outage) -> str:
    """`hub down`, or what the case was."""
    return f"{outage.subject} down" if outage.kind == "crash" else in_words(outage)


def _cumulative(run: Summary, grid: NDArray[np.float64]) -> NDArray[np.float64]:
    """Share of all pairs delivered within each latency of `grid`."""
    known = [(q, i / QUANTILES) for i, q in enumerate(run.delivery.quantiles_s) if q is not None]
    if not known:
        return np.zeros_like(grid)
    xs, shares = (np.array(each) for each in zip(*known, strict=True))
    cumulative: NDArray[np.float64] = np.interp(grid, xs, shares, left=0.0)
    # Between two of the stored quantiles the last arrival hides; the exact share is known.
    cumulative[grid >= xs[-1]] = run.delivery.ratio_ever
    return cumulative


def _band(axes: Axes, xs: NDArray[np.float64], curves: NDArray[np.float64], colour: str) -> None:
    if len(curves) > 1:
        low, high = _extremes(curves)
        axes.fill_between(xs, low, high, color=colour, alpha=0.16, linewidth=0)


def _percent_axis(axes: Axes) -> None:
    axes.set_yticks([0, 0.25, 0.5, 0.75, 1.0], ["0", "25 %", "50 %", "75 %", "100 %"])


def _seconds_axis(axes: Axes) -> None:
    axes.locator_params(axis="y", nbins=5)
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g} s")


def _messages(run: Summary) -> float | None:
    return run.traffic.frames_per_delivered


def _latency_value(run: Summary) -> float | None:
    return run.delivery.p50_s


def _width(wide: bool) -> str:
    return "wide" if wide else "narrow"
