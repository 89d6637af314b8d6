"""Which real IP packets carry a CoAP representation: how real bytes are split into payload and control.

A 2.05 Content response or a POST with a payload counts, whole or a block of one; other requests, other
responses and acknowledgements do not. Source: RFC 7252 §3; RFC 791, RFC 768.
"""

from __future__ import annotations

from edge.coap.messages import CONTENT, PORT

_IPV4, _UDP = 4, 17
_POST = 0x02
_PAYLOAD_MARKER = 0xFF


def carries_content(packet: memoryview, port: int = PORT) -> bool:
    """Whether an IP packet is a UDP datagram to or from `port` with (a block of) a representation in it."""
    if len(packet) < 28 or packet[0] >> 4 != _IPV4 or packet[9] != _UDP:
        return False
    header_bytes = (packet[0] & 0x0F) * 4
    udp = packet[header_bytes:]
    if len(udp) < 12 or udp[9] not in (CONTENT, _POST) or udp[8] >> 6 != 1:
        return False
    if port not in (int.from_bytes(udp[0:2], "big"), int.from_bytes(udp[2:4], "big")):
        return False
    return _payload_marked(udp[12 + (udp[8] & 0x0F) :])


def _payload_marked(options: memoryview) -> bool:
    """Whether a payload follows the options, which `options` begins with."""
    while options:
        if options[0] == _PAYLOAD_MARKER:
            return True
        delta, length = options[0] >> 4, options[0] & 0x0F
        used = 1 + _extended_bytes(delta)
        match length:
            case 13 if len(options) > used:
                length = 13 + options[used]
                used += 1
            case 14 if len(options) > used + 1:
                length = 269 + int.from_bytes(options[used : used + 2], "big")
                used += 2
        options = options[used + length :]
    return False


def _extended_bytes(nibble: int) -> int:
    return {13: 1, 14: 2}.get(nibble, 0)
