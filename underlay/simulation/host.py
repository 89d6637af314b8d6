"""A simulated device: power, pause, its nodes, its disk, its one processor.

Owns what belongs to the whole device; a node's own world is in `incarnation`. Everything that would run on
the device passes `Host.later_if_paused`: while it is paused its programs stand still and what arrives waits.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from underlay.clock import DeviceClock
from underlay.messages import Message
from underlay.network import seeded
from underlay.node import Node, Work, WorkFailed
from underlay.simulation.agenda import Call
from underlay.simulation.carrier import Machine
from underlay.simulation.disk import Disk
from underlay.simulation.incarnation import Incarnation
from underlay.simulation.ways import Tally, Way
from underlay.trace import NodeStarted, ProcessEnded, TornWrite

if TYPE_CHECKING:
    from underlay.simulation.streams import Stream
    from underlay.simulation.world import World

BACKLOG_DATAGRAMS = 256
"""Datagrams that wait for one paused node: as many small ones as Linux's default receive buffer holds."""


class Endpoint:
    """A node's address: it outlives the node's incarnations. `receive` is where datagrams arrive."""

    __slots__ = (
        "address",
        "host",
        "incarnation",
        "is_model",
        "is_program",
        "live",
        "make",
        "name",
        "seen_as",
        "sent",
        "waiting",
        "ways",
    )

    def __init__(self, host: Host, name: str, make: Callable[[], Node], is_model: bool) -> None:
        self.host = host
        self.name = name
        self.make = make
        self.is_model = is_model
        self.is_program = is_model and not name.startswith("@")
        """It is a process of its own, unlike the device's nodes and bindings."""
        self.address = f"{host.name}/{name}"
        self.seen_as = name if name.startswith("@") else self.address
        self.incarnation = 0
        self.live: Incarnation | None = None
        self.waiting = 0
        """Datagrams in the backlog of a paused device."""
        self.ways: dict[str, Way] = {}
        self.sent: dict[type[Message], Tally] = {}

    def receive(self, sender: str, message: Message) -> None:
        """A datagram arrived from the network."""
        live = self.live
        if live is None:
            return
        if not self.host.paused:
            live.handle(live, sender, message)
            if live.uses_store:
                live.finish()
        elif self.waiting < BACKLOG_DATAGRAMS:
            self.waiting += 1
            self.host.backlog.append((self._receive_late, sender, message))

    def count(self, message: Message, size_bytes: int, hops: int, copies: int = 1) -> None:
        """Count a message handed to the network: a broadcast is a copy for each link and channel."""
        tally = self.sent.get(type(message))
        if tally is None:
            tally = self.sent[type(message)] = Tally(type(message))
        tally.count += copies
        tally.bytes += copies * size_bytes
        tally.hops += copies * hops

    def recoded(self, message: Message) -> Message:
        """What arrives in the place of `message`."""
        return message

    def _receive_late(self, sender: str, message: Message) -> None:
        self.waiting -= 1
        self.receive(sender, message)


class CheckedEndpoint(Endpoint):
    """Sends every message through its codec, as a real network would; for tests."""

    __slots__ = ()

    def receive(self, sender: str, message: Message) -> None:
        super().receive(sender, self.recoded(message))

    def recoded(self, message: Message) -> Message:
        """As decoded by the node's protocol; raises MalformedMessage if that does not understand it."""
        if message.wire_size() is not None or self.live is None:
            return message
        protocol = self.live.node.protocol
        return protocol.decode(protocol.encode(message))


