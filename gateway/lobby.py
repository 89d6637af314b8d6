"""Observations that a dissemination handed over and that were turned away: it offers nothing twice while its
session lasts.

They wait in memory, unacknowledged, each device's in the order in which they came.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from edge.observation import Observation
from underlay.node import Address

PLACES_MAX = 256


class Lobby:
    """Who waits for room."""

    def __init__(self) -> None:
        self._waiting: dict[str, deque[tuple[Address, Observation]]] = {}
        """By device; the device that came first is first asked in."""
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def has(self, device: str) -> bool:
        """Whether anything of that device waits."""
        return device in self._waiting

    def enter(self, sender: Address, observation: Observation) -> None:
        """Who finds it full is not remembered."""
        if self._count < PLACES_MAX:
            self._waiting.setdefault(observation.id.device, deque()).append((sender, observation))
            self._count += 1

    def round(self) -> Iterator[tuple[Address, Observation]]:
        """Each device's first, and its next for as long as whoever asks lets them `leave`."""
        for device in list(self._waiting):
            waiting = self._waiting[device]
            while waiting:
                before = len(waiting)
                yield waiting[0]
                if len(waiting) == before:
                    break

    def leave(self, device: str) -> None:
        """The device's first was taken in."""
        self._waiting[device].popleft()
        self._count -= 1
        if not self._waiting[device]:
            del self._waiting[device]
