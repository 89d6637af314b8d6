"""How many, their sum, mean and variance: exact inside, rounded once.

Mean and variance of whole numbers and doubles are correctly rounded quotients of exact sums, so they do not
suffer where a running mean does. A sum of whole numbers is a whole number.
"""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from math import sqrt
from typing import Any

import numpy as np

from underlay.aggregates.aggregate import (
    Aggregate,
    Unsuitable,
    decode,
    encode,
    integer_bytes,
    integer_of,
    number,
)
from underlay.aggregates.exact import Exact, doubles, rounded

Number = int | float


class Count(Aggregate[int, Any, int]):
    """How many values. Packs to at most 9 bytes."""

    def zero(self) -> int:
        return 0

    def add(self, state: int, value: Any) -> int:
        return state + 1

    def merge(self, a: int, b: int) -> int:
        return a + b

    def finish(self, state: int) -> int:
        return state

    def pack(self, state: int) -> bytes:
        return encode(state)

    def unpack(self, data: bytes) -> int:
        state: int = decode(data, int)
        if state < 0:
            raise Unsuitable(f"a count of {state}")
        return state


class _Moments(Aggregate["Moments", Number, Any]):
    """What sums, means and variances have in common."""

    _squares = False

    def zero(self) -> Moments:
        return Moments(0, Exact(), Exact())

    def add(self, state: Moments, value: Number) -> Moments:
        value = number(value)
        state.count += 1
        state.sum.add(value)
        if self._squares:
            state.squares.add_square(value)
        return state

    def add_many(self, state: Moments, values: Iterable[Number]) -> Moments:
        array = None if self._squares else doubles(values)
        if array is None:
            if isinstance(values, np.ndarray):
                values = values.tolist()
            return super().add_many(state, values)
        state.count += len(array)
        state.sum.add_array(array)
        return state

    def merge(self, a: Moments, b: Moments) -> Moments:
        a.count += b.count
        a.sum.add_exact(b.sum)
        a.squares.add_exact(b.squares)
        return a

    def pack(self, state: Moments) -> bytes:
        parts: list[object] = [state.count]
        for total in (state.sum, state.squares)[: 2 if self._squares else 1]:
            numerator, scale = total.normal()
            parts += [integer_bytes(numerator), scale]
        return encode(parts)

    def unpack(self, data: bytes) -> Moments:
        parts = decode(data, tuple[int, bytes, int, bytes, int] if self._squares else tuple[int, bytes, int])
        count, *scaled = parts
        scales = scaled[1::2]
        if count < 0 or any(not 0 <= scale <= 4096 for scale in scales):
            raise Unsuitable(f"{data[:20]!r} is no packed {type(self).__name__}")
        totals = [Exact(integer_of(data), scale) for data, scale in zip(scaled[::2], scales, strict=True)]
        return Moments(count, totals[0], totals[1] if self._squares else Exact())


class Moments:
    """How many, their sum, and the sum of their squares where it is needed."""

    __slots__ = ("count", "squares", "sum")

    def __init__(self, count: int, sum_: Exact, squares: Exact) -> None:
        self.count = count
        self.sum = sum_
        self.squares = squares


class Sum(_Moments):
    """Their sum, exact; a whole number where it is one. Packs to some 15 bytes for like-sized readings."""

    def finish(self, state: Moments) -> Number:
        return state.sum.value()


class Mean(_Moments):
    """Their mean, correctly rounded; None of none."""

    def finish(self, state: Moments) -> float | None:
        return rounded(state.sum.fraction() / state.count) if state.count else None


class Variance(_Moments):
    """Their sample variance (divided by n - 1), correctly rounded; None of fewer than two.

    Args:
        deviation: give its square root, the standard deviation.
    """

    _squares = True

    def __init__(self, *, deviation: bool = False) -> None:
        self.deviation = deviation

    def finish(self, state: Moments) -> float | None:
        if state.count < 2:
            return None
        total = state.sum.fraction()
        variance = (state.squares.fraction() - total * total / state.count) / Fraction(state.count - 1)
        return sqrt(rounded(variance)) if self.deviation else rounded(variance)
