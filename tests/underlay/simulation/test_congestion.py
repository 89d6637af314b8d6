"""TCP's estimates as tables: the retransmission timeout, and the congestion window."""

from math import inf

import pytest

from tests.underlay.simulation.actors import Actor, Letter, heard_at, says, usage
from underlay.faults import Degrade
from underlay.link import LinkSpec
from underlay.simulation import Simulation, plan_of
from underlay.simulation.congestion import Cubic, RttEstimator


def estimator(*samples_ms: float) -> RttEstimator:
    """Fed with one sample a second."""
    rtt = RttEstimator()
    for t_s, sample_ms in enumerate(samples_ms):
        rtt.sample(sample_ms * 1e-3, float(t_s))
    return rtt


@pytest.mark.parametrize(
    ("samples_ms", "timeout_ms"),
    [
        pytest.param([], 1000, id="1 s before the first sample (RFC 6298)"),
        pytest.param([50], 50 + 200, id="the variation is never below 200 ms (Linux)"),
        pytest.param([600], 600 + 4 * 300, id="half the first sample is its deviation"),
        pytest.param([100] * 50, 300, id="a steady round trip"),
        pytest.param([600] * 200, 800, id="a steady long one needs some time"),
    ],
)
def test_the_timeout_follows_the_samples(samples_ms: list[float], timeout_ms: float) -> None:
    assert estimator(*samples_ms).timeout_s == pytest.approx(timeout_ms * 1e-3, rel=1e-3)


def test_the_timeout_grows_faster_with_a_delay_than_it_shrinks_without() -> None:
    steady = estimator(*[100] * 50)
    calm_s = steady.timeout_s
    steady.sample(0.5, 50.0)
    shaken_s = steady.timeout_s
    steady.sample(0.1, 51.0)
    assert calm_s < steady.timeout_s < shaken_s
    assert steady.timeout_s - calm_s > (shaken_s - calm_s) / 2


def test_the_timeout_doubles_until_something_is_acknowledged() -> None:
    rtt = estimator(50)
    timeouts_ms = []
    for _ in range(12):
        timeouts_ms.append(round(rtt.timeout_s * 1e3))
        rtt.back_off()
    assert timeouts_ms[:4] == [250, 500, 1000, 2000]
    assert timeouts_ms[-1] == 120_000
    rtt.acknowledged()
    assert rtt.timeout_s == pytest.approx(0.25)


def rounds(cubic: Cubic, count: int, rtt_s: float = 0.1, from_s: float = 0.0) -> list[float]:
    """The window after each of `count` round trips in which all of it was sent and acknowledged."""
    rtt, windows, una = estimator(rtt_s * 1e3), [], 0
    for number in range(count):
        segments = int(cubic.window)
        for _ in range(segments):
            una += 1
            cubic.grow(1, from_s + number * rtt_s, rtt, una, una + segments)
        windows.append(cubic.window)
    return windows


def test_slow_start_doubles_the_window_each_round_trip() -> None:
    assert rounds(Cubic(), 4) == [20.0, 40.0, 80.0, 160.0]


def test_a_loss_leaves_seven_tenths_and_cubic_comes_back_to_where_it_was() -> None:
    cubic = Cubic()
    rounds(cubic, 3)
    cubic.reduce(pipe=79)
    cubic.repaired()
    assert cubic.window == pytest.approx(0.7 * 80)
    plateau_s = (80 * 0.3 / 0.4) ** (1 / 3)  # K of RFC 9438
    windows = rounds(cubic, round(2 * plateau_s / 0.1))
    assert windows == sorted(windows)
    assert windows[len(windows) // 2] == pytest.approx(80, rel=0.05)
    assert windows[-1] > 90


def test_a_reduction_sends_in_proportion_to_what_arrives() -> None:
    """RFC 6937: of 20 segments one is lost; while the other 19 arrive, about 7 in 10 are replaced."""
    cubic = Cubic()
    rounds(cubic, 1)
    pipe, sent = 19, 0
    cubic.reduce(pipe)
    for _ in range(19):
        pipe -= 1
        cubic.repair(1, pipe)
        while pipe + 1 <= cubic.window:
            cubic.sent()
            sent += 1
            pipe += 1
    assert 13 <= sent <= 15
    assert pipe == pytest.approx(0.7 * 20, abs=1)


def test_a_timeout_begins_again_with_one_segment_and_may_be_undone() -> None:
    cubic = Cubic()
    rounds(cubic, 2)
    cubic.collapse()
    assert cubic.window == 1.0
    assert cubic.ssthresh == pytest.approx(28.0)
    cubic.undo()
    assert (cubic.window, cubic.ssthresh) == (40.0, inf)


def test_a_queue_that_builds_up_ends_slow_start() -> None:
    cubic, rtt = Cubic(), estimator(100)
    rounds(cubic, 1)
    for una in range(20, 40):
        rtt.sample(0.130, 1.0)
        cubic.grow(1, 1.0, rtt, una, una + 20)
    assert cubic.ssthresh < inf


def test_a_delay_that_looks_like_a_loss_costs_one_needless_segment() -> None:
    script = {t_s: says("b/x", Letter(int(t_s))) for t_s in (1.0, 2.0, 3.0, 4.0)}
    plan = plan_of(
        {"a": {"x": lambda: Actor(script)}, "b": {"x": Actor}},
        [("a", "b", LinkSpec(rate_kbps=1000.0, delay_ms=20.0))],
        faults=[(3.5, Degrade("a", "b", {"delay_ms": 150.0}))],
    )
    world = Simulation.from_plan(plan)
    world.run_until(10.0)
    world.finish()
    assert len(heard_at(world, "b/x")) == 4
    assert usage(world, "a", "b", "frames") == 2 + 4 + 1
