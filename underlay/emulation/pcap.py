"""Captures: a pcapng file for each link and channel, with the frames that never arrived in it, marked.

Owns the files' format and what the marks say. A frame is written once, at the time the ether read it,
whatever became of it: what the sender's radio did. A frame that was lost carries a comment (`lost on the
air`, `queue full`, `cut by a fault`; on a channel also for whom), which Wireshark shows and filters by
`frame.comment`.

Each sender is an interface of its own in the file, named `cam1 -> hub`. Times are nanoseconds of the wall
clock.

Source: IETF draft-ietf-opsawg-pcapng (section, interface description and enhanced packet blocks).
"""

from __future__ import annotations

import struct
import time
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

from underlay.emulation.ether_hops import CUT, Fate, Media, Tap
from underlay.link import LOST, QUEUE_FULL

FLUSH_BYTES = 1 << 18
"""Buffered before the file is written to: the ether has other things to do than to wait for a disk."""


class PcapngWriter:
    """Appends frames to a capture file. Buffered; `flush` hands the rest to the operating system.

    Args:
        interfaces: names, in order; `frame` refers to them by their place.
    """

    def __init__(self, file: BinaryIO, interfaces: Sequence[str]) -> None:
        self._file = file
        self._buffer = bytearray(_block(_SECTION, struct.pack("<IHHq", _BYTE_ORDER_MAGIC, 1, 0, -1)))
        for name in interfaces:
            options = _option(_IF_NAME, name.encode()) + _option(_IF_TSRESOL, bytes([9])) + _END_OF_OPTIONS
            self._buffer += _block(_INTERFACE, struct.pack("<HHI", _LINKTYPE_ETHERNET, 0, 0) + options)

    def frame(self, interface: int, at_ns: int, frame: bytes, comment: str | None = None) -> None:
        """One frame at `at_ns` since the epoch."""
        size = len(frame)
        body = _PACKET_HEAD.pack(interface, at_ns >> 32, at_ns & 0xFFFF_FFFF, size, size) + frame
        body += bytes(-size % 4)
        if comment is not None:
            body += _option(_COMMENT, comment.encode()) + _END_OF_OPTIONS
        self._buffer += _block(_PACKET, body)
        if len(self._buffer) >= FLUSH_BYTES:
            self.flush()

    def flush(self) -> None:
        """Write what is buffered."""
        self._file.write(self._buffer)
        self._file.flush()
        self._buffer.clear()


class FrameCapture:
    """Writes what the ether witnesses, a file for each medium (`cam1-hub.pcapng`).

    Raises OSError if a file cannot be written.
    """

    def __init__(self, folder: Path, media: Media) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        # Both clocks are slewed alike, so one reading serves a capture.
        self._epoch_ns = time.time_ns() - time.monotonic_ns()
        self._files: list[BinaryIO] = []
        self._writers: list[PcapngWriter] = []
        self._place: dict[int, tuple[PcapngWriter, int]] = {}
        taps: dict[str, list[Tap]] = {}
        for tap in media.taps:
            taps.setdefault(tap.port.medium, []).append(tap)
        for medium, senders in taps.items():
            file = (folder / f"{medium}.pcapng").open("wb")
            names = [f"{tap.port.device} -> {tap.hop.target if tap.hop else '*'}" for tap in senders]
            writer = PcapngWriter(file, names)
            self._files.append(file)
            self._writers.append(writer)
            self._place.update({tap.fd: (writer, place) for place, tap in enumerate(senders)})

    def frame(self, tap: Tap, frame: bytes, read_s: float, fates: Sequence[Fate]) -> None:
        """Note a frame, when it was read, and what becomes of it."""
        writer, interface = self._place[tap.fd]
        writer.frame(interface, self._epoch_ns + int(read_s * 1e9), frame, _comment(fates))

    def flush(self) -> None:
        """Write what is buffered."""
        for writer in self._writers:
            writer.flush()

    def close(self) -> None:
        """Finish the files."""
        self.flush()
        for file in self._files:
            file.close()


def _comment(fates: Sequence[Fate]) -> str | None:
    """What to say of a frame that did not reach everyone it was for."""
    missed: dict[str, list[str]] = {}
    for hop, fate in fates:
        if fate < 0.0:
            missed.setdefault(_REASONS[fate], []).append(hop.target)
    if len(fates) == 1:
        return next(iter(missed), None)
    return "; ".join(f"{reason} for {', '.join(targets)}" for reason, targets in missed.items()) or None


def _block(kind: int, body: bytes) -> bytes:
    length = struct.pack("<I", len(body) + 12)
    return struct.pack("<I", kind) + length + body + length


def _option(code: int, value: bytes) -> bytes:
    return struct.pack("<HH", code, len(value)) + value + bytes(-len(value) % 4)


_REASONS = {LOST: "lost on the air", QUEUE_FULL: "queue full", CUT: "cut by a fault"}

_SECTION, _INTERFACE, _PACKET = 0x0A0D_0D0A, 1, 6
_BYTE_ORDER_MAGIC = 0x1A2B_3C4D
_LINKTYPE_ETHERNET = 1
_COMMENT, _IF_NAME, _IF_TSRESOL = 1, 2, 9
_END_OF_OPTIONS = bytes(4)
_PACKET_HEAD = struct.Struct("<IIIII")
