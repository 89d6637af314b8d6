"""Link verification: honest links pass, lying ones are found out, and what cannot be told is not called
ok."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from math import inf
from pathlib import Path

import msgspec
import pytest

from tests.underlay.emulation.ether_rig import rig
from tests.underlay.emulation.test_ether import line, radio, running
from underlay.emulation import ether_loop
from underlay.emulation.ether_hops import HopTotals, PortTotals
from underlay.emulation.ether_lag import LagSummary
from underlay.emulation.ether_wire import ProbeFate, Totals
from underlay.emulation.judgement import DELAY_ERROR_MAX_MS, RATE_WINDOW_S, DirectionCheck, judge_probes
from underlay.emulation.probes import FRAMES_FOR_DELAY, Observations, Stream, key, plan_streams
from underlay.emulation.rtnetlink import LinkState
from underlay.emulation.verification import LinkVerification, verify_links, verify_run
from underlay.link import LOST, QUEUE_FULL, LinkModel, LinkSpec
from underlay.network import Channel, Device, Network, link_rng

LORA = LinkSpec(rate_kbps=0.293, delay_ms=10.0, loss_ratio=0.07, mtu_bytes=51, overhead_bytes=13)
LTE = LinkSpec(rate_kbps=10_000.0, delay_ms=25.0, jitter_ms=10.0, loss_ratio=0.002)
RADIO = LinkSpec(
    rate_kbps=120.0, delay_ms=6.0, jitter_ms=2.0, loss_ratio=0.01, mtu_bytes=127, overhead_bytes=25
)

# ---------------------------------------------------------------------------------------------------- on real
# TAPs


@pytest.mark.emulation
def test_honest_links_are_valid_and_the_run_knows_nothing_of_it(tmp_path: Path) -> None:
    """Slow, fast, lossy and unlimited links, and a channel, side by side; the run's model begins afresh after
    it."""
    network = line(LORA, LTE, LinkSpec(delay_ms=10.0), LinkSpec(opportunities_ms=(5.0, 20.0, 50.0)))
    air = Channel("air", RADIO, (("a", "b"), ("a", "c")))
    network = msgspec.structs.replace(network, channels=(air,))
    with running(network, tmp_path) as run:
        found = verify_links(run.ether, run.rig.network, run.rig.points())
        run.start()
        run.sent = sum(port.read for port in run.ether.totals().ports)  # the probes
        for number in range(200):
            run.send("b", "c", number.to_bytes(1))
        seen = {payload[0] for payload in run.received("c")}
        after = verify_run(run.ether.stop(), run.rig.kernels())
    assert found.delay_error_ms_p99 is not None
    # What a machine that stood still for a moment made late, nobody can call on time.
    undisturbed = found.delay_error_ms_p99 <= DELAY_ERROR_MAX_MS
    assert (found.verdict, found.reason) == ("valid", "") or not undisturbed
    for check in found.directions:
        assert check.lost_observed == check.lost_decided, check
    assert {(check.source, check.target) for check in found.directions if check.medium == "air"} == {
        ("a", "b"),
        ("b", "a"),
        ("a", "c"),
        ("c", "a"),
    }
    slow, fast, unlimited = (only(found, medium, medium[0]) for medium in ("a-b", "b-c", "c-d"))
    assert slow.time_scale > 10.0
    assert slow.lost_observed > 0
    assert fast.rate_scale < 1.0 == fast.time_scale
    assert unlimited.rate_kbps_asked is None
    if undisturbed:
        assert slow.rate_kbps_achieved == pytest.approx(0.293, rel=0.05)
        assert fast.rate_kbps_achieved == pytest.approx(10_000.0, rel=0.05)
    assert {count.status for count in after.directions} == {"ok"}
    assert after.verdict == "valid" or "the ether was late" in after.reason
    link = network.links[1]
    model = LinkModel(link.forward, link_rng(5, link, "b"))
    passed = {number for number in range(200) if model.offer(float(number), 29) != LOST}
    assert seen == passed
    assert sum(record["frames"] for record in run.records("link-usage")) == 200


@pytest.mark.emulation
@pytest.mark.parametrize(
    ("lie", "accusation"),
    [
        pytest.param("late", "delay error", id="a link that adds 5 ms"),
        pytest.param("sometimes late", "delay error", id="a link that adds 5 ms to one frame in 25"),
        pytest.param("drops", "vanished", id="a link that drops one frame in 100 by itself"),
        pytest.param("slow", "rate ", id="a link that carries 10 percent less than asked"),
    ],
)
def test_a_lying_link_is_invalid(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lie: str, accusation: str
) -> None:
    """A direction that does not do what its model decided, or a model that is not what the spec says, is
    accused."""
    network = line(LinkSpec(rate_kbps=500.0, delay_ms=5.0), LinkSpec(delay_ms=5.0))
    with rig(network) as built:
        victim = built.port("a-b", "b")[0].fd
    monkeypatch.setattr(ether_loop, "write", lying_write(victim, lie))
    if lie == "slow":
        honest_rate = LinkModel.configure

        def configure(model: LinkModel, spec: LinkSpec, rng: object) -> None:
            slower = msgspec.structs.replace(spec, rate_kbps=spec.rate_kbps * 0.9)
            honest_rate(model, slower, rng)  # type: ignore[arg-type]

        monkeypatch.setattr(LinkModel, "configure", configure)
    with running(network, tmp_path) as run:
        assert run.rig.port("a-b", "b")[0].fd == victim
        found = verify_links(run.ether, network, run.rig.points())
    assert found.verdict == "invalid"
    accused = only(found, "a-b", "a")
    assert accused.status == "invalid"
    assert accusation in accused.reason


def lying_write(victim: int, lie: str) -> Callable[[int, bytes], int]:
    """In place of `os.write`: does its worst to one TAP, now and then. It blocks nobody else for long."""
    held: list[tuple[float, bytes]] = []
    frames = 0

    def write(fd: int, frame: bytes) -> int:
        nonlocal frames
        while held and held[0][0] <= time.monotonic():
            os.write(victim, held.pop(0)[1])
        if fd != victim:
            return os.write(fd, frame)
        frames += 1
        if lie == "late" or (lie == "sometimes late" and frames % 25 == 0):
            held.append((time.monotonic() + 0.005, frame))
        elif lie != "drops" or frames % 100:
            os.write(fd, frame)
        return len(frame)

    return write


@pytest.mark.emulation
def test_frames_that_the_kernel_counted_otherwise_make_a_run_invalid(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An ether that loses frames without saying so is found out by the kernels' counters."""
    written = 0

    def forgetful(fd: int, frame: bytes) -> int:
        nonlocal written
        written += 1
        return os.write(fd, frame) if written % 50 else len(frame)

    monkeypatch.setattr(ether_loop, "write", forgetful)
    with running(line(LinkSpec()), tmp_path) as run:
        run.start()
        for _ in range(200):
            run.send("a", "b", b"x")
        run.received("b")
        found = verify_run(run.ether.stop(), run.rig.kernels())
    assert found.verdict == "invalid"
    assert "b received 196 frames, the ether wrote 200" in found.reason


