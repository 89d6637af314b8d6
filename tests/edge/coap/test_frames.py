"""Which real packets of CoAP are counted as payload."""

from __future__ import annotations

import struct
from typing import Any

import aiocoap
import pytest

from edge.coap.frames import carries_content


def packet(
    code: Any, payload: bytes = b"", *, port: int = 5683, protocol: int = 17, **options: Any
) -> memoryview:
    message: Any = aiocoap.Message(code=code, payload=payload, **options)
    message.mtype, message.mid, message.token = aiocoap.CON, 7, b"\x12\x34"
    coap = message.encode()
    udp = struct.pack("!HHHH", 40_000, port, 8 + len(coap), 0) + coap
    ip = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(udp), 0, 0, 64, protocol, 0, bytes(4), bytes(4))
    return memoryview(ip + udp)


@pytest.mark.parametrize(
    ("frame", "payload"),
    [
        pytest.param(packet(aiocoap.CONTENT, b"21.5"), True, id="content is payload"),
        pytest.param(
            packet(aiocoap.CONTENT, bytes(1024), etag=b"12345678", max_age=70_000, block2=(300, True, 6)),
            True,
            id="a block behind long options is payload",
        ),
        pytest.param(packet(aiocoap.CONTENT, max_age=5), False, id="content without payload is control"),
        pytest.param(packet(aiocoap.VALID, etag=b"1"), False, id="a validation is control"),
        pytest.param(packet(aiocoap.GET, uri_path=["x" * 300]), False, id="a request is control"),
        pytest.param(packet(aiocoap.EMPTY), False, id="an acknowledgement is control"),
        pytest.param(packet(aiocoap.NOT_FOUND, b"what?"), False, id="an error with a text is control"),
        pytest.param(packet(aiocoap.CONTENT, b"21.5", port=53), False, id="another port is not CoAP"),
        pytest.param(packet(aiocoap.CONTENT, b"21.5", protocol=6), False, id="TCP is not CoAP"),
        pytest.param(memoryview(b"\x45"), False, id="a truncated packet is nothing"),
        pytest.param(packet(aiocoap.CONTENT, max_age=5)[:-1], False, id="truncated options are nothing"),
    ],
)
def test_content_is_recognised_in_single_packets(frame: memoryview, payload: bool) -> None:
    assert carries_content(frame) is payload
