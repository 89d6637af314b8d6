"""A group of one: a `Replication` that needs nobody, for tests of what stands on either side of that seam."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec

from kv.operations import Operation
from kv.replication import Machine, Owner, Token
from underlay.messages import Message
from underlay.node import Address, Context, Timer
from underlay.store import prefix_end

_META = b"p"
_RECORDS = b"m"


class Solo:
    """Executes what is proposed at once, and makes it durable before anybody hears of it.

    `Server("g1", Solo, machine)` is a whole service.
    """

    protocol: tuple[type[Message], ...] = ()

    def __init__(self, owner: Owner, machine: Machine) -> None:
        self._owner = owner
        self._machine = machine
        self._position = 0
        self._time_s = 0.0
        self.leading = False
        self.leader: Address | None = None

    def on_start(self, ctx: Context) -> None:
        meta = ctx.store.get(_META)
        if meta is not None:
            self._position, self._time_s = msgspec.msgpack.decode(meta, type=tuple[int, float])
        self._machine.restore(_records(ctx))
        self.leading, self.leader = True, ctx.address
        self._owner.took_office(ctx)

    def on_message(self, ctx: Context, sender: Address, message: Message) -> None:
        """It has no messages."""

    def on_timer(self, ctx: Context, timer: Timer) -> None:
        """It has no timers."""

    def on_peer_down(self, ctx: Context, peer: Address) -> None:
        """It has no peers."""

    def propose(self, ctx: Context, operations: Sequence[Operation], token: Token) -> None:
        self._position += 1
        self._time_s = max(self._time_s, ctx.now)
        outcomes = [self._machine.execute(operation, self._time_s) for operation in operations]
        for key, value in self._machine.take_changes().items():
            if value is None:
                ctx.store.delete(_RECORDS + key)
            else:
                ctx.store.put(_RECORDS + key, value)
        ctx.store.put(_META, msgspec.msgpack.encode((self._position, self._time_s)))
        self._owner.applied(ctx, token, outcomes)

    def read(self, ctx: Context, token: Token) -> None:
        self._owner.readable(ctx, token)

    def describe(self) -> dict[str, object]:
        return {
            "role": "leader" if self.leading else "idle",
            "leader": self.leader or "",
            "ballot": "1",
            "members": (self.leader,) if self.leader else (),
            "chosen": self._position,
            "applied": self._position,
            "stored_from": self._position + 1,
        }


def _records(ctx: Context) -> Iterator[tuple[bytes, bytes]]:
    for key, value in ctx.store.scan(_RECORDS, prefix_end(_RECORDS)):
        yield key[len(_RECORDS) :], value
