"""The storage tier in numbers: waits, spells, losses, and what each failure behind the sink did."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import msgspec
import pytest

from edge.events import Stored
from gateway.events import ReadBack
from tests.topologies.made_up_runs import Timed, arrived, broke, made, manifest, write_run
from topologies.manifest import DeviceInfo
from topologies.metrics import Summary, summarize
from underlay.faults import AnyFault, Crash, Heal, LinkDown, LinkUp, Partition, Restart, SlowDisk

HOSTS = tuple(DeviceInfo(f"store{n}", "storage", "server") for n in (1, 2, 3))


def stored(t_s: float, id_: str) -> Timed:
    """The tier has it."""
    return t_s, "sink", Stored(id_)


def summary(folder: Path, records: Iterable[Timed]) -> Summary:
    run = manifest(storage="paxos")
    run = msgspec.structs.replace(run, devices=(*run.devices, *HOSTS))
    return summarize(write_run(folder, records, run))


def handed(n: int, at_s: float, wait_s: float | None) -> list[Timed]:
    """An observation that reaches the sink at once and then waits for the tier, or for ever."""
    id_ = f"cam1:{n}"
    there = [made(at_s, id_), arrived(at_s, id_)]
    return there if wait_s is None else [*there, stored(at_s + wait_s, id_)]


def test_what_was_kept_and_how_long_it_took(tmp_path: Path) -> None:
    records = [record for n in range(100) for record in handed(n, 15.0 + n / 2, 0.01 if n < 98 else 3.0)]
    tier = summary(tmp_path, [*records, (99.0, "sink", ReadBack(100, ("cam1:7", "cam1:9")))]).tier
    assert (tier.given, tier.kept, tier.lost) == (100, 100, 2)
    assert (tier.p50_s, tier.p99_s) == (0.01, 3.0)
    assert tier.unavailable_s == pytest.approx(2.5)  # from 1 s after the first slow one to the last's end
    assert tier.longest_s == pytest.approx(2.5)


def test_what_was_never_kept_took_for_ever(tmp_path: Path) -> None:
    tier = summary(tmp_path, handed(1, 20.0, None)).tier
    assert (tier.given, tier.kept, tier.lost) == (1, 0, None)
    assert tier.p50_s is None
    assert tier.longest_s == pytest.approx(79.0)


def test_a_failure_counts_what_came_meanwhile_and_its_own_time(tmp_path: Path) -> None:
    """The tier is away from 21 to 26 s, but the host is down until 24 s."""
    records = [
        *handed(1, 15.0, 0.01),
        broke(20.0, Crash("store1")),
        *handed(2, 20.0, 6.0),
        *handed(3, 23.0, 3.0),
        broke(24.0, Restart("store1")),
        *handed(4, 25.0, 0.5),
        broke(40.0, SlowDisk("store2", 20.0)),
        *handed(5, 41.0, None),
    ]
    first, second = summary(tmp_path, records).tier.effects
    assert (first.outage.kind, first.outage.subject) == ("crash", "store1")
    assert first.given == 2
    assert [first.unavailable_s, first.longest_s] == pytest.approx([3.0, 6.0])
    assert (second.given, second.longest_s) == (1, None)
    assert second.unavailable_s == pytest.approx(58.0)


@pytest.mark.parametrize(
    ("begin", "end", "behind"),
    [
        (Crash("store1"), Restart("store1"), True),
        (Crash("sink"), Restart("sink"), False),
        (Crash("hub"), Restart("hub"), False),
        (LinkDown("sink", "store1"), LinkUp("sink", "store1"), True),
        (LinkDown("store2", "store1"), LinkUp("store2", "store1"), True),
        (Partition((("store1",), ("store2", "store3"))), Heal(), True),
        (Partition((("store1", "cam1"),)), Heal(), False),
    ],
    ids=[
        "a host",
        "the sink",
        "the hub",
        "a link of a host",
        "between hosts",
        "hosts apart",
        "with a birdhouse",
    ],
)
def test_a_failure_is_told_where_it_matters(
    tmp_path: Path, begin: AnyFault, end: AnyFault, behind: bool
) -> None:
    """Behind the sink it is the tier's, before it the dissemination's, never both."""
    found = summary(tmp_path, [broke(20.0, begin), *handed(1, 21.0, 0.1), broke(24.0, end)])
    assert len(found.outages) == 1
    assert len(found.tier.effects) == (1 if behind else 0)
    assert len(found.effects) == (0 if behind else 1)
