"""Which real IP packets carry observations: what the ether asks to split its bytes into payload and control.

The simulation knows its messages; on real links a packet has to be recognized by its bytes. IPv4 (RFC 791),
UDP (RFC 768), TCP (RFC 9293), MQTT 5 §2.1.1.
"""

from __future__ import annotations

from functools import partial

from underlay.messages import Message, Protocol

_TCP, _UDP = 6, 17
_PUBLISH = 0x30
_LONGEST_CONTROL_BYTES = 100
"""MQTT packets other than PUBLISH are shorter than this here, so a longer segment is part of a PUBLISH."""


def udp_classifier(port: int, protocol: Protocol) -> partial[bool]:
    """For messages over UDP: packets whose message is one that carries payload."""
    tags = frozenset(_tag(message) for message in protocol.types if message.carries_payload)
    return partial(_is_udp_payload, port, tags)


def mqtt_classifier(port: int) -> partial[bool]:
    """For MQTT over TCP: segments that begin with a PUBLISH or continue a long one."""
    return partial(_is_publish, port)


def _is_udp_payload(port: int, tags: frozenset[int], packet: memoryview) -> bool:
    found = _transport(packet, _UDP, port)
    # A message is a msgpack array of fewer than 16 elements whose first is its tag, a small integer.
    return found is not None and len(found) > 9 and found[8] >> 4 == 0x9 and found[9] in tags


def _is_publish(port: int, packet: memoryview) -> bool:
    segment = _transport(packet, _TCP, port)
    if segment is None or len(segment) < 20:
        return False
    data = segment[(segment[12] >> 4) * 4 :]
    return len(data) > _LONGEST_CONTROL_BYTES or (len(data) > 0 and data[0] & 0xF0 == _PUBLISH)


def _transport(packet: memoryview, protocol: int, port: int) -> memoryview | None:
    """The packet's UDP datagram or TCP segment, where it is to or from `port`."""
    if len(packet) < 28 or packet[0] >> 4 != 4 or packet[9] != protocol:
        return None
    inner = packet[(packet[0] & 0x0F) * 4 :]
    ports = (int.from_bytes(inner[0:2], "big"), int.from_bytes(inner[2:4], "big"))
    return inner if port in ports else None


def _tag(message: type[Message]) -> int:
    tag = message.__struct_config__.tag
    assert isinstance(tag, int), f"{message.__name__} has no integer tag"
    return tag
