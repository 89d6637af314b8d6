"""From a dissemination into the storage tier: what arrives at the sink is spooled, then written to the store.

Owns the spool: an observation is acknowledged to whoever handed it over when it is durable here, and leaves
the spool when the tier says that it is durable there, however long the tier is away. Whom to ask and how
often is `kv.client`'s. A retry writes the same value under the same key, so an outcome that is unknown is
simply tried again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from zlib import crc32

from edge.events import Stored
from edge.observation import Observation, Observed
from edge.sink import Kept
from gateway.events import ReadBack, SpoolFull
from kv.client import Client, Reply
from kv.messages import CLIENT_MESSAGES
from underlay.messages import Message, Protocol
from underlay.node import Address, Context, Node, Timer

LANES = 32
"""Writes under way at a time."""
SPOOL_BYTES_MAX = 64 * 1024 * 1024
_READ_BACK: Timer = "read-back"


class _Spooled(Message, frozen=True, array_like=True, tag=2):
    transport = "local"
    id: str
    handed_over_by: Address
    key: bytes
    first: bool


class Storing(Node):
    """Writes each observation to the storage tier.

    Args:
        connect: makes the client.
        read_back_at_s: when to read back all that was acknowledged, by the device's clock; None: never.
    """

    protocol = Protocol("storing", *CLIENT_MESSAGES)

    def __init__(
        self, connect: Callable[[int], Client[Context]], read_back_at_s: float | None = None
    ) -> None:
        self._client = connect(LANES)
        self._read_back_at_s = read_back_at_s
        self._waiting: dict[bytes, int] = {}
        """Keys in the spool, and their values' sizes."""
        self._spooled_bytes = 0
        self._stored: dict[bytes, tuple[str, int]] = {}
        """Keys that the tier has acknowledged: the observation's id and its value's checksum."""
        self._audit: _Audit | None = None

    def on_start(self, ctx: Context) -> None:
        for key, value in list(ctx.store.scan()):
            self._waiting[key] = len(value)
            self._spooled_bytes += len(value)
            self._write(ctx, key, value)
        if self._read_back_at_s is not None and ctx.now < self._read_back_at_s:
            ctx.set_timer(_READ_BACK, self._read_back_at_s - ctx.now)

    def on_message(self, ctx: Context, sender: Address, message: Message) -> None:
        match message:
            case Observed(observation):
                self._take(ctx, sender, observation)
            case _Spooled(id, handed_over_by, key, first):
                ctx.send(handed_over_by, Kept(id))
                value = ctx.store.get(key)
                if first and value is not None:
                    self._write(ctx, key, value)
            case _:
                self._client.on_message(ctx, sender, message)

    def on_timer(self, ctx: Context, timer: Timer) -> None:
        if timer == _READ_BACK:
            self._audit = _Audit(self._client, self._stored)
            self._audit.go_on(ctx)
        else:
            self._client.on_timer(ctx, timer)

    def on_peer_down(self, ctx: Context, peer: Address) -> None:
        self._client.on_peer_down(ctx, peer)

    # ------------------------------------------------------------------------------------------------ helpers

    def _take(self, ctx: Context, sender: Address, observation: Observation) -> None:
        key, id_ = observation.key(), str(observation.id)
        first = key not in self._waiting and key not in self._stored
        if first:
            value = observation.encode()
            if self._spooled_bytes + len(value) > SPOOL_BYTES_MAX:
                ctx.emit(SpoolFull(id_, self._spooled_bytes))
                return
            ctx.store.put(key, value)
            self._waiting[key] = len(value)
            self._spooled_bytes += len(value)
        # A duplicate waits too: the write of the first may still be under way.
        ctx.when_durable(_Spooled(id_, sender, key, first))

    def _write(self, ctx: Context, key: bytes, value: bytes) -> None:
        def done(ctx: Context, reply: Reply) -> None:
            if reply.outcome is None or reply.outcome.failure:
                self._write(ctx, key, value)
            else:
                self._acknowledged(ctx, key, value)

        self._client.call(ctx, (b"SET", key, value), done)

    def _acknowledged(self, ctx: Context, key: bytes, value: bytes) -> None:
        id_ = str(Observation.decode(value).id)
        self._stored[key] = (id_, crc32(value))
        self._spooled_bytes -= self._waiting.pop(key)
        ctx.store.delete(key)
        ctx.emit(Stored(id_))


class _Audit:
    """Asks for everything again, a few at a time."""

    def __init__(self, client: Client[Context], stored: dict[bytes, tuple[str, int]]) -> None:
        self._client = client
        self._left = deque((key, *expected) for key, expected in stored.items())
        self._checked = len(stored)
        self._asked = 0
        self._missing: list[str] = []

    def go_on(self, ctx: Context) -> None:
        """Ask for more; says what is missing once everything has been answered."""
        while self._left and self._asked < LANES:
            key, id_, checksum = self._left.popleft()
            self._asked += 1
            self._client.call(ctx, (b"GET", key), self._compare(key, id_, checksum))
        if not self._asked and not self._left:
            ctx.emit(ReadBack(self._checked, tuple(self._missing)))

    def _compare(self, key: bytes, id_: str, checksum: int) -> Callable[[Context, Reply], None]:
        def done(ctx: Context, reply: Reply) -> None:
            self._asked -= 1
            if reply.outcome is None or reply.outcome.failure:  # no answer is no proof of anything
                self._left.append((key, id_, checksum))
            elif not isinstance(reply.outcome.value, bytes) or crc32(reply.outcome.value) != checksum:
                self._missing.append(id_)
            self.go_on(ctx)

        return done
