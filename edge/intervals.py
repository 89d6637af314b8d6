"""Sets of integers as intervals: what digests are made of. Pure data structure."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence


class Intervals:
    """A set of integers as ascending, disjoint, non-adjacent intervals `[first, last]`.

    >>> held = Intervals()
    >>> for n in (3, 1, 2, 7): held.add(n)
    >>> held.bounds()
    (1, 3, 7, 7)
    """

    __slots__ = ("_first", "_last")

    def __init__(self, bounds: Sequence[int] = ()) -> None:
        """Bounds as `bounds()` gives them; what does not ascend is left out (it came over the network)."""
        self._first: list[int] = []
        self._last: list[int] = []
        for first, last in zip(bounds[0::2], bounds[1::2], strict=False):
            if first <= last and (not self._last or first > self._last[-1] + 1):
                self._first.append(first)
                self._last.append(last)

    def __contains__(self, number: int) -> bool:
        if not self._last or number > self._last[-1]:
            return False
        i = bisect_right(self._first, number) - 1
        return i >= 0 and number <= self._last[i]

    def __len__(self) -> int:
        return sum(last - first + 1 for first, last in zip(self._first, self._last, strict=True))

    def add(self, number: int) -> None:
        """Insert; merging with neighbours."""
        if self._last and number == self._last[-1] + 1:  # in order, as nearly always
            self._last[-1] = number
            return
        i = bisect_right(self._first, number) - 1
        if i >= 0 and number <= self._last[i]:
            return
        joins_left = i >= 0 and self._last[i] == number - 1
        joins_right = i + 1 < len(self._first) and self._first[i + 1] == number + 1
        if joins_left and joins_right:
            self._last[i] = self._last[i + 1]
            del self._first[i + 1], self._last[i + 1]
        elif joins_left:
            self._last[i] = number
        elif joins_right:
            self._first[i + 1] = number
        else:
            self._first.insert(i + 1, number)
            self._last.insert(i + 1, number)

    def bounds(self, newest: int | None = None) -> tuple[int, ...]:
        """`first, last, first, last, ...`; with `newest` at most so many, of the largest numbers."""
        start = 0 if newest is None else max(0, len(self._first) - newest // 2)
        pairs = zip(self._first[start:], self._last[start:], strict=True)
        return tuple(n for pair in pairs for n in pair)

    def minus(self, other: Intervals, floor: int = 0) -> Iterator[int]:
        """Ascending numbers from `floor` that are in `self` and not in `other`."""
        for first, last in zip(self._first, self._last, strict=True):
            n = max(first, floor)
            while n <= last:
                i = bisect_right(other._first, n) - 1
                if i >= 0 and n <= other._last[i]:
                    n = other._last[i] + 1
                    continue
                end = min(last, other._first[i + 1] - 1) if i + 1 < len(other._first) else last
                yield from range(n, end + 1)
                n = end + 1
