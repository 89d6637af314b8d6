"""What of netem needs no netem: refusals, the books, and the judgement, which is held against the very model
that it judges by. What needs it is in test_netem_kernel.
"""

from __future__ import annotations

from math import inf
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from tests.underlay.emulation.lab import channel, line, plan
from underlay.emulation import doctor, netem
from underlay.emulation import netem_qdisc as qdisc
from underlay.emulation.fabric import Emulation
from underlay.emulation.judgement import DirectionCheck
from underlay.emulation.netem_verification import Dropped, judge_stream, loss_bounds, verify_run
from underlay.emulation.probes import Observations, Stream, plan_streams
from underlay.emulation.rtnetlink import LinkState, Request
from underlay.errors import InputError, Unavailable
from underlay.faults import Degrade
from underlay.link import LOST, LinkModel, LinkSpec, LossProcess

WIRE = LinkSpec(rate_kbps=500, delay_ms=30, overhead_bytes=20, queue_bytes=1 << 30)
SHAKY = msgspec.structs.replace(WIRE, jitter_ms=10)
LOSSY = msgspec.structs.replace(SHAKY, loss_ratio=0.05, burst_frames=3)


# --------------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("spec", "key"),
    [
        (LinkSpec(opportunities_ms=(1.0, 2.0)), "a-b.opportunities_ms"),
        (LinkSpec(mtu_bytes=102, overhead_bytes=23), "a-b.mtu_bytes"),
        (LinkSpec(mtu_bytes=102, loss_ratio=0.01), "a-b.mtu_bytes"),
    ],
)
def test_what_netem_cannot_do_is_refused_by_the_name_of_the_key(spec: LinkSpec, key: str) -> None:
    with pytest.raises(InputError, match='use the enforcer "ether"') as caught:
        netem.refuse(plan(line("ab", spec), {}, 1.0))
    assert caught.value.key == key


def test_a_channel_is_refused() -> None:
    with pytest.raises(InputError, match="air: netem cannot be a shared channel"):
        netem.refuse(plan(channel("ab"), {}, 1.0))


def test_a_later_degrade_to_what_netem_cannot_do_is_refused_at_once() -> None:
    faults = ((0.5, Degrade("b", "a", {"mtu_bytes": 100})),)
    with pytest.raises(InputError, match=r"a-b\.mtu_bytes"):
        netem.refuse(plan(line("ab", LinkSpec(overhead_bytes=20)), {}, 1.0, faults=faults))


def test_fragments_without_framing_and_loss_make_no_difference() -> None:
    netem.refuse(plan(line("ab", LinkSpec(rate_kbps=100, mtu_bytes=100)), {}, 1.0))


@pytest.mark.emulation
def test_a_kernel_without_netem_is_one_error_that_names_the_ether_and_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(doctor, "_has_discipline", lambda _name, _options: False)
    folder = tmp_path / "run"
    with pytest.raises(Unavailable, match=r"fabric\.enforcer: this kernel has no sch_netem .*ether"):
        Emulation().run(plan(line("ab"), {}, 1.0), folder, enforcer="netem")
    assert not folder.exists()


# ------------------------------------------------------------------------------------------------ translation


@pytest.mark.parametrize(
    ("spec", "frames"),
    [
        (LinkSpec(rate_kbps=1000, queue_bytes=15_000), 1 + 10),
        (LinkSpec(rate_kbps=1000, queue_bytes=15_000, delay_ms=120), 1 + 10 + 10),
        (LinkSpec(rate_kbps=1000, queue_bytes=1), 1 + 1),
        (LinkSpec(), 1_000_000),
    ],
)
def test_the_limit_has_room_for_the_queue_and_for_what_is_under_way(spec: LinkSpec, frames: int) -> None:
    assert qdisc.limit_frames(spec) == frames


@pytest.mark.sweep(5)
@pytest.mark.parametrize(("loss_ratio", "burst_frames"), [(0.01, 1.0), (0.1, 1.0), (0.1, 5.0), (0.5, 20.0)])
def test_the_bounds_on_losses_are_those_of_the_loss_process(
    seed: int, loss_ratio: float, burst_frames: float
) -> None:
    spec = LinkSpec(loss_ratio=loss_ratio, burst_frames=burst_frames)
    runs, frames = 200, 1000
    counts = []
    for number in range(runs):
        process = LossProcess(loss_ratio, burst_frames, Random(f"{seed} {number}"))
        counts.append(sum(process.lost(1) for _ in range(frames)))
    low, high = loss_bounds(spec, frames)
    assert all(low <= count <= high for count in counts)
    low, high = loss_bounds(spec, frames, deviations=1.0)
    assert 0.5 < sum(low <= count <= high for count in counts) / runs < 0.85