# -------------------------------------------------------------------------------------------- plans and
# judgements


@pytest.mark.parametrize(
    "spec",
    [
        pytest.param(LinkSpec(), id="unlimited"),
        pytest.param(LORA, id="LoRa SF12"),
        pytest.param(LTE, id="LTE"),
        pytest.param(LinkSpec(rate_kbps=1e6), id="a gigabit"),
        pytest.param(LinkSpec(rate_kbps=26.0, delay_ms=800.0, jitter_ms=500.0), id="NB-IoT"),
        pytest.param(LinkSpec(delay_ms=60_000.0), id="a minute's delay"),
        pytest.param(LinkSpec(rate_kbps=5_000.0, delay_ms=60_000.0), id="a minute's delay at 5 Mbit/s"),
        pytest.param(LinkSpec(rate_kbps=50.0, loss_ratio=0.2), id="a fifth lost"),
    ],
)
@pytest.mark.parametrize("links", [1, 100, 300])
def test_streams_tell_enough_within_budget_and_time(spec: LinkSpec, links: int) -> None:
    """Whatever the spec, each direction sends what it takes to tell, in under 15 s, and all together not too
    much."""
    names = ["hub", *(f"c{number}" for number in range(links))]
    edges = line(spec).links[0]
    network = Network(
        tuple(Device(name) for name in names),
        tuple(msgspec.structs.replace(edges, a="hub", b=name) for name in names[1:]),
    )
    streams = plan_streams(network)
    assert len(streams) == 2 * links
    assert sum(1.0 / stream.interval_s for stream in streams) < 11_000
    for stream in streams:
        assert stream.frames * (1.0 - spec.loss_ratio) >= FRAMES_FOR_DELAY
        assert stream.frames * stream.interval_s > RATE_WINDOW_S
        assert stream.longest_s < 13.5
        assert stream.time_scale >= 1.0 >= stream.rate_scale
        if spec.rate_kbps < inf:
            assert 0.9 < stream.rehearsed.airtime_s(stream.size_bytes) / stream.interval_s < 1.1


