"""Which segments of a real MQTT connection are counted as payload."""

from __future__ import annotations

import struct

import pytest

from edge.mqtt.frames import carries_publish, packet_size

PUBACK = bytes.fromhex("4002000a")
PINGREQ = bytes.fromhex("c000")
SHORT_PUBLISH = bytes.fromhex("3205") + b"\x00\x01t\x00\x07"
LONG_PUBLISH = bytes.fromhex("30b817") + b"\x00\x01t" + bytes(range(256)) * 12


def segment(data: bytes, *, port: int = 1883, protocol: int = 6) -> memoryview:
    tcp = struct.pack("!HHIIBBHHH", 40_000, port, 0, 0, 8 << 4, 0, 0, 0, 0) + bytes(12) + data
    ip = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(tcp), 0, 0, 64, protocol, 0, bytes(4), bytes(4))
    return memoryview(ip + tcp)


@pytest.mark.parametrize(
    ("packet", "payload"),
    [
        pytest.param(segment(b""), False, id="an acknowledgement of TCP carries nothing"),
        pytest.param(segment(PUBACK), False, id="a PUBACK is control"),
        pytest.param(segment(PUBACK + PINGREQ + PUBACK), False, id="several control packets are control"),
        pytest.param(segment(SHORT_PUBLISH), True, id="a PUBLISH is payload"),
        pytest.param(segment(PUBACK + SHORT_PUBLISH), True, id="a PUBLISH behind a PUBACK is payload"),
        pytest.param(segment(LONG_PUBLISH[:1448]), True, id="the first segment of a long PUBLISH is payload"),
        pytest.param(segment(LONG_PUBLISH[1448:2896]), True, id="the middle of a long PUBLISH is payload"),
        pytest.param(segment(LONG_PUBLISH[2896:]), True, id="the short end of a long PUBLISH is payload"),
        pytest.param(segment(SHORT_PUBLISH, port=80), False, id="another port is not MQTT"),
        pytest.param(segment(SHORT_PUBLISH, protocol=17), False, id="UDP is not MQTT"),
        pytest.param(memoryview(b"\x45"), False, id="a truncated packet is nothing"),
    ],
)
def test_publish_is_recognised_in_single_segments(packet: memoryview, payload: bool) -> None:
    assert carries_publish(packet) is payload


@pytest.mark.parametrize(
    ("data", "size"),
    [
        (b"\xc0\x00", 2),
        (b"\x30\x7f", 129),
        (b"\x30\x80\x01", 131),
        (b"\x30\xff\xff\x03", 65_539),
        (b"\x30\x80", None),
    ],
)
def test_remaining_length_is_base_128(data: bytes, size: int | None) -> None:
    assert packet_size(data) == size
