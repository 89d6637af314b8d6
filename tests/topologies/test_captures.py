"""Captured frames, split by protocol: made with scapy, written as the ether writes them."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.topologies.made_up_runs import manifest, write_run
from topologies.captures import CaptureAnalysis, analyse
from topologies.manifest import LinkInfo
from underlay.emulation.pcap import PcapngWriter
from underlay.errors import InputError
from underlay.trace import LinkUsage

logging.getLogger("scapy").setLevel(logging.ERROR)
from scapy.layers.inet import IP, TCP, UDP  # noqa: E402 - after its warnings are off
from scapy.layers.l2 import ARP, Ether  # noqa: E402
from scapy.packet import Packet, Raw  # noqa: E402

GOSSIP_PORT = 7001
PUBLISH = bytes.fromhex("30070003612f627879")
PUBACK = bytes.fromhex("40020001")
FRAMING = 10
HEADERS = 40


def segment(sequence: int, data: bytes = b"", flags: str = "A") -> Packet:
    """A TCP segment from cam1 to the broker."""
    return IP(src="10.0.0.1", dst="10.0.0.9") / TCP(sport=4000, dport=1883, seq=sequence, flags=flags) / data


def analysed(
    tmp_path: Path, packets: Sequence[tuple[Packet, str | None]], usage: LinkUsage
) -> CaptureAnalysis:
    """A run whose only captured link carried these packets from cam1 to hub."""
    link = LinkInfo(
        "cam1-hub", "cam1", "hub", "x", 1000.0, 1.0, 0.0, 0.0, mtu_bytes=100, overhead_bytes=FRAMING
    )
    run = write_run(
        tmp_path / "run", [(5.0, None, usage)], manifest(links=(link,), ports={"gossip": GOSSIP_PORT})
    )
    (run / "captures").mkdir()
    with (run / "captures" / "cam1-hub.pcapng").open("wb") as file:
        writer = PcapngWriter(file, ["cam1 -> hub", "hub -> cam1"])
        for at_ns, (packet, comment) in enumerate(packets):
            frame = (
                packet if ARP in packet else Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02") / packet
            )
            writer.frame(0, at_ns, bytes(frame), comment)
        writer.flush()
    return analyse(run)


def usage(frames: int = 0, bytes_on_air: int = 0) -> LinkUsage:
    """What the ether counted from cam1 to hub."""
    return LinkUsage("cam1-hub", "cam1", "hub", frames=frames, bytes_on_air=bytes_on_air)


def test_control_packets_are_counted_by_type_though_segments_cut_them_anywhere(tmp_path: Path) -> None:
    stream = PUBACK + PUBLISH + PUBLISH
    cuts = [stream[:1], stream[1:5], stream[5:14], stream[14:]]
    packets = [(segment(99, flags="S"), None)]
    sequence = 100
    for data in cuts:
        packets.append((segment(sequence, data), None))
        sequence += len(data)
    found = analysed(tmp_path, packets, usage())
    assert found.messages == {"mqtt PUBLISH": 2, "mqtt PUBACK": 1}
    assert found.by_protocol["mqtt PUBLISH"] == 2 * len(PUBLISH)
    assert found.by_protocol["mqtt PUBACK"] == len(PUBACK)
    assert found.by_protocol["tcp overhead"] == 5 * HEADERS


def test_lost_frames_count_and_their_retransmission_is_told_apart(tmp_path: Path) -> None:
    packets = [
        (segment(99, flags="S"), None),
        (segment(100, PUBLISH), "lost on the air"),
        (segment(100, PUBLISH), None),
    ]
    found = analysed(tmp_path, packets, usage())
    assert found.messages == {"mqtt PUBLISH": 1}
    assert found.by_protocol["tcp retransmission"] == len(PUBLISH)


def test_segments_out_of_order_are_put_in_order_across_the_wrap_of_sequence_numbers(tmp_path: Path) -> None:
    start = 2**32 - 3
    packets = [
        (segment(start - 1, flags="S"), None),
        (segment((start + len(PUBLISH)) % 2**32, PUBACK), None),
        (segment(start, PUBLISH), None),
    ]
    found = analysed(tmp_path, packets, usage())
    assert found.messages == {"mqtt PUBLISH": 1, "mqtt PUBACK": 1}
    assert "tcp retransmission" not in {name for name, size in found.by_protocol.items() if size}


def test_datagrams_are_told_apart_by_port_and_frames_that_never_left_do_not_count(tmp_path: Path) -> None:
    gossip = IP(dst="10.0.0.9") / UDP(sport=GOSSIP_PORT, dport=GOSSIP_PORT) / Raw(b"x" * 150)
    coap = IP(dst="10.0.0.9") / UDP(sport=40000, dport=5683) / Raw(bytes.fromhex("40450001"))
    arp = Ether() / ARP()
    packets = [(gossip, None), (gossip, "queue full"), (gossip, "cut by a fault"), (coap, None), (arp, None)]
    on_air = (178 + 2 * FRAMING) + (32 + FRAMING) + (28 + FRAMING)
    found = analysed(tmp_path, packets, usage(frames=3, bytes_on_air=on_air))
    assert found.by_protocol == {
        "gossip": 150, "udp overhead": 56, "link framing": 4 * FRAMING, "arp": 28, "coap response": 4,
    }  # fmt: skip
    assert found.agrees


def test_a_counter_that_differs_by_one_frame_is_no_agreement(tmp_path: Path) -> None:
    found = analysed(tmp_path, [(segment(1), None)], usage(frames=2, bytes_on_air=2 * (HEADERS + FRAMING)))
    assert not found.agrees
    assert [(d.frames_captured, d.frames_counted) for d in found.directions] == [(1, 2)]


def test_a_run_without_captures_says_how_to_get_them(tmp_path: Path) -> None:
    write_run(tmp_path / "run", [])
    with pytest.raises(InputError, match="--pcap"):
        analyse(tmp_path / "run")
