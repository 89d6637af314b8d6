"""Bytes, messages and load, by hand."""

from pathlib import Path

import pytest

from tests.topologies.made_up_runs import Timed, arrived, made, manifest, write_run
from topologies.manifest import DeviceInfo
from topologies.metrics import Summary, summarize
from underlay.trace import LinkUsage, MessagesSent


def used(t_s: float, source: str, target: str, bytes_: int, data: int = 0, **more: int) -> Timed:
    link = f"{source}-{target}" if source < target else f"{target}-{source}"
    return t_s, None, LinkUsage(link, source, target, frames=1, bytes_on_air=bytes_, data_bytes=data, **more)


def test_bytes_per_delivered_split_and_setup(tmp_path: Path) -> None:
    """Two of three observations arrive; what passed before the first counted one is set-up."""
    run = write_run(
        tmp_path,
        [
            made(5.0, "cam1:0"), used(9.0, "cam1", "hub", 700),
            made(20.0, "cam1:1"), made(21.0, "cam1:2"), made(22.0, "cam2:0"),
            arrived(23.0, "cam1:1"), arrived(80.0, "cam1:2"),
            used(24.0, "cam1", "hub", 300, 200), used(24.0, "hub", "sink", 500, 400, lost=1),
            used(99.0, "hub", "cam1", 100, 0, cut=3),
        ],
    )  # fmt: skip
    found = summarize(run)
    traffic = found.traffic
    assert (traffic.bytes_on_air, traffic.payload_bytes, traffic.control_bytes) == (900, 600, 300)
    assert traffic.setup_bytes == 700
    assert (traffic.bytes_per_delivered, traffic.payload_bytes_per_delivered) == (450, 300)
    assert traffic.frames_per_delivered == 1.5
    # Two observations of 50 bytes arrived, with 600 bytes of payload packets.
    assert traffic.byte_redundancy == 5
    assert (traffic.lost_frames, traffic.cut_frames) == (1, 3)
    assert found.load.by_device == {"cam1": 300, "cam2": 0, "hub": 600, "sink": 0}
    assert found.load.max_over_mean == pytest.approx(600 / 225)
    assert [(row.source, row.target, row.bytes_on_air) for row in found.links] == [
        ("cam1", "hub", 300),
        ("hub", "cam1", 100),
        ("hub", "sink", 500),
    ]


def broadcast(folder: Path, payload_messages: int, hops: int, receivers: int) -> Summary:
    """One observation that reaches `receivers` birdhouses and the sink."""
    cams = tuple(f"cam{i}" for i in range(receivers))
    run = manifest(
        birdhouses=cams, subscribers="all", devices=tuple(DeviceInfo(name, "birdhouse", "") for name in cams)
    )
    records = [made(20.0, "cam0:0"), arrived(20.5, "cam0:0", hops=hops)]
    records += [arrived(20.4, "cam0:0", at=cam, hops=1) for cam in cams[1:]]
    records += [
        (21.0, "cam0", MessagesSent("push", payload_messages, 900, True, payload_messages * hops)),
        (21.0, "cam0", MessagesSent("announce", 50, 900, False, 50)),
    ]
    return summarize(write_run(folder, records, run))


def test_a_star_on_a_single_hop_graph_has_no_redundancy(tmp_path: Path) -> None:
    """n - 1 messages for n - 1 receivers (METRICS' oracle); announcements are no payload."""
    found = broadcast(tmp_path, payload_messages=8, hops=1, receivers=8).traffic
    assert found.redundancy == 0
    assert found.transmissions == 58


def test_redundancy_counts_hops_on_the_wire(tmp_path: Path) -> None:
    """Twelve transmissions over two hops each for eight receivers: 24 / 8 - 1."""
    found = broadcast(tmp_path, payload_messages=12, hops=2, receivers=8).traffic
    assert found.redundancy == 2
    assert (found.last_hop_mean, found.last_hop_max) == (2, 2)
