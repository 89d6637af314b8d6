"""Survivability of one run and over many."""

from pathlib import Path

import pytest

from tests.topologies.made_up_runs import Timed, arrived, broke, made, manifest, write_run
from topologies.metrics import Summary, summarize, survivability
from topologies.metrics.survivability import interval
from underlay.faults import Crash, Restart


def killed(folder: Path, k: int, arriving: int, seed: int = 0) -> Summary:
    """Ten observations of cam2 after `k` of cam1 and the hub have failed; `arriving` of them arrive."""
    records: list[Timed] = [broke(20.0, Crash(device)) for device in ("cam1", "hub")[:k]]
    records += [made(21.0 + n, f"cam2:{n}") for n in range(10)]
    records += [arrived(22.0 + n, f"cam2:{n}") for n in range(arriving)]
    return summarize(write_run(folder / f"{k}-{seed}", records, manifest(seed=seed)))


def test_only_survivors_and_only_after_the_last_failure(tmp_path: Path) -> None:
    records = [
        made(15.0, "cam2:0"),
        broke(20.0, Crash("cam1")),
        broke(25.0, Crash("hub")),
        broke(26.0, Restart("hub")),
        made(30.0, "cam2:1"), arrived(31.0, "cam2:1"),
        made(30.0, "cam1:9"),
    ]  # fmt: skip
    found = summarize(write_run(tmp_path, records)).survivors
    assert (found.k, found.failed, found.expected, found.ratio) == (1, ("cam1",), 1, 1.0)


def test_without_a_sink_nothing_survives(tmp_path: Path) -> None:
    records = [broke(20.0, Crash("sink")), made(30.0, "cam1:0")]
    found = summarize(write_run(tmp_path, records)).survivors
    assert (found.k, found.expected, found.ratio) == (1, 0, 0.0)


def test_the_curve_its_area_and_its_intervals(tmp_path: Path) -> None:
    runs = [
        killed(tmp_path, 0, 10),
        killed(tmp_path, 1, 8, 0),
        killed(tmp_path, 1, 4, 1),
        killed(tmp_path, 2, 2),
    ]
    (curve,) = survivability(runs)
    assert {point.k: point.ratio for point in curve.points} == pytest.approx({0: 1.0, 1: 0.6, 2: 0.2})
    assert curve.area == pytest.approx((0.8 + 0.4) / 2)
    assert (curve.points[1].low, curve.points[1].high) == pytest.approx((0.4, 0.8))


def test_the_interval_narrows_with_runs_and_is_the_same_each_time() -> None:
    few, many = interval([0.2, 0.8] * 3), interval([0.2, 0.8] * 50)
    assert few == interval([0.2, 0.8] * 3)
    assert few[0] < many[0] < 0.5 < many[1] < few[1]
