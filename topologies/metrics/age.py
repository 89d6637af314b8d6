"""Age of information: how old the newest thing is that the sink knows about each source.

Delta(t) = t - max{t_gen delivered by t} (Kaul, Yates, Gruteser: "Real-time status: How often should one
update?", INFOCOM 2012). A source is a device, whatever kinds it observes. What was made during the warm-up is
knowledge and lowers the age; before anything has arrived, the age is counted from the source's first
observation. Averages are exact integrals of the sawtooth.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Mapping
from math import ceil, inf

import msgspec

from topologies.metrics.reading import Readings

SERIES_POINTS_MAX = 480


class SourceAge(msgspec.Struct, frozen=True):
    """Age of what the sink knows of one source, while sensors were at work."""

    mean_s: float
    peak_s: float
    share_above: float
    """Share of the time it was above the threshold, 0..1."""


class AgeSeries(msgspec.Struct, frozen=True):
    """Age at `start_s + i * step_s`: mean and largest over the sources."""

    start_s: float
    step_s: float
    mean_s: tuple[float, ...]
    max_s: tuple[float, ...]


class Age(msgspec.Struct, frozen=True):
    """Age of information at the sink."""

    threshold_s: float
    mean_s: float | None
    """Mean over sources of the time averages; None without sources."""
    peak_s: float | None
    """Of the worst source."""
    share_above: float | None
    by_source: dict[str, SourceAge]
    series: AgeSeries


class AgeCurve:
    """The sawtooth of one source, from its steps: from `starts_s[i]` on, the newest known was made at
    `newest_s[i]`.

    >>> curve = AgeCurve([(2.0, 1.0), (5.0, 4.0)], first_made_s=0.0)
    >>> curve.at(4.0), curve.mean(0.0, 6.0), curve.peak(0.0, 6.0), curve.above(0.0, 6.0, 3.0)
    (3.0, 1.8333333333333333, 4.0, 1.0)
    """

    def __init__(self, arrivals: Iterable[tuple[float, float]], first_made_s: float) -> None:
        """`arrivals` are (arrived, made) in any order."""
        self.starts_s = [first_made_s]
        self.newest_s = [first_made_s]
        for arrived_s, made_s in sorted(arrivals):
            if made_s > self.newest_s[-1]:
                self.starts_s.append(arrived_s)
                self.newest_s.append(made_s)

    def at(self, t_s: float) -> float:
        """Delta(t), seconds; 0 before the source's first observation."""
        i = bisect_right(self.starts_s, t_s) - 1
        return t_s - self.newest_s[i] if i >= 0 else 0.0

    def mean(self, start_s: float, end_s: float) -> float:
        """Time average: trapezoids under the sawtooth."""
        area = sum((b - a) * (a + b - 2 * newest) / 2 for a, b, newest in self._segments(start_s, end_s))
        return area / (end_s - start_s) if end_s > start_s else 0.0

    def peak(self, start_s: float, end_s: float) -> float:
        """Largest age reached."""
        return max((b - newest for _, b, newest in self._segments(start_s, end_s)), default=0.0)

    def above(self, start_s: float, end_s: float, threshold_s: float) -> float:
        """Seconds spent above the threshold."""
        return sum(
            max(0.0, b - max(a, newest + threshold_s)) for a, b, newest in self._segments(start_s, end_s)
        )

    def _segments(self, start_s: float, end_s: float) -> Iterable[tuple[float, float, float]]:
        for i in range(max(0, bisect_right(self.starts_s, start_s) - 1), len(self.starts_s)):
            a = max(start_s, self.starts_s[i])
            b = min(end_s, self.starts_s[i + 1] if i + 1 < len(self.starts_s) else inf)
            if a >= end_s:
                return
            if b > a:
                yield a, b, self.newest_s[i]


def age_curves(readings: Readings) -> dict[str, AgeCurve]:
    """For each source, by name, the age of what the sink knows of it."""
    sink = readings.manifest.sink
    first_made: dict[str, float] = {}
    arrivals: defaultdict[str, list[tuple[float, float]]] = defaultdict(list)
    for id_, made in readings.made.items():
        if made.source == sink:
            continue
        first_made[made.source] = min(made.t_s, first_made.get(made.source, inf))
        arrived_s = readings.arrived.get(id_, {}).get(sink)
        if arrived_s is not None:
            arrivals[made.source].append((arrived_s, made.t_s))
    return {source: AgeCurve(arrivals[source], first_made[source]) for source in sorted(first_made)}


def age(curves: Mapping[str, AgeCurve], start_s: float, end_s: float, threshold_s: float) -> Age:
    """Statistics and series over `[start_s, end_s)`; a source is counted from its first observation on."""
    by_source = {}
    for source, curve in curves.items():
        from_s = max(start_s, curve.starts_s[0])
        if from_s < end_s:
            by_source[source] = SourceAge(
                mean_s=round(curve.mean(from_s, end_s), 6),
                peak_s=round(curve.peak(from_s, end_s), 6),
                share_above=round(curve.above(from_s, end_s, threshold_s) / (end_s - from_s), 6),
            )
    values = list(by_source.values())
    n = len(values)
    return Age(
        threshold_s=threshold_s,
        mean_s=sum(source.mean_s for source in values) / n if n else None,
        peak_s=max((source.peak_s for source in values), default=None),
        share_above=sum(source.share_above for source in values) / n if n else None,
        by_source=by_source,
        series=_series(curves, start_s, end_s),
    )


def mean_age(curves: Mapping[str, AgeCurve], start_s: float, end_s: float) -> float | None:
    """Time average over `[start_s, end_s)`, mean over the sources; None where there is nothing to average."""
    means = [
        curve.mean(max(start_s, curve.starts_s[0]), end_s)
        for curve in curves.values()
        if max(start_s, curve.starts_s[0]) < end_s
    ]
    return sum(means) / len(means) if means else None


def _series(curves: Mapping[str, AgeCurve], start_s: float, end_s: float) -> AgeSeries:
    step_s = float(max(1, ceil((end_s - start_s) / SERIES_POINTS_MAX)))
    points = [start_s + i * step_s for i in range(int((end_s - start_s) / step_s) + 1)] if curves else []
    ages = [[curve.at(t_s) for curve in curves.values()] for t_s in points]
    return AgeSeries(
        start_s=start_s,
        step_s=step_s,
        mean_s=tuple(round(sum(row) / len(row), 4) for row in ages),
        max_s=tuple(round(max(row), 4) for row in ages),
    )
