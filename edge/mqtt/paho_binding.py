"""The emulation's MQTT client: paho-mqtt inside the device's asyncio loop, without a thread.

Owns the sockets and paho's clients, one for each (node, broker); decides nothing: it makes one attempt when
the node says `Connect`, and says what came of it. paho's own reconnecting and its blocking connect are not
used; its session state is, so that what is not acknowledged goes out again with DUP on the next connection.

Two of paho's private methods are overridden: there is no other way to give it a connected socket, and to
count every packet it sends. What it reports inside its callbacks is handed on after them, because it does not
bear to be called back from there with everything that a node may answer. paho acknowledges QoS 1 by hand
(`manual_ack`), when the node says so; with QoS 2 that mode never answers a PUBREL that comes twice, and a
slot of the broker's window would be lost each time, so a subscription of QoS 2 turns it off and a message
counts as taken when it was handed to the node.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

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
from edge.mqtt.model_client import RECEIVE_MAXIMUM_DEFAULT, SILENCE_KEEPALIVES, TOKEN_SHIFT
from edge.mqtt.packets import MQTT_5, PORT
from underlay.messages import Message
from underlay.plan import BindingHost

if TYPE_CHECKING:
    from paho.mqtt.client import SocketLike  # exists for type checkers only

_CHECKS_A_KEEPALIVE = 10
_PACKETS_AT_ONCE = 64
"""More wait in the kernel until others had their turn."""
_PACKET_NAMES = {
    0x10: "ConnectPacket",
    0x20: "ConnackPacket",
    0x30: "PublishPacket",
    0x40: "PubackPacket",
    0x50: "PubrecPacket",
    0x60: "PubrelPacket",
    0x70: "PubcompPacket",
    0x80: "SubscribePacket",
    0x90: "SubackPacket",
    0xC0: "PingreqPacket",
    0xD0: "PingrespPacket",
    0xE0: "DisconnectPacket",
}
"""As the model's messages are called, so that both fabrics' traces count the same things."""


class PahoBinding:
    """`underlay.plan.Binding` for MQTT: all connections of one device."""

    def __init__(self, version: int = MQTT_5, port: int = PORT) -> None:
        self._version = version
        self._port = port
        self._connections: dict[tuple[str, str], _Connection] = {}
        self._host: BindingHost | None = None

    async def start(self, host: BindingHost) -> None:
        self._host = host

    def send(self, node: str, message: Message) -> None:
        match message:
            case Connect():
                self._connection(node, message).open(message)
            case Publish() | Subscribe() | Acknowledge() | Forget() | Disconnect():
                connection = self._connections.get((node, message.broker))
                if connection is not None:
                    connection.on_request(message)

    async def close(self) -> None:
        for connection in self._connections.values():
            await connection.close()

    def _connection(self, node: str, request: Connect) -> _Connection:
        assert self._host is not None, "start() comes first"
        key = (node, request.broker)
        if key not in self._connections:
            self._connections[key] = _Connection(self._host, node, request, self._version, self._port)
        return self._connections[key]


class _Connection:
    """One node's connection to one broker. paho's session outlives the TCP connections, which `_epoch`
    counts."""

    def __init__(self, host: BindingHost, node: str, request: Connect, version: int, port: int) -> None:
        self._host = host
        self._node = node
        self._broker = request.broker
        self._address = (host.ip_of(request.broker), port)
        self._loop = asyncio.get_running_loop()
        self._epoch = 0
        self._attempt: asyncio.Task[None] | None = None
        self._accepted: asyncio.Future[Loss | None] | None = None
        self._connected = False
        self._keepalive_s = request.keepalive_s
        self._heard_s = 0.0
        self._by_hand = True
        self._window = 0
        self._held: dict[int, None] = {}
        """Messages that the node has not acknowledged, by their tokens."""
        self._tokens: dict[int, tuple[int, int]] = {}
        """The node's token and the QoS of each publish that is under way, by packet identifier."""
        self._filters: dict[int, str] = {}
        self._paho = self._make_client(request, version)

    # -- from the node

    def open(self, request: Connect) -> None:
        """Make an attempt; a connection that is still open is dropped for it."""
        self._drop()
        self._keepalive_s = request.keepalive_s
        self._attempt = self._loop.create_task(self._try(request))

    def on_request(self, request: Message) -> None:
        match request:
            case Publish():
                self._publish(request)
            case Subscribe():
                self._subscribe(request)
            case Acknowledge(_, token):
                if token >> TOKEN_SHIFT == self._epoch and self._connected:
                    self._paho.ack(token & 0xFFFF, qos=1)
                    self._let_go(token)
            case Forget():
                self._paho.drop_out_messages()
                self._tokens.clear()
            case Disconnect():
                self._leave()

    async def close(self) -> None:
        """Leave politely, and wait until nothing is under way."""
        attempt = self._attempt
        self._leave()
        if attempt is not None:
            await asyncio.gather(attempt, return_exceptions=True)

    # -- one attempt

    async def _try(self, request: Connect) -> None:
        lost_to: Loss | None
        try:
            async with asyncio.timeout(request.timeout_s):
                self._paho.ready = await self._connect_socket()
                lost_to = await self._shake_hands(request)
        except TimeoutError:
            lost_to = "timeout"
        except ConnectionRefusedError:
            lost_to = "refused"
        except OSError:
            lost_to = "unreachable"
        self._attempt = None
        if lost_to is not None:
            self._drop()
            self._tell(Disconnected(self._broker, lost_to))

    async def _connect_socket(self) -> socket.socket:
        sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        try:
            sock.setblocking(False)
            # As in mosquitto's configuration: a small message does not wait for the one before it.
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await self._loop.sock_connect(sock, self._address)
        except BaseException:
            sock.close()
            raise
        return sock

    async def _shake_hands(self, request: Connect) -> Loss | None:
        """CONNECT and CONNACK; None where the broker accepted."""
        self._epoch += 1
        self._filters.clear()
        self._held.clear()
        self._window = request.receive_maximum
        self._accepted = self._loop.create_future()
        ip, port = self._address
        if self._paho.protocol == MQTTProtocolVersion.MQTTv5:
            properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call] # paho's
            properties.SessionExpiryInterval = request.session_expiry_s
            if request.receive_maximum:
                properties.ReceiveMaximum = request.receive_maximum
            self._paho.connect_async(
                ip, port, request.keepalive_s, clean_start=request.clean_start, properties=properties
            )
        else:
            self._paho.connect_async(ip, port, request.keepalive_s)
        self._paho.reconnect()
        return await self._accepted

    def _leave(self) -> None:
        if self._connected:
            self._connected = False
            self._paho.disconnect()  # closes once DISCONNECT is written
        else:
            self._drop()

    def _drop(self) -> None:
        """End the attempt and the TCP connection without a word to the broker or to the node."""
        if self._attempt is not None:
            self._attempt.cancel()
            self._attempt = None
        self._connected = False
        sock = self._paho.socket()
        if isinstance(sock, socket.socket):
            # Reset: otherwise the kernel would go on retransmitting to a broker that was given up.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)  # paho finds its end when the loop next reads it

    # -- requests

    def _publish(self, request: Publish) -> None:
        info = self._paho.publish(request.topic, request.payload, request.qos, request.retain)
        if request.qos or info.rc == paho.MQTT_ERR_SUCCESS:
            self._tokens[info.mid] = (request.token, request.qos)

    def _subscribe(self, request: Subscribe) -> None:
        if request.qos == 2:
            self._by_hand = False
            self._paho.manual_ack_set(False)
        if self._paho.protocol == MQTTProtocolVersion.MQTTv5:
            options = SubscribeOptions(
                qos=request.qos, noLocal=True, retainHandling=SubscribeOptions.RETAIN_SEND_IF_NEW_SUB
            )
            _, packet_id = self._paho.subscribe(request.filter, options=options)
        else:
            _, packet_id = self._paho.subscribe(request.filter, request.qos)
        if packet_id is not None:
            self._filters[packet_id] = request.filter

    # -- paho's callbacks

    def _make_client(self, request: Connect, version: int) -> _Client:
        is_5 = version == MQTT_5
        client = _Client(
            CallbackAPIVersion.VERSION2,
            client_id=request.client_id,
            clean_session=None if is_5 else request.clean_start,
            protocol=MQTTProtocolVersion.MQTTv5 if is_5 else MQTTProtocolVersion.MQTTv311,
            manual_ack=True,
            reconnect_on_failure=False,
        )
        client.count = self._count
        client.max_inflight_messages_set(0)  # the node keeps the window
        client.on_socket_open = self._on_socket_open
        client.on_socket_close = self._on_socket_close
        client.on_socket_register_write = self._on_write_wanted
        client.on_socket_unregister_write = self._on_written
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_publish = self._on_publish
        client.on_subscribe = self._on_subscribe
        client.on_message = self._on_message
        return client

    def _on_socket_open(self, _paho: paho.Client, _: Any, sock: SocketLike) -> None:
        self._loop.add_reader(sock, self._on_readable)

    def _on_socket_close(self, _paho: paho.Client, _: Any, sock: SocketLike) -> None:
        self._loop.remove_reader(sock)

    def _on_write_wanted(self, _paho: paho.Client, _: Any, sock: SocketLike) -> None:
        self._loop.add_writer(sock, self._paho.loop_write)

    def _on_written(self, _paho: paho.Client, _: Any, sock: SocketLike) -> None:
        self._loop.remove_writer(sock)

    def _on_readable(self) -> None:
        self._heard_s = self._loop.time()
        self._paho.read(lambda: not self._overfull)

    def _on_connect(
        self, _paho: paho.Client, _: Any, flags: paho.ConnectFlags, code: ReasonCode, given: Properties | None
    ) -> None:
        assert self._accepted is not None
        if self._accepted.done():
            return  # timed out in this very moment
        if code.is_failure:
            self._accepted.set_result("refused")
            return
        self._accepted.set_result(None)
        self._connected = True
        receive_maximum = getattr(given, "ReceiveMaximum", RECEIVE_MAXIMUM_DEFAULT)
        self._tell(Connected(self._broker, flags.session_present, receive_maximum))
        if self._keepalive_s:
            self._check_alive(self._epoch)

    def _on_disconnect(self, *_: Any) -> None:
        self._tokens = {packet_id: (token, qos) for packet_id, (token, qos) in self._tokens.items() if qos}
        if self._accepted is not None and not self._accepted.done():
            self._accepted.set_result("closed")
        elif self._connected:
            self._connected = False
            self._tell(Disconnected(self._broker, "closed"))

    def _on_publish(
        self, _paho: paho.Client, _: Any, packet_id: int, code: ReasonCode, _given: Properties
    ) -> None:
        known = self._tokens.pop(packet_id, None)
        if known is not None:
            self._tell(Published(self._broker, known[0], code.value))

    def _on_subscribe(
        self, _paho: paho.Client, _: Any, packet_id: int, codes: list[ReasonCode], _given: Properties
    ) -> None:
        name = self._filters.pop(packet_id, None)
        if name is not None:
            self._tell(Subscribed(self._broker, name, codes[0].value))

    def _on_message(self, _paho: paho.Client, _: Any, message: paho.MQTTMessage) -> None:
        if not self._connected:
            return  # read from a connection that was given up: unacknowledged, the broker sends it again
        by_hand = self._by_hand and message.qos == 1
        token = self._epoch << TOKEN_SHIFT | message.mid
        if by_hand:
            self._hold(token)
        received = Received(
            broker=self._broker,
            token=token if by_hand else None,
            topic=message.topic,
            payload=bytes(message.payload),
            qos=message.qos,
            retain=message.retain,
            duplicate=message.dup,
        )
        self._tell(received)

    # -- helpers

    def _hold(self, token: int) -> None:
        """One more is in the node's hands. A broker that goes beyond the receive maximum (mosquitto 2.0 does:
        its issue 2301) is not read from until there is room."""
        self._held[token] = None
        sock = self._paho.socket()
        if self._overfull and sock is not None:
            self._loop.remove_reader(sock)

    def _let_go(self, token: int) -> None:
        overfull = self._overfull
        self._held.pop(token, None)
        sock = self._paho.socket()
        if overfull and not self._overfull and sock is not None:
            self._loop.add_reader(sock, self._on_readable)
            self._heard_s = self._loop.time()

    @property
    def _overfull(self) -> bool:
        return 0 < self._window < len(self._held)

    def _check_alive(self, epoch: int) -> None:
        """Let paho ping; give up after 1.5 keepalives without a word from the broker."""
        if not self._connected or epoch != self._epoch:
            return
        if self._overfull:  # it is we who do not listen
            self._heard_s = self._loop.time()
            self._paho.excuse_silence()
        self._paho.loop_misc()
        if self._loop.time() - self._heard_s >= SILENCE_KEEPALIVES * self._keepalive_s:
            self._drop()
            self._tell(Disconnected(self._broker, "keepalive"))
        else:
            self._loop.call_later(self._keepalive_s / _CHECKS_A_KEEPALIVE, self._check_alive, epoch)

    def _tell(self, message: Message) -> None:
        self._loop.call_soon(self._host.deliver, self._node, message)

    def _count(self, command: int, size_bytes: int) -> None:
        kind = command & 0xF0
        name = _PACKET_NAMES.get(kind)
        if name is not None:
            self._host.sent(name, size_bytes, payload=kind == paho.PUBLISH, to=self._broker)


