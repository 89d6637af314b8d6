"""The trace: one JSON object a line, the only thing that reports, metrics and parity checks ever read.

Every record has `t` (global seconds since the run's start, microsecond precision) and `event`; records of a
device have `device`, those of a node also `node`. The other keys are the fields of the event's struct.
Rooms above the underlay define further events (`edge.events`); this module owns those that the fabrics
themselves write.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Protocol

import msgspec

from underlay.errors import InputError


class Event(msgspec.Struct, frozen=True, tag_field="event"):
    """Base of all events; a subclass passes `frozen=True, tag="the-name"`."""


class RunStarted(Event, frozen=True, tag="run-started"):
    """First record of every trace."""

    fabric: str
    """`simulation` or `mininet`."""
    seed: int


class RunEnded(Event, frozen=True, tag="run-ended"):
    """Last record of a complete trace; a trace without it was cut short."""


class LinkUsage(Event, frozen=True, tag="link-usage"):
    """What one direction of a link (or one sender on a channel) carried since its last such record;
    all-zero ones are left out. Written every second and at the end."""

    link: str
    """Link name, or channel name."""
    source: str
    target: str
    """The receiving device; for a channel `"*"` (transmissions) and, beside it, one record per hearer with
    only `received_s` and `lost`."""
    frames: int = 0
    """IP packets transmitted, those lost on the air included."""
    bytes_on_air: int = 0
    """With link framing, lost ones included."""
    data_bytes: int = 0
    """The part of bytes_on_air in packets that carry users' observations."""
    airtime_s: float = 0.0
    """Seconds the sender transmitted."""
    received_s: float = 0.0
    """Seconds the target's radio received, airtime of lost packets included (the radio pays for them)."""
    lost: int = 0
    queue_dropped: int = 0
    cut: int = 0
    """Packets that a fault swallowed."""


class MessagesSent(Event, frozen=True, tag="messages-sent"):
    """Messages of one type that a node handed to the network since its last such record. Written every
    second."""

    message: str
    count: int
    bytes: int
    payload: bool
    hops: int
    """Sum over the messages of the hops to their destination (a broadcast on a channel is one)."""


class FaultApplied(Event, frozen=True, tag="fault-applied"):
    """A fault took effect; `fault` is the verb with its fields."""

    fault: dict[str, Any]


class RoutesChanged(Event, frozen=True, tag="routes-changed"):
    """Routes were recomputed after a change."""

    entries: int


class NodeStarted(Event, frozen=True, tag="node-started"):
    """`incarnation` counts from 1."""

    incarnation: int


class ProcessEnded(Event, frozen=True, tag="process-ended"):
    """A process of a device ended by itself."""

    program: str
    status: int
    """Exit status, or minus the signal's number."""
    last_lines: tuple[str, ...] = ()


class TornWrite(Event, frozen=True, tag="torn-write"):
    """A device that starts found a write on its disk that power had failed in the middle of, and discarded
    it. Nobody had been told that it was durable."""


class SlowHandler(Event, frozen=True, tag="slow-handler"):
    """A handler took over 10 ms of real time (emulation only)."""

    handler: str
    took_ms: float


class Malformed(Event, frozen=True, tag="malformed"):
    """Bytes arrived that are no message of the node's protocol; they were dropped."""

    sender: str
    reason: str


Record = dict[str, Any]


class TraceFile(Protocol):
    """What a `TraceWriter` needs of a binary file."""

    def write(self, data: bytes, /) -> object: ...

    def flush(self) -> None: ...


class TraceWriter:
    """Appends records to a file. Buffered; `flush()` makes what was written visible to readers.

    The same calls give the same bytes: times are rounded to the microsecond, keys keep the structs' order.
    """

    def __init__(self, file: TraceFile) -> None:
        self._file = file
        self._pending: list[bytes] = []
        self._encode = msgspec.json.Encoder().encode
        self._prefixes: dict[tuple[str | None, str | None], bytes] = {}

    def write(self, t_s: float, event: Event, device: str | None = None, node: str | None = None) -> None:
        """One record."""
        prefix = self._prefixes.get((device, node))
        if prefix is None:
            names = {"device": device, "node": node}
            fields = self._encode({key: value for key, value in names.items() if value is not None})[1:-1]
            prefix = self._prefixes[device, node] = b"," + fields + b"," if fields else b","
        self._pending.append(b'{"t":%.6f%b%b\n' % (t_s, prefix, self._encode(event)[1:]))
        if len(self._pending) >= 4096:
            self.flush()

    def flush(self) -> None:
        """Hand pending records to the operating system."""
        if self._pending:
            self._file.write(b"".join(self._pending))
            self._pending.clear()
        self._file.flush()


def read_trace(path: Path) -> Iterator[Record]:
    """The records of a trace file in order; raises InputError where a line is no record.

    A last line cut short (a run killed in the middle of a write) ends the iteration quietly.
    """
    decode = msgspec.json.Decoder(Record).decode
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            try:
                yield decode(line)
            except msgspec.DecodeError as error:
                if not line.endswith(b"\n"):
                    return
                raise InputError(f"line {number} is no trace record: {error}", file=path) from error


def merge_traces(shards: Iterable[Path], target: Path) -> int:
    """Merge the shards that several processes wrote into one file ordered by time; returns the number of
    records.

    Records of equal time keep the order of the shards as given. Torn last lines are left out.
    """
    records: list[tuple[float, int, int, bytes]] = []
    for index, shard in enumerate(shards):
        if not shard.exists():
            continue
        for number, line in enumerate(shard.read_bytes().splitlines(keepends=True)):
            if line.endswith(b"\n"):
                t_s = float(line[5 : line.index(b",", 5)])
                records.append((t_s, index, number, line))
    records.sort()
    with target.open("wb") as file:
        file.writelines(line for *_, line in records)
    return len(records)
