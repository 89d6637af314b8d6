"""The simulation's MQTT client: what paho-mqtt is in the emulation, for the same local messages.

Owns connections, packet identifiers and handshakes; the star node above cannot tell it from `paho_binding`.
It does as paho does where the standard leaves a choice: a PINGREQ every keepalive (paho 2.2 sends it
whatever else it has sent), retransmission on every reconnect, publishes handed over without a connection go
out with the next one unless their QoS is 0. And as `paho_binding` does: a connection over which nothing is
heard for 1.5 keepalives is given up.

Source: MQTT 5, sections 3 and 4.3 (delivery protocols), 4.4 (retransmission).
"""

from __future__ import annotations

from typing import Literal

from edge.mqtt.messages import (
    Acknowledge,
    Connect,
    Connected,
    Disconnect,
    Disconnected,
    Forget,
    Loss,
    Publish,
    Published,
    Received,
    Subscribe,
    Subscribed,
)
from edge.mqtt.packets import (
    BROKER,
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
from underlay.node import Address, Context, Node, Timer, address, device_of

SILENCE_KEEPALIVES = 1.5
"""Both sides give up a connection that was silent for this many keepalives (a broker must: MQTT 5,
3.1.2.10)."""

RECEIVE_MAXIMUM_DEFAULT = 65_535
"""Where the broker sent none."""

TOKEN_SHIFT = 16
"""The token of a `Received`: the connection's number, then 16 bits of packet identifier."""


class ModelClient(Node):
    """All MQTT connections of one device."""

    protocol = MQTT

    def __init__(self, version: int = MQTT_5) -> None:
        self._version = version
        self._connections: dict[tuple[Address, str], Connection] = {}
        """By node and broker; one outlives its TCP connections, as the session does."""
        self._numbered: dict[int, Connection] = {}
        self._last_number = 0

    def on_message(self, ctx: Context, sender: Address, message: Message) -> None:
        match message:
            case Packet():
                connection = self._numbered.get(message.connection)
                if connection is not None:
                    connection.on_packet(ctx, message)
            case Connect():
                self._connect(ctx, sender, message)
            case Publish() | Subscribe() | Acknowledge() | Forget() | Disconnect():
                connection = self._connections.get((sender, message.broker))
                if connection is not None:
                    connection.on_request(ctx, message)

    def on_timer(self, ctx: Context, timer: Timer) -> None:
        assert isinstance(timer, tuple)
        what, number = timer
        connection = self._numbered.get(number)
        if connection is not None:
            connection.on_timer(ctx, what)

    def on_peer_down(self, ctx: Context, peer: Address) -> None:
        for connection in self._connections.values():
            if connection.broker == device_of(peer):
                connection.on_reset(ctx)

    def _connect(self, ctx: Context, node: Address, request: Connect) -> None:
        connection = self._connections.get((node, request.broker))
        if connection is None:
            connection = self._connections[node, request.broker] = Connection(
                node, request.broker, self._version
            )
        self._numbered.pop(connection.number, None)
        self._last_number += 1
        self._numbered[self._last_number] = connection
        connection.open(ctx, request, self._last_number)


class Connection:
    """One node's connection to one broker, and the session behind it."""

    def __init__(self, node: Address, broker: str, version: int) -> None:
        self.broker = broker
        self.number = 0
        self._node = node
        self._peer = address(broker, BROKER)
        self._version = version
        self._phase: Literal["closed", "connecting", "connected"] = "closed"
        self._keepalive_s = 0
        self._heard_s = 0.0
        self._pinged_s = 0.0
        self._unanswered = False
        """A PINGREQ waits for its PINGRESP."""
        self._last_packet_id = 0
        self._manual = True
        self._unacknowledged: dict[int, _Unacknowledged] = {}
        self._unreleased: dict[int, PublishPacket] = {}
        """QoS 2 messages that arrived and wait for their PUBREL."""
        self._filters: dict[int, str] = {}

    # -- from the node

    def open(self, ctx: Context, request: Connect, number: int) -> None:
        """Start an attempt under a number that no earlier one had."""
        self.number = number
        self._phase = "connecting"
        self._keepalive_s = request.keepalive_s
        self._filters.clear()
        ctx.set_timer(("connect", number), request.timeout_s)
        packet = ConnectPacket(
            number,
            self._version,
            request.client_id,
            request.clean_start,
            request.keepalive_s,
            request.session_expiry_s,
            request.receive_maximum,
        )
        self._send(ctx, packet)

    def on_request(self, ctx: Context, request: Message) -> None:
        match request:
            case Publish():
                self._publish(ctx, request)
            case Subscribe() if self._phase == "connected":
                self._subscribe(ctx, request)
            case Acknowledge(_, token) if self._phase == "connected":
                if token >> TOKEN_SHIFT == self.number:
                    self._send(ctx, PubackPacket(self.number, token & 0xFFFF))
            case Forget():
                self._unacknowledged.clear()
            case Disconnect():
                if self._phase == "connected":
                    self._send(ctx, DisconnectPacket(self.number))
                    self._send(ctx, Closed(self.number))
                self._close(ctx)

    # -- from the broker

    def on_packet(self, ctx: Context, packet: Packet) -> None:
        if self._phase == "closed":
            # The attempt timed out, and the broker accepted it later: a real socket would be gone by now.
            self._send(ctx, Closed(packet.connection))
            return
        self._heard_s = ctx.now
        match packet:
            case ConnackPacket():
                self._on_connack(ctx, packet)
            case PublishPacket():
                self._on_publish(ctx, packet)
            case PubrelPacket(_, packet_id):
                self._on_pubrel(ctx, packet_id)
            case PubackPacket(_, packet_id, reason_code):
                self._on_acknowledged(ctx, packet_id, reason_code)
            case PubcompPacket(_, packet_id):
                self._on_acknowledged(ctx, packet_id, 0)
            case PubrecPacket(_, packet_id):
                if packet_id in self._unacknowledged:
                    self._unacknowledged[packet_id].released = True
                    self._send(ctx, PubrelPacket(self.number, packet_id))
            case SubackPacket(_, _, packet_id, reason_code):
                self._tell(ctx, Subscribed(self.broker, self._filters.pop(packet_id), reason_code))
            case PingrespPacket():
                self._unanswered = False
                self._check_alive(ctx)
            case Closed():
                self._lose(ctx, "closed")

    def on_reset(self, ctx: Context) -> None:
        """The stream to the broker failed."""
        if self._phase != "closed":
            self._lose(ctx, "refused" if self._phase == "connecting" else "closed")

    def on_timer(self, ctx: Context, what: str) -> None:
        if what == "connect" and self._phase == "connecting":
            self._lose(ctx, "timeout")
        elif what == "alive" and self._phase == "connected":
            self._check_alive(ctx)

    # -- helpers

    def _publish(self, ctx: Context, request: Publish) -> None:
        packet_id = self._next_packet_id() if request.qos else 0
        packet = PublishPacket(
            self.number, self._version, packet_id, request.topic, request.payload, request.qos, request.retain
        )
        if request.qos:
            self._unacknowledged[packet_id] = _Unacknowledged(request.token, packet)
        if self._phase == "connected":
            self._send(ctx, packet)
            if request.qos:
                self._unacknowledged[packet_id].sent = True
            else:
                self._tell(ctx, Published(self.broker, request.token, 0))

    def _subscribe(self, ctx: Context, request: Subscribe) -> None:
        if request.qos == 2:
            self._manual = False
        packet_id = self._next_packet_id()
        self._filters[packet_id] = request.filter
        packet = SubscribePacket(
            connection=self.number,
            version=self._version,
            packet_id=packet_id,
            filter=request.filter,
            qos=request.qos,
            no_local=True,
            retained_if_new=True,
        )
        self._send(ctx, packet)

    def _on_connack(self, ctx: Context, packet: ConnackPacket) -> None:
        ctx.cancel_timer(("connect", self.number))
        if packet.reason_code:
            self._lose(ctx, "refused")
            return
        self._phase = "connected"
        self._pinged_s = ctx.now
        self._unanswered = False
        for unacknowledged in self._unacknowledged.values():
            self._send(ctx, unacknowledged.again(self.number))
        receive_maximum = packet.receive_maximum if self._version == MQTT_5 else RECEIVE_MAXIMUM_DEFAULT
        self._tell(ctx, Connected(self.broker, packet.session_present, receive_maximum))
        if self._keepalive_s:
            self._check_alive(ctx)

    def _on_publish(self, ctx: Context, packet: PublishPacket) -> None:
        if packet.qos == 2:
            self._unreleased[packet.packet_id] = packet
            self._send(ctx, PubrecPacket(self.number, packet.packet_id))
            return
        by_hand = self._manual and packet.qos == 1
        self._hand_over(ctx, packet, by_hand)
        if packet.qos == 1 and not by_hand:
            self._send(ctx, PubackPacket(self.number, packet.packet_id))

    def _on_pubrel(self, ctx: Context, packet_id: int) -> None:
        packet = self._unreleased.pop(packet_id, None)
        if packet is not None:
            self._hand_over(ctx, packet, by_hand=False)
        self._send(ctx, PubcompPacket(self.number, packet_id))

    def _on_acknowledged(self, ctx: Context, packet_id: int, reason_code: int) -> None:
        unacknowledged = self._unacknowledged.pop(packet_id, None)
        if unacknowledged is not None:
            self._tell(ctx, Published(self.broker, unacknowledged.token, reason_code))

    def _hand_over(self, ctx: Context, packet: PublishPacket, by_hand: bool) -> None:
        token = self.number << TOKEN_SHIFT | packet.packet_id if by_hand else None
        received = Received(
            broker=self.broker,
            token=token,
            topic=packet.topic,
            payload=packet.payload,
            qos=packet.qos,
            retain=packet.retain,
            duplicate=packet.duplicate,
        )
        self._tell(ctx, received)

    def _check_alive(self, ctx: Context) -> None:
        """Ping once a keepalive; give up after 1.5 without a word from the broker."""
        silent_at_s = self._heard_s + SILENCE_KEEPALIVES * self._keepalive_s
        if ctx.now >= silent_at_s:
            self._send(ctx, Closed(self.number))
            self._lose(ctx, "keepalive")
            return
        if ctx.now >= self._pinged_s + self._keepalive_s and not self._unanswered:
            self._unanswered = True
            self._pinged_s = ctx.now
            self._send(ctx, PingreqPacket(self.number))
        ping_at_s = max(self._pinged_s + self._keepalive_s, ctx.now)
        wake_s = silent_at_s if self._unanswered else min(silent_at_s, ping_at_s)
        ctx.set_timer(("alive", self.number), wake_s - ctx.now)

    def _lose(self, ctx: Context, reason: Loss) -> None:
        self._close(ctx)
        self._tell(ctx, Disconnected(self.broker, reason))

    def _close(self, ctx: Context) -> None:
        self._phase = "closed"
        ctx.cancel_timer(("connect", self.number))
        ctx.cancel_timer(("alive", self.number))

    def _send(self, ctx: Context, packet: Packet) -> None:
        ctx.send(self._peer, packet)

    def _tell(self, ctx: Context, message: Message) -> None:
        ctx.send(self._node, message)

    def _next_packet_id(self) -> int:
        while True:
            self._last_packet_id = self._last_packet_id % 0xFFFF + 1
            if self._last_packet_id not in self._unacknowledged:
                return self._last_packet_id


class _Unacknowledged:
    """A publish of QoS 1 or 2 whose handshake is not over."""

    __slots__ = ("packet", "released", "sent", "token")

    def __init__(self, token: int, packet: PublishPacket) -> None:
        self.token = token
        self.packet = packet
        self.sent = False
        self.released = False

    def again(self, number: int) -> Packet:
        """What goes out first on a new connection (MQTT 5, 4.4)."""
        if self.released:
            return PubrelPacket(number, self.packet.packet_id)
        p = self.packet
        duplicate, self.sent = self.sent, True
        return PublishPacket(number, p.version, p.packet_id, p.topic, p.payload, p.qos, p.retain, duplicate)
