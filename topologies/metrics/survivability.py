"""Survivability: what still arrives after k devices have failed for good.

One run tells its delivery among surviving sources and subscribers; runs of many seeds give a curve over k
with a bootstrap interval of the mean over runs (Efron 1979; a run is the unit, because what happens to the
observations of one run hangs together), and the area under it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import pairwise
from random import Random
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from topologies.metrics.delivery import Pairs
from topologies.metrics.outages import Outage

if TYPE_CHECKING:
    from topologies.metrics.summary import Summary

RESAMPLES = 2000
CONFIDENCE = 0.95


class Survivors(msgspec.Struct, frozen=True):
    """Delivery after the last failure that was never repaired, among devices that live to the end."""

    k: int
    """Devices down from some moment to the end of the run."""
    failed: tuple[str, ...]
    expected: int
    on_time: int
    ratio: float | None
    """0 if no subscriber is left; None if no source is."""


class SurvivalPoint(msgspec.Struct, frozen=True):
    """Mean over runs, with its interval."""

    k: int
    ratios: tuple[float, ...]
    """Of the runs."""
    ratio: float
    low: float
    high: float


class SurvivalCurve(msgspec.Struct, frozen=True):
    """survivability(k) of one architecture."""

    architecture: str
    points: tuple[SurvivalPoint, ...]
    area: float | None
    """Under the curve, over the range of k: 1 is untouched; None with fewer than two k."""


def survivors(pairs: Pairs, found: Sequence[Outage]) -> Survivors:
    """What one run says."""
    final = [outage for outage in found if outage.kind == "crash" and outage.end_s is None]
    failed = tuple(outage.subject for outage in final)
    since_s = max((outage.start_s for outage in final), default=0.0)
    rows = np.array([made.t_s >= since_s and made.source not in failed for made in pairs.made], dtype=bool)
    columns = np.array([name not in failed for name in pairs.subscribers], dtype=bool)
    left = pairs.where(rows, columns)
    on_time = int(np.count_nonzero(left.on_time))
    if left.expected:
        ratio: float | None = on_time / left.expected
    else:
        ratio = 0.0 if rows.any() else None
    return Survivors(len(failed), failed, left.expected, on_time, ratio)


def survivability(summaries: Iterable[Summary]) -> tuple[SurvivalCurve, ...]:
    """The curve of each architecture, in order of first mention; runs that say nothing are left out."""
    ratios: defaultdict[str, defaultdict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    for summary in summaries:
        if summary.survivors.ratio is not None:
            ratios[summary.run.architecture][summary.survivors.k].append(summary.survivors.ratio)
    curves = []
    for architecture, by_k in ratios.items():
        points = tuple(
            SurvivalPoint(k, tuple(values), sum(values) / len(values), *interval(values))
            for k, values in sorted(by_k.items())
        )
        curves.append(SurvivalCurve(architecture, points, _area(points)))
    return tuple(curves)


def interval(values: Sequence[float], confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Bootstrap percentile interval of the mean; the same values give the same interval.

    >>> interval([1.0, 1.0, 1.0])
    (1.0, 1.0)
    """
    draw = Random(len(values)).choices
    means = sorted(sum(draw(values, k=len(values))) / len(values) for _ in range(RESAMPLES))
    tail = (1 - confidence) / 2
    return means[int(tail * RESAMPLES)], means[min(RESAMPLES - 1, int((1 - tail) * RESAMPLES))]


def _area(points: Sequence[SurvivalPoint]) -> float | None:
    """Trapezoids over k, divided by the range of k."""
    if len(points) < 2:
        return None
    area = sum((b.k - a.k) * (a.ratio + b.ratio) / 2 for a, b in pairwise(points))
    return area / (points[-1].k - points[0].k)
