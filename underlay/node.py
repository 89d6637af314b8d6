"""The node contract: what protocol code is given, and what it must never do.

All protocol logic is a `Node`: synchronous handlers that run to completion, one at a time, given a `Context`.
A handler never reads a clock, opens a socket, touches global randomness, sleeps, awaits, or iterates an
unordered set; whatever it needs of the world is on the context. The same node runs unchanged in virtual time
(`underlay.simulation`) and in a real process in a network namespace (`underlay.emulation`).

The contract in three sentences a reader should be able to recite:
1. No send issued after a write leaves before that write is durable.
2. A crash drops the objects; what was durable is in `ctx.store` at the next `on_start`.
3. Messages to a device that is down, or across a link that is cut, are silence.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from random import Random
from typing import ClassVar, Protocol

import msgspec

from underlay.messages import Message
from underlay.messages import Protocol as MessageProtocol
from underlay.store import Store
from underlay.trace import Event

Address = str
"""Where a message goes or came from:

- `"cam3/gossip"`: the node `gossip` on the device `cam3`;
- `"*/gossip"`: every node of that name one hop away (datagrams only; on a shared channel one transmission);
- `"@mqtt"`: the binding of that name on this device (a protocol engine such as an MQTT client);
- anything else that arrived as `sender`, such as `"caller:17"`: an opaque handle of a caller from outside the
  network, good for sending it stream messages until `on_peer_down` names it; what is sent later is dropped.
"""

Timer = Hashable
"""A timer is named by any hashable key; setting the same key again moves it."""


def address(device: str, node: str) -> Address:
    """`address("cam3", "gossip") == "cam3/gossip"`."""
    return f"{device}/{node}"


def in_range(node: str) -> Address:
    """Everybody one hop away who runs a node of that name."""
    return f"*/{node}"


def device_of(peer: Address) -> str:
    """`device_of("cam3/gossip") == "cam3"`."""
    return peer.partition("/")[0]


class Work(msgspec.Struct, frozen=True):
    """Long or foreign work for `ctx.run`: a picklable call, and what the simulation charges for it."""

    call: Callable[..., Message]
    """Runs outside the handler; what it returns is delivered to the node as a message from `"@run"`."""
    args: tuple[object, ...] = ()
    cost_s: float = 0.0
    """Seconds of the device's CPU that the simulation charges."""


class WorkFailed(Message, frozen=True, array_like=True, tag=1):
    """Delivered from `"@run"` when the work raised, crashed or was killed."""

    transport = "local"
    key: str
    reason: str


class Context(Protocol):
    """What a handler may touch. Valid only while the handler runs."""

    @property
    def address(self) -> Address:
        """This node's own address, `device/node`."""

    @property
    def device(self) -> str:
        """The device this node runs on."""

    @property
    def now(self) -> float:
        """The device's own clock in seconds. It may be offset and drift; the trace stamps global time."""

    @property
    def rng(self) -> Random:
        """Seeded from (run seed, node address, incarnation)."""

    @property
    def store(self) -> Store:
        """The node's durable ordered byte map; the writes of one handler are one atomic batch."""

    def send(self, peer: Address, message: Message) -> None:
        """Queue `message` for `peer`; it leaves after the handler, once the writes issued before it are
        durable."""

    def give_up(self, peer: Address) -> None:
        """Reset the stream to `peer`, if there is one: what was sent on it and has not arrived is lost, and
        the next send opens another. For a peer that is known to be reachable again, while the stream waits
        ever longer before it tries; this node gets no `on_peer_down` for it."""

    def set_timer(self, key: Timer, delay_s: float) -> None:
        """Call `on_timer(ctx, key)` once, `delay_s` seconds of the device's clock from now."""

    def cancel_timer(self, key: Timer) -> None:
        """Forget the timer; unknown keys are fine."""

    def when_durable(self, message: Message) -> None:
        """Deliver `message` to this node itself once this handler's writes are durable."""

    def run(self, key: str, work: Work) -> None:
        """Start `work`; its result comes back as a message from `"@run"`. The same key again replaces it."""

    def cancel_run(self, key: str) -> None:
        """Stop the work of that key; no result will come."""

    def emit(self, event: Event) -> None:
        """Write `event` to the trace, and only there."""


class Node:
    """Base of all nodes. Handlers default to ignoring what they are told."""

    protocol: ClassVar[MessageProtocol]
    """Every message that reaches this node over the network. Local messages need not be listed."""

    def on_start(self, ctx: Context) -> None:
        """First start, or restart after a crash: durable state is in `ctx.store`, memory is fresh."""

    def on_message(self, ctx: Context, sender: Address, message: Message) -> None:
        """A message arrived. Datagrams may be duplicated, reordered, lost."""

    def on_timer(self, ctx: Context, timer: Timer) -> None:
        """The timer of that key is due."""

    def on_peer_down(self, ctx: Context, peer: Address) -> None:
        """A stream to `peer` was reset or could not be opened; messages on it may or may not have arrived."""
