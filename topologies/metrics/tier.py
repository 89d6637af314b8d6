"""What the storage tier did with what it was given: kept, slow, away, lost.

An observation is given to the tier when it first reaches the sink (one that a route of the gateway sends
elsewhere never is), and kept once the tier says that it is
durable. What was acknowledged and is not there when everything is read back at the end is lost.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import ceil, inf

import msgspec

from topologies.manifest import Manifest
from topologies.metrics.outages import Outage
from topologies.metrics.reading import Readings

PATIENCE_S = 1.0
"""While an observation has waited longer than this, the tier is unavailable."""


class TierEffect(msgspec.Struct, frozen=True):
    """One failure behind the sink, and what it did."""

    outage: Outage
    given: int
    """Observations that reached the sink meanwhile."""
    unavailable_s: float
    """Of the failure's own time."""
    longest_s: float | None
    """The longest that one of those observations waited to be acknowledged; None: for ever."""


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
    effects: tuple[TierEffect, ...] = ()
    """Of every failure that befell the tier alone, in order of time."""

    @property
    def kept_ratio(self) -> float | None:
        """None where nothing was given."""
        return self.kept / self.given if self.given else None


def behind_the_sink(found: Iterable[Outage], manifest: Manifest) -> tuple[Outage, ...]:
    """Outages that befell the storage tier's hosts or their links and nobody else."""
    hosts = {device.name for device in manifest.devices if device.role == "storage"}
    return tuple(
        outage
        for outage in found
        if hosts.intersection(outage.devices) and hosts.issuperset({*outage.devices} - {manifest.sink})
    )


def tier(readings: Readings, found: Sequence[Outage] = ()) -> Tier:
    """The storage tier's part in a run.

    Args:
        found: the outages behind the sink.
    """
    manifest = readings.manifest
    given = {
        id_: arrivals[manifest.sink]
        for id_, arrivals in readings.arrived.items()
        if manifest.sink in arrivals and id_ not in readings.elsewhere
    }
    waits = {id_: readings.stored.get(id_, inf) - t_s for id_, t_s in given.items()}
    in_order = sorted(waits.values())
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
        p50_s=_quantile(in_order, 0.5),
        p99_s=_quantile(in_order, 0.99),
        unavailable_s=round(sum(end - start for start, end in spells), 6),
        longest_s=round(max((end - start for start, end in spells), default=0.0), 6),
        bytes_on_air=sum(usage.bytes_on_air for usage in readings.tier_usage.values()),
        effects=tuple(
            _effect(
                outage,
                outage.until(manifest.duration_s),
                [(t_s, waits[id_]) for id_, t_s in given.items()],
                spells,
            )
            for outage in found
        ),
    )


def _effect(
    outage: Outage, end_s: float, waits: list[tuple[float, float]], spells: list[tuple[float, float]]
) -> TierEffect:
    """Of a failure up to `end_s`; `waits` has for each observation when it was given, and how long it
    waited."""
    start_s = outage.start_s
    meanwhile = [wait_s for t_s, wait_s in waits if start_s <= t_s < end_s]
    longest_s = max(meanwhile, default=0.0)
    unavailable_s = sum(max(0.0, min(last, end_s) - max(first, start_s)) for first, last in spells)
    return TierEffect(
        outage,
        len(meanwhile),
        round(unavailable_s, 6),
        None if longest_s == inf else round(longest_s, 6),
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
