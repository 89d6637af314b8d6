"""Aggregates over whole columns: the states of many groups from arrays, the same as from one value at a time.

Numbers are finite doubles, sorted by group; a group is a stretch of them. What an aggregate gives here packs
to the bytes that `add` would have led to: sums stay exact, because mantissas are added as whole numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from underlay.aggregates.aggregate import Aggregate
from underlay.aggregates.exact import Exact
from underlay.aggregates.extremes import Max, Min, MinMax
from underlay.aggregates.moments import Count, Mean, Moments, Sum

Starts = NDArray[np.intp]
"""Where each group begins; the first at 0, none empty."""
Numbers = NDArray[np.float64]

_MANTISSA_BITS = 53
_LOW_BITS = 27
_LOW = (1 << _LOW_BITS) - 1
_WHOLE_MAX = float(1 << 53)


class Grouped:
    """Numbers by group, and what several aggregates need of them, computed once."""

    def __init__(self, numbers: Numbers, starts: Starts) -> None:
        self.numbers = numbers
        self.starts = starts
        self._counts: list[int] | None = None
        self._sums: list[Exact] | None = None

    @property
    def counts(self) -> list[int]:
        """How many numbers each group has."""
        if self._counts is None:
            self._counts = np.diff(self.starts, append=len(self.numbers)).tolist()
        return self._counts

    @property
    def sums(self) -> list[Exact]:
        """Their exact sums."""
        if self._sums is None:
            self._sums = _exact_sums(self.numbers, self.starts)
        return self._sums

    @property
    def extremes(self) -> list[tuple[int | float, int | float]]:
        """The smallest and the largest of each, whole ones as whole numbers."""
        lows = np.minimum.reduceat(self.numbers, self.starts)
        highs = np.maximum.reduceat(self.numbers, self.starts)
        return list(zip(_plain(lows), _plain(highs), strict=True))


def states_of(aggregate: Aggregate[Any, Any, Any], grouped: Grouped) -> list[Any] | None:
    """A state for each group; None where this aggregate takes one value at a time only."""
    make = _STATES.get(type(aggregate))
    return None if make is None else make(grouped)


def _counts(grouped: Grouped) -> list[Any]:
    return grouped.counts


def _moments(grouped: Grouped) -> list[Any]:
    return [
        Moments(count, total.copy(), Exact())
        for count, total in zip(grouped.counts, grouped.sums, strict=True)
    ]


def _extremes(grouped: Grouped) -> list[Any]:
    return grouped.extremes


_STATES: dict[type, Callable[[Grouped], list[Any]]] = {
    Count: _counts,
    Sum: _moments,
    Mean: _moments,
    Min: _extremes,
    Max: _extremes,
    MinMax: _extremes,
}


def _exact_sums(numbers: Numbers, starts: Starts) -> list[Exact]:
    """Exponent by exponent: mantissas of one exponent are added as two halves, which 64 bits hold for 2**36
    numbers."""
    mantissas, exponents = np.frexp(numbers)
    whole = (mantissas * (1 << _MANTISSA_BITS)).astype(np.int64)
    high, low = whole >> _LOW_BITS, whole & _LOW
    totals = [Exact() for _ in range(len(starts))]
    for exponent in np.unique(exponents[whole != 0]).tolist():
        here = exponents == exponent
        highs = np.add.reduceat(np.where(here, high, 0), starts).tolist()
        lows = np.add.reduceat(np.where(here, low, 0), starts).tolist()
        scale = _MANTISSA_BITS - exponent
        for total, upper, lower in zip(totals, highs, lows, strict=True):
            if upper or lower:
                value = (upper << _LOW_BITS) + lower
                total.add_scaled(value if scale >= 0 else value << -scale, max(0, scale))
    return totals


def _plain(numbers: Numbers) -> list[int | float]:
    return [
        int(number) if number.is_integer() and abs(number) < _WHOLE_MAX else number
        for number in numbers.tolist()
    ]
