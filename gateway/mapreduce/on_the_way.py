"""Aggregates combined on the way: what a job would reduce at the storage hosts, merged hop by hop.

A tree to the gateway's device, made of the healthy network's routes. In every epoch each device sends its
parent what has changed since: for each key one packed state, its own sensors' and its children's merged.
Devices nearer to the gateway wait one slot longer for each level below them, so that one message carries all
that is beneath.

Nothing counts twice and nothing that was taken in is lost: what is pending is durable, a batch is sent again
until the parent has acknowledged it, and the parent remembers the number of each child's last batch in the
same write as its states. The price is that a batch waits for its parent, however long that is away, where TAG
would choose another one and bear with the error.

No stranger's code runs in these handlers: only jobs are combined so that group by attributes as they are.

Source: Madden, Franklin, Hellerstein, Hong, "TAG: a Tiny AGgregation Service for Ad-Hoc Sensor Networks"
(OSDI 2002), §3.2 (epochs and slots), §4.1 (partial state records).
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping
from math import floor
from typing import ClassVar

import msgspec

from edge.observation import Observed
from gateway.mapreduce.errors import JobFailed
from gateway.mapreduce.events import CombinedRows
from gateway.mapreduce.job import JobSource, load
from gateway.mapreduce.operators import Grouping
from gateway.mapreduce.records import Record
from gateway.mapreduce.runs import frame
from underlay.messages import Message, Protocol
from underlay.node import Address, Context, Node, Timer, address

NAME = "combine"
PORT = 7096
PAIRS_BYTES_MAX = 40 * 1024
"""Of one batch; what is more goes into the next."""
AGAIN_S = 3.0
"""A batch that was not acknowledged for so long is sent again."""
ROWS_BYTES_MAX = 24 * 1024
_STATE, _OUT, _FROM, _RECORDS, _SEQUENCE = b"s", b"o", b"f", b"n", b"q"
_EPOCH: Timer = "epoch"
_AGAIN: Timer = "again"
_RESULT: Timer = "result"

Pairs = tuple[tuple[bytes, bytes], ...]


class Partial(Message, frozen=True, array_like=True, tag=350):
    """A child's batch: states by key, and of how many records they are."""

    transport = "stream"
    carries_payload = True
    job: int
    number: int
    records: int
    pairs: Pairs


class PartialKept(Message, frozen=True, array_like=True, tag=351):
    """The parent has it."""

    transport = "stream"
    job: int
    number: int


class _Kept(Message, frozen=True, array_like=True, tag=352):
    """To the node itself, once durable."""

    transport = "local"
    to: Address
    reply: PartialKept


class CombineConfig(msgspec.Struct, frozen=True):
    """One device's place.

    Args:
        jobs: what is combined; each with when its result is told by the root, by its clock.
        parent: the device that is sent to; empty: this is the root.
        level: hops to the root.
        levels: of the deepest device.
        epoch_s: between two batches.
        slot_s: how much longer each level waits.
    """

    jobs: tuple[tuple[float, JobSource], ...]
    parent: str
    level: int
    levels: int
    epoch_s: float
    slot_s: float


def combinable(source: JobSource) -> Grouping:
    """What a job does, if it can be done on the way. Raises JobFailed with the reason why it cannot."""
    operator = load(source).does
    if not isinstance(operator, Grouping):
        raise JobFailed(f"job {source.name}: only aggregates are combined on the way, no own functions")
    if operator.plain_key is None or not operator.plain_values or operator.where is not None:
        raise JobFailed(
            f"job {source.name}: on the way only attributes as they are (device, kind, ...) and the "
            "reading's value can be used, no functions"
        )
    return operator


class Combine(Node):
    """One device's part."""

    protocol: ClassVar[Protocol] = Protocol("combine", Partial, PartialKept)

    def __init__(self, config: CombineConfig) -> None:
        self._config = config
        self._work = [_Combining(n, source) for n, (_, source) in enumerate(config.jobs)]

    def on_start(self, ctx: Context) -> None:
        for work in self._work:
            work.load(ctx)
        self._next_epoch(ctx)
        if self._config.parent:
            ctx.set_timer(_AGAIN, AGAIN_S)
            return
        for n, (at_s, _) in enumerate(self._config.jobs):
            if ctx.now <= at_s:
                ctx.set_timer((_RESULT, n), at_s - ctx.now)

    def on_message(self, ctx: Context, sender: Address, message: Message) -> None:
        match message:
            case Observed(observation):
                record = Record.of(observation)
                for work in self._work:
                    work.take(ctx, record)
            case Partial(job) if 0 <= job < len(self._work):
                self._work[job].merge(ctx, sender, message)
                ctx.when_durable(_Kept(sender, PartialKept(job, message.number)))
            case PartialKept(job, number) if 0 <= job < len(self._work):
                self._work[job].kept(ctx, number)
            case _Kept(to, reply):
                ctx.send(to, reply)

    def on_timer(self, ctx: Context, timer: Timer) -> None:
        match timer:
            case "epoch":
                for work in self._work:
                    if self._config.parent:
                        work.send(ctx, address(self._config.parent, NAME))
                self._next_epoch(ctx)
            case "again":
                for work in self._work:
                    work.send_again(ctx, address(self._config.parent, NAME))
                ctx.set_timer(_AGAIN, AGAIN_S)
            case ("result", int(n)):
                self._work[n].tell(ctx)

    def _next_epoch(self, ctx: Context) -> None:
        """Batches leave at the same place in every epoch: the deepest level first."""
        config = self._config
        offset_s = (config.levels - config.level) * config.slot_s
        epochs = floor((ctx.now - offset_s) / config.epoch_s) + 1
        wait_s = epochs * config.epoch_s + offset_s - ctx.now
        if wait_s < config.epoch_s / 2:  # this one: a quotient that was rounded down
            wait_s += config.epoch_s
        ctx.set_timer(_EPOCH, wait_s)


