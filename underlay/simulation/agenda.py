"""Virtual time: what happens next, in order of (time, order of scheduling).

Owns the clock of a run and its heap; knows nothing of networks. An entry is a plain tuple and a call with two
arguments, because this loop is what the simulation spends its life in.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from heapq import heappop, heappush
from itertools import count
from typing import Any

Call = Callable[[Any, Any], object]
Entry = tuple[float, int, Call, Any, Any, object]


class Agenda:
    """Entries due, and the current time in global seconds since the run's start.

    Public for the hot paths: `heap` takes `(t_s, next(sequence), call, a, b, over)`, where `over` is the hop
    that a packet is crossing, or None: `lose` forgets what is under way over hops.
    """

    __slots__ = ("heap", "now", "sequence")

    def __init__(self) -> None:
        self.now = 0.0
        self.heap: list[Entry] = []
        self.sequence = count()

    def at(self, t_s: float, call: Call, a: Any = None, b: Any = None, over: object = None) -> None:
        """Call `call(a, b)` at `t_s`, which must not have passed; equal times keep the order asked."""
        heappush(self.heap, (t_s, next(self.sequence), call, a, b, over))

    def soon(self, call: Call, a: Any = None, b: Any = None) -> None:
        """At the current time, after everything already due then."""
        heappush(self.heap, (self.now, next(self.sequence), call, a, b, None))

    def run_until(self, t_s: float) -> None:
        """Do everything due up to and including `t_s`."""
        heap = self.heap
        while heap and heap[0][0] <= t_s:
            self.now, _, call, a, b, _ = heappop(heap)
            call(a, b)
        self.now = max(self.now, t_s)

    def lose(self, hops: Collection[Any]) -> list[Any]:
        """Nothing under way over `hops` will arrive; returns the hop of each packet lost so."""
        heap = self.heap
        lost = [index for index, entry in enumerate(heap) if entry[5] in hops]
        over = [heap[index][5] for index in lost]
        for index in lost:
            t_s, sequence, *_ = heap[index]
            heap[index] = (t_s, sequence, _nothing, None, None, None)
        return over


def _nothing(_: object, __: object) -> None:
    """Stands where a lost packet stood, so that the heap keeps its order."""
