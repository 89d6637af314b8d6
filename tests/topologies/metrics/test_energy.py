"""Energy by hand: 3 V, 20 mA sending, 10 mA receiving, always listening at 10 mA."""

from pathlib import Path

import pytest

from tests.topologies.made_up_runs import Timed, broke, made, manifest, write_run
from topologies.manifest import DeviceInfo
from topologies.metrics import summarize
from underlay.energy import Radio
from underlay.faults import Crash, Restart
from underlay.trace import LinkUsage

RADIO = Radio(volts=3.0, transmit_ma=20.0, receive_ma=10.0, listen_ma=10.0, sleep_ma=0.0)
RUN = manifest(
    devices=(
        DeviceInfo("cam1", "birdhouse", "", radio=RADIO, battery_j=30.0),
        DeviceInfo("cam2", "birdhouse", "", radio=RADIO),
        DeviceInfo("sink", "sink", ""),
    )
)


def test_joules_by_state_lifetime_and_fairness(tmp_path: Path) -> None:
    """cam1 sends for 10 s and listens for 90: 0.6 J + 2.7 J; its 30 J last 909 s."""
    records = [made(20.0, "cam1:0"), sent("cam1", 4.0, at=5.0), sent("cam1", 6.0, at=30.0)]
    found = summarize(write_run(tmp_path, records, RUN)).energy
    cam1, cam2 = found.by_device["cam1"], found.by_device["cam2"]
    assert (cam1.transmit_j, cam1.receive_j, cam1.listen_j) == pytest.approx((0.6, 0.0, 2.7))
    assert cam1.lifetime_s == pytest.approx(30 / 3.3 * 100, abs=0.001)
    assert cam2.total_j == pytest.approx(3.0)
    assert set(found.by_device) == {"cam1", "cam2"}, "the sink has no radio"
    assert (found.all.nodes, found.battery.nodes, found.battery.jain) == (2, 1, 1.0)
    assert found.all.jain == pytest.approx(6.3**2 / (2 * (3.3**2 + 3.0**2)))
    assert found.lifetime_s == cam1.lifetime_s


def test_on_a_channel_everyone_in_range_pays(tmp_path: Path) -> None:
    records: list[Timed] = [
        made(20.0, "cam1:0"),
        (30.0, None, LinkUsage("air", "cam1", "*", frames=1, airtime_s=5.0)),
        (30.0, None, LinkUsage("air", "cam1", "cam2", received_s=5.0)),
    ]
    found = summarize(write_run(tmp_path, records, RUN)).energy.by_device
    assert found["cam1"].transmit_j == pytest.approx(0.3)
    assert found["cam2"].receive_j == pytest.approx(0.15)


def test_a_crashed_device_draws_nothing(tmp_path: Path) -> None:
    records = [broke(20.0, Crash("cam2")), broke(60.0, Restart("cam2"))]
    found = summarize(write_run(tmp_path, records, RUN)).energy.by_device
    assert found["cam2"].total_j == pytest.approx(3.0 * 0.6)


def sent(device: str, airtime_s: float, at: float) -> Timed:
    return at, None, LinkUsage(f"{device}-sink", device, "sink", frames=1, airtime_s=airtime_s)
