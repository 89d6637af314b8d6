"""Nodes joined by a fake wire in virtual time: every message is logged, and a device can be cut off or
restarted.

For transcripts of the protocol's cores. Loss, queues and TCP are the simulation's and not here: what is sent
arrives 10 ms later, in order, unless either device is cut off, when it is silence.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from itertools import count
from random import Random
from typing import TypeVar

import msgspec

from underlay.messages import Message
from underlay.node import Address, Node, Timer, Work, device_of
from underlay.store import OrderedMap
from underlay.trace import Event

DELAY_S = 0.01

E = TypeVar("E", bound=Event)


class Wire:
    """A handful of devices."""

    def __init__(self, seed: int = 0) -> None:
        self.now = 0.0
        self.seed = seed
        self.log: list[str] = []
        """Packets, in the order they were sent."""
        self.packets: list[tuple[str, str, Message]] = []
        """Sender, receiver and packet."""
        self.local: dict[str, list[Message]] = {}
        """What each device's nodes and its MQTT client said to each other."""
        self.events: list[tuple[str, Event]] = []
        self.cut: dict[str, bool] = {}
        self.deaf: dict[str, bool] = {}
        """Nothing reaches these devices, but they are heard."""
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._sequence = count()
        self._makers: dict[Address, Callable[[], Node]] = {}
        self._stores: dict[Address, OrderedMap] = {}
        self.contexts: dict[Address, WireContext] = {}

    def add(self, at: Address, make: Callable[[], Node]) -> None:
        """Install a node and start it."""
        self._makers[at] = make
        self._stores[at] = OrderedMap()
        self._start(at)

    def crash(self, device: str) -> None:
        """Memory is gone, the store stays; nobody is told."""
        for at in self._makers:
            if device_of(at) == device:
                self.contexts.pop(at, None)

    def reset(self, device: str) -> None:
        """Every stream to the device fails, and the others are told."""
        for at in [at for at in self._makers if device_of(at) == device]:
            for context in list(self.contexts.values()):
                if context.device != device:
                    context.node.on_peer_down(context, at)

    def restart(self, device: str) -> None:
        """New incarnations."""
        for at in self._makers:
            if device_of(at) == device:
                self._start(at)

    def tell(self, at: Address, sender: Address, message: Message) -> None:
        """Deliver a message to a node from outside, now."""
        self.after(0.0, lambda: self._deliver(self.contexts.get(at), sender, message))
        self.run(0.0)

    def run(self, for_s: float) -> None:
        """Let virtual time pass."""
        end_s = self.now + for_s
        while self._heap and self._heap[0][0] <= end_s:
            self.now, _, call = heapq.heappop(self._heap)
            call()
        self.now = end_s

    def events_of(self, kind: type[E]) -> list[E]:
        """What was emitted, of one type."""
        return [event for _, event in self.events if isinstance(event, kind)]

    def after(self, delay_s: float, call: Callable[[], None]) -> None:
        heapq.heappush(self._heap, (self.now + delay_s, next(self._sequence), call))

    def post(self, sender: WireContext, peer: Address, message: Message) -> None:
        """What a context sends."""
        if peer.startswith("@") or device_of(peer) == sender.device:
            name = peer if peer.startswith("@") else peer.partition("/")[2]
            seen_as = sender.name if sender.name.startswith("@") else sender.address
            at = f"{sender.device}/{name}"
            if "@" in name + seen_as:
                self.local.setdefault(sender.device, []).append(message)
            self.after(0.0, lambda: self._deliver(self.contexts.get(at), seen_as, message))
            return
        receiver = device_of(peer)
        if not (self.cut.get(sender.device) or self.cut.get(receiver) or self.deaf.get(receiver)):
            self.packets.append((sender.device, receiver, message))
            self.log.append(f"{self.now:7.2f}  {sender.device} > {receiver}  {describe(message)}")
            self.after(DELAY_S, lambda: self._deliver(self.contexts.get(peer), sender.address, message))

    def _deliver(self, context: WireContext | None, sender: Address, message: Message) -> None:
        if context is not None:
            context.node.on_message(context, sender, message)

    def _start(self, at: Address) -> None:
        context = self.contexts[at] = WireContext(self, at, self._makers[at](), self._stores[at])
        context.node.on_start(context)


class WireContext:
    """`underlay.node.Context` on the wire."""

    def __init__(self, wire: Wire, at: Address, node: Node, store: OrderedMap) -> None:
        self.address = at
        self.device, _, self.name = at.partition("/")
        self.node = node
        self.store = store
        self.rng = Random(f"{wire.seed} {at}")
        self._wire = wire
        self._timers: dict[Timer, object] = {}

    @property
    def now(self) -> float:
        return self._wire.now

    def send(self, peer: Address, message: Message) -> None:
        self._wire.post(self, peer, message)

    def set_timer(self, key: Timer, delay_s: float) -> None:
        mark = self._timers[key] = object()
        self._wire.after(delay_s, lambda: self._fire(key, mark))

    def give_up(self, peer: Address) -> None:
        raise AssertionError("the star has no streams of its own")

    def cancel_timer(self, key: Timer) -> None:
        self._timers.pop(key, None)

    def when_durable(self, message: Message) -> None:
        self._wire.after(0.0, lambda: self.node.on_message(self, self.address, message))

    def run(self, key: str, work: Work) -> None:
        raise AssertionError("the star runs no work")

    def cancel_run(self, key: str) -> None:
        raise AssertionError("the star runs no work")

    def emit(self, event: Event) -> None:
        self._wire.events.append((self.device, event))

    def _fire(self, key: Timer, mark: object) -> None:
        alive = self._wire.contexts.get(self.address) is self
        if alive and self._timers.get(key) is mark:
            del self._timers[key]
            self.node.on_timer(self, key)


def describe(message: Message) -> str:
    """A message on one line, without what every line would repeat."""
    fields = msgspec.structs.asdict(message)
    fields.pop("version", None)
    fields = {
        key: value for key, value in fields.items() if value not in (None, False) or key == "session_present"
    }
    if "payload" in fields:
        fields["payload"] = f"{len(fields['payload'])} B"
    text = " ".join(f"{key}={value}" for key, value in fields.items())
    return f"{type(message).__name__.removesuffix('Packet').upper()} {text}"
