"""Faults of links as a state machine, with an ether and kernels that only take notes."""

from __future__ import annotations

from random import Random
from typing import Any, cast

import pytest

from tests.underlay.emulation.lab import WIRE, channel, line
from underlay.emulation.medium import Medium, hop_counts
from underlay.faults import AnyFault, Crash, Degrade, Heal, LinkDown, LinkUp, OneWayCut, Partition
from underlay.link import LinkSpec
from underlay.network import Device, Link, Network
from underlay.routes import path, shortest_paths


class Notes:
    """Which hops pass nothing, and which specs were changed."""

    def __init__(self) -> None:
        self.closed: set[tuple[str, str]] = set()
        self.specs: dict[tuple[str, str, str], LinkSpec] = {}

    def cut(self, pairs: list[tuple[str, str]]) -> None:
        assert not self.closed & set(pairs), "cut twice"
        self.closed |= set(pairs)

    def mend(self, pairs: list[tuple[str, str]]) -> None:
        assert self.closed >= set(pairs), "mended what was whole"
        self.closed -= set(pairs)

    def reshape(self, medium: str, source: str, target: str, spec: LinkSpec) -> None:
        self.specs[medium, source, target] = spec


def medium_of(graph: Network) -> tuple[Medium, Notes]:
    notes = Notes()
    return Medium(graph, cast("Any", None), cast("Any", notes), shortest_paths(graph)), notes


BOTH = {("a", "b"), ("b", "a")}


@pytest.mark.parametrize(
    ("faults", "closed"),
    [
        ([LinkDown("a", "b")], BOTH),
        ([LinkDown("a", "b"), LinkUp("b", "a")], set()),
        ([OneWayCut("a", "b")], {("a", "b")}),
        ([OneWayCut("a", "b"), LinkDown("a", "b"), LinkUp("a", "b")], set()),
        ([Partition((("a",),))], BOTH),
        ([Partition((("a",),)), Partition((("a", "b"),))], BOTH | {("b", "c"), ("c", "b")}),
        ([Partition((("a",),)), LinkDown("b", "c"), Heal()], set()),
    ],
    ids=[
        "a link down passes nothing either way",
        "up again, named from the other end",
        "one way",
        "up undoes everything on the link",
        "a group against the rest",
        "two partitions add up",
        "heal undoes everything",
    ],
)
def test_what_faults_leave_closed(faults: list[AnyFault], closed: set[tuple[str, str]]) -> None:
    medium, notes = medium_of(line("abc"))
    for fault in faults:
        assert medium.apply(fault)
    assert notes.closed == closed


def test_power_returns_to_no_more_than_what_other_faults_leave() -> None:
    medium, notes = medium_of(line("abc"))
    medium.apply(LinkDown("a", "b"))
    medium.set_power("b", False)
    assert notes.closed == BOTH | {("b", "c"), ("c", "b")}
    medium.apply(Heal())
    assert notes.closed == BOTH | {("b", "c"), ("c", "b")}
    medium.set_power("b", True)
    assert notes.closed == set()


def test_a_degraded_link_changes_both_ways_and_comes_back() -> None:
    medium, notes = medium_of(line("ab"))
    assert not medium.apply(Degrade("a", "b", {"loss_ratio": 0.5}))
    assert {spec.loss_ratio for spec in notes.specs.values()} == {0.5}
    assert set(notes.specs) == {("a-b", "a", "b"), ("a-b", "b", "a")}
    medium.apply(Degrade("b", "a", {}))
    assert set(notes.specs.values()) == {WIRE}


def test_a_pair_on_a_channel_degrades_without_the_others() -> None:
    medium, notes = medium_of(channel("abc"))
    medium.apply(Degrade("a", "c", {"loss_ratio": 0.5}))
    assert set(notes.specs) == {("air", "a", "c"), ("air", "c", "a")}


@pytest.mark.parametrize(
    ("fault", "problem"),
    [
        (Crash("a"), ""),
        (Crash("cc"), "there is no device 'cc', did you mean 'c'?"),
        (LinkDown("a", "c"), "a and c are no neighbours"),
        (Partition((("a", "x"),)), "there is no device 'x'"),
        (Degrade("a", "b", {"loss_ratio": 7.0}), "loss_ratio = 7.0 is outside 0.0..1.0"),
        (Heal(), ""),
    ],
)
def test_faults_by_hand_are_checked_before_anything_happens(fault: AnyFault, problem: str) -> None:
    medium, notes = medium_of(line("abc"))
    assert medium.problem_with(fault) == problem
    assert notes.closed == set()


@pytest.mark.sweep(20)
def test_hops_are_those_of_the_paths_that_routes_take(seed: int) -> None:
    rng = Random(seed)
    names = [f"n{i}" for i in range(12)]
    pairs = sorted({tuple(sorted(rng.sample(names, 2))) for _ in range(18)})
    specs = [LinkSpec(delay_ms=rng.choice([1, 2, 5])) for _ in pairs]
    links = tuple(Link(a, b, spec, spec) for (a, b), spec in zip(pairs, specs, strict=True))
    routes = shortest_paths(Network(tuple(map(Device, names)), links), down=names[:1])
    counts = hop_counts(routes)
    for source in routes:
        for destination in names:
            way = path(routes, source, destination)
            if source != destination:
                assert counts[source].get(destination) == (len(way) - 1 if way else None)
