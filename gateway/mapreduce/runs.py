"""Sorted runs: files of (key, value) pairs in the order of their bytes, and merging them.

A pair is framed as the key's length, the value's length (4 bytes each, big endian), key, value. Pairs of one
key are in the order of their values' bytes, so that what a reducer sees does not depend on which worker was
first, nor on how the input was split.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from heapq import merge
from itertools import groupby
from operator import itemgetter
from typing import BinaryIO

Pair = tuple[bytes, bytes]

_LENGTHS = struct.Struct(">II")
FRAME_BYTES = _LENGTHS.size
FAN_IN_MAX = 64
"""Runs that are merged at a time, each with a buffer and, on a disk, a descriptor."""


class BrokenRun(ValueError):
    """A file that ends within a pair: it was cut off or is no run."""


def frame(key: bytes, value: bytes) -> bytes:
    """One pair as bytes."""
    return _LENGTHS.pack(len(key), len(value)) + key + value


def write_run(file: BinaryIO, pairs: Iterable[Pair]) -> int:
    """Append pairs, which are in order; returns how many bytes that were."""
    size_bytes = 0
    waiting: list[bytes] = []
    waiting_bytes = 0
    for key, value in pairs:
        waiting.append(_LENGTHS.pack(len(key), len(value)))
        waiting.append(key)
        waiting.append(value)
        waiting_bytes += FRAME_BYTES + len(key) + len(value)
        if waiting_bytes > 1 << 16:
            file.write(b"".join(waiting))
            size_bytes += waiting_bytes
            waiting, waiting_bytes = [], 0
    file.write(b"".join(waiting))
    return size_bytes + waiting_bytes


def read_run(file: BinaryIO) -> Iterator[Pair]:
    """The pairs of a run. Raises BrokenRun."""
    read = file.read
    while header := read(FRAME_BYTES):
        if len(header) < FRAME_BYTES:
            raise BrokenRun("the file ends within a pair's lengths")
        key_bytes, value_bytes = _LENGTHS.unpack(header)
        data = read(key_bytes + value_bytes)
        if len(data) < key_bytes + value_bytes:
            raise BrokenRun("the file ends within a pair")
        yield data[:key_bytes], data[key_bytes:]


def pairs_of(data: bytes) -> Iterator[Pair]:
    """The pairs in memory. Raises BrokenRun."""
    at, end = 0, len(data)
    while at < end:
        if end - at < FRAME_BYTES:
            raise BrokenRun("the data end within a pair's lengths")
        key_bytes, value_bytes = _LENGTHS.unpack_from(data, at)
        at += FRAME_BYTES
        if end - at < key_bytes + value_bytes:
            raise BrokenRun("the data end within a pair")
        yield data[at : at + key_bytes], data[at + key_bytes : at + key_bytes + value_bytes]
        at += key_bytes + value_bytes


def merged(runs: Iterable[Iterable[Pair]]) -> Iterator[Pair]:
    """All pairs of these runs in order."""
    return merge(*runs)


def grouped(pairs: Iterable[Pair]) -> Iterator[tuple[bytes, Iterator[bytes]]]:
    """Each key with the values that follow it; these are to be taken before the next key is."""
    for key, group in groupby(pairs, key=itemgetter(0)):
        yield key, map(itemgetter(1), group)
