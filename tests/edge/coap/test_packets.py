"""Model packets are as long as the real ones: aiocoap's encoder says how long those are."""

from __future__ import annotations

from typing import Any

import aiocoap
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.coap.messages import CHANGED, CONTENT, CONTINUE, JPEG, OCTET_STREAM, VALID, Representation
from edge.coap.packets import (
    Block,
    EmptyPacket,
    Packet,
    PostPacket,
    RequestPacket,
    ResponsePacket,
    number_size,
    response_packet,
)

UDP_IP_BYTES = 28
PAYLOAD = bytes(32)


def real_size(packet: Packet) -> int:
    """What aiocoap makes of the same message."""
    message: Any
    match packet:
        case RequestPacket():
            message = aiocoap.Message(code=aiocoap.GET, uri_path=packet.path)
            message.opt.etags = [] if packet.etag is None else [packet.etag]
            message.opt.observe = 0 if packet.observe else None
        case PostPacket():
            message = aiocoap.Message(code=aiocoap.POST, uri_path=packet.path, payload=packet.payload)
            message.opt.content_format = packet.content_format
            message.opt.size1 = packet.size1
        case ResponsePacket():
            shown = packet.representation
            message = aiocoap.Message(code=aiocoap.Code(shown.code), payload=shown.payload)
            message.opt.etag = shown.etag
            message.opt.max_age = shown.max_age_s
            message.opt.content_format = shown.content_format
            message.opt.observe = packet.observe
            message.opt.size1 = packet.size1
        case _:
            message = aiocoap.Message(code=aiocoap.EMPTY)
    block = getattr(packet, "block", None)
    if block is not None:
        message.opt.block2 = (block.number, block.more, 6)
    block1 = getattr(packet, "block1", None)
    if block1 is not None:
        message.opt.block1 = (block1.number, block1.more, 6)
    message.mtype = {"CON": aiocoap.CON, "NON": aiocoap.NON, "ACK": aiocoap.ACK, "RST": aiocoap.RST}[
        packet.mtype
    ]
    message.mid = packet.mid
    message.token = packet.token.to_bytes(number_size(packet.token))
    return len(message.encode())


NOTIFIED = Representation(CONTENT, PAYLOAD, bytes(8), 60, OCTET_STREAM)


@pytest.mark.parametrize(
    "packet",
    [
        pytest.param(RequestPacket("CON", 7, 0x1234, ("cam3", "temperature")), id="a plain GET"),
        pytest.param(
            RequestPacket("CON", 7, 0x1234, ("cam3", "log"), b"\x01", True), id="a renewed observation"
        ),
        pytest.param(
            RequestPacket("CON", 7, 5, ("a-device-with-a-long-name", "log"), None, False, Block(20)),
            id="a later block of a device with a long name",
        ),
        pytest.param(response_packet("NON", 7, 0x1234, NOTIFIED, 2), id="a notification"),
        pytest.param(
            response_packet(
                "ACK", 7, 0x1234, Representation(CONTENT, bytes(1024), b"12", 300, JPEG), 0, Block(0, True)
            ),
            id="the first block of a photograph",
        ),
        pytest.param(
            response_packet("CON", 7, 1, Representation(CONTENT, b"x"), None, Block(16)), id="a last block"
        ),
        pytest.param(
            response_packet("ACK", 7, 0x1234, Representation(VALID, b"", b"\x07", 2)), id="a validation"
        ),
        pytest.param(response_packet("ACK", 7, 0, Representation(0x84)), id="an error, and no token"),
        pytest.param(EmptyPacket("ACK", 7), id="an acknowledgement"),
        pytest.param(PostPacket("CON", 7, 5, ("observations",), PAYLOAD, OCTET_STREAM), id="a small POST"),
        pytest.param(
            PostPacket("CON", 7, 5, ("observations",), bytes(1024), 42, Block(0, True), 60_000),
            id="the first block of a posted photograph",
        ),
        pytest.param(
            response_packet("ACK", 7, 5, Representation(CONTINUE), block1=Block(3, True)), id="go on"
        ),
        pytest.param(
            response_packet("ACK", 7, 5, Representation(CHANGED), block1=Block(58)), id="the last is taken"
        ),
        pytest.param(
            response_packet("ACK", 7, 5, Representation(0x8D), size1=1 << 20), id="that was too much"
        ),
    ],
)
def test_a_packet_is_as_long_as_aiocoap_makes_it(packet: Packet) -> None:
    assert packet.wire_size() == real_size(packet)


@given(
    st.builds(
        RequestPacket,
        st.just("CON"),
        st.integers(0, 0xFFFF),
        st.integers(0, 2**32),
        st.lists(st.text(st.characters(codec="ascii"), max_size=300), max_size=4).map(tuple),
        st.none() | st.binary(min_size=1, max_size=8),
        st.booleans(),
        st.none() | st.builds(Block, st.integers(1, 2**19)),
    )
)
def test_any_request_is_as_long_as_aiocoap_makes_it(packet: RequestPacket) -> None:
    assert packet.wire_size() == real_size(packet)


@given(
    st.builds(
        response_packet,
        st.sampled_from(["CON", "NON", "ACK"]),
        st.integers(0, 0xFFFF),
        st.integers(0, 2**32),
        st.builds(
            Representation,
            st.just(CONTENT),
            st.binary(max_size=40),
            st.none() | st.binary(min_size=1, max_size=8),
            st.none() | st.integers(0, 2**31),
            st.none() | st.integers(0, 60_000),
        ),
        st.none() | st.integers(0, 2**24 - 1),
        st.none() | st.builds(Block, st.integers(0, 2**19), st.booleans()),
    )
)
def test_any_response_is_as_long_as_aiocoap_makes_it(packet: ResponsePacket) -> None:
    assert packet.wire_size() == real_size(packet)


def test_a_notification_with_its_acknowledgement_costs_32_bytes_more_than_one_without() -> None:
    """79 and 111 bytes with IPv4 and UDP, for 32 bytes of payload, a token of two and an ETag of four."""
    shown = Representation(CONTENT, PAYLOAD, bytes(4), 60, OCTET_STREAM)
    not_confirmed = response_packet("NON", 7, 0x1234, shown, 300)
    assert not_confirmed.wire_size() + UDP_IP_BYTES == 79
    confirmed = response_packet("CON", 7, 0x1234, shown, 300)
    both = confirmed.wire_size() + EmptyPacket("ACK", 7).wire_size() + 2 * UDP_IP_BYTES
    assert both == 111
