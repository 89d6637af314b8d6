"""A node, or a binding, in its device's process: what its handlers are given, and its way to the sockets.

Owns one node's context (`underlay.node.Context`) and one engine's host (`underlay.plan.BindingHost`); when
anything happens is decided by the turn of their `driver`.
"""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING

from underlay.emulation.datagrams import Datagrams
from underlay.emulation.store_log import Disk
from underlay.emulation.streams import Hello, Streams
from underlay.emulation.work import Workers
from underlay.messages import MalformedMessage, Message
from underlay.network import seeded
from underlay.node import Address, Node, Timer, Work, address
from underlay.plan import Binding, BindingPlan, NodePlan
from underlay.trace import Event, Malformed

if TYPE_CHECKING:
    from underlay.emulation.driver import Driver


class Hosted:
    """A node in its process, and the `Context` its handlers get."""

    def __init__(self, driver: Driver, plan: NodePlan, disk: Disk) -> None:
        life = driver.life
        self.plan = plan
        self.node: Node = plan.make()
        self.device = life.device
        self.address = address(life.device, plan.name)
        self.rng: Random = seeded(life.seed, "node", self.address, life.number)
        self.store = disk.store(plan.name)
        self._driver = driver
        self._clock = life.clock
        self._datagrams: Datagrams | None = None
        self._streams = Streams(
            driver.loop,
            life.addresses[life.device],
            Hello(self.address, life.number),
            locate=driver.locate,
            on_frame=self._arrived,
            on_down=lambda peer: driver.call(self, self.node.on_peer_down, self, peer),
            on_malformed=lambda sender, reason: driver.trace(Malformed(sender, reason), plan.name),
            busy=driver.busy,
        )
        self.listen_again = self._streams.listen_again
        """Callers that had to wait are heard."""
        self._workers = Workers(driver.loop, lambda message: self.deliver("@run", message))

    # -------------------------------------------------------------------------------------------- the context

    @property
    def now(self) -> float:
        return self._clock.read(self._driver.t())

    def send(self, peer: Address, message: Message) -> None:
        driver = self._driver
        device, _, name = peer.partition("/")
        if device == self.device:
            local = driver.nodes.get(name)
            if local is not None:
                driver.send(self, local.deliver, self.address, message)
        elif peer.startswith("@"):
            host = driver.hosts.get(peer)
            if host is not None:
                driver.send(self, host.engine.send, self.plan.name, message)
        elif message.transport == "local":
            raise ValueError(f"{type(message).__name__} is local and cannot leave {self.device} for {peer}")
        else:
            data = self.node.protocol.encode(message)
            driver.send(self, self._transmit, peer, message, data)

    def give_up(self, peer: Address) -> None:
        self._driver.send(self, self._streams.give_up, peer)

    def set_timer(self, key: Timer, delay_s: float) -> None:
        delay_s = max(0.0, self._clock.global_delay(delay_s))
        self._driver.timers.set((self.plan.name, key), delay_s, self._announce, key)

    def cancel_timer(self, key: Timer) -> None:
        self._driver.timers.cancel((self.plan.name, key))

    def when_durable(self, message: Message) -> None:
        self._driver.when_durable(self.deliver, self.address, message)

    def run(self, key: str, work: Work) -> None:
        self._driver.send(self, self._workers.start, key, work)

    def cancel_run(self, key: str) -> None:
        self._driver.send(self, self._workers.cancel, key)

    def emit(self, event: Event) -> None:
        self._driver.trace(event, self.plan.name)

    # ----------------------------------------------------------------------------------------------- plumbing

    async def open(self) -> None:
        """Bind what the node's protocol needs."""
        transports = {message.transport for message in self.node.protocol.types}
        if "datagram" in transports:
            self._socket()
        if "stream" in transports:
            await self._streams.listen(self.plan.port)

    async def close(self) -> None:
        """Release the sockets, kill the work."""
        self._workers.cancel_all()
        await self._streams.close()
        if self._datagrams is not None:
            self._datagrams.close()

    def deliver(self, sender: Address, message: Message) -> None:
        """Hand a message to the node in the next turn, or in this one if it goes on."""
        self._driver.call(self, self.node.on_message, self, sender, message)

    def on_timer(self, key: Timer, token: int) -> None:
        """A timer was due when this turn began; an earlier handler of the turn may have cancelled it."""
        if self._driver.timers.take((self.plan.name, key), token):
            self.node.on_timer(self, key)

    def _transmit(self, peer: Address, message: Message, data: bytes) -> None:
        driver = self._driver
        device, _, name = peer.partition("/")
        copies, hops = 1, driver.hops.get(device, 0)
        if message.transport == "stream":
            self._streams.send(peer, data)
            driver.flush_later(self._streams)
        elif (port := driver.life.ports.get(name)) is not None:
            if device == "*":
                copies, hops = self._socket().broadcast(port, data), 1
            elif (ip := driver.life.addresses.get(device)) is not None:
                self._socket().send(ip, port, data)
        # An address that does not exist is silence, and what was said to it is counted.
        kind = type(message).__name__
        driver.count(self.plan.name, kind, message.carries_payload, len(data), hops, copies)

    def _socket(self) -> Datagrams:
        if self._datagrams is None:
            driver = self._driver
            ip = driver.life.addresses[self.device]
            self._datagrams = Datagrams(
                driver.loop, ip, self.plan.port, self._datagram, hears_broadcasts=not driver.life.on_loopback
            )
        return self._datagrams

    def _datagram(self, ip: str, port: int, data: memoryview) -> None:
        sender = self._driver.address_at(ip, port)
        if sender is None:
            self._driver.trace(Malformed(f"{ip}:{port}", "no node sends from there"), self.plan.name)
        else:
            self._arrived(sender, data)

    def _arrived(self, sender: Address, data: memoryview) -> None:
        try:
            message = self.node.protocol.decode(data)
        except MalformedMessage as error:
            self._driver.trace(Malformed(sender, str(error)), self.plan.name)
            return
        if message.transport == "local":
            self._driver.trace(Malformed(sender, f"{type(message).__name__} is local"), self.plan.name)
            return
        self.deliver(sender, message)

    def _announce(self, key: Timer, token: int) -> None:
        self._driver.call(self, self.on_timer, key, token)


class BindingHost:
    """What a binding's engine is offered (`underlay.plan.BindingHost`)."""

    def __init__(self, driver: Driver, plan: BindingPlan) -> None:
        self.engine: Binding = plan.engine()
        self.device = driver.life.device
        self.ip = driver.life.addresses[driver.life.device]
        self.run = driver.life.run
        self.folder = driver.life.store.parent
        self._driver = driver
        self._name = plan.name

    def ip_of(self, device: str) -> str:
        return self._driver.life.addresses[device]

    def device_at(self, ip: str) -> str | None:
        return self._driver.device_at(ip)

    def now(self) -> float:
        return self._driver.life.clock.read(self._driver.t())

    def deliver(self, node: str, message: Message) -> None:
        hosted = self._driver.nodes.get(node)
        if hosted is not None:
            hosted.deliver(self._name, message)

    def sent(self, message: str, size_bytes: int, *, payload: bool, to: str) -> None:
        self._driver.count(self._name, message, payload, size_bytes, self._driver.hops.get(to, 0))

    def emit(self, event: Event) -> None:
        self._driver.trace(event, self._name)
