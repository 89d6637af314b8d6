"""How a message gets from a node to a peer: locally, one hop in the open, or along the routes.

Owns the choice, made once per (node, peer) until routes change, and the bytes a message costs: size above the
transport, UDP and IP headers, and who counts it. Streams have a module of their own.
"""

from __future__ import annotations

from heapq import heappush
from typing import TYPE_CHECKING, Protocol

from underlay.messages import Message
from underlay.node import Address
from underlay.simulation.agenda import Agenda, Call
from underlay.simulation.carrier import INTERFACE_MTU_BYTES, Machine, fragment_sizes
from underlay.simulation.media import Antenna, Hop
from underlay.simulation.streams import Streams
from underlay.trace import MessagesSent

if TYPE_CHECKING:
    from underlay.simulation.host import Endpoint
    from underlay.simulation.incarnation import Incarnation
    from underlay.simulation.world import World

UDP_IP_BYTES = 28
"""IPv4 header without options and UDP header (RFC 791, RFC 768)."""
_WEIGHED_MAX = 4096

Receive = Call
Cast = tuple[Antenna, list[tuple[Hop, Receive]]]
Weight = tuple[Message, int, bool, bool]
"""A message, its bytes above the transport, whether it carries observations, whether it needs a stream."""


class Way(Protocol):
    """From one node to one peer."""

    def send(self, sender: Incarnation, message: Message) -> None:
        """Send now."""


