"""ChannelModel: one medium for all, a duty cycle each, hearers that lose on their own."""

import pytest

from underlay.channel import ChannelModel
from underlay.link import LOST, QUEUE_FULL, LinkSpec
from underlay.network import seeded

SPEC = LinkSpec(rate_kbps=80.0, delay_ms=2.0, queue_bytes=250)
"""100 bytes take 10 ms."""


def channel(spec: LinkSpec = SPEC, duty_cycle_ratio: float = 1.0) -> ChannelModel:
    model = ChannelModel(spec, duty_cycle_ratio)
    for source, target in (("a", "b"), ("a", "c"), ("b", "a"), ("c", "a")):
        model.add_hearer(source, target, seeded(0, source, target))
    return model


@pytest.mark.parametrize(
    ("duty_cycle_ratio", "sent", "ends_ms"),
    [
        pytest.param(1.0, [("a", 0), ("b", 0)], [10, 20], id="two senders take turns"),
        pytest.param(1.0, [("a", 0), ("b", 50)], [10, 60], id="a free medium is used at once"),
        pytest.param(
            1.0, [("a", 0), ("b", 0), ("c", 0), ("a", 0)], [10, 20, 30, QUEUE_FULL], id="a full queue drops"
        ),
        pytest.param(
            0.1, [("a", 0), ("a", 90), ("b", 90)], [10, 110, 120], id="after 10 ms of air, 90 ms of quiet"
        ),
    ],
)
def test_a_transmission_ends_when_the_medium_allows(
    duty_cycle_ratio: float, sent: list[tuple[str, int]], ends_ms: list[float]
) -> None:
    model = channel(duty_cycle_ratio=duty_cycle_ratio)
    ends_s = [model.transmit(sender, at_ms * 1e-3, 100) for sender, at_ms in sent]
    assert ends_s == [pytest.approx(ms if ms < 0 else ms * 1e-3) for ms in ends_ms]


def test_a_transmission_is_counted_once_however_many_hear_it() -> None:
    model = channel()
    end_s = model.transmit("a", 0.0, 100, data=True)
    assert [model.hear("a", hearer, end_s, 100) for hearer in model.hearers("a")] == [
        pytest.approx(0.012)
    ] * 2
    assert (model.frames, model.bytes_on_air, model.data_bytes) == ({"a": 1}, {"a": 100}, {"a": 100})
    assert model.airtime_s == {"a": pytest.approx(0.010)}


def test_hearers_in_range_are_those_added() -> None:
    assert channel().hearers("a") == ["b", "c"]
    assert channel().hearers("b") == ["a"]


def test_each_hearer_loses_on_its_own() -> None:
    model = channel(LinkSpec(rate_kbps=80.0, loss_ratio=0.5))
    fates = [[model.hear("a", hearer, 0.0, 100) == LOST for hearer in "bc"] for _ in range(400)]
    assert {tuple(fate) for fate in fates} == {(False, False), (False, True), (True, False), (True, True)}
    assert model.lost["a", "b"] == sum(b for b, _ in fates)
    assert 140 < model.lost["a", "b"] < 260
