"""A birdhouse's log of its own observations, and how it is told to those who follow it.

Owns positions (consecutive, never used twice), the byte budget, and the form of an entry. An entry says which
older ones are still there, so whoever sees any entry knows what it lacks and can ask for it by position: an
observation that a lost notification or an outage swallowed is late, not lost.
"""

from __future__ import annotations

from collections import deque

import msgspec

from edge.observation import Observation
from underlay.store import Store

INLINE_BYTES_MAX = 512
"""Larger observations are announced, and fetched by those who want them: a notification is one block."""

_RESERVED = b"positions-reserved"
_RESERVE = 1024


class Entry(msgspec.Struct, frozen=True, array_like=True):
    """One position of a log. On the wire a msgpack array."""

    position: int
    oldest: int
    """The log still has every position from here to this one."""
    observation: Observation | None
    """None: too large to be carried along; ask for the position."""

    def encode(self) -> bytes:
        """The bytes of this entry."""
        return _encoder.encode(self)

    @staticmethod
    def decode(data: bytes) -> Entry:
        """Raises msgspec.DecodeError for anything that is no entry."""
        return _decoder.decode(data)


class Log:
    """The newest observations of a device, at most `bytes_max` of them; in memory, so that a crash loses
    them."""

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._entries: deque[tuple[Observation, int]] = deque()
        self._bytes = 0
        self._oldest = 0
        self._reserved = 0

    def open(self, store: Store) -> None:
        """Go on behind every position that an earlier incarnation may have used."""
        self._oldest = int.from_bytes(store.get(_RESERVED) or b"")
        self._reserve(store)

    def append(self, store: Store, observation: Observation) -> int:
        """The position that it got."""
        size_bytes = len(observation.payload)
        self._entries.append((observation, size_bytes))
        self._bytes += size_bytes
        while self._bytes > self._bytes_max and len(self._entries) > 1:
            self._bytes -= self._entries.popleft()[1]
            self._oldest += 1
        position = self._oldest + len(self._entries) - 1
        if position >= self._reserved:
            self._reserve(store)
        return position

    def newest(self) -> Entry | None:
        """The last entry, as it is notified; None before the first."""
        if not self._entries:
            return None
        observation, size_bytes = self._entries[-1]
        carried = observation if size_bytes <= INLINE_BYTES_MAX else None
        return Entry(self._oldest + len(self._entries) - 1, self._oldest, carried)

    def at(self, position: int) -> Entry | None:
        """The whole entry of that position; None where it never was, or is gone."""
        index = position - self._oldest
        if not 0 <= index < len(self._entries):
            return None
        return Entry(position, self._oldest, self._entries[index][0])

    def _reserve(self, store: Store) -> None:
        self._reserved = self._oldest + len(self._entries) + _RESERVE
        store.put(_RESERVED, self._reserved.to_bytes(8))


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Entry)
