"""What the storage tier did with what it was given: kept, slow, away, lost.

An observation is given to the tier when it first reaches the sink, and kept once the tier says that it is
durable. What was acknowledged and is not there when everything is read back at the end is lost.
"""

from __future__ import annotations

from math import ceil, inf

import msgspec

from topologies.metrics.reading import Readings

PATIENCE_S = 1.0
"""While an observation has waited longer than this, the tier is unavailable."""


class Tier(msgspec.Struct, frozen=True, kw_only=True):
    """Of one run, all of its observations counted."""

    kind: str
    """`sink`, `primary-backup`, `paxos`, `sharded`."""
    given: int
    """Observations that reached the sink."""
    kept: int
    """Of these, acknowledged by the tier as durable."""
    lost: int | None
    """Acknowledged, and missing when all were read back; None where nobody looked."""
    p50_s: float | None
    """From the sink to the acknowledgement; what was never acknowledged took forever, which is None."""
    p99_s: float | None
    unavailable_s: float
    """Time during which something had been waiting for over `PATIENCE_S`."""
    longest_s: float
    """The longest such spell."""
    bytes_on_air: int
    """On the tier's own links, which count nowhere else."""

    @property
    def kept_ratio(self) -> float | None:
        """None where nothing was given."""
        return self.kept / self.given if self.given else None


def tier(readings: Readings) -> Tier:
    """The storage tier's part in a run."""
    manifest = readings.manifest
    given = {
        id_: arrivals[manifest.sink]
        for id_, arrivals in readings.arrived.items()
        if manifest.sink in arrivals
    }
    waits = sorted(readings.stored.get(id_, inf) - t_s for id_, t_s in given.items())
    spells = _spells(
        [
            (t_s + PATIENCE_S, min(readings.stored.get(id_, inf), manifest.duration_s))
            for id_, t_s in given.items()
        ]
    )
    return Tier(
        kind=manifest.storage,
        given=len(given),
        kept=sum(1 for id_ in given if id_ in readings.stored),
        lost=readings.missing,
        p50_s=_quantile(waits, 0.5),
        p99_s=_quantile(waits, 0.99),
        unavailable_s=round(sum(end - start for start, end in spells), 6),
        longest_s=round(max((end - start for start, end in spells), default=0.0), 6),
        bytes_on_air=sum(usage.bytes_on_air for usage in readings.tier_usage.values()),
    )


def _spells(intervals: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """The union of intervals (start, end), those that end before they start left out, in order.

    >>> _spells([(1.0, 3.0), (2.0, 4.0), (6.0, 5.0), (7.0, 8.0)])
    [(1.0, 4.0), (7.0, 8.0)]
    """
    spells: list[tuple[float, float]] = []
    for start, end in sorted(interval for interval in intervals if interval[0] < interval[1]):
        if spells and start <= spells[-1][1]:
            spells[-1] = spells[-1][0], max(spells[-1][1], end)
        else:
            spells.append((start, end))
    return spells


def _quantile(waits: list[float], share: float) -> float | None:
    if not waits:
        return None
    wait_s = waits[ceil(share * len(waits)) - 1]
    return None if wait_s == inf else round(wait_s, 6)
