"""The bounded queue in which a device keeps what its broker has not acknowledged yet.

Pure data structure over the node's store: knows no broker and no time. An entry waits, is in flight, and
leaves when it is acknowledged or discarded. Only waiting entries are ever discarded: one in flight may
already have been delivered. With `durable`, entries also live in the store until they leave, so that a
restarted device goes on where it stopped.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator
from typing import Literal

import msgspec

from underlay.store import Store, prefix_end

_PREFIX = b"outbox:"

WhenFull = Literal["drop-oldest", "drop-newest"]


class Entry(msgspec.Struct, frozen=True, array_like=True):
    """One application message on its way to a broker."""

    token: int
    """Ascends in the order of observation; names the entry towards the client."""
    id: str
    """Of the observation."""
    topic: str
    payload: bytes


class Outbox:
    """Entries in the order they were observed, at most `entries_max` and `bytes_max` (payloads) of them."""

    def __init__(self, entries_max: int, bytes_max: int, when_full: WhenFull, durable: bool) -> None:
        self._entries_max = entries_max
        self._bytes_max = bytes_max
        self._when_full = when_full
        self._durable = durable
        self._waiting: OrderedDict[int, Entry] = OrderedDict()
        self._in_flight: dict[int, Entry] = {}
        self._bytes = 0
        self._next_token = 1

    def __len__(self) -> int:
        return len(self._waiting) + len(self._in_flight)

    @property
    def in_flight(self) -> int:
        """How many were handed to the client and are not acknowledged."""
        return len(self._in_flight)

    def load(self, store: Store) -> None:
        """Take up what an earlier incarnation left; all of it waits again."""
        for _, data in store.scan(_PREFIX, prefix_end(_PREFIX)):
            entry = _decode(data)
            self._waiting[entry.token] = entry
            self._bytes += len(entry.payload)
            self._next_token = entry.token + 1

    def add(self, store: Store, id: str, topic: str, payload: bytes) -> Iterator[Entry]:  # noqa: A002 - the data model's word
        """Queue a message; yields what has to go for it, perhaps the message itself."""
        entry = Entry(self._next_token, id, topic, payload)
        self._next_token += 1
        self._waiting[entry.token] = entry
        self._bytes += len(payload)
        if self._durable:
            store.put(_key(entry.token), _encode(entry))
        while self._waiting and (len(self) > self._entries_max or self._bytes > self._bytes_max):
            oldest = self._when_full == "drop-oldest" and len(payload) <= self._bytes_max
            token = next(iter(self._waiting)) if oldest else entry.token
            yield self._remove(store, token)
            if token == entry.token:
                return

    def take(self) -> Entry | None:
        """The oldest waiting entry, which is in flight from now on."""
        if not self._waiting:
            return None
        token, entry = self._waiting.popitem(last=False)
        self._in_flight[token] = entry
        return entry

    def acknowledge(self, store: Store, token: int) -> Entry | None:
        """The broker has it: forget it. None where it was not in flight (an acknowledgement that came
        twice)."""
        return self._remove(store, token) if token in self._in_flight else None

    def put_back(self, tokens: Iterable[int]) -> None:
        """These are not in flight any more and wait again, in their old places."""
        for token in tokens:
            entry = self._in_flight.pop(token, None)
            if entry is not None:
                self._waiting[token] = entry
        self._waiting = OrderedDict(sorted(self._waiting.items()))

    def _remove(self, store: Store, token: int) -> Entry:
        entry = self._waiting.pop(token, None) or self._in_flight.pop(token)
        self._bytes -= len(entry.payload)
        if self._durable:
            store.delete(_key(token))
        return entry


def _key(token: int) -> bytes:
    return b"%b%020d" % (_PREFIX, token)


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Entry).decode
