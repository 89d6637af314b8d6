"""Are netem's links what the spec says? Measured as the ether's are, but without a record of what was decided
frame by frame.

Owns the verdicts. Before the run every link is probed; when each probe should have arrived is worked out from
the spec and from when it was sent. Checked are the delay of every probe, the mean of the jitter, the rate,
that just those frames are missing which the kernel says it dropped, and that these are as many as chance
allows. Not checked: the length of loss bursts, and the queue's limit. The link must be idle.

After the run the kernel's books must balance, and losses over all frames agree with the spec. How late single
frames of the run were nobody noted, so a run on netem is never more than `not verified`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import asin, inf, pi, sin, sqrt
from statistics import linear_regression, median
from time import monotonic

import msgspec

from underlay.emulation.ether_lag import LagSummary
from underlay.emulation.judgement import (
    DELAY_ERROR_MAX_MS,
    RATE_ERROR_MAX_RATIO,
    RATE_WINDOW_S,
    Claim,
    DirectionCheck,
    Status,
    conclude,
    percentile,
)
from underlay.emulation.netem import Direction, Netem
from underlay.emulation.netem_qdisc import as_enforced
from underlay.emulation.probes import (
    FRAMES_FOR_RATE,
    Observations,
    ProbePoint,
    Stream,
    plan_streams,
    probe,
)
from underlay.emulation.rtnetlink import LinkState
from underlay.emulation.verification import (
    DirectionCount,
    LinkVerification,
    RunVerification,
    findings,
    overall,
    settle,
)
from underlay.link import LinkSpec
from underlay.network import Network as Graph

DEVIATIONS_MAX = 4.5
"""How many standard deviations chance is granted: a right link is accused once in 150,000 times."""

NO_RECORD = "netem keeps no record of single frames: how late those of the run were was not checked"

_PLENTY_BYTES = 1 << 30


class Dropped(msgspec.Struct, frozen=True):
    """What the kernel says of one direction while it was probed."""

    lost: int
    full: int
    """Found the queue full."""


def verify_links(netem: Netem, graph: Graph) -> LinkVerification:
    """Probe every direction of every link side by side, in under 15 s; call it before `netem.start`.

    Where the first measurement says `invalid` and there is time, the links are measured once more.
    """
    return settle(lambda attempt: _measure(netem, graph, attempt))


def verify_run(
    directions: Sequence[Direction], kernels: Mapping[tuple[str, str], LinkState]
) -> RunVerification:
    """Hold the disciplines' books, after `netem.stop`, against the interfaces' own counters, and against
    chance.

    Args:
        directions: those of the run's `Netem`.
        kernels: state of each interface by `(medium, device)`, read after netem stopped.
    """
    counts = [_count(direction, kernels) for direction in directions]
    verdict, reason = overall([*findings(counts), ("not verified", NO_RECORD)])
    return RunVerification(verdict, reason, LagSummary(0, 0.0, 0.0, 0.0), 0.0, counts)


def judge_stream(stream: Stream, place: int, seen: Observations, dropped: Dropped) -> DirectionCheck:
    """What the probes of one stream say about its direction."""
    (target,) = stream.targets
    sent_s = seen.sent_s[place]
    arrived = seen.received_s[place]
    spec = as_enforced(stream.rehearsed)
    schedule_s = _schedule_s(spec, stream.size_bytes, sent_s)
    delays_ms = [
        (number, (arrived[number, target] - left_s) * 1e3)
        for number, left_s in enumerate(schedule_s)
        if (number, target) in arrived
    ]
    errors_ms, shift_ms, chance_ms = _delay_errors(spec, schedule_s, delays_ms)
    late_ms = percentile([abs(error_ms) for error_ms in errors_ms], 0.99)
    missing = len(sent_s) - len(delays_ms)
    fewest, most = loss_bounds(spec, len(sent_s))
    kbps = _rate_kbps(spec, stream.size_bytes, schedule_s, delays_ms) if stream.limited else None
    asked_kbps = stream.spec.rate_kbps
    scale = stream.time_scale * stream.rate_scale
    wrong: list[Claim] = [
        (
            missing != dropped.lost + dropped.full,
            f"{missing} frames are missing, the kernel says it dropped {dropped.lost + dropped.full}",
        ),
        (dropped.full, f"{dropped.full} frames found the queue full"),
        (
            not fewest <= dropped.lost <= most,
            f"{dropped.lost} of {len(sent_s)} frames lost, {fewest:.0f} to {most:.0f} expected",
        ),
        (
            late_ms is not None and late_ms > DELAY_ERROR_MAX_MS,
            f"delay error p99 {late_ms} ms, at most {DELAY_ERROR_MAX_MS} ms allowed",
        ),
        (
            abs(shift_ms) > DELAY_ERROR_MAX_MS + DEVIATIONS_MAX * chance_ms,
            f"the mean delay is off by {shift_ms:.3f} ms, {chance_ms:.3f} ms of which may be chance",
        ),
        (
            kbps is not None and abs(kbps / (asked_kbps * scale) - 1.0) > RATE_ERROR_MAX_RATIO,
            f"rate {(kbps or 0.0) / scale:.4g} kbit/s instead of {asked_kbps:.4g}",
        ),
    ]
    unclear: list[Claim] = [
        (stream.limited and kbps is None, "the link was not kept busy long enough to tell its rate")
    ]
    status, reason = conclude(seen, len(delays_ms), wrong, unclear)
    return DirectionCheck(
        medium=stream.medium,
        source=stream.source,
        target=target,
        status=status,
        reason=reason,
        time_scale=round(stream.time_scale, 3),
        rate_scale=round(stream.rate_scale, 4),
        probes=len(sent_s),
        received=len(delays_ms),
        delay_ms_asked=stream.spec.delay_ms,
        delay_ms_achieved=_achieved_ms(stream.spec, errors_ms, shift_ms),
        delay_error_ms_p50=percentile(errors_ms, 0.5),
        delay_error_ms_p99=late_ms,
        loss_ratio_asked=stream.spec.loss_ratio,
        lost_decided=dropped.lost + dropped.full,
        lost_observed=missing,
        rate_kbps_asked=asked_kbps if stream.limited else None,
        rate_kbps_achieved=None if kbps is None else round(kbps / scale, 3),
    )


def loss_bounds(spec: LinkSpec, frames: int, deviations: float = DEVIATIONS_MAX) -> tuple[float, float]:
    """Between which numbers of `frames` a Gilbert-Elliott link loses, but for chance.

    The arcsine of the root of a share has nearly the same deviation whatever the share, and a nearly normal
    distribution also where losses are few (Anscombe, Biometrika 1948). States n frames apart correlate by
    c^n, c = 1 - p - r, which widens it by the root of (1 + c) / (1 - c). One frame more for the steps of a
    count.

    >>> [round(bound) for bound in loss_bounds(LinkSpec(loss_ratio=0.1), 1000)]
    [60, 148]
    """
    share = spec.loss_ratio
    if share in (0.0, 1.0) or not frames:
        return share * frames, share * frames
    leave = min(1.0 / spec.burst_frames, 1.0 - share)
    correlation = 1.0 - leave - leave * share / (1.0 - share)
    angle = asin(sqrt(share))
    spread = deviations * 0.5 * sqrt((1.0 + correlation) / (1.0 - correlation) / frames)
    low, high = sin(max(0.0, angle - spread)) ** 2, sin(min(pi / 2.0, angle + spread)) ** 2
    return frames * low - 1.0, frames * high + 1.0


# ----------------------------------------------------------------------------------------------- measurements


def _measure(netem: Netem, graph: Graph, attempt: int) -> LinkVerification:
    began_s = monotonic()
    # With room for all probes: with the queue's limit out of the way every departure can be worked out.
    streams = [
        msgspec.structs.replace(
            stream, rehearsed=msgspec.structs.replace(stream.rehearsed, queue_bytes=_PLENTY_BYTES)
        )
        for stream in plan_streams(graph)
    ]
    netem.rehearse({stream.group: stream.rehearsed for stream in streams})
    before = {(each.medium, each.source): (each.lost, each.queue_dropped) for each in _updated(netem)}
    points = [
        ProbePoint(each.source, each.medium, each.namespace, each.interface) for each in netem.directions
    ]
    seen = probe(points, streams, attempt, lambda: sum(each.under_way for each in netem.totals()))
    dropped = {}
    for each in _updated(netem):
        lost, full = before[each.medium, each.source]
        dropped[each.medium, each.source] = Dropped(each.lost - lost, each.queue_dropped - full)
    checks = [
        judge_stream(stream, place, seen, dropped[stream.group]) for place, stream in enumerate(streams)
    ]
    verdict, reason = overall(findings(checks))
    late_ms = [check.delay_error_ms_p99 for check in checks if check.delay_error_ms_p99 is not None]
    took_s = round(monotonic() - began_s, 3)
    return LinkVerification(verdict, reason, took_s, attempt, max(late_ms, default=None), checks)


def _updated(netem: Netem) -> list[Direction]:
    netem.totals()
    return netem.directions


def _schedule_s(spec: LinkSpec, size_bytes: int, sent_s: Sequence[float]) -> list[float]:
    """When the transmission of each probe should have ended."""
    airtime_s = spec.airtime_s(size_bytes)
    busy_until_s = -inf
    schedule_s = []
    for at_s in sent_s:
        busy_until_s = max(at_s, busy_until_s) + airtime_s
        schedule_s.append(busy_until_s)
    return schedule_s


def _delay_errors(
    spec: LinkSpec, schedule_s: Sequence[float], delays_ms: Sequence[tuple[int, float]]
) -> tuple[list[float], float, float]:
    """How far each arrival was outside what the spec allows, by how much their mean is off, and how much of
    that may be chance (one standard deviation); milliseconds.

    Jitter is uniform, and a frame that would overtake another waits: given when the one before arrived, the
    delay is the larger of that moment and the draw, whose mean and variance are known.
    """
    low_ms, width_ms = spec.delay_ms - spec.jitter_ms, 2.0 * spec.jitter_ms
    errors_ms, off_ms, variance = [], 0.0, 0.0
    before_s = -inf
    for number, delay_ms in delays_ms:
        held_ms = (before_s - schedule_s[number]) * 1e3
        highest_ms = max(low_ms + width_ms, held_ms)
        errors_ms.append(max(0.0, delay_ms - highest_ms) + min(0.0, delay_ms - low_ms))
        if width_ms and held_ms < low_ms + width_ms:
            floor = max(0.0, (held_ms - low_ms) / width_ms)
            mean = (1.0 + floor**2) / 2.0
            off_ms += delay_ms - (low_ms + mean * width_ms)
            variance += ((1.0 + 2.0 * floor**3) / 3.0 - mean**2) * width_ms**2
        before_s = schedule_s[number] + delay_ms * 1e-3
    frames = max(1, len(delays_ms))
    return errors_ms, off_ms / frames, sqrt(variance) / frames


def _rate_kbps(
    spec: LinkSpec, size_bytes: int, schedule_s: Sequence[float], delays_ms: Sequence[tuple[int, float]]
) -> float | None:
    """The slope of bits sent over arrival times, by least squares; None where these do not tell it."""
    bits = spec.bytes_on_air(size_bytes) * 8.0
    points = [(number * bits, schedule_s[number] + delay_ms * 1e-3) for number, delay_ms in delays_ms]
    if len(points) < FRAMES_FOR_RATE or points[-1][1] - points[0][1] < RATE_WINDOW_S:
        return None
    s_per_bit = linear_regression(*zip(*points, strict=True)).slope
    return 1e-3 / s_per_bit if s_per_bit > 0.0 else inf


def _achieved_ms(spec: LinkSpec, errors_ms: Sequence[float], shift_ms: float) -> float | None:
    if not errors_ms:
        return None
    return round(spec.delay_ms + (shift_ms if spec.jitter_ms else median(errors_ms)), 3)


def _count(direction: Direction, kernels: Mapping[tuple[str, str], LinkState]) -> DirectionCount:
    """One direction over the run."""
    totals = direction.totals()
    source = kernels.get((direction.medium, direction.source))
    target = kernels.get((direction.medium, direction.target))
    problems, doubts = [], []
    if source is None or target is None:
        problems.append("an interface is gone")
    else:
        if source.tx_dropped:
            # veth puts a frame in the receiver's backlog, which an overloaded machine empties too late.
            problems.append(
                f"the kernel dropped {source.tx_dropped} frames of {direction.source} after netem"
            )
        if source.tx_packets + source.tx_dropped != direction.sent:
            problems.append(f"{direction.source} sent {source.tx_packets} frames, netem {direction.sent}")
        if target.rx_packets != source.tx_packets:
            problems.append(
                f"{direction.target} received {target.rx_packets} of {source.tx_packets} frames sent"
            )
    lost, through = direction.run_losses()
    fewest, most = loss_bounds(direction.planned, through)
    if direction.was_reshaped:
        doubts.append("its spec changed during the run: losses were not checked")
    elif not fewest <= lost <= most:
        problems.append(f"{lost} of {through} frames lost, {fewest:.0f} to {most:.0f} expected")
    status: Status = "invalid" if problems else "not verified" if doubts else "ok"
    return DirectionCount(
        medium=direction.medium,
        source=direction.source,
        target=direction.target,
        status=status,
        reason="; ".join(problems or doubts),
        offered=totals.offered,
        dropped=totals.dropped,
        cut=totals.cut,
        under_way=totals.under_way,
        delivered=totals.written,
    )
