"""LinkSpec, LinkModel and LossProcess: exact times as tables, statistics as properties."""

from itertools import groupby, pairwise
from math import inf, sqrt
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from underlay.link import LOST, QUEUE_FULL, LinkModel, LinkSpec, LossProcess
from underlay.network import seeded

OFFERS = st.lists(st.tuples(st.floats(0.0, 0.05), st.integers(20, 4000)), min_size=1, max_size=60)
"""Seconds since the packet before, and bytes."""
SPECS = st.builds(
    LinkSpec,
    rate_kbps=st.floats(1.0, 1e5),
    delay_ms=st.floats(20.0, 500.0),
    jitter_ms=st.floats(0.0, 20.0),
    loss_ratio=st.floats(0.0, 0.4),
    queue_bytes=st.integers(1, 100_000),
    mtu_bytes=st.integers(40, 1500),
    overhead_bytes=st.integers(0, 40),
)


def model(seed: int = 0, **spec: Any) -> LinkModel:
    return LinkModel(LinkSpec(**spec), seeded(seed, "test"))


@pytest.mark.parametrize(
    ("spec", "offers", "arrivals_ms"),
    [
        pytest.param({}, [(0, 100)], [0], id="an unlimited link takes no time"),
        pytest.param({"delay_ms": 5}, [(0, 100), (7, 100)], [5, 12], id="delay"),
        pytest.param({"rate_kbps": 800}, [(0, 100), (5, 100)], [1, 6], id="serialization"),
        pytest.param({"rate_kbps": 800}, [(0, 100), (0, 50)], [1, 1.5], id="the second waits for the first"),
        pytest.param({"rate_kbps": 800, "delay_ms": 3}, [(0, 100)], [4], id="serialization, then delay"),
        pytest.param(
            {"rate_kbps": 800, "overhead_bytes": 25}, [(0, 100)], [1.25], id="framing takes airtime"
        ),
        pytest.param(
            {"rate_kbps": 800, "overhead_bytes": 10, "mtu_bytes": 40},
            [(0, 100)],
            [1.3],
            id="framing for each of three fragments",
        ),
        pytest.param(
            {"rate_kbps": 800, "queue_bytes": 150},
            [(0, 100), (0, 100), (0, 100), (2, 100)],
            [1, 2, QUEUE_FULL, 3],
            id="what would wait behind more than the queue holds is dropped",
        ),
        pytest.param(
            {"opportunities_ms": (2, 3, 10)},
            [(0, 100), (0, 100), (0, 100), (0, 100)],
            [2, 3, 10, 12],
            id="recorded opportunities, one packet each, repeated",
        ),
        pytest.param(
            {"opportunities_ms": (2, 3, 10), "mtu_bytes": 100},
            [(4, 250)],
            [13],
            id="an opportunity for each fragment",
        ),
        pytest.param(
            {"loss_ratio": 1}, [(0, 100), (1, 100)], [LOST, LOST], id="a link that loses everything"
        ),
    ],
)
def test_a_packet_arrives_when_the_model_says(
    spec: dict[str, Any], offers: list[tuple[float, int]], arrivals_ms: list[float]
) -> None:
    link = model(**spec)
    arrivals_s = [link.offer(at_ms * 1e-3, size_bytes) for at_ms, size_bytes in offers]
    assert arrivals_s == [pytest.approx(ms if ms < 0 else ms * 1e-3) for ms in arrivals_ms]


