"""How many values lie between given edges."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from underlay.aggregates.aggregate import Aggregate, Unsuitable, decode, encode, number

Number = int | float


class Histogram(Aggregate["list[int]", Number, "list[dict[str, Any]]"]):
    """Counts between edges: below the first, from each to the next (the edge included), from the last on.

    Args:
        edges: increasing, at least one.
    """

    def __init__(self, edges: Sequence[Number]) -> None:
        self.edges = tuple(edges)
        if not self.edges or any(a >= b for a, b in pairwise(self.edges)):
            raise ValueError(f"the edges of a histogram are increasing numbers, and these are {self.edges}")

    def zero(self) -> list[int]:
        return [0] * (len(self.edges) + 1)

    def add(self, state: list[int], value: Number) -> list[int]:
        state[bisect_right(self.edges, number(value))] += 1
        return state

    def merge(self, a: list[int], b: list[int]) -> list[int]:
        return [x + y for x, y in zip(a, b, strict=True)]

    def finish(self, state: list[int]) -> list[dict[str, Any]]:
        lows, highs = (None, *self.edges), (*self.edges, None)
        return [
            {"from": low, "to": high, "count": count}
            for low, high, count in zip(lows, highs, state, strict=True)
        ]

    def pack(self, state: list[int]) -> bytes:
        return encode(state)

    def unpack(self, data: bytes) -> list[int]:
        state: list[int] = decode(data, list[int])
        if len(state) != len(self.edges) + 1 or any(count < 0 for count in state):
            raise Unsuitable(f"{data[:20]!r} is no histogram of {len(self.edges)} edges")
        return state