def one_stream(frames: int) -> Stream:
    (stream, _) = plan_streams(line(LinkSpec(delay_ms=10.0)))
    return msgspec.structs.replace(stream, frames=frames)


def observed(
    frames: int, *, late_s: float = 0.0, missing: int = 0, clock_step_s: float = 0.0, drops: int = 0
) -> Observations:
    sent_s = [number * 0.01 for number in range(frames)]
    received_s = {(number, "b"): sent_s[number] + 0.01 + late_s for number in range(missing, frames)}
    return Observations([sent_s], [received_s], clock_step_s, drops)


def decided(frames: int, dropped: int = 0, why: float = LOST) -> list[ProbeFate]:
    return [
        ProbeFate(
            "a-b",
            "a",
            "b",
            key(0, number),
            46,
            number * 0.01,
            why if number < dropped else number * 0.01 + 0.01,
        )
        for number in range(frames)
    ]


@pytest.mark.parametrize(
    ("fates", "seen", "status", "reason"),
    [
        pytest.param(decided(200), observed(200), "ok", "", id="as decided"),
        pytest.param(decided(200, 9), observed(200, missing=9), "ok", "", id="losses as decided"),
        pytest.param(
            decided(200, 9, QUEUE_FULL),
            observed(200, missing=9),
            "ok",
            "",
            id="drops of a full queue as decided",
        ),
        pytest.param(
            decided(200),
            observed(200, missing=1),
            "invalid",
            "1 frames vanished",
            id="one frame more is missing",
        ),
        pytest.param(
            decided(200, 1), observed(200), "invalid", "1 frames arrived that", id="a dropped frame arrives"
        ),
        pytest.param(
            decided(150),
            observed(200),
            "invalid",
            "50 probes never reached",
            id="the ether did not see them all",
        ),
        pytest.param(decided(200), observed(200, late_s=0.0011), "invalid", "p99 1.1 ms", id="1.1 ms late"),
        pytest.param(decided(200), observed(200, late_s=-0.002), "invalid", "p99 2.0 ms", id="2 ms early"),
        pytest.param(decided(200), observed(200, late_s=0.0009), "ok", "", id="0.9 ms late"),
        pytest.param(decided(99), observed(99), "not verified", "99 frames are too few", id="99 frames"),
        pytest.param(
            decided(99, 1), observed(99), "invalid", "arrived that", id="few frames suffice to find a lie"
        ),
        pytest.param(
            decided(200),
            observed(200, clock_step_s=0.5),
            "not verified",
            "clock",
            id="the clock was set meanwhile",
        ),
        pytest.param(
            decided(200),
            observed(200, missing=1, drops=1),
            "not verified",
            "prober itself missed 1",
            id="the prober lost a frame itself",
        ),
    ],
)
def test_a_direction_is_judged_frame_by_frame(
    fates: list[ProbeFate], seen: Observations, status: str, reason: str
) -> None:
    """What the kernel saw against what the model decided."""
    (check,), _ = judge_probes([one_stream(len(seen.sent_s[0]))], fates, seen)
    assert check.status == status
    assert reason in check.reason
    assert bool(check.reason) == (status != "ok")


