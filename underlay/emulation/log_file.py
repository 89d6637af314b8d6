"""A file of records in the order they were appended, each durable when `append` returns.

Owns the bytes on the disk, and judging them at the next start. A record has a length, a sequence number and a
checksum (CRC-32) over these and its payload, so that what is read is what was written, or nothing. The end
may be torn: power failed while the last record was being written, and nobody was told that it is durable. The
same bad bytes in what *was* acknowledged are damage, and never passed off as a torn end:

- a valid record after a bad one proves that the bad one had been complete;
- the seal, a page of memory that the kernel keeps in a file beside this one, says how much was acknowledged.
  It costs no system call and no sync: after a killed process it is exact, after a power cut it may be older,
  and then only the first rule speaks.

The file is allocated ahead, so that a sync need not write its size: 30 % less time. What was not used of that
is zeros. An error of a write or a sync must end the process: what is on the disk then is unknown, and to sync
again would not tell.

Source: Pillai et al., "All File Systems Are Not Created Equal" (OSDI 2014); Alagappan et al., "Protocol-Aware
Recovery for Consensus-Based Storage" (FAST 2018) §3.3, telling a torn write from corruption; Rebello et al.,
"Can Applications Recover from fsync Failures?" (USENIX ATC 2020).
"""

from __future__ import annotations

import mmap
import os
import struct
from contextlib import suppress
from pathlib import Path
from zlib import crc32

import msgspec

ALLOCATED_BYTES = 1 << 20

_MAGIC = b"birdhouse log 1\n"
_HEADER = struct.Struct("!16sQI")
"""Magic, generation, checksum of both."""
_RECORD = struct.Struct("!IQ")
_CHECKSUM = struct.Struct("!I")
_OVERHEAD = _RECORD.size + _CHECKSUM.size
_SEAL = struct.Struct("!QQI")
_GAP_MAX = 64
"""How many records in a row may be bad and the next still be found."""


class Contents(msgspec.Struct, frozen=True):
    """What a file holds."""

    generation: int
    """Tells this file from others of its name; 0 if that cannot be read."""
    records: list[memoryview | None]
    """Payloads in order; None stands where acknowledged ones are damaged."""
    end: int
    """Where the next record belongs."""
    sequence: int
    """Of the last record."""
    torn: bool
    """A record that had not been acknowledged was found in part."""


class LogFile:
    """A file to append to. It is made by `create`, or found as `Contents` say."""

    def __init__(self, path: Path, contents: Contents) -> None:
        self.generation = contents.generation
        self.end = contents.end
        """Bytes in use."""
        self._sequence = contents.sequence
        self._fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        self._allocated = os.fstat(self._fd).st_size
        self._broken = False
        if contents.torn:
            os.ftruncate(self._fd, self.end)
            os.fsync(self._fd)
            self._allocated = self.end

    @classmethod
    def create(cls, path: Path) -> LogFile:
        """An empty one, which does not survive a crash before it was synced."""
        generation = int.from_bytes(os.urandom(8), "big")
        path.write_bytes(_header(generation))
        return cls(path, Contents(generation, [], _HEADER.size, 0, False))

    def append(self, payload: bytes, *, sync: bool = True) -> None:
        """One more record. Raises OSError, and from then on always, if it may not be on the disk."""
        if self._broken:
            raise OSError("a write to this file has failed before")
        self._broken = True
        sequence = self._sequence + 1
        head = _RECORD.pack(len(payload), sequence)
        record = b"".join((head, _CHECKSUM.pack(crc32(payload, crc32(head))), payload))
        end = self.end + len(record)
        if end > self._allocated:
            self._allocate(end)
        if os.pwrite(self._fd, record, self.end) != len(record):
            raise OSError("a write ended early: the disk is full")
        if sync:
            os.fdatasync(self._fd)
        self._sequence, self.end = sequence, end
        self._broken = False

    def _allocate(self, end: int) -> None:
        self._allocated = max(end, self._allocated + ALLOCATED_BYTES)
        # Where there is not so much room any more, the writes themselves will tell when it ends.
        with suppress(OSError):
            os.posix_fallocate(self._fd, self.end, self._allocated - self.end)

    def sync(self) -> None:
        """Make what was appended without a sync durable."""
        os.fdatasync(self._fd)

    def close(self) -> None:
        """No more will be written."""
        os.close(self._fd)