@pytest.mark.parametrize(
    ("spec", "problem"),
    [
        ({"rate_kbps": 0.0}, "rate_kbps must be above 0"),
        ({"delay_ms": -1.0}, "delay_ms"),
        ({"delay_ms": 1.0, "jitter_ms": 2.0}, "jitter_ms = 2.0 exceeds"),
        ({"loss_ratio": 1.5}, "loss_ratio"),
        ({"mtu_bytes": 1}, "mtu_bytes"),
        ({"opportunities_ms": (3.0, 2.0)}, "ascend"),
    ],
)
def test_an_impossible_spec_is_refused(spec: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        LinkSpec(**spec)


@given(SPECS, OFFERS, st.integers(0, 1 << 16))
def test_frames_keep_their_order_and_never_arrive_early(
    spec: LinkSpec, offers: list[tuple[float, int]], seed: int
) -> None:
    link = LinkModel(spec, seeded(seed, "fifo"))
    now_s = last_s = 0.0
    for gap_s, size_bytes in offers:
        now_s += gap_s
        arrival_s = link.offer(now_s, size_bytes)
        if arrival_s >= 0.0:
            earliest_s = now_s + spec.airtime_s(size_bytes) + (spec.delay_ms - spec.jitter_ms) * 1e-3
            assert arrival_s >= earliest_s - 1e-9
            assert arrival_s >= last_s
            last_s = arrival_s


@given(SPECS, OFFERS, st.integers(0, 1 << 16))
def test_every_offer_is_counted_once(spec: LinkSpec, offers: list[tuple[float, int]], seed: int) -> None:
    link = LinkModel(spec, seeded(seed, "count"))
    now_s = 0.0
    fates = []
    for gap_s, size_bytes in offers:
        now_s += gap_s
        fates.append((link.offer(now_s, size_bytes, size_bytes % 2 == 0), size_bytes))
    sent = [size_bytes for fate, size_bytes in fates if fate != QUEUE_FULL]
    assert link.queue_dropped == len(fates) - len(sent)
    assert link.lost == sum(fate == LOST for fate, _ in fates)
    assert link.frames == len(sent)
    assert link.bytes_on_air == sum(map(spec.bytes_on_air, sent))
    assert link.data_bytes == sum(spec.bytes_on_air(size_bytes) for size_bytes in sent if size_bytes % 2 == 0)
    assert link.airtime_s == pytest.approx(sum(map(spec.airtime_s, sent)))


@given(st.floats(10.0, 1e5), st.integers(40, 1500))
def test_a_busy_link_delivers_its_rate(rate_kbps: float, size_bytes: int) -> None:
    link = model(rate_kbps=rate_kbps, queue_bytes=1 << 30)
    arrivals_s = [link.offer(0.0, size_bytes) for _ in range(50)]
    assert 50 * size_bytes * 8e-3 / arrivals_s[-1] == pytest.approx(rate_kbps)


@pytest.mark.parametrize("loss_ratio", [0.01, 0.05, 0.2, 0.5])
@pytest.mark.parametrize("burst_frames", [1.0, 3.0, 8.0])
def test_loss_has_the_asked_mean_and_burst_length(loss_ratio: float, burst_frames: float) -> None:
    frames = 200_000
    burst_mean = max(burst_frames, 1.0 / (1.0 - loss_ratio))
    loss = LossProcess(loss_ratio, burst_frames, seeded(1, "loss", loss_ratio, burst_frames))
    fates = [loss.lost(1) for _ in range(frames)]
    bursts = [len(list(run)) for lost, run in groupby(fates) if lost]
    # Within four standard deviations: of the mean of a correlated chain, and of a geometric run length.
    correlation = 1.0 - 1.0 / burst_mean / (1.0 - loss_ratio)
    spread = sqrt(loss_ratio * (1 - loss_ratio) / frames * (1 + correlation) / (1 - correlation))
    assert abs(sum(fates) / frames - loss_ratio) < 4 * spread
    spread = sqrt(burst_mean * (burst_mean - 1) / len(bursts))
    assert abs(sum(bursts) / len(bursts) - burst_mean) <= 4 * spread


def test_losses_are_independent_unless_bursts_are_asked_for() -> None:
    loss = LossProcess(0.3, 1.0, seeded(3, "independent"))
    fates = [loss.lost(1) for _ in range(50_000)]
    after_loss = [now for before, now in pairwise(fates) if before]
    assert sum(after_loss) / len(after_loss) == pytest.approx(0.3, abs=0.02)


def test_a_packet_of_many_fragments_is_lost_with_any_of_them() -> None:
    packets = 20_000
    loss = LossProcess(0.02, 1.0, seeded(2, "fragments"))
    lost = sum(loss.lost(5) for _ in range(packets))
    assert lost / packets == pytest.approx(1.0 - 0.98**5, abs=0.01)


@pytest.mark.parametrize("burst_frames", [1.0, 3.0])
def test_the_share_of_packets_that_arrive_whole_is_known_beforehand(burst_frames: float) -> None:
    spec = LinkSpec(loss_ratio=0.15, burst_frames=burst_frames, mtu_bytes=96)
    loss = LossProcess(0.15, burst_frames, seeded(5, burst_frames))
    arrived = sum(not loss.lost(spec.fragments(1080)) for _ in range(20_000)) / 20_000
    assert spec.arrival_ratio(1080) == pytest.approx(arrived, abs=0.02)


def test_jitter_is_uniform_around_the_delay() -> None:
    link = model(delay_ms=50.0, jitter_ms=20.0)
    delays_ms = [(link.offer(at_s, 100) - at_s) * 1e3 for at_s in range(5000)]
    assert 30.0 <= min(delays_ms) < 30.5
    assert 69.5 < max(delays_ms) <= 70.0
    assert sum(delays_ms) / 5000 == pytest.approx(50.0, abs=0.7)


def test_two_models_with_the_same_stream_do_the_same() -> None:
    spec: dict[str, Any] = {"delay_ms": 50.0, "jitter_ms": 20.0, "loss_ratio": 0.3}
    twins = model(7, **spec), model(7, **spec)
    fates = [[twin.offer(at_s * 0.01, 100) for at_s in range(500)] for twin in twins]
    assert fates[0] == fates[1]
    assert LOST in fates[0]


def test_degrading_a_model_changes_what_comes_and_keeps_what_is_counted() -> None:
    link = model(rate_kbps=800.0)
    link.offer(0.0, 1000)
    link.configure(LinkSpec(rate_kbps=80.0, delay_ms=5.0, jitter_ms=1.0), seeded(1, "changed"))
    arrival_s = link.offer(0.0, 100)
    assert 0.010 + 0.010 + 0.004 <= arrival_s <= 0.010 + 0.010 + 0.006
    assert link.frames == 2


def test_an_unlimited_link_has_no_airtime() -> None:
    assert LinkSpec().rate_kbps == inf
    assert LinkSpec().airtime_s(1500) == 0.0
