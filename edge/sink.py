"""The storage tier of the comparison: one machine that keeps what reaches it in its durable store.

In the emulation the store is SQLite. The key-value service takes this node's place.
"""

from __future__ import annotations

from edge.events import Stored
from edge.observation import Observed
from underlay.messages import Message, Protocol
from underlay.node import Address, Context, Node


class Kept(Message, frozen=True, array_like=True, tag=2):
    """To the node that handed an observation over: it is durable. Sent for every hand-over, duplicates
    included."""

    transport = "local"
    id: str


class _Durable(Message, frozen=True, array_like=True, tag=3):
    transport = "local"
    id: str
    handed_over_by: Address
    first: bool


class Sink(Node):
    """Stores each observation once, under the key of the data model; a duplicate changes nothing."""

    protocol = Protocol("sink")

    def on_message(self, ctx: Context, sender: Address, message: Message) -> None:
        match message:
            case Observed(observation):
                key = observation.key()
                first = ctx.store.get(key) is None
                if first:
                    ctx.store.put(key, observation.encode())
                # A duplicate waits too: the write of the first may still be under way.
                ctx.when_durable(_Durable(str(observation.id), sender, first))
            case _Durable(id, handed_over_by, first):
                if first:
                    ctx.emit(Stored(id))
                ctx.send(handed_over_by, Kept(id))
