"""Which real IP packets carry users' observations in a message of ours: how the ether splits its bytes.

The simulation knows its messages; on real links a packet has to be recognized by its bytes. Protocols that
are not ours (MQTT, CoAP) have a classifier of their own beside their binding.

Source: RFC 791, RFC 768.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from underlay.messages import Message, Protocol

_IPV4, _UDP = 4, 17
_FIXARRAY = 0x9
"""High bits of a msgpack array of fewer than 16 elements, as every message is; the tag comes first in it."""


def udp_classifier(port: int, protocol: Protocol) -> Callable[[memoryview], bool]:
    """Whether an IP packet is a datagram to or from `port` whose message carries payload."""
    tags = frozenset(_tag(message) for message in protocol.types if message.carries_payload)
    return partial(_carries_payload, port, tags)


def _carries_payload(port: int, tags: frozenset[int], packet: memoryview) -> bool:
    if len(packet) < 30 or packet[0] >> 4 != _IPV4 or packet[9] != _UDP:
        return False
    udp = packet[(packet[0] & 0x0F) * 4 :]
    ports = int.from_bytes(udp[0:2]), int.from_bytes(udp[2:4])
    return port in ports and len(udp) > 9 and udp[8] >> 4 == _FIXARRAY and udp[9] in tags


def _tag(message: type[Message]) -> int:
    tag = message.__struct_config__.tag
    assert isinstance(tag, int), f"{message.__name__} has no integer tag"
    return tag
