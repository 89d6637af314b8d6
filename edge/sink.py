"""The storage tier of the comparison: one machine that keeps what reaches it in its durable store.

In the emulation the store is SQLite. The key-value service takes this node's place.
"""

from __future__ import annotations

from edge.events import Stored
from edge.observation import Observed
from underlay.messages import Message, Protocol
from underlay.node import Address, Context, Node


class Kept(Message, frozen=True, array_like=True, tag=1):
    """To itself, once an observation is durable."""

    transport = "local"
    id: str


class Sink(Node):
    """Stores each observation once, under the key of the data model; a duplicate changes nothing."""

    protocol = Protocol("sink")

    def on_message(self, ctx: Context, sender: Address, message: Message) -> None:
        match message:
            case Observed(observation):
                key = observation.key()
                if ctx.store.get(key) is None:
                    ctx.store.put(key, observation.encode())
                    ctx.when_durable(Kept(str(observation.id)))
            case Kept(id):
                ctx.emit(Stored(id))
