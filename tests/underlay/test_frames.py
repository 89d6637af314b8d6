"""Datagrams of our own protocols are recognized on real links by port and tag."""

from __future__ import annotations

import pytest

from underlay.frames import udp_classifier
from underlay.messages import Message, Protocol


class Data(Message, frozen=True, array_like=True, tag=3):
    carries_payload = True
    data: bytes


class Control(Message, frozen=True, array_like=True, tag=4):
    number: int


PROTOCOL = Protocol("test", Data, Control)


def ip_packet(protocol: int, port: int, message: Message) -> memoryview:
    """An IPv4 header without options, a UDP header, and the message."""
    header = bytearray(20)
    header[0], header[9] = 0x45, protocol
    return memoryview(bytes(header) + port.to_bytes(2) * 2 + bytes(4) + PROTOCOL.encode(message))


@pytest.mark.parametrize(
    ("packet", "expected"),
    [
        pytest.param(ip_packet(17, 7005, Data(b"x")), True, id="a message that carries payload"),
        pytest.param(ip_packet(17, 7005, Control(7)), False, id="one that does not"),
        pytest.param(ip_packet(17, 53, Data(b"x")), False, id="another port"),
        pytest.param(ip_packet(6, 7005, Data(b"x")), False, id="another transport"),
    ],
)
def test_payload_is_recognized_by_its_tag(packet: memoryview, expected: bool) -> None:
    """A msgpack array whose first element is the tag, behind eight bytes of UDP header."""
    assert udp_classifier(7005, PROTOCOL)(packet) is expected


def test_torn_packets_carry_nothing() -> None:
    """The ether may see anything."""
    for size in range(40):
        assert udp_classifier(0x4545, PROTOCOL)(memoryview(bytes([0x45] * size))) is False
