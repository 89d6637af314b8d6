"""Delivery ratio and latency of pairs (observation, subscriber).

A subscriber set is part of the workload: the sink alone, or every birdhouse and the sink. An observation's
receivers are the subscribers but its source. What never arrived has infinite latency and stays in every
percentile, so a percentile can be None; it is never taken over the delivered ones only.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import compress
from math import ceil
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from topologies.metrics.reading import Made, Readings

if TYPE_CHECKING:
    from numpy.typing import NDArray

QUANTILES = 200
"""`Delivery.quantiles_s` has one latency for each of the shares 0/200 .. 200/200."""


class Delivery(msgspec.Struct, frozen=True, kw_only=True):
    """What became of the pairs (observation, receiver)."""

    observations: int
    expected: int
    """Pairs."""
    on_time: int
    """Delivered by the deadline."""
    late: int
    undelivered: int
    ratio: float | None
    """on_time / expected; None where nothing was expected."""
    ratio_ever: float | None
    """(on_time + late) / expected."""
    p50_s: float | None
    """None is infinite: so many pairs never arrived."""
    p99_s: float | None
    quantiles_s: tuple[float | None, ...] = ()


class Pairs:
    """Arrival times of the counted observations at one subscriber set.

    `made_s` has shape (observations,), `arrived_s` (observations, subscribers): inf where it never arrived,
    nan where nothing was expected because the subscriber made the observation itself. Rows are in order of
    time.
    """

    def __init__(
        self,
        made: Sequence[Made],
        subscribers: Sequence[str],
        made_s: NDArray[np.float64],
        arrived_s: NDArray[np.float64],
        deadline_s: float,
    ) -> None:
        self.made = made
        self.subscribers = subscribers
        self.made_s = made_s
        self.arrived_s = arrived_s
        self.deadline_s = deadline_s
        with np.errstate(invalid="ignore"):
            # A microsecond is the trace's grain: an observation that took the deadline exactly is on time.
            self.on_time = arrived_s - made_s[:, None] <= deadline_s + 1e-6

    @staticmethod
    def of(readings: Readings, subscribers: Sequence[str]) -> Pairs:
        """The counted observations of a run and their arrivals at `subscribers`."""
        counted = [(id_, made) for id_, made in readings.made.items() if readings.counts(made)]
        counted.sort(key=lambda item: item[1].t_s)
        column = {device: i for i, device in enumerate(subscribers)}
        arrived_s = np.full((len(counted), len(subscribers)), np.inf)
        for row, (id_, made) in enumerate(counted):
            for device, t_s in readings.arrived.get(id_, {}).items():
                if device in column:
                    arrived_s[row, column[device]] = t_s
            if made.source in column:
                arrived_s[row, column[made.source]] = np.nan
        made_s = np.array([made.t_s for _, made in counted], dtype=np.float64)
        return Pairs(
            [made for _, made in counted], subscribers, made_s, arrived_s, readings.manifest.deadline_s
        )

    def where(self, rows: NDArray[np.bool_], columns: NDArray[np.bool_] | None = None) -> Pairs:
        """Some observations, at all or some of the subscribers."""
        chosen = np.ones(len(self.subscribers), dtype=bool) if columns is None else columns
        return Pairs(
            list(compress(self.made, rows)),
            list(compress(self.subscribers, chosen)),
            self.made_s[rows],
            self.arrived_s[rows][:, chosen],
            self.deadline_s,
        )

    def between(self, start_s: float, end_s: float) -> Pairs:
        """Those made in `[start_s, end_s)`."""
        first, last = np.searchsorted(self.made_s, (start_s, max(start_s, end_s)))
        rows = slice(int(first), int(last))
        return Pairs(
            self.made[rows], self.subscribers, self.made_s[rows], self.arrived_s[rows], self.deadline_s
        )

    @property
    def expected(self) -> int:
        """How many pairs there are."""
        return int(np.count_nonzero(~np.isnan(self.arrived_s)))

    @property
    def latencies_s(self) -> NDArray[np.float64]:
        """Of every pair, ascending, inf at the end."""
        latencies = (self.arrived_s - self.made_s[:, None]).ravel()
        return np.sort(latencies[~np.isnan(latencies)])


def delivery(pairs: Pairs, *, quantiles: bool = True) -> Delivery:
    """Counts, ratios and latency percentiles."""
    latencies_s = pairs.latencies_s
    expected = len(latencies_s)
    delivered = int(np.count_nonzero(np.isfinite(latencies_s)))
    on_time = int(np.count_nonzero(pairs.on_time))
    shares = [i / QUANTILES for i in range(QUANTILES + 1)] if quantiles and expected else []
    return Delivery(
        observations=len(pairs.made),
        expected=expected,
        on_time=on_time,
        late=delivered - on_time,
        undelivered=expected - delivered,
        ratio=on_time / expected if expected else None,
        ratio_ever=delivered / expected if expected else None,
        p50_s=percentile(latencies_s, 0.5),
        p99_s=percentile(latencies_s, 0.99),
        quantiles_s=tuple(percentile(latencies_s, share) for share in shares),
    )


def percentile(ascending: Sequence[float] | NDArray[np.float64], share: float) -> float | None:
    """The smallest value that at least `share` of the values do not exceed (nearest rank); None if infinite.

    >>> percentile([1.0, 2.0, 3.0, float("inf")], 0.75), percentile([1.0, float("inf")], 0.99)
    (3.0, None)
    """
    if not len(ascending):
        return None
    # The rank is rounded up, but 0.07 * 100 = 7.000000000000001 must not become 8.
    rank = max(1, ceil(round(share * len(ascending), 9)))
    value = float(ascending[rank - 1])
    return round(value, 6) if np.isfinite(value) else None
