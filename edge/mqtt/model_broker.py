"""The simulation's MQTT broker: what mosquitto is in the emulation.

Owns connections, sessions, subscriptions, retained messages, and what a crash leaves of them. It follows
mosquitto 2.0 where the standard leaves a choice: a message is forwarded before it is acknowledged; each
client has at most `max_in_flight` unacknowledged messages and `max_queued` behind them, newer ones are
dropped; QoS 0 is not queued; overlapping subscriptions deliver once. Its database is written every
`autosave_interval_s` only, long after it has acknowledged: what a crash loses in between is the finding, not
an error of the model.

Source: MQTT 5, sections 3 and 4; mosquitto.conf(5); the order of packets as observed of mosquitto 2.0.11.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from edge.mqtt.messages import NO_MATCHING_SUBSCRIBERS, topic_matches
from edge.mqtt.model_client import SILENCE_KEEPALIVES
from edge.mqtt.packets import (
    MQTT,
    MQTT_5,
    Closed,
    ConnackPacket,
    ConnectPacket,
    DisconnectPacket,
    Packet,
    PingreqPacket,
    PingrespPacket,
    PubackPacket,
    PubcompPacket,
    PublishPacket,
    PubrecPacket,
    PubrelPacket,
    SubackPacket,
    SubscribePacket,
)
from underlay.messages import Message
from underlay.node import Address, Context, Node, Timer

_AUTOSAVE = "autosave"
_DATABASE = b"database"


class BrokerConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What mosquitto.conf says, by the same names where it has one."""

    max_in_flight: int = 20
    """Messages of QoS 1 and 2 to one client that wait for its acknowledgement; sent as Receive Maximum
    too."""
    max_queued: int = 1000
    """More that wait behind them, for a client that is slow or away; newer ones are dropped."""
    autosave_interval_s: int = 1800
    """Between writes of the database. Until then a crash loses what was acknowledged."""
    autosave_on_changes: bool = False
    """Write the database after every change instead: nothing much is lost, at a disk write a message."""
    session_expiry_s: int = 86_400
    """For sessions whose client did not say (MQTT 3.1.1)."""


class Subscription(msgspec.Struct, frozen=True):
    """One filter of a session."""

    filter: str
    qos: int
    no_local: bool


class Outgoing(msgspec.Struct):
    """A message on its way to one client."""

    topic: str
    payload: bytes
    qos: int
    retain: bool
    released: bool = False
    """QoS 2: PUBREC came, PUBREL went."""


class Session(msgspec.Struct):
    """What the broker knows of a client, and keeps while it is away."""

    client_id: str
    version: int
    expiry_s: int
    keepalive_s: int
    receive_maximum: int
    subscriptions: dict[str, Subscription] = {}
    in_flight: dict[int, Outgoing] = {}
    queue: list[Outgoing] = []
    unreleased: dict[int, PublishPacket] = {}
    """QoS 2 messages from the client that wait for its PUBREL."""
    last_packet_id: int = 0


class Database(msgspec.Struct):
    """What is written to disk."""

    sessions: dict[str, Session] = {}
    retained: dict[str, Outgoing] = {}