# -------------------------------------------------------------------------------------------------- the books


class Kernel:
    """A namespace that only remembers how many requests came."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.inode = 1

    def submit(self, *requests: Request) -> None:
        self.requests += requests


def direction(spec: LinkSpec = WIRE) -> netem.Direction:
    ends = [
        SimpleNamespace(name=f"{name}-eth0", index=100, node=SimpleNamespace(name=name, namespace=Kernel()))
        for name in "ab"
    ]
    link: Any = SimpleNamespace(name="a-b", intf1=ends[0], intf2=ends[1])
    return netem.Direction(link, ends[0], spec)


def test_usage_is_what_came_since_the_last_time_with_framing() -> None:
    books = direction()
    books.update(qdisc.Counters(frames=10, ip_bytes=1000))
    books.begin()
    assert books.usage() is None
    books.update(qdisc.Counters(frames=18, ip_bytes=1800, lost=2, queue_dropped=3))
    usage = books.usage()
    assert usage is not None
    assert (usage.frames, usage.lost, usage.queue_dropped, usage.cut) == (10, 2, 3, 0)
    assert usage.bytes_on_air == 800 + 2 * 100 + 10 * 20  # lost ones at the mean size
    assert usage.airtime_s == pytest.approx(usage.bytes_on_air * 8 / 500_000)
    assert books.usage() is None


def test_whatever_is_dropped_during_a_cut_was_cut_and_what_was_under_way_too() -> None:
    books = direction()
    books.begin()
    books.update(qdisc.Counters(frames=5, ip_bytes=500, lost=1, waiting=4))
    books.cut()
    books.update(qdisc.Counters(frames=5, ip_bytes=500, lost=2, queue_dropped=6, waiting=3))
    books.mend()
    books.update(qdisc.Counters(frames=2, ip_bytes=200))  # fresh disciplines count from zero
    totals = books.totals()
    assert (totals.written, totals.dropped, totals.cut, totals.under_way) == (7, 1, 1 + 6 + 3, 0)
    assert totals.offered == totals.written + totals.dropped + totals.cut


def test_a_direction_reshaped_while_cut_stays_cut() -> None:
    books = direction()
    books.cut()
    before = len(books.namespace.requests)  # type: ignore[attr-defined]
    books.reshape(LOSSY)
    assert len(books.namespace.requests) == before  # type: ignore[attr-defined]
    books.mend()
    assert books.spec == LOSSY


# ---------------------------------------------------------------------------------------------- the judgement


def probed(asked: LinkSpec, given: LinkSpec, seed: int) -> tuple[Stream, Observations, Dropped]:
    """What a prober would see of a link that is `given` where `asked` was meant; the model stands for the
    kernel."""
    (stream, _) = plan_streams(line("ab", asked))
    model = LinkModel(given, Random(seed))
    sent_s, received_s = [], {}
    for number in range(stream.frames):
        sent_s.append(1.0 + number * stream.interval_s)
        arrival_s = model.offer(sent_s[-1], stream.size_bytes)
        if arrival_s != LOST:
            received_s[number, "b"] = arrival_s
    seen = Observations(sent_s=[sent_s], received_s=[received_s], clock_step_s=0.0, receiver_drops=0)
    return stream, seen, Dropped(lost=model.lost, full=model.queue_dropped)


def judged(asked: LinkSpec, given: LinkSpec, seed: int) -> DirectionCheck:
    stream, seen, dropped = probed(asked, given, seed)
    return judge_stream(stream, 0, seen, dropped)


@pytest.mark.sweep(20)
@pytest.mark.parametrize("spec", [WIRE, SHAKY, LOSSY, LinkSpec(delay_ms=5, jitter_ms=5)])
def test_a_link_that_is_what_was_asked_is_ok(seed: int, spec: LinkSpec) -> None:
    check = judged(spec, spec, seed)
    assert (check.status, check.reason) == ("ok", "")
    assert check.delay_ms_achieved == pytest.approx(spec.delay_ms, abs=2.0)
    assert check.lost_observed == check.lost_decided
    if spec.rate_kbps < inf:
        assert check.rate_kbps_achieved == pytest.approx(spec.rate_kbps, rel=0.01)


@pytest.mark.sweep(5)
@pytest.mark.parametrize(
    ("asked", "changes", "reason"),
    [
        (WIRE, {"delay_ms": 33.0}, "delay error p99"),
        (WIRE, {"delay_ms": 27.0}, "delay error p99"),
        (WIRE, {"jitter_ms": 5.0}, "delay error p99"),
        (SHAKY, {"jitter_ms": 20.0}, "delay error p99"),
        (SHAKY, {"jitter_ms": 0.0, "delay_ms": 35.0}, "the mean delay is off"),
        (WIRE, {"rate_kbps": 400.0}, "rate 400 kbit/s instead of 500"),
        (WIRE, {"overhead_bytes": 120}, "rate"),
        (WIRE, {"loss_ratio": 0.1}, "frames lost"),
        (LOSSY, {"loss_ratio": 0.5}, "frames lost"),
        (LOSSY, {"loss_ratio": 0.0}, "frames lost"),
    ],
)
def test_a_link_that_lies_is_invalid_and_the_reason_says_how(
    seed: int, asked: LinkSpec, changes: dict[str, Any], reason: str
) -> None:
    check = judged(asked, msgspec.structs.replace(asked, **changes), seed)
    assert check.status == "invalid"
    assert reason in check.reason


def test_frames_missing_without_the_kernels_word_are_a_lie() -> None:
    stream, seen, dropped = probed(WIRE, WIRE, 1)
    del seen.received_s[0][100, "b"]
    check = judge_stream(stream, 0, seen, dropped)
    assert check.status == "invalid"
    assert "1 frames are missing, the kernel says it dropped 0" in check.reason


def test_too_few_frames_or_a_moved_clock_tell_nothing() -> None:
    stream, seen, dropped = probed(WIRE, WIRE, 1)
    moved = msgspec.structs.replace(seen, clock_step_s=0.01)
    assert judge_stream(stream, 0, moved, dropped).status == "not verified"
    few = msgspec.structs.replace(
        seen,
        sent_s=[seen.sent_s[0][:50]],
        received_s=[{(n, "b"): seen.received_s[0][n, "b"] for n in range(50)}],
    )
    assert "too few to tell" in judge_stream(stream, 0, few, dropped).reason


# ---------------------------------------------------------------------------------------------- after the run


def interface(**counters: int) -> LinkState:
    zero = dict.fromkeys(LinkState._fields[-6:], 0)
    return LinkState(number=100, name="a-eth0", up=True, mac="", mtu_bytes=1500, **(zero | counters))


@pytest.mark.parametrize(
    ("here", "there", "reason"),
    [
        (interface(tx_packets=90), interface(rx_packets=90), ""),
        (interface(tx_packets=89), interface(rx_packets=89), "a sent 89 frames, netem 90"),
        (interface(tx_packets=90), interface(rx_packets=88), "b received 88 of 90 frames sent"),
        (
            interface(tx_packets=80, tx_dropped=10),
            interface(rx_packets=80),
            "dropped 10 frames of a after netem",
        ),
    ],
)
def test_the_kernels_books_must_balance(here: LinkState, there: LinkState, reason: str) -> None:
    books = direction(LinkSpec(loss_ratio=0.1))
    books.begin()
    books.update(qdisc.Counters(frames=90, ip_bytes=9000, lost=10))
    verification = verify_run([books], {("a-b", "a"): here, ("a-b", "b"): there})
    (count,) = verification.directions
    assert reason in count.reason
    assert count.status == ("invalid" if reason else "ok")
    assert verification.verdict == ("invalid" if reason else "not verified")


def test_a_run_that_lost_too_much_is_invalid() -> None:
    books = direction(LinkSpec(loss_ratio=0.1))
    books.begin()
    books.update(qdisc.Counters(frames=500, ip_bytes=9000, lost=500))
    ends = {("a-b", "a"): interface(tx_packets=500), ("a-b", "b"): interface(rx_packets=500)}
    assert "500 of 1000 frames lost, 60 to 148 expected" in verify_run([books], ends).reason
