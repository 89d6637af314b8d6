"""The timers of one device: a heap of what is due, behind one timer descriptor.

Owns keys and due times; a key set again moves. Moved and cancelled entries stay in the heap until they come
up, so both are cheap. A timer that is due is only announced: until it is taken it can still be moved or
cancelled.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable
from heapq import heappop, heappush
from time import monotonic
from typing import Any

from underlay.emulation.timerfd import Timer

_NEVER_S = 1e9


class Timers:
    """Each entry calls `announce(*arguments, token)` when it is due; `take(key, token)` then says whether it
    still holds.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        # The event loop's own timers count whole milliseconds: every protocol would be late by half of one.
        self._timer = Timer()
        loop.add_reader(self._timer.fd, self._announce)
        self._heap: list[tuple[float, int, Hashable, Callable[..., None], tuple[Any, ...]]] = []
        self._tokens: dict[Hashable, int] = {}
        self._next_token = 0
        self._wake_s = _NEVER_S

    def set(self, key: Hashable, delay_s: float, announce: Callable[..., None], *arguments: Any) -> None:
        """Due `delay_s` real seconds from now."""
        token = self._next_token = self._next_token + 1
        self._tokens[key] = token
        due_s = monotonic() + delay_s
        heappush(self._heap, (due_s, token, key, announce, arguments))
        if due_s < self._wake_s:
            self._arm(due_s)

    def cancel(self, key: Hashable) -> None:
        """Forget it."""
        self._tokens.pop(key, None)

    def take(self, key: Hashable, token: int) -> bool:
        """Whether the announced timer was neither moved nor cancelled since; it is used up."""
        if self._tokens.get(key) != token:
            return False
        del self._tokens[key]
        return True

    def _arm(self, due_s: float) -> None:
        self._wake_s = due_s
        self._timer.set(due_s)

    def _announce(self) -> None:
        now_s = monotonic()
        while self._heap and (
            self._heap[0][0] <= now_s or self._tokens.get(self._heap[0][2]) != self._heap[0][1]
        ):
            _, token, key, announce, arguments = heappop(self._heap)
            if self._tokens.get(key) == token:
                announce(*arguments, token)
        self._arm(self._heap[0][0] if self._heap else _NEVER_S)
