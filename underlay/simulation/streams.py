"""Streams between nodes: modelled TCP, as Linux speaks it.

Owns connections: who opens them, the handshake, resets, and the framing of messages. One stream serves both
directions of a pair of nodes; whoever sends first opens it. What each direction does is in `tcp_sender` and
`tcp_receiver`; packets travel through `carrier` like any other. Followed: RFC 9293 (TCP), RFC 5482 (user
timeout). Not modelled: receive windows, Nagle's algorithm (our programs turn it off), and an orderly close
(nodes never close a stream).
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

import msgspec

from underlay.messages import Message
from underlay.node import Address
from underlay.simulation.carrier import Machine
from underlay.simulation.tcp_receiver import Ranges, Receiver
from underlay.simulation.tcp_sender import Sender

if TYPE_CHECKING:
    from underlay.simulation.incarnation import Incarnation
    from underlay.simulation.world import World

HEADER_BYTES = 52
"""IPv4, TCP, and the timestamps that Linux puts into every segment (RFC 7323)."""
HANDSHAKE_BYTES = 60
"""A SYN announces MSS, SACK and window scale as well."""
RESET_BYTES = 40
FRAME_BYTES = 4
"""The length before each message of our own protocols, and before the hello: who opens a stream says who it
is, and in which incarnation, so that the other side resets what it had with an earlier one."""
QUEUE_BYTES_MAX = 4 * 1024 * 1024
"""More than this waiting in a stream of our own protocols resets it: the peer cannot keep up."""
USER_TIMEOUT_S = 30.0
"""A handshake or data unanswered for that long means that the peer is gone."""
_SYN_TIMEOUT_S = 1.0

OPENING, ACCEPTING, OPEN, CLOSED = range(4)


class Segment:
    """Bytes `seq` to `end`; everything before `ack` was received, and of what follows the ranges `sacks`.

    It was sent at `sent_s`, and what it acknowledges at `echo_s` (the timestamps of RFC 7323).
    """

    __slots__ = ("ack", "echo_s", "end", "sacks", "sent_s", "seq")

    def __init__(self, seq: int, end: int, ack: int, sacks: Ranges, sent_s: float, echo_s: float) -> None:
        self.seq = seq
        self.end = end
        self.ack = ack
        self.sacks = sacks
        self.sent_s = sent_s
        self.echo_s = echo_s


class Streams:
    """All connections of a world: where one is opened, and where it arrives."""

    def __init__(self, world: World) -> None:
        self.world = world

    def send(self, owner: Incarnation, peer: Address, message: Message, size_bytes: int, data: bool) -> None:
        """Send a message on the stream to `peer`, opening it if there is none."""
        stream = owner.streams.get(peer)
        ours = message.wire_size() is None
        if stream is not None and message.opens_stream:
            stream.abandon()
            stream = None
        if stream is None:
            stream = owner.streams[peer] = Stream(self, owner, peer, OPENING)
            stream.knock(_SYN_TIMEOUT_S)
            if ours:
                stream.greet()
        stream.sender.write(message, size_bytes + FRAME_BYTES if ours else size_bytes, data)
        if ours and stream.sender.waiting > QUEUE_BYTES_MAX:
            stream.abort()

    def accept(self, client: Stream, _: object) -> None:
        """A SYN arrived at the device of `client.peer`."""
        endpoint = self.world.endpoints.get(client.peer)
        if endpoint is None or endpoint.live is None:
            client.there.launch(client.here, RESET_BYTES, False, client.reset, None, None)
            return
        server = client.remote
        if server is None or server.owner is not endpoint.live or server.state == CLOSED:
            server = client.remote = Stream(self, endpoint.live, client.owner.address, ACCEPTING)
            server.remote = client
            known = endpoint.live.streams.get(server.peer)
            if known is None or known.accepted:
                endpoint.live.streams[server.peer] = server
                if known is not None:
                    known.replaced = True
            server.knock(_SYN_TIMEOUT_S)
        elif server.state in (ACCEPTING, OPEN):
            server.answer()


class Stream:
    """One end of a connection."""

    __slots__ = (
        "_opened_s", "_streams", "_tries", "accepted", "agenda", "here", "outbox", "owner", "peer",
        "receiver", "remote", "replaced", "sender", "state", "there", "user_timeout_s",
    )  # fmt: skip

    def __init__(self, streams: Streams, owner: Incarnation, peer: Address, state: int) -> None:
        world = streams.world
        self._streams = streams
        self.agenda = world.agenda
        self.owner = owner
        self.peer = peer
        self.here: Machine = owner.host.machine
        self.there: Machine = world.carrier.machines[peer.partition("/")[0]]
        self.state = state
        self.accepted = state == ACCEPTING
        self.replaced = False
        """The peer has opened another since: what becomes of this one says nothing about the peer."""
        self.remote: Stream | None = None
        self.outbox: deque[tuple[int, Message | None]] = deque()
        """Messages that this end sends and the other has not received, by the byte after their last."""
        self.user_timeout_s = USER_TIMEOUT_S
        self.sender = Sender(self)
        self.receiver = Receiver(self)
        self._opened_s = world.agenda.now
        self._tries = 0
        owner.ends[self] = None

    @property
    def is_open(self) -> bool:
        return self.state == OPEN

    def greet(self) -> None:
        """Begin with a hello."""
        hello = msgspec.msgpack.encode((self.owner.address, self.owner.endpoint.incarnation))
        self.sender.write(None, FRAME_BYTES + len(hello), False)

    def knock(self, wait_s: float, _: object = None) -> None:
        """Send the SYN, or the answer to one, and again until the handshake is done."""
        if self.state not in (OPENING, ACCEPTING):
            return
        left_s = self._opened_s + self.user_timeout_s - self.agenda.now
        if left_s <= 0.0:
            self.close()
            return
        self._tries += 1
        if self.state == ACCEPTING:
            self.answer()
        elif not self.here.launch(self.there, HANDSHAKE_BYTES, False, self._streams.accept, self, None):
            self.agenda.soon(self.reset)
            return
        self.agenda.at(self.agenda.now + min(wait_s, left_s), self.knock, 2.0 * wait_s)

    def answer(self) -> None:
        """Send SYN and ACK."""
        assert self.remote is not None, "only an accepted stream answers"
        self.here.launch(self.there, HANDSHAKE_BYTES, False, self.remote.answered, None, None)

    def answered(self, _: object, __: object) -> None:
        """SYN and ACK arrived at the end that opened."""
        if self.state == CLOSED:
            self.refuse()
            return
        if self.state == OPENING:
            self._open()
        self.transmit(self.sender.next, self.sender.next, False)
        self.sender.push()

    def transmit(self, seq: int, end: int, data: bool) -> None:
        """Send a segment, which also acknowledges."""
        remote = self.remote
        assert remote is not None, "an open stream knows its other end"
        ack, sacks = self.receiver.acknowledge(end > seq)
        size_bytes = HEADER_BYTES + end - seq + (4 + 8 * len(sacks) if sacks else 0)
        segment = Segment(seq, end, ack, sacks, self.agenda.now, self.receiver.echo_s)
        self.here.launch(self.there, size_bytes, data, remote.arrive, segment, None)

    def arrive(self, segment: Segment, _: object) -> None:
        """A segment reached this end's device."""
        if self.state == CLOSED:
            self.refuse()
            return
        if self.state == ACCEPTING:
            self._open()
        if segment.end > segment.seq:
            self.receiver.take(segment.seq, segment.end, segment.sent_s)
        self.sender.acknowledged(segment.ack, segment.sacks, segment.echo_s)

    def deliver(self, received: int) -> None:
        """Hand the messages that are complete, now that all bytes before `received` are here, to the node."""
        assert self.remote is not None, "what was received was sent"
        inbox = self.remote.outbox
        while inbox and inbox[0][0] <= received:
            message = inbox.popleft()[1]
            if message is None:
                self.owner.forget_earlier(self)
            else:
                self.owner.receive_local(self.peer, self.owner.endpoint.recoded(message))

    def reset(self, _: object = None, __: object = None) -> None:
        """The other side says that there is no such connection."""
        if self.state != CLOSED:
            self.close()

    def abandon(self) -> None:
        """Reset the connection from this end, because the node begins another in its place."""
        self.state = CLOSED
        self.owner.forget(self)
        self.refuse()

    def abort(self) -> None:
        """Give the connection up, and let the other side know."""
        self.abandon()
        self.agenda.soon(self.owner.peer_down, self.peer)

    def close(self) -> None:
        """Give the connection up, and tell the node unless it never knew of it."""
        known = self.state != ACCEPTING and not self.replaced
        self.state = CLOSED
        self.owner.forget(self)
        if known:
            self.agenda.soon(self.owner.peer_down, self.peer)

    def lose_power(self) -> None:
        """The device of this end crashed; nobody is told."""
        self.state = CLOSED

    def _open(self) -> None:
        self.state = OPEN
        self.sender.rtt.sample(self.agenda.now - self._opened_s, self.agenda.now)

    def refuse(self) -> None:
        """Say that there is no such connection."""
        if self.remote is not None:
            self.here.launch(self.there, RESET_BYTES, False, self.remote.reset, None, None)
