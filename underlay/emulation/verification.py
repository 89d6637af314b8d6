"""Are the links what the spec says? Measured by the hosts' own kernels, before the run and over all frames of
it.

Owns the tolerances and the verdicts. Before the run, probes are followed one by one: what the receiving
kernel saw is held against what the ether's models decided for that very frame, and the rate against the spec.
After it, the kernels' own interface counters are held against the ether's ledger, and the ether's lag against
the tolerance on delay. What cannot be told is `not verified`, never `ok`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import ceil, inf
from statistics import fmean, linear_regression, median
from time import monotonic
from typing import Literal

import msgspec

from underlay.emulation.ether import Ether
from underlay.emulation.ether_hops import CUT, HopTotals
from underlay.emulation.ether_lag import LagSummary
from underlay.emulation.ether_wire import ProbeFate, Totals
from underlay.emulation.probes import (
    FRAMES_FOR_DELAY,
    FRAMES_FOR_RATE,
    Observations,
    ProbePoint,
    Stream,
    key,
    plan_streams,
    probe,
)
from underlay.emulation.rtnetlink import LinkState
from underlay.link import QUEUE_FULL, LinkSpec
from underlay.network import Network

DELAY_ERROR_MAX_MS = 1.0
"""p99 of what the kernel observed minus the model's own time."""
RATE_ERROR_MAX_RATIO = 0.05
RATE_WINDOW_S = 5.0
"""The rate is taken over the larger of this and `FRAMES_FOR_RATE`."""

Status = Literal["ok", "not verified", "invalid"]
Verdict = Literal["valid", "not verified", "invalid"]

_CLOCK_STEP_MAX_S = 100e-6
_PERIODS = 10


class DirectionCheck(msgspec.Struct, frozen=True):
    """One direction, asked and achieved. None stands for what was not asked or could not be measured."""

    medium: str
    source: str
    target: str
    status: Status
    reason: str
    """Why it is not ok; empty if it is."""
    time_scale: float
    """How many times as fast as in the run time ran while a slow link was measured; 1 is real time."""
    rate_scale: float
    """By how much the rate of a fast link was reduced while it was measured; 1 is not at all."""
    probes: int
    received: int
    delay_ms_asked: float
    delay_ms_achieved: float | None
    """Median from the end of the transmission, which is worked out from the spec. With jitter, where frames
    that must not overtake each other wait longer than the mean, it is the delay asked and the median
    error."""
    delay_error_ms_p50: float | None
    delay_error_ms_p99: float | None
    """Of its absolute value."""
    loss_ratio_asked: float
    lost_decided: int
    """Probes that the model dropped, for loss or a full queue."""
    lost_observed: int
    """Probes that did not arrive."""
    rate_kbps_asked: float | None
    rate_kbps_achieved: float | None


class LinkVerification(msgspec.Struct, frozen=True):
    """All directions, before the run."""

    verdict: Verdict
    reason: str
    took_s: float
    directions: list[DirectionCheck]


class DirectionCount(msgspec.Struct, frozen=True):
    """One direction over all frames of the run."""

    medium: str
    source: str
    target: str
    status: Status
    reason: str
    offered: int
    dropped: int
    """By the model's decision."""
    cut: int
    """By a fault."""
    under_way: int
    """At the end."""
    delivered: int


class RunVerification(msgspec.Struct, frozen=True):
    """The whole run."""

    verdict: Verdict
    reason: str
    lag: LagSummary
    cpu_ratio: float
    directions: list[DirectionCount]


# ------------------------------------------------------------------------------------------------- before the
# run


def verify_links(ether: Ether, network: Network, points: Sequence[ProbePoint]) -> LinkVerification:
    """Probe every direction of every link and channel, side by side, in under 15 s.

    Call it before `ether.start`, which lets the models begin afresh: the run's random streams and counters
    know nothing of it. Other traffic meanwhile is taken into account.
    """
    began_s = monotonic()
    streams = plan_streams(network)
    ether.rehearse({stream.group: stream.rehearsed for stream in streams})
    ether.log_probes()
    seen = probe(points, streams)
    fates = ether.probe_log()
    directions = judge_probes(streams, fates, seen)
    verdict, reason = _verdict([(check.status, f"{_name(check)}: {check.reason}") for check in directions])
    return LinkVerification(verdict, reason, round(monotonic() - began_s, 3), directions)