class _Client(paho.Client):
    """paho's client on a socket that somebody else connected."""

    ready: socket.socket
    count: Callable[[int, int], None]

    _handled = 0

    def read(self, go_on: Callable[[], bool]) -> None:
        """Handle what has arrived, as far as it goes: the nodes take it in one turn, with one commit."""
        for _ in range(_PACKETS_AT_ONCE):
            before = self._handled
            self.loop_read()
            if self._handled == before or not go_on():
                return  # nothing more has arrived, or nothing more is wanted

    def excuse_silence(self) -> None:
        """Go on pinging, and do not give up for want of an answer."""
        self._ping_t = 0.0  # none is waited for

    def _create_socket_connection(self) -> socket.socket:
        return self.ready

    def _packet_queue(
        self,
        command: int,
        packet: bytes | bytearray,
        mid: int,
        qos: int,
        info: paho.MQTTMessageInfo | None = None,
    ) -> MQTTErrorCode:
        self.count(command, len(packet))
        return super()._packet_queue(command, packet, mid, qos, info)

    def _packet_handle(self) -> MQTTErrorCode:
        # The broker is a program and counts nothing: what it sends is counted where it arrives.
        packet = self._in_packet
        size_bytes = 1 + len(packet["remaining_count"]) + packet["remaining_length"]
        self.count(packet["command"], size_bytes)
        self._handled += 1
        return super()._packet_handle()