class ModelBroker(Node):
    """One broker."""

    protocol = MQTT

    def __init__(self, config: BrokerConfig) -> None:
        self._config = config
        self._database = Database()
        self._links: dict[str, Link] = {}
        """By client id: its connection, while it has one."""
        self._clients: dict[tuple[Address, int], str] = {}
        """Client id by peer and connection number."""

    def on_start(self, ctx: Context) -> None:
        saved = ctx.store.get(_DATABASE)
        if saved is not None:
            self._database = msgspec.msgpack.decode(saved, type=Database)
        for session in self._database.sessions.values():
            ctx.set_timer(("expire", session.client_id), session.expiry_s)
        if not self._config.autosave_on_changes:
            ctx.set_timer(_AUTOSAVE, self._config.autosave_interval_s)

    def on_message(self, ctx: Context, sender: Address, message: Message) -> None:
        assert isinstance(message, Packet)
        if isinstance(message, ConnectPacket):
            self._on_connect(ctx, sender, message)
        else:
            client_id = self._clients.get((sender, message.connection))
            if client_id is None:
                return  # of a connection that we gave up
            self._links[client_id].heard_s = ctx.now
            self._on_packet(ctx, self._database.sessions[client_id], message)
        if self._config.autosave_on_changes and not isinstance(message, PingreqPacket):
            self._save(ctx)

    def on_timer(self, ctx: Context, timer: Timer) -> None:
        if timer == _AUTOSAVE:
            self._save(ctx)
            ctx.set_timer(_AUTOSAVE, self._config.autosave_interval_s)
            return
        assert isinstance(timer, tuple)
        what, client_id = timer
        if what == "expire":
            self._database.sessions.pop(client_id, None)
        elif client_id in self._links:
            self._check_alive(ctx, self._database.sessions[client_id])

    def on_peer_down(self, ctx: Context, peer: Address) -> None:
        for client_id in [c for (address, _), c in self._clients.items() if address == peer]:
            self._drop(ctx, client_id)

    # -- connections

    def _on_connect(self, ctx: Context, sender: Address, packet: ConnectPacket) -> None:
        client_id = packet.client_id
        older = self._links.get(client_id)
        if older is not None:
            if older.peer != sender:
                ctx.send(older.peer, Closed(older.number))
            self._drop(ctx, client_id)
        ctx.cancel_timer(("expire", client_id))
        session = self._database.sessions.get(client_id)
        present = session is not None and not packet.clean_start
        if session is None or packet.clean_start:
            session = Session(client_id, packet.version, 0, 0, self._config.max_in_flight)
            self._database.sessions[client_id] = session
        if packet.version == MQTT_5:
            session.expiry_s = packet.session_expiry_s
        else:
            session.expiry_s = 0 if packet.clean_start else self._config.session_expiry_s
        window = packet.receive_maximum if packet.version == MQTT_5 else 0
        session.receive_maximum = min(self._config.max_in_flight, window or self._config.max_in_flight)
        session.version = packet.version
        session.keepalive_s = packet.keepalive_s
        link = self._links[client_id] = Link(sender, packet.connection, ctx.now)
        self._clients[sender, packet.connection] = client_id
        ctx.send(
            sender, ConnackPacket(packet.connection, packet.version, present, self._config.max_in_flight)
        )
        for packet_id, message in session.in_flight.items():
            again = PubrelPacket(link.number, packet_id) if message.released else None
            ctx.send(sender, again or _publish(link, session, packet_id, message, duplicate=True))
        self._fill(ctx, session)
        if session.keepalive_s:
            ctx.set_timer(("alive", client_id), SILENCE_KEEPALIVES * session.keepalive_s)

    def _check_alive(self, ctx: Context, session: Session) -> None:
        link = self._links[session.client_id]
        left_s = link.heard_s + SILENCE_KEEPALIVES * session.keepalive_s - ctx.now
        if left_s > 0:
            ctx.set_timer(("alive", session.client_id), left_s)
        else:
            ctx.send(link.peer, Closed(link.number))
            self._drop(ctx, session.client_id)

    def _drop(self, ctx: Context, client_id: str) -> None:
        """Forget the connection; the session stays as long as its client asked for."""
        link = self._links.pop(client_id)
        del self._clients[link.peer, link.number]
        ctx.cancel_timer(("alive", client_id))
        session = self._database.sessions[client_id]
        if session.expiry_s:
            ctx.set_timer(("expire", client_id), session.expiry_s)
        else:
            del self._database.sessions[client_id]

    # -- packets of a connected client

    def _on_packet(self, ctx: Context, session: Session, packet: Packet) -> None:
        link = self._links[session.client_id]
        number = link.number
        match packet:
            case PublishPacket(qos=2):
                session.unreleased[packet.packet_id] = packet
                ctx.send(link.peer, PubrecPacket(number, packet.packet_id))
            case PublishPacket():
                matched = self._route(ctx, session, packet)
                if packet.qos == 1:
                    unheard = packet.version == MQTT_5 and not matched
                    reason_code = NO_MATCHING_SUBSCRIBERS if unheard else 0
                    ctx.send(link.peer, PubackPacket(number, packet.packet_id, reason_code))
            case PubrelPacket(_, packet_id):
                released = session.unreleased.pop(packet_id, None)
                if released is not None:
                    self._route(ctx, session, released)
                ctx.send(link.peer, PubcompPacket(number, packet_id))
            case PubrecPacket(_, packet_id):
                if packet_id in session.in_flight:
                    session.in_flight[packet_id].released = True
                ctx.send(link.peer, PubrelPacket(number, packet_id))
            case PubackPacket(_, packet_id) | PubcompPacket(_, packet_id):
                session.in_flight.pop(packet_id, None)
                self._fill(ctx, session)
            case SubscribePacket():
                self._subscribe(ctx, session, packet)
            case PingreqPacket():
                ctx.send(link.peer, PingrespPacket(number))
            case DisconnectPacket() | Closed():
                self._drop(ctx, session.client_id)

    def _subscribe(self, ctx: Context, session: Session, packet: SubscribePacket) -> None:
        link = self._links[session.client_id]
        is_5 = packet.version == MQTT_5
        no_local = packet.no_local and is_5
        known = packet.filter in session.subscriptions
        session.subscriptions[packet.filter] = Subscription(packet.filter, packet.qos, no_local)
        ctx.send(link.peer, SubackPacket(link.number, packet.version, packet.packet_id, packet.qos))
        if known and packet.retained_if_new and is_5:
            return
        for topic, message in self._database.retained.items():
            if topic_matches(packet.filter, topic):
                qos = min(message.qos, packet.qos)
                self._enqueue(ctx, session, Outgoing(topic, message.payload, qos, retain=True))

    def _route(self, ctx: Context, source: Session, packet: PublishPacket) -> bool:
        """Hand a message to every session with a matching subscription; False where there is none."""
        if packet.retain:
            self._retain(packet)
        matched = False
        for session in self._database.sessions.values():
            matching = list(_matching(session, packet.topic))
            matched = matched or bool(matching)
            wanted = [s.qos for s in matching if not (s.no_local and session is source)]
            if wanted:
                qos = min(packet.qos, max(wanted))
                self._enqueue(ctx, session, Outgoing(packet.topic, packet.payload, qos, retain=False))
        return matched

    def _retain(self, packet: PublishPacket) -> None:
        if packet.payload:
            message = Outgoing(packet.topic, packet.payload, packet.qos, retain=True)
            self._database.retained[packet.topic] = message
        else:
            self._database.retained.pop(packet.topic, None)

    # -- the queue of one client

    def _enqueue(self, ctx: Context, session: Session, message: Outgoing) -> None:
        link = self._links.get(session.client_id)
        if message.qos == 0:
            if link is not None:
                ctx.send(link.peer, _publish(link, session, 0, message))
        elif len(session.queue) < self._config.max_queued:
            session.queue.append(message)
            self._fill(ctx, session)

    def _fill(self, ctx: Context, session: Session) -> None:
        """Send what is queued, as far as the client's window goes."""
        link = self._links.get(session.client_id)
        if link is None:
            return
        free = session.receive_maximum - len(session.in_flight)
        for message in session.queue[: max(0, free)]:
            packet_id = _next_packet_id(session)
            session.in_flight[packet_id] = message
            ctx.send(link.peer, _publish(link, session, packet_id, message))
        del session.queue[: max(0, free)]

    def _save(self, ctx: Context) -> None:
        ctx.store.put(_DATABASE, msgspec.msgpack.encode(self._database))


class Link:
    """A client's connection."""

    __slots__ = ("heard_s", "number", "peer")

    def __init__(self, peer: Address, number: int, now_s: float) -> None:
        self.peer = peer
        self.number = number
        self.heard_s = now_s


def _matching(session: Session, topic: str) -> Iterator[Subscription]:
    return (s for s in session.subscriptions.values() if topic_matches(s.filter, topic))


def _publish(
    link: Link, session: Session, packet_id: int, message: Outgoing, duplicate: bool = False
) -> PublishPacket:
    return PublishPacket(
        connection=link.number,
        version=session.version,
        packet_id=packet_id,
        topic=message.topic,
        payload=message.payload,
        qos=message.qos,
        retain=message.retain,
        duplicate=duplicate,
    )


def _next_packet_id(session: Session) -> int:
    while True:
        session.last_packet_id = session.last_packet_id % 0xFFFF + 1
        if session.last_packet_id not in session.in_flight:
            return session.last_packet_id