def judge_probes(
    streams: Sequence[Stream], fates: Sequence[ProbeFate], seen: Observations
) -> list[DirectionCheck]:
    """Hold what the kernels saw against what the models decided."""
    decided = {(fate.key, fate.target): fate for fate in fates if fate.key}
    places: dict[tuple[str, str], dict[int, Stream]] = {}
    for place, stream in enumerate(streams):
        places.setdefault(stream.group, {})[place] = stream
    shared = {stream.medium for stream in streams if stream.shared}
    offers: dict[tuple[str, str], list[ProbeFate]] = {group: [] for group in places}
    for fate in fates:
        group = fate.medium, "*" if fate.medium in shared else fate.source
        offers[group].append(fate)
    schedules = {group: _Schedule(places[group], offers[group]) for group in places}
    rates = {group: schedule.rate(seen) for group, schedule in schedules.items()}
    return [
        _judge(place, stream, target, decided, schedules[stream.group], rates[stream.group], seen)
        for place, stream in enumerate(streams)
        for target in stream.targets
    ]


Decided = Mapping[tuple[bytes, str], ProbeFate]


class _Rate(msgspec.Struct, frozen=True):
    frames: int
    window_s: float
    kbps_asked: float
    kbps: float


class _Schedule:
    """When a medium should have been busy with which probe: worked out from the spec and from when probes
    were offered, without asking the model."""

    def __init__(self, streams: Mapping[int, Stream], fates: Sequence[ProbeFate]) -> None:
        self._streams = streams
        self._first = first = next(iter(streams.values()))
        self.sent_s: dict[bytes, float] = {}
        """End of the transmission of a probe, by its key; those that found the queue full are not in it."""
        self._sent_bits: dict[bytes, float] = {}
        spec = first.rehearsed
        busy_until_s = bits = 0.0
        before_s = -inf
        for fate in fates:
            # A broadcast was sent once, whatever became of it for whom.
            if fate.due_s in (QUEUE_FULL, CUT) or (fate.key in self.sent_s or fate.offered_s == before_s):
                continue
            before_s = fate.offered_s
            busy_until_s = max(fate.offered_s, busy_until_s) + spec.airtime_s(fate.size_bytes)
            bits += spec.bytes_on_air(fate.size_bytes) * 8.0
            if fate.key:
                self.sent_s[fate.key] = busy_until_s
                self._sent_bits[fate.key] = bits

    def rate(self, seen: Observations) -> _Rate | None:
        """The slope of bits sent over arrival times, by least squares; None where nothing limits it, or the
        streams could not keep it busy."""
        first = self._first
        if not first.limited:
            return None
        points = []
        for place in self._streams:
            arrivals_s: dict[int, list[float]] = {}
            for (number, _), at_s in seen.received_s[place].items():
                arrivals_s.setdefault(number, []).append(at_s)
            points += [
                (self._sent_bits[probe_key], fmean(times_s))
                for number, times_s in arrivals_s.items()
                if (probe_key := key(place, number)) in self._sent_bits
            ]
        points.sort()
        asked = first.spec.rate_kbps
        if trace_ms := first.spec.opportunities_ms:
            asked = first.spec.bytes_on_air(first.size_bytes) * 8.0 * len(trace_ms) / trace_ms[-1]
        if len(points) < FRAMES_FOR_RATE:
            return _Rate(len(points), 0.0, asked, 0.0)
        s_per_bit = linear_regression(*zip(*points, strict=True)).slope
        achieved = 1e-3 / s_per_bit if s_per_bit > 0 else inf
        return _Rate(
            frames=len(points),
            window_s=points[-1][1] - points[0][1],
            kbps_asked=asked,
            kbps=achieved / (first.time_scale * first.rate_scale),
        )