class Seal:
    """How much of a file was acknowledged, in memory that outlives the process."""

    def __init__(self, path: Path) -> None:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            os.posix_fallocate(fd, 0, mmap.PAGESIZE)
            self._page = mmap.mmap(fd, mmap.PAGESIZE)
        finally:
            os.close(fd)

    def set(self, generation: int, end: int) -> None:
        """Everything before `end` is durable and acknowledged."""
        _SEAL.pack_into(self._page, 0, generation, end, crc32(b"%d %d" % (generation, end)))

    def end_of(self, generation: int) -> int:
        """What was said of that file; 0 if nothing."""
        sealed, end, checksum = _SEAL.unpack_from(self._page)
        return end if sealed == generation and checksum == crc32(b"%d %d" % (sealed, end)) else 0

    def close(self) -> None:
        """Give the memory back; the file keeps it."""
        self._page.close()


def read_log(path: Path, seal: Seal) -> Contents:
    """What is in the file, judged."""
    data = memoryview(path.read_bytes())
    generation, records = _generation(data), list[memoryview | None]()
    if not generation:
        records.append(None)
    sealed = seal.end_of(generation)
    end, sequence = _HEADER.size, 0
    while True:
        while (payload := _record(data, end, sequence + 1)) is not None:
            records.append(payload)
            end, sequence = end + _OVERHEAD + len(payload), sequence + 1
        found = _next_valid(data, end, sequence + 1)
        if found is None:
            break
        records.append(None)
        end, sequence = found[0], found[1] - 1
    if end < sealed:
        records.append(None)
        # The sequence goes on after the gap, so that the next start finds what follows it.
        return Contents(generation, records, max(sealed, len(data)), sequence + 1, False)
    torn = bool(bytes(data[end:]).strip(b"\0"))
    return Contents(generation, records, end, sequence, torn)


def flip_bit(path: Path, chance: int) -> None:
    """Let one bit of the file rot; which, follows from the number `chance`."""
    data = path.read_bytes()
    used = len(data.rstrip(b"\0")) - _HEADER.size
    if used > 0:
        offset = _HEADER.size + (chance >> 3) % used
        with path.open("r+b") as file:
            file.seek(offset)
            file.write(bytes([data[offset] ^ 1 << (chance & 7)]))


def _header(generation: int) -> bytes:
    return _HEADER.pack(_MAGIC, generation, crc32(b"%b%d" % (_MAGIC, generation)))


def _generation(data: memoryview) -> int:
    if len(data) < _HEADER.size:
        return 0
    magic, generation, checksum = _HEADER.unpack_from(data)
    good = magic == _MAGIC and checksum == crc32(b"%b%d" % (magic, generation))
    return int(generation) if good else 0


def _record(data: memoryview, offset: int, sequence: int) -> memoryview | None:
    """The payload of the record of that number there, or None if there is no such record."""
    if offset + _OVERHEAD > len(data):
        return None
    length, number = _RECORD.unpack_from(data, offset)
    start = offset + _OVERHEAD
    if number != sequence or start + length > len(data):
        return None
    (checksum,) = _CHECKSUM.unpack_from(data, offset + _RECORD.size)
    payload = data[start : start + length]
    good = checksum == crc32(payload, crc32(data[offset : offset + _RECORD.size]))
    return payload if good else None


def _next_valid(data: memoryview, offset: int, sequence: int) -> tuple[int, int] | None:
    """Offset and number of the first valid record behind a bad one at `offset`, which had `sequence`."""
    rest = bytes(data[offset:]).rstrip(b"\0")
    if len(rest) > _OVERHEAD:  # mostly its length is right
        follows = offset + _OVERHEAD + int(_RECORD.unpack_from(rest)[0])
        if _record(data, follows, sequence + 1) is not None:
            return follows, sequence + 1
    for number in range(sequence, sequence + _GAP_MAX):
        pattern = number.to_bytes(8, "big")
        place = rest.find(pattern)
        while place >= 0:
            start = offset + place - 4
            if start > offset and _record(data, start, number) is not None:
                return start, number
            place = rest.find(pattern, place + 1)
    return None
