"""Which real IP packets carry MQTT PUBLISH: how bytes on real links are split into payload and control.

Stateless, one packet at a time, because retransmissions and several hops show the same segment again. A
PUBLISH spans segments, and what continues one has no header; but control packets are short and fill their
segments exactly. So a segment is control where it is whole control packets from its first byte to its last,
and payload otherwise. Only a control packet that TCP itself cut in two is taken for payload.

Source: MQTT 5, section 2.1 (fixed header); RFC 791, RFC 9293.
"""

from __future__ import annotations

from edge.mqtt.packets import PORT

_CONTROL_HEADERS = bytes([0x10, 0x20, 0x40, 0x50, 0x62, 0x70, 0x82, 0x90, 0xA2, 0xB0, 0xC0, 0xD0, 0xE0, 0xF0])
"""First bytes of all packet types but PUBLISH, with the flags that each must have."""

_IPV4 = 4
_TCP = 6


def carries_publish(packet: memoryview, port: int = PORT) -> bool:
    """Whether an IP packet is a TCP segment to or from `port` with (a part of) a PUBLISH in it."""
    if len(packet) < 40 or packet[0] >> 4 != _IPV4 or packet[9] != _TCP:
        return False
    tcp = packet[(packet[0] & 0x0F) * 4 : int.from_bytes(packet[2:4], "big")]
    ports = int.from_bytes(tcp[0:2], "big"), int.from_bytes(tcp[2:4], "big")
    if port not in ports:
        return False
    data = tcp[(tcp[12] >> 4) * 4 :]
    return not only_control(data)


def only_control(data: memoryview | bytes | bytearray) -> bool:
    """Whether `data` is zero or more whole control packets, none of them a PUBLISH.

    >>> only_control(bytes.fromhex("4002000a" "d000")), only_control(bytes.fromhex("4002000a" "3003"))
    (True, False)
    """
    while data:
        if data[0] not in _CONTROL_HEADERS:
            return False
        size = packet_size(data)
        if size is None or size > len(data):
            return False
        data = data[size:]
    return True


def packet_size(data: memoryview | bytes | bytearray) -> int | None:
    """Bytes of the control packet that begins `data`, its fixed header included; None where too few are
    there."""
    remaining = 0
    for i, byte in enumerate(data[1:5]):
        remaining |= (byte & 0x7F) << 7 * i
        if byte < 0x80:
            return 2 + i + remaining
    return None