def _judge(
    place: int,
    stream: Stream,
    target: str,
    decided: Decided,
    schedule: _Schedule,
    rate: _Rate | None,
    seen: Observations,
) -> DirectionCheck:
    errors_ms, delays_ms = [], []
    unseen = extra_lost = revived = lost_decided = 0
    arrived = seen.received_s[place]
    for number, sent_s in enumerate(seen.sent_s[place]):
        fate = decided.get((key(place, number), target))
        received_s = arrived.get((number, target))
        if fate is None:
            unseen += 1
        elif fate.due_s < 0.0:
            lost_decided += 1
            revived += received_s is not None
        elif received_s is None:
            extra_lost += 1
        else:
            # The time from host to host, less what the model made of it: waiting to be read counts as well.
            errors_ms.append(((received_s - sent_s) - (fate.due_s - fate.offered_s)) * 1e3)
            delays_ms.append((received_s - schedule.sent_s[key(place, number)]) * 1e3)
    probes = len(seen.sent_s[place])
    late_ms = _percentile([abs(error_ms) for error_ms in errors_ms], 0.99)
    wrong = [
        (unseen, f"{unseen} probes never reached the ether"),
        (extra_lost, f"{extra_lost} frames vanished that the model let pass"),
        (revived, f"{revived} frames arrived that the model had dropped"),
        (
            late_ms is not None and late_ms > DELAY_ERROR_MAX_MS,
            f"delay error p99 {late_ms} ms, at most {DELAY_ERROR_MAX_MS} ms allowed",
        ),
    ]
    unclear = [
        (
            abs(seen.clock_step_s) > _CLOCK_STEP_MAX_S,
            f"the clock was moved by {seen.clock_step_s * 1e3:.1f} ms meanwhile",
        ),
        (seen.receiver_drops, f"the prober itself missed {seen.receiver_drops} frames"),
        (
            len(errors_ms) < FRAMES_FOR_DELAY,
            f"{len(errors_ms)} frames are too few to tell a delay, {FRAMES_FOR_DELAY} needed",
        ),
    ]
    if rate is not None and rate.window_s >= _rate_window_s(stream.rehearsed):
        off = abs(rate.kbps / rate.kbps_asked - 1.0)
        wrong.append(
            (
                off > RATE_ERROR_MAX_RATIO,
                f"rate {rate.kbps:.4g} kbit/s instead of {rate.kbps_asked:.4g}",
            )
        )
    elif stream.limited:
        unclear.append((True, "the link was not kept busy long enough to tell its rate"))
    # A prober that lost frames itself, or measured with a moving clock, cannot accuse anyone.
    blind = any(condition for condition, _ in unclear[:2])
    problems = [text for condition, text in wrong if condition]
    doubts = [text for condition, text in unclear if condition]
    status: Status = "invalid" if problems and not blind else "not verified" if doubts else "ok"
    return DirectionCheck(
        medium=stream.medium,
        source=stream.source,
        target=target,
        status=status,
        reason="; ".join(problems if status == "invalid" else doubts),
        time_scale=round(stream.time_scale, 3),
        rate_scale=round(stream.rate_scale, 4),
        probes=probes,
        received=len(errors_ms) + revived,
        delay_ms_asked=stream.spec.delay_ms,
        delay_ms_achieved=_delay_achieved_ms(stream, delays_ms, errors_ms),
        delay_error_ms_p50=_percentile(errors_ms, 0.5),
        delay_error_ms_p99=late_ms,
        loss_ratio_asked=stream.spec.loss_ratio,
        lost_decided=lost_decided,
        lost_observed=probes - len(errors_ms) - revived,
        rate_kbps_asked=_rounded(rate.kbps_asked if rate else None),
        rate_kbps_achieved=_rounded(rate.kbps if rate and rate.window_s else None),
    )