class _Combining:
    """One job on one device: what is pending, what is on its way."""

    def __init__(self, number: int, source: JobSource) -> None:
        self._number = number
        self._source = source
        self._operator = combinable(source)
        self._takes = load(source).source.takes()
        self._states: dict[bytes, bytes] = {}
        self._records = 0
        self._out: Partial | None = None
        self._sent_s = 0.0
        self._sequence = 0
        self._had: dict[str, int] = {}

    def load(self, ctx: Context) -> None:
        """What is durable of it."""
        prefix = self._key(_STATE)
        self._states = {key[len(prefix) :]: value for key, value in ctx.store.scan(prefix, _end(prefix))}
        self._records = int(ctx.store.get(self._key(_RECORDS)) or 0)
        self._sequence = int(ctx.store.get(self._key(_SEQUENCE)) or 0)
        out = ctx.store.get(self._key(_OUT))
        self._out = None if out is None else msgspec.msgpack.decode(out, type=Partial)
        prefix = self._key(_FROM)
        self._had = {
            key[len(prefix) :].decode(): int(value) for key, value in ctx.store.scan(prefix, _end(prefix))
        }

    def take(self, ctx: Context, record: Record) -> None:
        """One of this device's own observations."""
        if not self._takes(record):
            return
        collector = self._operator.collector()
        collector.take(record)
        self._add(ctx, 1, tuple(collector.drain()))

    def merge(self, ctx: Context, sender: Address, partial: Partial) -> None:
        """A child's batch, unless it was here before."""
        if partial.number > self._had.get(sender, 0):
            self._had[sender] = partial.number
            ctx.store.put(self._key(_FROM) + sender.encode(), b"%d" % partial.number)
            self._add(ctx, partial.records, partial.pairs)

    def send(self, ctx: Context, parent: Address) -> None:
        """What is pending becomes a batch, if none is on its way."""
        if self._out is not None or not self._states:
            return
        pairs: list[tuple[bytes, bytes]] = []
        size_bytes = 0
        for key in sorted(self._states):
            size_bytes += len(key) + len(self._states[key])
            if pairs and size_bytes > PAIRS_BYTES_MAX:
                break
            pairs.append((key, self._states[key]))
        for key, _ in pairs:
            del self._states[key]
            ctx.store.delete(self._key(_STATE) + key)
        records, self._records = (self._records, 0)
        self._sequence += 1
        self._out = Partial(self._number, self._sequence, records, tuple(pairs))
        ctx.store.put(self._key(_RECORDS), b"0")
        ctx.store.put(self._key(_SEQUENCE), b"%d" % self._sequence)
        ctx.store.put(self._key(_OUT), msgspec.msgpack.encode(self._out))
        self._sent_s = ctx.now
        ctx.send(parent, self._out)

    def send_again(self, ctx: Context, parent: Address) -> None:
        """A batch that has been on its way for long."""
        if self._out is not None and ctx.now - self._sent_s >= AGAIN_S:
            self._sent_s = ctx.now
            ctx.give_up(parent)
            ctx.send(parent, self._out)

    def kept(self, ctx: Context, number: int) -> None:
        """The parent has a batch."""
        if self._out is not None and self._out.number == number:
            self._out = None
            ctx.store.delete(self._key(_OUT))

    def tell(self, ctx: Context) -> None:
        """The root: what has come so far, into the trace."""
        job = load(self._source)
        rows: list[bytes] = []
        size_bytes = 0
        chunk = 0
        for key in sorted(self._states):
            for row in self._operator.finish(key, iter((self._states[key],)), float("inf")):
                data = frame(key, row)
                if size_bytes + len(data) > ROWS_BYTES_MAX:
                    self._emit(ctx, job.key_names, job.window_s, chunk, rows)
                    rows, size_bytes, chunk = [], 0, chunk + 1
                rows.append(data)
                size_bytes += len(data)
        self._emit(ctx, job.key_names, job.window_s, chunk, rows)

    def _emit(
        self, ctx: Context, key_names: tuple[str, ...], window_s: float, chunk: int, rows: list[bytes]
    ) -> None:
        data = b64encode(b"".join(rows)).decode()
        states_bytes = sum(len(key) + len(value) for key, value in self._states.items())
        ctx.emit(
            CombinedRows(
                self._number, self._source.name, key_names, window_s, self._records, states_bytes, chunk, data
            )
        )

    def _add(self, ctx: Context, records: int, pairs: Pairs) -> None:
        for key, value in pairs:
            before = self._states.get(key)
            if before is not None:
                (value,) = self._operator.combine(key, iter(sorted((before, value))))
            self._states[key] = value
            ctx.store.put(self._key(_STATE) + key, value)
        self._records += records
        ctx.store.put(self._key(_RECORDS), b"%d" % self._records)

    def _key(self, what: bytes) -> bytes:
        return b"%d" % self._number + what


def _end(prefix: bytes) -> bytes:
    return prefix[:-1] + bytes([prefix[-1] + 1])


def tree(parents: Mapping[str, str]) -> dict[str, int]:
    """Hops of each device to the root, from its parent (the root's is empty).

    >>> tree({"sink": "", "hub": "sink", "cam1": "hub"})
    {'sink': 0, 'hub': 1, 'cam1': 2}
    """
    levels = {}
    for device in parents:
        at, hops = device, 0
        while parents[at]:
            at, hops = parents[at], hops + 1
        levels[device] = hops
    return levels
