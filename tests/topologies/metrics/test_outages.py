"""Failures: how verbs pair up, what they did, how long until delivery was back."""

from math import inf
from pathlib import Path

import numpy as np
import pytest

from tests.topologies.made_up_runs import Timed, arrived, broke, made, write_run
from topologies.metrics import summarize
from topologies.metrics.delivery import Pairs
from topologies.metrics.outages import Outage, Recovery, outages, recovery
from topologies.metrics.reading import Made
from underlay.faults import (
    AnyFault,
    Crash,
    Degrade,
    FailDisk,
    Heal,
    LinkDown,
    LinkUp,
    LoseDisk,
    OneWayCut,
    Partition,
    Pause,
    Restart,
    Resume,
    RotDisk,
    SlowDisk,
)


@pytest.mark.parametrize(
    ("timeline", "expected"),
    [
        pytest.param(
            [(1, Crash("a")), (2, Crash("b")), (3, Restart("a"))],
            [Outage("crash", "a", 1, 3), Outage("crash", "b", 2, None)],
            id="a crash ends with the restart of the same device, or never",
        ),
        pytest.param(
            [(1, Pause("a")), (2, Crash("a")), (4, Restart("a")), (5, Pause("a")), (6, Resume("a"))],
            [Outage("pause", "a", 1, 2), Outage("crash", "a", 2, 4), Outage("pause", "a", 5, 6)],
            id="a crash ends a pause",
        ),
        pytest.param(
            [(1, LinkDown("b", "a")), (2, OneWayCut("a", "b")), (3, LinkUp("a", "b"))],
            [Outage("link-down", "a – b", 1, 3), Outage("one-way-cut", "a → b", 2, 3)],
            id="link-up undoes cuts of either kind, whichever way it is named",
        ),
        pytest.param(
            [(1, Partition((("a", "b"), ("c",)))), (2, LinkDown("a", "b")), (2.5, Crash("d")), (3, Heal())],
            [
                Outage("partition", "a, b | c", 1, 3),
                Outage("link-down", "a – b", 2, 3),
                Outage("crash", "d", 2.5, None),
            ],
            id="heal undoes partitions and cuts, but no crash",
        ),
        pytest.param(
            [(1, Degrade("a", "b", {"loss_ratio": 0.5})), (4, Degrade("a", "b", {}))],
            [Outage("degrade", "a – b", 1, 4)],
            id="a degrade without changes restores",
        ),
        pytest.param(
            [(1, SlowDisk("a", 9.0)), (2, FailDisk("a")), (3, Restart("a")), (4, SlowDisk("a", 1.0))],
            [Outage("slow-disk", "a", 1, 4), Outage("fail-disk", "a", 2, 3)],
            id="a restart mends a failed disk, and a factor of 1 a slow one",
        ),
        pytest.param([(1, LoseDisk("a")), (2, RotDisk("a"))], [], id="what is lost is no outage by itself"),
    ],
)
def test_pairing(timeline: list[tuple[float, AnyFault]], expected: list[Outage]) -> None:
    assert list(outages(timeline)) == expected


def test_what_the_star_recovered_after_its_hub_came_back(tmp_path: Path) -> None:
    """One a second; the hub is down from 40 to 60. What was made then arrives at 61, but two never do."""
    records: list[Timed] = [broke(40.0, Crash("hub")), broke(60.0, Restart("hub"))]
    for n in range(10, 90):
        id_, t_s = f"cam1:{n}", float(n)
        records.append(made(t_s, id_))
        if not 40 <= n < 60:
            records.append(arrived(t_s + 0.5, id_))
        elif n not in (45, 46):
            records.append(arrived(61.0, id_))
    summary = summarize(write_run(tmp_path, records))
    (effect,) = summary.effects
    assert effect.outage == Outage("crash", "hub", 40.0, 60.0)
    assert (effect.before.expected, effect.before.ratio) == (30, 1.0)
    # Made at 51 or later: in time at 61.
    assert (effect.during.expected, effect.during.on_time) == (20, 9)
    assert (effect.after.expected, effect.after.ratio) == (30, 1.0)
    assert (effect.through, effect.recovered, effect.recovered_late, effect.lost) == (0, 18, 9, 2)
    assert effect.during.age_peak_s == pytest.approx(21.0)
    assert effect.recovery == Recovery("back", 15.0), "windows from 55 s on are back at 95 %"
    # One a second: ten to a window.
    assert summary.series.step_s == 10.0
    assert summary.series.expected == (10,) * 8
    assert summary.series.on_time == (10, 10, 10, 0, 9, 10, 10, 10)
    assert summary.series.late == (0, 0, 0, 8, 1, 0, 0, 0)


def test_age_during_an_outage_is_the_integral_over_it(tmp_path: Path) -> None:
    records = [
        made(39.0, "cam1:0"),
        arrived(39.0, "cam1:0"),
        broke(40.0, Crash("hub")),
        broke(50.0, Restart("hub")),
    ]
    (effect,) = summarize(write_run(tmp_path, records)).effects
    assert (effect.during.age_mean_s, effect.during.age_peak_s) == (6.0, 11.0)


@pytest.mark.parametrize(
    ("delivered", "baseline", "expected"),
    [
        pytest.param("yyyyy", 1.0, 0.0, id="never fell"),
        pytest.param("nnyyy", 1.0, 10.0, id="back after two windows"),
        pytest.param("nyynyyy", 1.0, 20.0, id="two good windows are not enough"),
        pytest.param("nnnnn", 1.0, "not back", id="never came back"),
        pytest.param("nnyy", 1.0, "cannot tell", id="too late to tell"),
        pytest.param("nn", 1.0, "cannot tell", id="too short to tell"),
        pytest.param("yyyyy", None, "cannot tell", id="nothing to compare with"),
    ],
)
def test_time_to_recovery(delivered: str, baseline: float | None, expected: float | str) -> None:
    """One observation in each 5 s window after the failure at 100 s."""
    made_s = np.array([101.0 + 5 * i for i in range(len(delivered))])
    arrived_s = np.array([[t + 1 if d == "y" else inf] for t, d in zip(made_s, delivered, strict=True)])
    pairs = Pairs(
        [Made(t, "cam1", "motion", 1) for t in made_s], ["sink"], made_s, arrived_s, deadline_s=10.0
    )
    found = recovery(pairs, 100.0, baseline, 100.0 + 5 * len(delivered))
    assert (found.after_s if found.state == "back" else found.state) == expected