def _delay_achieved_ms(
    stream: Stream, delays_ms: Sequence[float], errors_ms: Sequence[float]
) -> float | None:
    if not errors_ms:
        return None
    if stream.spec.jitter_ms or stream.spec.opportunities_ms:
        return round(stream.spec.delay_ms + median(errors_ms), 3)
    # What is too much is the same in scaled time and in real time.
    return round(stream.spec.delay_ms + median(delays_ms) - stream.rehearsed.delay_ms, 3)


def _rate_window_s(rehearsed: LinkSpec) -> float:
    """How long a rate must be observed; a recorded trace also for several of its periods."""
    period_ms = rehearsed.opportunities_ms[-1] if rehearsed.opportunities_ms else 0.0
    return max(RATE_WINDOW_S, _PERIODS * period_ms * 1e-3)


# -------------------------------------------------------------------------------------------------- after the
# run


def verify_run(totals: Totals, kernels: Mapping[tuple[str, str], LinkState]) -> RunVerification:
    """Hold the ether's ledger, taken when it stopped, against the kernels' counters.

    Args:
        kernels: state of each TAP's interface, by `(medium, device)`, read after the ether stopped. Both
            count from the
            interface's making.
    """
    doubts: dict[tuple[str, str], list[str]] = {}
    for port in totals.ports:
        kernel = kernels.get((port.medium, port.device))
        wrong = doubts.setdefault((port.medium, port.device), [])
        if kernel is None:
            wrong.append(f"the interface of {port.device} is gone")
            continue
        if kernel.tx_packets != port.read:
            wrong.append(f"{port.device} sent {kernel.tx_packets} frames, the ether read {port.read}")
        if kernel.tx_dropped:
            wrong.append(f"{kernel.tx_dropped} frames of {port.device} found the ether's queue full")
        if kernel.rx_packets != port.written:
            wrong.append(f"{port.device} received {kernel.rx_packets} frames, the ether wrote {port.written}")
    directions = [_count(hop, doubts) for hop in totals.hops]
    findings = [(count.status, f"{_name(count)}: {count.reason}") for count in directions]
    if not totals.lag.frames:
        findings.append(("not verified", "no frame was carried"))
    elif totals.lag.p99_ms > DELAY_ERROR_MAX_MS:
        findings.append(
            (
                "invalid",
                f"the ether was late: lag p99 {totals.lag.p99_ms:.2f} ms, "
                f"at most {DELAY_ERROR_MAX_MS} ms allowed",
            )
        )
    elif totals.lag.frames < FRAMES_FOR_DELAY:
        findings.append(("not verified", f"{totals.lag.frames} frames are too few to tell the ether's lag"))
    verdict, reason = _verdict(findings)
    return RunVerification(verdict, reason, totals.lag, round(totals.cpu_ratio, 3), directions)


def _count(hop: HopTotals, doubts: Mapping[tuple[str, str], Sequence[str]]) -> DirectionCount:
    problems = [*doubts.get((hop.medium, hop.source), ()), *doubts.get((hop.medium, hop.target), ())]
    if hop.refused:
        problems.append(f"{hop.target} would not take {hop.refused} frames")
    return DirectionCount(
        medium=hop.medium,
        source=hop.source,
        target=hop.target,
        status="invalid" if problems else "ok",
        reason="; ".join(problems),
        offered=hop.offered,
        dropped=hop.dropped,
        cut=hop.cut,
        under_way=hop.under_way,
        delivered=hop.written,
    )


def _verdict(findings: Sequence[tuple[Status, str]]) -> tuple[Verdict, str]:
    """The worst status decides, and its first findings say why."""
    for status in ("invalid", "not verified"):
        reasons = [reason for found, reason in findings if found == status]
        if reasons:
            more = f"; and {len(reasons) - 3} more" if len(reasons) > 3 else ""
            return status, "; ".join(reasons[:3]) + more
    return ("valid", "") if findings else ("not verified", "there is no link")


def _name(direction: DirectionCheck | DirectionCount) -> str:
    return f"{direction.source} -> {direction.target} on {direction.medium}"


def _percentile(values: Sequence[float], share: float) -> float | None:
    """Nearest rank."""
    return round(sorted(values)[ceil(share * len(values)) - 1], 3) if values else None


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)
