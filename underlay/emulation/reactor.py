"""The supervisor's event loop: descriptors, a timeline, and nothing that survives a fork badly.

Owns waiting. Plain and synchronous on purpose: the supervisor forks devices at any time, and a child of an
asyncio loop inherits a running loop.
"""

from __future__ import annotations

import selectors
from collections.abc import Callable
from heapq import heappop, heappush
from itertools import count
from math import inf
from time import monotonic


class Reactor:
    """Calls whoever waits for a descriptor or for a time (monotonic seconds)."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._timeline: list[tuple[float, int, Callable[[], None]]] = []
        self._order = count()

    def at(self, at_s: float, call: Callable[[], None]) -> None:
        """Call once at that time."""
        heappush(self._timeline, (at_s, next(self._order), call))

    def watch(self, fd: int, call: Callable[[], None]) -> None:
        """Call whenever `fd` is readable (or writable, if it is a socket that connects)."""
        self._selector.register(fd, selectors.EVENT_READ, call)

    def unwatch(self, fd: int) -> None:
        """Forget it; before closing the descriptor."""
        self._selector.unregister(fd)

    def run(self, until: Callable[[], bool], deadline_s: float = inf) -> bool:
        """Serve until `until()` holds, asked after every event; False if `deadline_s` came first."""
        while not until():
            now_s = monotonic()
            if now_s >= deadline_s:
                return False
            if self._timeline and self._timeline[0][0] <= now_s:
                heappop(self._timeline)[2]()
                continue
            next_s = min(deadline_s, self._timeline[0][0] if self._timeline else inf)
            for key, _ in self._selector.select(None if next_s == inf else next_s - now_s):
                # An earlier call of this round may have closed what this one is about.
                if self._selector.get_map().get(key.fd) is key:
                    key.data()
        return True
