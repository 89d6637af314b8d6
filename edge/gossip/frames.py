"""Which real IP packets carry gossiped payload: how bytes on links are split into payload and control."""

from __future__ import annotations

from edge.gossip.messages import Gossip

_IPV4, _UDP = 4, 17
_SECOND_BYTE = Gossip.__struct_config__.tag
_FRAGMENT_OFFSET = 0x1FFF


def carries_payload(packet: memoryview, port: int) -> bool:
    """Whether an IP packet is a datagram of `port` that holds a Gossip, or continues one (RFC 791, RFC 768).

    Of all messages only a Gossip with large parts is ever fragmented."""
    if len(packet) < 30 or packet[0] >> 4 != _IPV4 or packet[9] != _UDP:
        return False
    if int.from_bytes(packet[6:8], "big") & _FRAGMENT_OFFSET:
        return True
    start = (packet[0] & 0x0F) * 4
    if int.from_bytes(packet[start + 2 : start + 4], "big") != port:
        return False
    # A msgpack array of fewer than 16 elements, the first of which is the tag, a small integer.
    data = packet[start + 8 : start + 10]
    return len(data) == 2 and data[0] >> 4 == 0x9 and data[1] == _SECOND_BYTE
