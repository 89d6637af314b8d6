"""What the runner and the ether's process say to each other: one command, one answer, over a stream socket.

Owns the messages and their framing (four bytes of length, then msgpack).
"""

from __future__ import annotations

import socket
import struct

import msgspec

from underlay.emulation.ether_hops import HopTotals, PortTotals
from underlay.emulation.ether_lag import LagSummary
from underlay.link import LinkSpec


class Command(msgspec.Struct, frozen=True, tag=True):
    """Base of what the runner says."""


class Start(Command, frozen=True, tag=True):
    """Begin the run at `t0_s` of the monotonic clock: models and counters start afresh then."""

    t0_s: float


class Cut(Command, frozen=True, tag=True):
    """Cut (or mend) the hops from the first to the second device of each pair."""

    pairs: list[tuple[str, str]]
    cut: bool


class Reshape(Command, frozen=True, tag=True):
    """Give the direction of `medium` from `source` to `target` another spec."""

    medium: str
    source: str
    target: str
    spec: LinkSpec
    nth: int


class Rehearse(Command, frozen=True, tag=True):
    """Use another spec for directions `(medium, source)` until the run starts."""

    specs: list[tuple[str, str, LinkSpec]]


class Count(Command, frozen=True, tag=True):
    """Tell the totals."""


class LogProbes(Command, frozen=True, tag=True):
    """Note the fate of every frame from now on, or tell what was noted and stop."""

    on: bool


class Capture(Command, frozen=True, tag=True):
    """Write every frame to a file for each medium in `folder`, until the end."""

    folder: str


class Stop(Command, frozen=True, tag=True):
    """Move no more frames, tell the totals, end."""


class Answer(msgspec.Struct, frozen=True, tag=True):
    """Base of what the ether says."""


class Done(Answer, frozen=True, tag=True):
    """It was done."""


class Failed(Answer, frozen=True, tag=True):
    """It was not; the run cannot go on."""

    reason: str


class Totals(Answer, frozen=True, tag=True):
    """What the ether did."""

    hops: list[HopTotals]
    ports: list[PortTotals]
    lag: LagSummary
    """Since the run's start."""
    cpu_ratio: float
    """Share of one core, since the run's start."""
    peak_cpu_ratio: float = 0.0
    """In the busiest second."""


class ProbeFate(msgspec.Struct, frozen=True, array_like=True):
    """What the model decided about one frame for one hop."""

    medium: str
    source: str
    target: str
    key: bytes
    """A probe's own first payload bytes, which its sender made unique; empty for any other frame."""
    size_bytes: int
    """As an IP packet."""
    offered_s: float
    """When the ether read it, on the monotonic clock."""
    due_s: float
    """When the receiver should have it, or `LOST`, `QUEUE_FULL` or `CUT`."""


class ProbeLog(Answer, frozen=True, tag=True):
    """The fates noted."""

    fates: list[ProbeFate]


AnyCommand = Start | Cut | Reshape | Rehearse | Count | LogProbes | Capture | Stop
AnyAnswer = Done | Failed | Totals | ProbeLog

_commands: msgspec.msgpack.Decoder[AnyCommand] = msgspec.msgpack.Decoder(AnyCommand)
_answers: msgspec.msgpack.Decoder[AnyAnswer] = msgspec.msgpack.Decoder(AnyAnswer)


def send(to: socket.socket, message: Command | Answer) -> None:
    """One message, whole."""
    body = msgspec.msgpack.encode(message)
    to.sendall(struct.pack("<I", len(body)) + body)


def receive_command(source: socket.socket) -> AnyCommand:
    """The next command; EOFError if the runner is gone."""
    return _commands.decode(_receive(source))


def receive_answer(source: socket.socket) -> AnyAnswer:
    """The next answer; EOFError if the ether is gone."""
    return _answers.decode(_receive(source))


def _receive(source: socket.socket) -> bytes:
    (length,) = struct.unpack("<I", _exactly(source, 4))
    return _exactly(source, length)


def _exactly(source: socket.socket, size: int) -> bytes:
    parts = bytearray()
    while len(parts) < size:
        part = source.recv(min(size - len(parts), 1 << 20))
        if not part:
            raise EOFError
        parts += part
    return bytes(parts)
