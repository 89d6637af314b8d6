"""How far the ether is behind the models: the health that decides whether a run is valid.

Owns the histogram of lag and the trace event made from it. A frame's lag is the time at which the receiving
kernel had it minus the time at which the model wanted it there, plus the time it may have waited before the
ether read it.
"""

from __future__ import annotations

import msgspec

from underlay.trace import Event

BUCKETS_PER_S = 1e5
"""Resolution of the histogram: 10 us, a hundredth of the tolerance."""


class EtherLag(Event, frozen=True, tag="ether-lag"):
    """How the ether kept up since its last such record. Written every second; idle seconds are left out."""

    frames: int
    """Delivered."""
    p99_ms: float
    max_ms: float
    cpu_ratio: float
    """Share of one core that the ether used."""


class LagSummary(msgspec.Struct, frozen=True):
    """Lag over many frames; milliseconds, to 0.01 ms, rounded up."""

    frames: int
    p50_ms: float
    p99_ms: float
    max_ms: float


def summarize(counts: dict[int, int]) -> LagSummary:
    """Percentiles of a histogram: `counts[k]` frames had a lag in `[k, k + 1) / BUCKETS_PER_S`.

    >>> summarize({0: 98, 10: 1, 300: 1})
    LagSummary(frames=100, p50_ms=0.01, p99_ms=0.11, max_ms=3.01)
    """
    frames = sum(counts.values())
    marks: list[float] = []
    seen = 0
    wanted = [0.5 * frames, 0.99 * frames, frames]
    for bucket in sorted(counts):
        seen += counts[bucket]
        while len(marks) < len(wanted) and seen >= wanted[len(marks)]:
            marks.append(round((bucket + 1) * 1e3 / BUCKETS_PER_S, 3))
    return LagSummary(frames, *marks) if frames else LagSummary(0, 0.0, 0.0, 0.0)


class LagHistogram:
    """Counts lags, for the last interval and in total."""

    def __init__(self) -> None:
        self.current: dict[int, int] = {}
        """Of this interval; the ether's loop counts into it directly."""
        self._total: dict[int, int] = {}

    def end_interval(self) -> LagSummary:
        """Close the interval and begin the next."""
        summary = summarize(self.current)
        self._total = self._merged()
        self.current = {}
        return summary

    def total(self) -> LagSummary:
        """Over all intervals, the current one included."""
        return summarize(self._merged())

    def clear(self) -> None:
        """Forget everything."""
        self.current = {}
        self._total = {}

    def _merged(self) -> dict[int, int]:
        merged = dict(self._total)
        for bucket, count in self.current.items():
            merged[bucket] = merged.get(bucket, 0) + count
        return merged
