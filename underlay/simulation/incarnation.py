"""One life of a node, from start to crash: the `Context` that its handlers are given.

Owns its timers, its random stream, its view of the store, and the rule that no send leaves before the writes
that it follows are durable. A handler without writes pays nothing for that rule: its sends leave as they are
issued, which in virtual time is the same moment as after the handler.
"""

from __future__ import annotations

from heapq import heappush
from random import Random
from typing import TYPE_CHECKING, Any

from underlay.messages import Message
from underlay.network import seeded
from underlay.node import Address, Timer, Work
from underlay.simulation.disk import Commit, Waiting
from underlay.simulation.ways import Way
from underlay.store import OrderedMap
from underlay.trace import Event

if TYPE_CHECKING:
    from underlay.simulation.host import Endpoint
    from underlay.simulation.streams import Stream


class Incarnation:
    """A running node and its context (`underlay.node.Context`)."""

    __slots__ = (
        "_agenda", "_barrier", "_clock_offset_s", "_clock_rate", "_held", "_rng", "_store", "_timers",
        "_ways", "_works", "address", "alive", "device", "endpoint", "ends", "handle", "host", "node",
        "streams", "uses_store",
    )  # fmt: skip

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self.host = endpoint.host
        self.address: Address = endpoint.address
        self.device = self.host.name
        self.alive = True
        self.uses_store = False
        """Whether `finish` must be called after each handler."""
        self.node = endpoint.make()
        self.handle = self.node.on_message
        self._agenda = self.host.world.agenda
        self._clock_offset_s = self.host.clock.read(0.0)
        self._clock_rate = 1.0 / self.host.clock.global_delay(1.0)
        self._rng: Random | None = None
        self._store: OrderedMap | None = None
        self._timers: dict[Timer, int] = {}
        self._works: dict[str, Work] = {}
        self.streams: dict[Address, Stream] = {}
        """The stream on which to send to a peer."""
        self.ends: dict[Stream, None] = {}
        """All streams that end here, those included that a peer opened while ours was opening."""
        self._ways: dict[Address, Way] = endpoint.ways
        self._held: list[Waiting] = []
        self._barrier: Commit | None = None

    # -------------------------------------------------------------------------------- what handlers may touch

    @property
    def now(self) -> float:
        return self._clock_offset_s + self._agenda.now * self._clock_rate

    @property
    def rng(self) -> Random:
        if self._rng is None:
            self._rng = seeded(self.host.world.plan.seed, "node", self.address, self.endpoint.incarnation)
        return self._rng

    @property
    def store(self) -> OrderedMap:
        if self._store is None:
            self._store = OrderedMap(self.host.disk.durable(self.endpoint.name))
            self.uses_store = True
        return self._store

    def send(self, peer: Address, message: Message) -> None:
        if self._store is None:
            self.transmit(peer, message)
        else:
            self._when_durable((self.transmit, peer, message))

    def give_up(self, peer: Address) -> None:
        if self._store is None:
            self._abandon(peer, None)
        else:
            self._when_durable((self._abandon, peer, None))

    def when_durable(self, message: Message) -> None:
        self._when_durable((self._deliver_soon, self.address, message))

    def set_timer(self, key: Timer, delay_s: float) -> None:
        agenda = self._agenda
        token = next(agenda.sequence)
        self._timers[key] = token
        due_s = agenda.now + (delay_s / self._clock_rate if delay_s > 0.0 else 0.0)
        heappush(agenda.heap, (due_s, token, self._fire, key, token, None))

    def cancel_timer(self, key: Timer) -> None:
        self._timers.pop(key, None)

    def run(self, key: str, work: Work) -> None:
        self._works[key] = work
        self.host.processor.add(self, key, work)

    def cancel_run(self, key: str) -> None:
        self._works.pop(key, None)

    def emit(self, event: Event) -> None:
        self.host.world.emit(event, self.endpoint)

    # ------------------------------------------------------------------------------------ what the host calls

    def start(self) -> None:
        """Run `on_start`."""
        self.node.on_start(self)
        self.finish()

    def die(self) -> list[Stream]:
        """The end: nothing that was under way inside the device reaches this life any more. Returns the
        streams that it had, which nobody has been told about."""
        self.alive = False
        self._timers.clear()
        self._works.clear()
        for stream in self.ends:
            stream.lose_power()
        return list(self.ends)

    def receive_local(self, sender: Address, message: Message) -> None:
        """A message from this device: another node, a binding, finished work, or the node itself."""
        if self.alive and not self.host.later_if_paused(self.receive_local, sender, message):
            self.handle(self, sender, message)
            self.finish()

    def peer_down(self, peer: Address, _: object = None) -> None:
        """A stream to `peer` was reset."""
        if self.alive and not self.host.later_if_paused(self.peer_down, peer, None):
            self.node.on_peer_down(self, peer)
            self.finish()

    def forget(self, stream: Stream) -> None:
        """The stream is closed; the next send to its peer opens another."""
        self.ends.pop(stream, None)
        if self.streams.get(stream.peer) is stream:
            del self.streams[stream.peer]

    def forget_earlier(self, stream: Stream) -> None:
        """The peer of `stream` greets: streams with its earlier incarnations have no other end any more."""
        for earlier in [end for end in self.ends if end.peer == stream.peer and end is not stream]:
            if earlier.remote is not None and not earlier.remote.owner.alive:
                earlier.replaced = False  # of a stream that greets, the node is told
                earlier.close()
        self.streams.setdefault(stream.peer, stream)

    def take_work(self, key: str, work: Work) -> bool:
        """Whether the result of `work` is still wanted."""
        return self._works.get(key) is work and self._works.pop(key) is work

    def finish(self) -> None:
        """A handler is over: what it wrote becomes one atomic batch, and what it sent after them waits."""
        store = self._store
        if store is not None and store.dirty:
            self._barrier = self.host.disk.write(self.endpoint.name, store.take_batch())
            self._barrier.waiting += self._held
            self._barrier.waiting.append((self._lift, self._barrier, None))
            self._held.clear()

    def transmit(self, peer: Address, message: Message) -> None:
        """Send now; all writes before it are durable."""
        way = self._ways.get(peer)
        if way is None:
            way = self._ways[peer] = self.host.world.post.way(self.endpoint, peer)
        way.send(self, message)

    # ------------------------------------------------------------------------------------------------ helpers

    def _abandon(self, peer: Address, _: object) -> None:
        stream = self.streams.get(peer)
        if stream is not None:
            stream.abandon()

    def _when_durable(self, waiting: Waiting) -> None:
        if self._store is not None and self._store.dirty:
            self._held.append(waiting)
        elif self._barrier is not None:
            self._barrier.waiting.append(waiting)
        else:
            call, a, b = waiting
            call(a, b)

    def _lift(self, barrier: Commit, _: object) -> None:
        if self._barrier is barrier:
            self._barrier = None

    def _deliver_soon(self, sender: Address, message: Message) -> None:
        self._agenda.soon(self.receive_local, sender, message)

    def _fire(self, key: Any, token: int) -> None:
        if self._timers.get(key) != token or self.host.later_if_paused(self._fire, key, token):
            return
        del self._timers[key]
        self.node.on_timer(self, key)
        if self.uses_store:
            self.finish()
