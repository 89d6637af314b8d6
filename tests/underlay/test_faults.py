"""Fault verbs as data."""

import msgspec
import pytest

from underlay.faults import (
    AnyFault,
    Crash,
    Degrade,
    Heal,
    LinkDown,
    OneWayCut,
    Partition,
    TimedFault,
    cut_edges,
)
from underlay.link import LinkSpec
from underlay.network import Channel, Device, Link, Network

WIRE = LinkSpec()
LINE = Network(
    tuple(map(Device, "abcd")),
    (Link("a", "b", WIRE, WIRE), Link("b", "c", WIRE, WIRE)),
    (Channel("air", WIRE, (("c", "d"), ("a", "d"))),),
)


@pytest.mark.parametrize(
    ("groups", "edges"),
    [
        pytest.param((("a", "b"),), [("b", "c"), ("a", "d")], id="one group against the rest"),
        pytest.param(
            (("a",), ("b",), ("c",)), [("a", "b"), ("b", "c"), ("c", "d"), ("a", "d")], id="everybody alone"
        ),
        pytest.param((("a", "b", "c", "d"),), [], id="all together"),
        pytest.param((), [], id="no groups"),
    ],
)
def test_a_partition_cuts_what_joins_its_groups(
    groups: tuple[tuple[str, ...], ...], edges: list[tuple[str, str]]
) -> None:
    assert cut_edges(Partition(groups), LINE) == edges


@pytest.mark.parametrize(
    "fault",
    [
        Crash("a"),
        LinkDown("a", "b"),
        OneWayCut("b", "a"),
        Degrade("a", "b", {"delay_ms": 5.0}),
        Partition((("a",),)),
        Heal(),
    ],
    ids=str,
)
def test_a_fault_survives_json(fault: AnyFault) -> None:
    timed = TimedFault(3.0, fault)
    assert msgspec.json.decode(msgspec.json.encode(timed), type=TimedFault) == timed


def test_degrading_replaces_the_named_parameters_only() -> None:
    spec = LinkSpec(rate_kbps=100.0, delay_ms=5.0)
    assert Degrade("a", "b", {"loss_ratio": 0.1}).applied_to(spec) == LinkSpec(
        rate_kbps=100.0, delay_ms=5.0, loss_ratio=0.1
    )
    assert Degrade("a", "b", {}).applied_to(spec) == spec
    with pytest.raises(ValueError, match="loss_ratio"):
        Degrade("a", "b", {"loss_ratio": 7.0}).applied_to(spec)
