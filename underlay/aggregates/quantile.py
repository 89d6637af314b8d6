"""A quantile within a relative error, from counts in buckets that grow with the value: DDSketch.

Source: Masson, Rim, Lee, "DDSketch: A Fast and Fully-Mergeable Quantile Sketch with Relative-Error
Guarantees" (VLDB 2019), §2. Buckets are never collapsed: a state has one count for each bucket in use, 920
for values from a thousandth to a hundred thousand at one percent, and its guarantee holds for all values.
"""

from __future__ import annotations

from math import ceil, log

from underlay.aggregates.aggregate import Aggregate, Unsuitable, decode, encode, number

Number = int | float

SMALLEST = 1e-300
"""What is nearer to zero counts as zero."""


class Quantile(Aggregate["Sketch", Number, "float | None"]):
    """The value below which a share `q` of the values lie, up to a relative error.

    What is given is within `relative_error` of the value that has rank `floor(q * (n - 1))` among the sorted
    ones; None of none.

    Args:
        q: between 0 and 1: 0.5 is the median.
        relative_error: between 0 and 1; buckets are in proportion to its inverse.
    """

    def __init__(self, q: float, relative_error: float = 0.01) -> None:
        if not 0 <= q <= 1:
            raise ValueError(f"a quantile is between 0 and 1, and this is {q}")
        if not 0 < relative_error < 1:
            raise ValueError(f"a relative error is between 0 and 1, and this is {relative_error}")
        self.q = q
        self.relative_error = relative_error

    def zero(self) -> Sketch:
        return Sketch({}, {}, 0)

    def add(self, state: Sketch, value: Number) -> Sketch:
        value = number(value)
        if value > SMALLEST:
            buckets, index = state.above, ceil(log(value) / self._log_gamma)
        elif value < -SMALLEST:
            buckets, index = state.below, ceil(log(-value) / self._log_gamma)
        else:
            state.zeros += 1
            return state
        buckets[index] = buckets.get(index, 0) + 1
        return state

    def merge(self, a: Sketch, b: Sketch) -> Sketch:
        for ours, theirs in ((a.above, b.above), (a.below, b.below)):
            for index, count in theirs.items():
                ours[index] = ours.get(index, 0) + count
        a.zeros += b.zeros
        return a

    def finish(self, state: Sketch) -> float | None:
        count = state.zeros + sum(state.above.values()) + sum(state.below.values())
        if count == 0:
            return None
        rank = int(self.q * (count - 1))
        for index in sorted(state.below, reverse=True):
            rank -= state.below[index]
            if rank < 0:
                return -self._middle(index)
        rank -= state.zeros
        if rank < 0:
            return 0.0
        for index in sorted(state.above):
            rank -= state.above[index]
            if rank < 0:
                return self._middle(index)
        raise AssertionError("a rank is below the count")

    def pack(self, state: Sketch) -> bytes:
        return encode([sorted(state.above.items()), sorted(state.below.items()), state.zeros])

    def unpack(self, data: bytes) -> Sketch:
        above, below, zeros = decode(data, tuple[list[tuple[int, int]], list[tuple[int, int]], int])
        state = Sketch(dict(above), dict(below), zeros)
        counts = (*state.above.values(), *state.below.values())
        if zeros < 0 or any(count < 1 for count in counts) or len(counts) != len(above) + len(below):
            raise Unsuitable(f"{data[:20]!r} is no sketch")
        return state

    @property
    def _gamma(self) -> float:
        return (1 + self.relative_error) / (1 - self.relative_error)

    @property
    def _log_gamma(self) -> float:
        return log(self._gamma)

    def _middle(self, index: int) -> float:
        """What is within the relative error of every value of a bucket."""
        below: float = self._gamma ** (index - 1)  # which the largest double is not
        return below * (2 * self._gamma / (self._gamma + 1))


class Sketch:
    """Counts by bucket, of positive and negative values, and of zeros."""

    __slots__ = ("above", "below", "zeros")

    def __init__(self, above: dict[int, int], below: dict[int, int], zeros: int) -> None:
        self.above = above
        self.below = below
        self.zeros = zeros
