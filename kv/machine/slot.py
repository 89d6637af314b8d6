"""One hash slot's piece of the data: its keys and their versions, its order, its sessions.

Owns the shape of the data and nothing else: who may change it, and what a change costs elsewhere (expiry,
history, references), is in `kv.machine.keyspace`; how it becomes records, in `kv.machine.records`.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import deque
from collections.abc import Iterator
from itertools import islice
from typing import NamedTuple
from zlib import crc32

import msgspec

from kv.operations import Outcome


class Reference(msgspec.Struct, frozen=True, array_like=True, tag=1):
    """Stands for a large value that is stored apart, under its content's hash (`kv.objects`)."""

    digest: bytes
    """SHA-256 of the content, 32 bytes."""
    size_bytes: int

    def encode(self) -> bytes:
        """As an argument of `@SET`: digest, then size as 8 bytes."""
        return self.digest + self.size_bytes.to_bytes(8, "big")

    @classmethod
    def decode(cls, data: bytes) -> Reference:
        """The inverse of `encode`."""
        return cls(data[:32], int.from_bytes(data[32:], "big"))


REFERENCE_BYTES = 32 + 8
"""Of a reference as an argument."""

Value = bytes | Reference


class Version:
    """What a key held from one revision on; None: nothing, the key was deleted.

    Immutable but for `previous`, which is cut when nobody can ask for older versions any more.
    """

    __slots__ = ("expires_ms", "previous", "revision", "value")

    def __init__(self, revision: int, value: Value | None, expires_ms: int, previous: Version | None) -> None:
        self.revision = revision
        self.value = value
        self.expires_ms = expires_ms
        """Log time in milliseconds at which the key is deleted; 0: never."""
        self.previous = previous

    def as_of(self, revision: int) -> Version | None:
        """The version that was current at that revision."""
        version: Version | None = self
        while version is not None and version.revision > revision:
            version = version.previous
        return version


class Session(NamedTuple):
    """The last thing that a session had executed in a slot."""

    sequence: int
    outcome: Outcome
    time_ms: int
    """Log time of it."""


Mark = bytes | int | tuple[bytes, int]
"""Names a record that has changed: a key's newest version, a session, or an older version (key, revision)."""

VALUE_BYTES_MAX = 32 * 1024
"""Of a value, whoever made it (APPEND grows one). Larger ones are stored apart, as a `Reference`."""

KEY_BYTES_MAX = 4 * 1024
"""Key and value together fit a message (64 KiB), whatever is around them."""

SORTED_SCAN_KEYS = 1024
"""Slots with more keys than this remember their scan order, so that a page does not sort them again."""


class Slot:
    """The keys of one slot. A key stays, without a value, while its deletion is part of the history."""

    __slots__ = (
        "_scan_order",
        "changed",
        "generation",
        "keys",
        "live",
        "number",
        "sessions",
        "superseded",
        "versions",
    )

    def __init__(self, number: int, generation: int) -> None:
        self.number = number
        self.generation = generation
        """Of the keyspace when this object was made; an older one is shared with a frozen copy."""
        self.keys: list[bytes] = []
        """All of `versions`, in order."""
        self.versions: dict[bytes, Version] = {}
        """Newest version of each key."""
        self.live = 0
        """How many of these hold a value."""
        self.sessions: dict[int, Session] = {}
        self.superseded: deque[tuple[int, bytes, Version]] = deque()
        """Each version that ended another or deleted its key, by revision: what there is to forget later."""
        self.changed: dict[Mark, None] = {}
        """Records that changed since they were last taken."""
        self._scan_order: list[tuple[int, bytes]] | None = None

    def shared(self, generation: int) -> Slot:
        """A copy that may be written while a frozen one is read. O(keys), but no version is copied."""
        copy = Slot(self.number, generation)
        copy.keys = self.keys.copy()
        copy.versions = self.versions.copy()
        copy.live = self.live
        copy.sessions = self.sessions.copy()
        copy.superseded = self.superseded.copy()
        copy.changed = self.changed
        return copy

    def get(self, key: bytes) -> Version | None:
        """The newest version of a key that is there."""
        version = self.versions.get(key)
        return None if version is None or version.value is None else version

    def put(self, key: bytes, version: Version) -> None:
        """Make `version` the newest of its key."""
        previous = version.previous
        if previous is None:
            insort(self.keys, key)
            if self._scan_order is not None:
                insort(self._scan_order, (crc32(key), key))
        self.live += (version.value is not None) - (previous is not None and previous.value is not None)
        self.versions[key] = version

    def forget(self, key: bytes) -> None:
        """Remove a key with all its versions."""
        self.live -= self.versions.pop(key).value is not None
        del self.keys[bisect_left(self.keys, key)]
        if self._scan_order is not None:
            del self._scan_order[bisect_left(self._scan_order, (crc32(key), key))]

    def between(self, start: bytes, end: bytes) -> Iterator[bytes]:
        """Keys, deleted ones too, with `start <= key < end`; an empty end is no bound."""
        low = bisect_left(self.keys, start)
        high = bisect_left(self.keys, end) if end else len(self.keys)
        return islice(self.keys, low, high)

    def page(self, start: int, count: int) -> tuple[list[bytes], int | None]:
        """Keys in the order of their CRC-32 from `start` on, at least `count` if there are so many, and where
        to go on.

        A key's place depends on nothing but the key, so whatever is there throughout a scan is met; keys of
        the same CRC come together.
        """
        order = self._scan_order
        if order is None:
            order = sorted((crc32(key), key) for key in self.keys)
            if len(order) > SORTED_SCAN_KEYS:
                self._scan_order = order
        low = bisect_left(order, (start, b""))
        high = min(low + count, len(order))
        while high < len(order) and order[high][0] == order[high - 1][0]:
            high += 1
        keys = [key for _, key in order[low:high] if self.versions[key].value is not None]
        return keys, order[high][0] if high < len(order) else None
