"""Records that tell when they were damaged: a checksum before every value that the store tier keeps.

Owns the wrapper and its error. What to do about damage (`Damaged`, found by a checksum here or by the disk
below) is the replication's affair: a node that meets it treats its disk as lost, because nobody knows what
else is (Ganesan et al., FAST 2017, show what happens to replicated stores that go on).

The checksum covers key and value, so that a record in another's place is found too. CRC-32 finds every burst
of up to 32 bits, and misses one in 2^32 of other damages.
"""

from __future__ import annotations

from collections.abc import Iterator
from zlib import crc32

from underlay.store import Damaged, Store

__all__ = ["CHECKSUM_BYTES", "Checked", "Damaged", "DamagedRecord"]

CHECKSUM_BYTES = 4


class DamagedRecord(Damaged):
    """What is stored under `key` is not what was written there."""

    def __init__(self, key: bytes) -> None:
        super().__init__(f"the record {key!r} does not match its checksum")
        self.key = key


class Checked:
    """A `Store` over a store; reads raise `DamagedRecord` where a record does not match its checksum.

    >>> from underlay.store import OrderedMap
    >>> plain = OrderedMap()
    >>> checked = Checked(plain)
    >>> checked.put(b"a", b"1")
    >>> checked.get(b"a"), len(plain.get(b"a"))
    (b'1', 5)
    >>> plain.put(b"b", plain.get(b"a"))
    >>> checked.get(b"b")
    Traceback (most recent call last):
    kv.records.DamagedRecord: the record b'b' does not match its checksum
    """

    __slots__ = ("_store",)

    def __init__(self, store: Store) -> None:
        self._store = store

    def get(self, key: bytes) -> bytes | None:
        stored = self._store.get(key)
        return None if stored is None else _unsealed(key, stored)

    def scan(self, start: bytes = b"", end: bytes | None = None) -> Iterator[tuple[bytes, bytes]]:
        for key, stored in self._store.scan(start, end):
            yield key, _unsealed(key, stored)

    def put(self, key: bytes, value: bytes) -> None:
        self._store.put(key, crc32(value, crc32(key)).to_bytes(CHECKSUM_BYTES, "big") + value)

    def delete(self, key: bytes) -> None:
        self._store.delete(key)

    def wipe(self) -> None:
        self._store.wipe()


def _unsealed(key: bytes, stored: bytes) -> bytes:
    value = stored[CHECKSUM_BYTES:]
    if stored[:CHECKSUM_BYTES] != crc32(value, crc32(key)).to_bytes(CHECKSUM_BYTES, "big"):
        raise DamagedRecord(key)
    return value