class Post:
    """Finds ways and weighs messages."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.streams = Streams(world)
        self._weighed: dict[int, Weight] = {}

    def way(self, source: Endpoint, peer: Address) -> Way:
        """The way from a node to `peer`; KeyError where `peer` names no device of the network."""
        device, _, name = peer.partition("/")
        if peer.startswith("@"):
            return LocalWay(source.host.endpoints[peer], self.world.agenda)
        if not name:
            return CallerWay(self.world.answers.setdefault(peer, []))
        if device == "*":
            return self._broadcast(source, name)
        if device == source.host.name:
            return LocalWay(source.host.endpoints[name], self.world.agenda)
        carrier = self.world.carrier
        here, there = source.host.machine, carrier.machines[device]
        target = self.world.endpoints.get(peer)
        step = here.next_step(there)
        way: Way
        if step is not None and step[1] is there and target is not None:
            way = OpenWay(self, peer, [(step[0], target.receive)], [])
        else:
            way = RoutedWay(self, peer, here, there, target, carrier.hops_to(here.name, there.name))
        return way if self.world.tamper is None else self.world.tamper.on(way, source.address, peer)

    def weigh(self, sender: Incarnation, message: Message) -> Weight:
        """Bytes above the transport; encoded once for a message object however often it is sent."""
        weighed = self._weighed
        key = id(message)  # set order: a key of a cache that holds the object; nothing is ordered by it
        known = weighed.get(key)
        if known is None:
            if len(weighed) >= _WEIGHED_MAX:
                weighed.clear()
            if message.transport == "local":
                raise ValueError(f"{type(message).__name__} is local and cannot leave {sender.device}")
            size_bytes = sender.node.protocol.size(message)
            known = (message, size_bytes, message.carries_payload, message.transport == "stream")
            weighed[key] = known
        return known

    def _broadcast(self, source: Endpoint, name: str) -> Way:
        """Everybody one hop away, whoever of them runs such a node: one copy a link, one a channel."""
        device, world = source.host.name, self.world
        media = world.carrier.media

        def receive_at(target: str) -> Receive:
            endpoint = world.endpoints.get(f"{target}/{name}")
            return endpoint.receive if endpoint else _nobody

        pairs = [(hop, receive_at(hop.target)) for hop in media.links_from(device)]
        casts: list[Cast] = [
            (antenna, [(hop, receive_at(hop.target)) for hop in antenna.hops])
            for antenna in media.antennas[device]
        ]
        return OpenWay(self, f"*/{name}", pairs, casts)


class LocalWay:
    """To a node of the same device: free, and after the handler."""

    __slots__ = ("_agenda", "_target")

    def __init__(self, target: Endpoint, agenda: Agenda) -> None:
        self._target = target
        self._agenda = agenda

    def send(self, sender: Incarnation, message: Message) -> None:
        if self._target.live is not None:
            self._agenda.soon(self._target.live.receive_local, sender.endpoint.seen_as, message)


class CallerWay:
    """To a caller from outside the network: free, at once, and kept for whoever plays the caller."""

    __slots__ = ("_answers",)

    def __init__(self, answers: list[Message]) -> None:
        self._answers = answers

    def send(self, sender: Incarnation, message: Message) -> None:
        self._answers.append(message)


class OpenWay:
    """One hop: a datagram to a neighbour, or to all of them."""

    __slots__ = ("_agenda", "_casts", "_copies", "_pairs", "_peer", "_post")

    def __init__(
        self,
        post: Post,
        peer: Address,
        pairs: list[tuple[Hop, Receive]],
        casts: list[Cast],
    ) -> None:
        self._post = post
        self._agenda = post.world.agenda
        self._peer = peer
        self._pairs = pairs
        self._casts = casts
        self._copies = len(pairs) + len(casts)

    def send(self, sender: Incarnation, message: Message) -> None:
        _, size_bytes, data, streamed = self._post.weigh(sender, message)
        sender.endpoint.count(message, size_bytes, 1, self._copies)
        if streamed:
            self._post.streams.send(sender, self._peer, message, size_bytes, data)
            return
        packet_bytes = size_bytes + UDP_IP_BYTES
        if packet_bytes > INTERFACE_MTU_BYTES or self._casts:
            self._send_slowly(sender.address, message, packet_bytes, data)
            return
        agenda = self._agenda
        now_s, heap, sequence, address = agenda.now, agenda.heap, agenda.sequence, sender.address
        for hop, receive in self._pairs:
            if hop.open:
                arrival_s = hop.offer(now_s, packet_bytes, data)
                if arrival_s >= 0.0:
                    heappush(heap, (arrival_s, next(sequence), receive, address, message, hop))
            else:
                hop.swallow()

    def _send_slowly(self, sender: Address, message: Message, packet_bytes: int, data: bool) -> None:
        """Fragments: the datagram arrives with the last, or not at all. A channel hears each once."""
        agenda, now_s = self._agenda, self._agenda.now
        sizes = fragment_sizes(packet_bytes)
        for hop, receive in self._pairs:
            if hop.open:
                arrivals_s = [hop.offer(now_s, size, data) for size in sizes]
                if min(arrivals_s) >= 0.0:
                    agenda.at(arrivals_s[-1], receive, sender, message, hop)
            else:
                hop.swallow()
        for antenna, hearers in self._casts:
            if not any(hop.open for hop, _ in hearers):
                for hop, _ in hearers:
                    hop.swallow()
                continue
            heard = antenna.cast(now_s, sizes, data)
            for (hop, receive), arrival_s in zip(hearers, heard, strict=True):
                if not hop.open:
                    hop.swallow()
                elif arrival_s >= 0.0:
                    agenda.at(arrival_s, receive, sender, message, hop)


class RoutedWay:
    """A datagram over several hops; without a route it goes nowhere, and nobody is told."""

    __slots__ = ("_here", "_hops", "_peer", "_post", "_receive", "_there")

    def __init__(
        self, post: Post, peer: Address, here: Machine, there: Machine, target: Endpoint | None, hops: int
    ) -> None:
        self._post = post
        self._peer = peer
        self._here = here
        self._there = there
        self._receive = _nobody if target is None else target.receive
        self._hops = hops

    def send(self, sender: Incarnation, message: Message) -> None:
        _, size_bytes, data, streamed = self._post.weigh(sender, message)
        sender.endpoint.count(message, size_bytes, self._hops)
        if streamed:
            self._post.streams.send(sender, self._peer, message, size_bytes, data)
            return
        packet_bytes = size_bytes + UDP_IP_BYTES
        self._here.launch_large(self._there, packet_bytes, data, self._receive, sender.address, message)


class Tally:
    """Messages of one type that a node sent since the last record."""

    __slots__ = ("bytes", "count", "hops", "message", "payload")

    def __init__(self, kind: type[Message]) -> None:
        self.message = kind.__name__
        self.payload = kind.carries_payload
        self.count = self.bytes = self.hops = 0

    def take(self) -> MessagesSent:
        record = MessagesSent(self.message, self.count, self.bytes, self.payload, self.hops)
        self.count = self.bytes = self.hops = 0
        return record


def _nobody(_: object, __: object) -> None:
    """There is no such node: the packet crosses the network and is dropped there."""
