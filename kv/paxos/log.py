"""The replicated log as one replica has it: the votes it gave, by position, in memory and in its store.

Owns the records under `l`. Does not know what is chosen or why a vote may be given (`kv.paxos.acceptor`).
"""

from __future__ import annotations

import msgspec

from kv.paxos.messages import Ballot, Entry
from underlay.store import Store, prefix_end

_PREFIX = b"l"
_encode = msgspec.msgpack.Encoder().encode
_decode_entry = msgspec.msgpack.Decoder(Entry).decode


class Slot(msgspec.Struct, frozen=True, array_like=True):
    """A vote for an encoded entry, and through which position the replica knew what was chosen when it gave
    it: a restart needs no other record of that."""

    ballot: Ballot
    entry: bytes
    chosen: int


_decode_slot = msgspec.msgpack.Decoder(Slot).decode


class Log:
    """Positions from `first` to `last`; there may be holes."""

    def __init__(self) -> None:
        self.first = 1
        self.last = 0
        self.size_bytes = 0
        """Of all entries."""
        self._slots: dict[int, Slot] = {}

    def __len__(self) -> int:
        return len(self._slots)

    def load(self, store: Store, first: int) -> int:
        """Read what the store has from position `first` on; returns through where the chosen was known."""
        self.reset(first)
        chosen = first - 1
        for key, value in store.scan(_key(first), prefix_end(_PREFIX)):
            slot = _decode_slot(value)
            self.add(int.from_bytes(key[1:], "big"), slot)
            chosen = max(chosen, slot.chosen)
        return chosen

    def reset(self, first: int) -> None:
        """Forget everything in memory; the log begins at `first`."""
        self._slots.clear()
        self.first, self.last, self.size_bytes = first, first - 1, 0

    def get(self, position: int) -> Slot | None:
        """The vote given at `position`, if any."""
        return self._slots.get(position)

    def add(self, position: int, slot: Slot) -> None:
        """Vote, in memory; `write` makes it durable."""
        known = self._slots.get(position)
        self.size_bytes += len(slot.entry) - (len(known.entry) if known else 0)
        self._slots[position] = slot
        self.last = max(self.last, position)

    def write(self, store: Store, position: int) -> None:
        """Put the vote into the store."""
        store.put(_key(position), _encode(self._slots[position]))

    def first_to_retain(self, applied: int, entries: int, size_bytes: int) -> int:
        """Where the log may begin, so that what is executed leaves about so many entries and bytes."""
        first = max(self.first, applied + 1 - entries)
        excess_bytes = self.size_bytes - size_bytes
        for position in range(self.first, applied + 1):
            if position >= first and excess_bytes <= 0:
                return position
            slot = self._slots.get(position)
            excess_bytes -= len(slot.entry) if slot is not None else 0
        return applied + 1

    def truncate(self, store: Store, first: int) -> None:
        """Forget everything before `first`."""
        for position in range(self.first, min(first, self.last + 1)):
            slot = self._slots.pop(position, None)
            if slot is not None:
                self.size_bytes -= len(slot.entry)
                store.delete(_key(position))
        self.first = max(self.first, first)
        self.last = max(self.last, self.first - 1)


def encode_entry(entry: Entry) -> bytes:
    """As entries are voted for and travel."""
    return _encode(entry)


def decode_entry(data: bytes) -> Entry:
    """The inverse of `encode_entry`."""
    return _decode_entry(data)


def _key(position: int) -> bytes:
    return _PREFIX + position.to_bytes(8, "big")
