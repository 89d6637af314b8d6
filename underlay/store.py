"""The durable ordered byte map a node keeps its state in.

Owns the interface and the in-memory ordered map that implementations stand on; the simulation's disk and the
emulation's file are in their fabrics. Within a handler, reads see the handler's own writes; all its writes
commit as one atomic batch.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator
from typing import Protocol

Batch = dict[bytes, bytes | None]
"""Writes of one handler: key to value, or to None for a deletion."""


class Damaged(Exception):
    """What was durable can no longer be read as it was written: a checksum tells.

    A node that meets it may `wipe` its store and go on as one that lost its disk; one that does not ends its
    process.
    """


class Store(Protocol):
    """What `ctx.store` offers. Keys and values are bytes; keys are ordered bytewise.

    Reading raises `Damaged` where the disk is known to have lost something that was durable. A node whose
    life depends on each of its values checksums them besides.
    """

    def get(self, key: bytes) -> bytes | None:
        """The value, or None."""

    def scan(self, start: bytes = b"", end: bytes | None = None) -> Iterator[tuple[bytes, bytes]]:
        """Items with `start <= key < end` in key order; `end=None` is no bound."""

    def put(self, key: bytes, value: bytes) -> None:
        """Write; durable before any send issued after it leaves."""

    def delete(self, key: bytes) -> None:
        """Remove; unknown keys are fine."""

    def wipe(self) -> None:
        """Remove everything, whatever state it is in; a write like any other."""


class OrderedMap:
    """A sorted in-memory byte map that collects writes into a batch.

    `take_batch()` hands the writes since the last call to whoever makes them durable.

    >>> store = OrderedMap()
    >>> store.put(b"b", b"2"); store.put(b"a", b"1")
    >>> list(store.scan())
    [(b'a', b'1'), (b'b', b'2')]
    >>> store.take_batch()
    {b'b': b'2', b'a': b'1'}
    """

    __slots__ = ("_batch", "_keys", "_values")

    def __init__(self, items: dict[bytes, bytes] | None = None) -> None:
        self._values: dict[bytes, bytes] = dict(items or {})
        self._keys = sorted(self._values)
        self._batch: Batch = {}

    def __len__(self) -> int:
        return len(self._keys)

    @property
    def dirty(self) -> bool:
        """Whether there are writes that `take_batch` has not handed over."""
        return bool(self._batch)

    def get(self, key: bytes) -> bytes | None:
        return self._values.get(key)

    def scan(self, start: bytes = b"", end: bytes | None = None) -> Iterator[tuple[bytes, bytes]]:
        low = bisect_left(self._keys, start)
        high = len(self._keys) if end is None else bisect_left(self._keys, end)
        for key in self._keys[low:high]:
            value = self._values.get(key)
            if value is not None:  # deleted since the scan began
                yield key, value

    def put(self, key: bytes, value: bytes) -> None:
        if key not in self._values:
            insort(self._keys, key)
        self._values[key] = value
        self._batch[key] = value

    def delete(self, key: bytes) -> None:
        if key in self._values:
            del self._values[key]
            del self._keys[bisect_left(self._keys, key)]
            self._batch[key] = None

    def wipe(self) -> None:
        for key in list(self._keys):
            self.delete(key)

    def take_batch(self) -> Batch:
        batch, self._batch = self._batch, {}
        return batch


def prefix_end(prefix: bytes) -> bytes | None:
    """The smallest key above every key with that prefix, for `scan(prefix, prefix_end(prefix))`; None if
    there is none.

    >>> prefix_end(b"obs:")
    b'obs;'
    """
    stripped = prefix.rstrip(b"\xff")
    return stripped[:-1] + bytes([stripped[-1] + 1]) if stripped else None
