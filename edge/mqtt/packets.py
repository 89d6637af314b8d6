"""MQTT control packets as stream messages: what the model client and the model broker exchange.

Each knows its size on the wire to the byte (`wire_size`), for MQTT 3.1.1 (`version` 4) and 5 (`version` 5),
with the properties that paho-mqtt and mosquitto 2.0 really put there. TCP's segments are the fabric's.
`connection` tells the connections of one client apart (a real client has a port for each); it costs nothing
on the wire.

Source: OASIS MQTT 3.1.1 and 5.0, section 3; `Closed` stands for TCP's FIN.
"""

from __future__ import annotations

from underlay.messages import Message, Protocol

MQTT_3_1_1 = 4
MQTT_5 = 5

BROKER = "mosquitto"
"""The broker's name on its device, as a program and as a model."""

PORT = 1883

_ACK_BYTES = 4
_ACK_WITH_REASON_BYTES = 5
_CONNACK_PROPERTIES_BYTES = 6  # mosquitto: Topic Alias Maximum, Receive Maximum
_SESSION_EXPIRY_BYTES = 5
_RECEIVE_MAXIMUM_BYTES = 3


class Packet(Message, frozen=True, array_like=True):
    """Base of all control packets."""

    transport = "stream"
    connection: int


class ConnectPacket(Packet, frozen=True, array_like=True, tag=1):
    opens_stream = True
    version: int
    client_id: str
    clean_start: bool
    keepalive_s: int
    session_expiry_s: int
    """Sent by MQTT 5 only, like the next."""
    receive_maximum: int = 0
    """0: not sent, which means 65,535."""

    def wire_size(self) -> int:
        properties = 0
        if self.version == MQTT_5:
            properties = 1 + _SESSION_EXPIRY_BYTES + bool(self.receive_maximum) * _RECEIVE_MAXIMUM_BYTES
        return _packet_size(10 + properties + _text_size(self.client_id))


class ConnackPacket(Packet, frozen=True, array_like=True, tag=2):
    version: int
    session_present: bool
    receive_maximum: int
    reason_code: int = 0

    def wire_size(self) -> int:
        return _packet_size(2 + (1 + _CONNACK_PROPERTIES_BYTES if self.version == MQTT_5 else 0))


class PublishPacket(Packet, frozen=True, array_like=True, tag=3):
    carries_payload = True
    version: int
    packet_id: int
    """0 for QoS 0, which sends none."""
    topic: str
    payload: bytes
    qos: int
    retain: bool
    duplicate: bool = False

    def wire_size(self) -> int:
        identifier = 2 if self.qos else 0
        properties = 1 if self.version == MQTT_5 else 0
        return _packet_size(_text_size(self.topic) + identifier + properties + len(self.payload))


class PubackPacket(Packet, frozen=True, array_like=True, tag=4):
    packet_id: int
    reason_code: int = 0

    def wire_size(self) -> int:
        return _ACK_WITH_REASON_BYTES if self.reason_code else _ACK_BYTES


class PubrecPacket(Packet, frozen=True, array_like=True, tag=5):
    packet_id: int
    reason_code: int = 0

    def wire_size(self) -> int:
        return _ACK_WITH_REASON_BYTES if self.reason_code else _ACK_BYTES


class PubrelPacket(Packet, frozen=True, array_like=True, tag=6):
    packet_id: int

    def wire_size(self) -> int:
        return _ACK_BYTES


class PubcompPacket(Packet, frozen=True, array_like=True, tag=7):
    packet_id: int

    def wire_size(self) -> int:
        return _ACK_BYTES


class SubscribePacket(Packet, frozen=True, array_like=True, tag=8):
    version: int
    packet_id: int
    filter: str
    qos: int
    no_local: bool
    """Do not send me what I publish. MQTT 5 only, like the next."""
    retained_if_new: bool
    """Send retained messages only if the session has no such subscription yet (Retain Handling 1)."""

    def wire_size(self) -> int:
        return _packet_size(2 + (1 if self.version == MQTT_5 else 0) + _text_size(self.filter) + 1)


class SubackPacket(Packet, frozen=True, array_like=True, tag=9):
    version: int
    packet_id: int
    reason_code: int

    def wire_size(self) -> int:
        return _packet_size(2 + (1 if self.version == MQTT_5 else 0) + 1)


class PingreqPacket(Packet, frozen=True, array_like=True, tag=10):
    def wire_size(self) -> int:
        return 2


class PingrespPacket(Packet, frozen=True, array_like=True, tag=11):
    def wire_size(self) -> int:
        return 2


class DisconnectPacket(Packet, frozen=True, array_like=True, tag=12):
    def wire_size(self) -> int:
        return 2


class Closed(Packet, frozen=True, array_like=True, tag=13):
    """The sender closed this TCP connection: a FIN, which takes one number of TCP's sequence space."""

    def wire_size(self) -> int:
        return 1


MQTT = Protocol(
    "mqtt",
    ConnectPacket,
    ConnackPacket,
    PublishPacket,
    PubackPacket,
    PubrecPacket,
    PubrelPacket,
    PubcompPacket,
    SubscribePacket,
    SubackPacket,
    PingreqPacket,
    PingrespPacket,
    DisconnectPacket,
    Closed,
)


def _packet_size(remaining: int) -> int:
    """Fixed header (type, and the remaining length in base 128) and what follows it."""
    length_bytes = 1 + (remaining > 127) + (remaining > 16_383) + (remaining > 2_097_151)
    return 1 + length_bytes + remaining


def _text_size(text: str) -> int:
    return 2 + len(text.encode())