@pytest.mark.parametrize(
    ("late", "accused"),
    [
        pytest.param("abc", [], id="all three: the ether stood still"),
        pytest.param("a", ["a"], id="one alone"),
        pytest.param("ab", ["a", "b"], id="two, while the third was in time"),
    ],
)
def test_a_link_is_accused_of_what_it_did_by_itself(late: str, accused: list[str]) -> None:
    """Three links, 200 probes each; five probes of some of them come 5 ms late, all at one moment."""
    names = "abc"
    network = Network(
        tuple(Device(name) for name in ("hub", *names)),
        tuple(msgspec.structs.replace(line(LinkSpec()).links[0], a=name, b="hub") for name in names),
    )
    streams = [stream for stream in plan_streams(network) if stream.source in names]
    fates, sent_s, received_s = [], [], []
    for place, stream in enumerate(streams):
        due_s = [number * 0.001 + place * 0.0002 for number in range(200)]
        stood_still = stream.source in late
        fates += [
            ProbeFate(stream.medium, stream.source, "hub", key(place, number), 46, at_s, at_s)
            for number, at_s in enumerate(due_s)
        ]
        sent_s.append(due_s)
        received_s.append(
            {
                (number, "hub"): max(at_s, 0.1055) if stood_still and 0.1 <= at_s < 0.1055 else at_s
                for number, at_s in enumerate(due_s)
            }
        )
    checks, error_ms = judge_probes(streams, fates, Observations(sent_s, received_s, 0.0, 0))
    assert [check.source for check in checks if check.status == "invalid"] == accused
    assert error_ms is not None
    assert (error_ms > 1.0) == (len(late) > 1)  # five late probes of 600 are less than one in a hundred


LEDGER = HopTotals("a-b", "a", "b", offered=120, cut=3, dropped=7, refused=0, written=109, under_way=1)
LAG = LagSummary(frames=109, p50_ms=0.1, p99_ms=0.4, max_ms=2.0)


def kernel(sent: int, received: int, queue_dropped: int = 0) -> LinkState:
    return LinkState(1, "e0", True, "", 1500, received, sent, 0, 0, 0, queue_dropped)


@pytest.mark.parametrize(
    ("a", "b", "lag", "verdict", "reason"),
    [
        pytest.param(kernel(120, 0), kernel(0, 109), LAG, "valid", "", id="all accounted for"),
        pytest.param(
            kernel(121, 0),
            kernel(0, 109),
            LAG,
            "invalid",
            "a sent 121 frames, the ether read 120",
            id="one not read",
        ),
        pytest.param(
            kernel(120, 0),
            kernel(0, 108),
            LAG,
            "invalid",
            "b received 108 frames",
            id="one written for nobody",
        ),
        pytest.param(
            kernel(120, 0, 2), kernel(0, 109), LAG, "invalid", "queue full", id="two dropped before the ether"
        ),
        pytest.param(
            kernel(120, 0),
            kernel(0, 109),
            msgspec.structs.replace(LAG, p99_ms=1.2),
            "invalid",
            "lag p99 1.20 ms",
            id="an ether that is late",
        ),
        pytest.param(
            kernel(120, 0),
            kernel(0, 109),
            msgspec.structs.replace(LAG, frames=50),
            "not verified",
            "50 frames are too few",
            id="too few frames",
        ),
    ],
)
def test_a_run_is_judged_by_the_kernels_own_counters(
    a: LinkState, b: LinkState, lag: LagSummary, verdict: str, reason: str
) -> None:
    """The ether's ledger against what the kernels counted."""
    ports = [PortTotals("a-b", "a", read=120, written=0), PortTotals("a-b", "b", read=0, written=109)]
    found = verify_run(Totals([LEDGER], ports, lag, 0.1), {("a-b", "a"): a, ("a-b", "b"): b})
    assert found.verdict == verdict
    assert reason in found.reason


def test_a_channel_is_probed_by_its_members_together() -> None:
    """Each member's share keeps the channel busy; who hears whom is each a direction."""
    streams = plan_streams(radio(RADIO))
    assert [(stream.source, stream.targets) for stream in streams] == [
        ("a", ("b",)),
        ("b", ("a", "c")),
        ("c", ("b",)),
    ]
    load = sum(stream.rehearsed.airtime_s(stream.size_bytes) / stream.interval_s for stream in streams)
    assert 1.0 < load < 1.05


def only(found: LinkVerification, medium: str, source: str) -> DirectionCheck:
    (check,) = (each for each in found.directions if (each.medium, each.source) == (medium, source))
    return check