class Processor:
    """Runs declared work one piece after another, each for its cost."""

    __slots__ = ("_host", "_queue", "_share")

    def __init__(self, host: Host, share: float) -> None:
        self._host = host
        self._share = share
        self._queue: deque[tuple[Incarnation, str, Work]] = deque()

    def add(self, owner: Incarnation, key: str, work: Work) -> None:
        self._queue.append((owner, key, work))
        if len(self._queue) == 1:
            self._begin()

    def lose_power(self) -> None:
        self._queue = deque()

    def _begin(self) -> None:
        agenda = self._host.world.agenda
        agenda.at(agenda.now + self._queue[0][2].cost_s / self._share, self._end, self._queue)

    def _end(self, queue: object, _: object) -> None:
        if self._queue is not queue or self._host.later_if_paused(self._end, queue, None):
            return
        owner, key, work = self._queue.popleft()
        if self._queue:
            self._begin()
        if owner.take_work(key, work):
            owner.receive_local("@run", _result(key, work))


class Host:
    """One device that runs nodes."""

    def __init__(self, world: World, machine: Machine, clock: DeviceClock, cpu_share: float | None) -> None:
        self.world = world
        self.machine = machine
        self.name = machine.name
        self.clock = clock
        self.paused = False
        self.backlog: list[tuple[Call, object, object]] = []
        self.endpoints: dict[str, Endpoint] = {}
        self.disk = Disk(
            world.agenda,
            lambda: seeded(world.plan.seed, "disk", self.name),
            world.plan.disk_sync_ms * 1e-3,
            self.later_if_paused,
            self.end,
        )
        self.processor = Processor(self, cpu_share or 1.0)

    def add(self, name: str, make: Callable[[], Node], *, is_model: bool) -> Endpoint:
        """Install a node; `start` starts it."""
        kind = CheckedEndpoint if self.world.check_codec else Endpoint
        endpoint = self.endpoints[name] = kind(self, name, make, is_model)
        return endpoint

    def start(self) -> None:
        """Start a new incarnation of whatever does not run."""
        started = [endpoint for endpoint in self.endpoints.values() if endpoint.live is None]
        if self.disk.start():
            self.world.emit_for(TornWrite(), self.name)
        for endpoint in started:
            endpoint.incarnation += 1
            endpoint.live = Incarnation(endpoint)
            if not endpoint.is_model:
                self.world.emit(NodeStarted(endpoint.incarnation), endpoint)
        for endpoint in started:
            if endpoint.live is not None:
                endpoint.live.start()

    @property
    def running(self) -> bool:
        """Whether everything that belongs on the device runs."""
        return all(endpoint.live is not None for endpoint in self.endpoints.values())

    def lose_power(self) -> None:
        """Drop everything that is not durable; nobody is told."""
        for endpoint in self.endpoints.values():
            self._drop(endpoint)
        self.backlog.clear()
        self.paused = False
        self.disk.stop()
        self.processor.lose_power()

    def end(self) -> None:
        """The process of the nodes and bindings ends by itself; the kernel resets their streams."""
        for endpoint in self.endpoints.values():
            if not endpoint.is_program:
                streams = self._drop(endpoint)
                for stream in streams:
                    stream.refuse()
        self.disk.stop()
        self.processor.lose_power()
        self.world.emit_for(ProcessEnded("nodes", 1), self.name)

    def pause(self) -> None:
        """Programs stand still; the kernel goes on."""
        self.paused = True

    def resume(self) -> None:
        """Programs go on with what waited, in order of arrival."""
        self.paused = False
        backlog, self.backlog = self.backlog, []
        for call, a, b in backlog:
            call(a, b)

    def _drop(self, endpoint: Endpoint) -> list[Stream]:
        """End a life; the streams that it had."""
        life, endpoint.live = endpoint.live, None
        endpoint.waiting = 0
        return [] if life is None else life.die()

    def later_if_paused(self, call: Call, a: object, b: object) -> bool:
        """Whether `call(a, b)` must wait, and then it is noted to be made at the resume."""
        if self.paused:
            self.backlog.append((call, a, b))
        return self.paused


def _result(key: str, work: Work) -> Message:
    try:
        return work.call(*work.args)
    except Exception as error:  # foreign code: whatever it raises is its result
        return WorkFailed(key, f"{type(error).__name__}: {error}")
