"""One replica's objects, in chunks, on its disk.

Owns the records under `o`. An object is there when all of its chunks are and their hash is its name, which is
checked when the last one comes; the disk's own checksums vouch for it afterwards.
"""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import sha256

from underlay.store import Store, prefix_end

OBJECT_BYTES_MAX = 512 * 1024
CHUNK_BYTES = 48 * 1024

_PREFIX = b"o"
_DIGEST_BYTES = 32


class Shelf:
    """Which objects are here, and which chunks of those that are on their way."""

    def __init__(self) -> None:
        self._chunks: dict[bytes, dict[int, None]] = {}
        self._of: dict[bytes, int] = {}

    def load(self, store: Store) -> None:
        """See what the disk has."""
        self._chunks.clear()
        self._of.clear()
        for key, value in store.scan(_PREFIX, prefix_end(_PREFIX)):
            digest, number = key[1 : 1 + _DIGEST_BYTES], int.from_bytes(key[1 + _DIGEST_BYTES :], "big")
            self._note(digest, number, int.from_bytes(value[:2], "big"))

    def __contains__(self, digest: bytes) -> bool:
        chunks = self._chunks.get(digest)
        return chunks is not None and len(chunks) == self._of[digest]

    def __iter__(self) -> Iterator[bytes]:
        """Digests, also of objects that are not complete yet."""
        return iter(self._chunks)

    def put(self, store: Store, digest: bytes, number: int, of: int, data: bytes) -> None:
        """Keep a chunk. An object whose content does not match its name is thrown away."""
        if digest in self or not 0 <= number < of or self._of.get(digest, of) != of:
            return
        store.put(_key(digest, number), of.to_bytes(2, "big") + data)
        self._note(digest, number, of)
        if digest in self and sha256(self.read(store, digest)).digest() != digest:
            self.delete(store, digest)

    def read(self, store: Store, digest: bytes) -> bytes:
        """The content of an object that is here."""
        return b"".join(data for _, data in self.chunks(store, digest))

    def chunks(self, store: Store, digest: bytes) -> Iterator[tuple[int, bytes]]:
        """Its chunks, numbered."""
        for number in range(self._of[digest]):
            stored = store.get(_key(digest, number))
            assert stored is not None, f"chunk {number} of {digest.hex()} was noted and is not there"
            yield number, stored[2:]

    def delete(self, store: Store, digest: bytes) -> None:
        """Forget an object."""
        for number in self._chunks.pop(digest, ()):
            store.delete(_key(digest, number))
        self._of.pop(digest, None)

    def _note(self, digest: bytes, number: int, of: int) -> None:
        self._chunks.setdefault(digest, {})[number] = None
        self._of[digest] = of


def cut(content: bytes) -> list[bytes]:
    """An object's chunks; an empty one has one."""
    return [content[at : at + CHUNK_BYTES] for at in range(0, max(1, len(content)), CHUNK_BYTES)]


def _key(digest: bytes, number: int) -> bytes:
    return _PREFIX + digest + number.to_bytes(2, "big")
