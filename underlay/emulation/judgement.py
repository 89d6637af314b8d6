"""What probes say about a link: the receiving kernels' observations against the models' decisions, frame by
frame.

Owns the tolerances and the status of one direction. Sends nothing and reads no clock: a pure function, so
that a test can put any lie before it.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from math import ceil, inf
from statistics import fmean, linear_regression, median
from typing import Literal

import msgspec

from underlay.emulation.ether_hops import CUT
from underlay.emulation.ether_wire import ProbeFate
from underlay.emulation.probes import FRAMES_FOR_DELAY, FRAMES_FOR_RATE, Observations, Stream, key
from underlay.link import QUEUE_FULL, LinkSpec

DELAY_ERROR_MAX_MS = 1.0
"""p99 of what the kernel observed minus the model's own time."""
RATE_ERROR_MAX_RATIO = 0.05
RATE_WINDOW_S = 5.0
"""The rate is taken over the larger of this and `FRAMES_FOR_RATE`."""

Status = Literal["ok", "not verified", "invalid"]

_CLOCK_STEP_MAX_S = 100e-6
_PERIODS = 10
_MOMENT_S = 0.3e-3
"""Frames that were held up together are written one after the other within it."""
_WITNESSES = 2
"""Other media that must have been held up too before it counts as the ether's stall."""


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
    """Of its absolute value; what the kernel observed minus the model's own time."""
    loss_ratio_asked: float
    lost_decided: int
    """Probes that the model dropped, for loss or a full queue."""
    lost_observed: int
    """Probes that did not arrive."""
    rate_kbps_asked: float | None
    rate_kbps_achieved: float | None


Claim = tuple[object, str]
"""Whether it is so, and what it says."""


def conclude(
    seen: Observations, frames: int, wrong: Sequence[Claim], unclear: Sequence[Claim]
) -> tuple[Status, str]:
    """The status of a direction, and why it is not ok.

    Args:
        frames: those whose delay was measured.
        wrong: what it may be accused of.
        unclear: what could not be told about it in particular.
    """
    # A prober that lost frames itself, or measured with a moving clock, cannot accuse anyone.
    blind: list[Claim] = [
        (
            abs(seen.clock_step_s) > _CLOCK_STEP_MAX_S,
            f"the clock was moved by {seen.clock_step_s * 1e3:.1f} ms meanwhile",
        ),
        (seen.receiver_drops, f"the prober itself missed {seen.receiver_drops} frames"),
    ]
    few: Claim = (
        frames < FRAMES_FOR_DELAY,
        f"{frames} frames are too few to tell a delay, {FRAMES_FOR_DELAY} needed",
    )
    problems = [text for so, text in wrong if so]
    doubts = [text for so, text in (*blind, few, *unclear) if so]
    if problems and not any(so for so, _ in blind):
        return "invalid", "; ".join(problems)
    return "not verified" if doubts else "ok", "; ".join(doubts)


def judge_probes(
    streams: Sequence[Stream], fates: Sequence[ProbeFate], seen: Observations
) -> tuple[list[DirectionCheck], float | None]:
    """Hold what the kernels saw against what the models decided.

    Returns the verdict on each direction, and the p99 of the delay error over all of them, ms.
    """
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
    stalls = _Stalls(streams, decided, seen)
    checks = [
        _judge(place, stream, target, decided, schedules[stream.group], rates[stream.group], seen, stalls)
        for place, stream in enumerate(streams)
        for target in stream.targets
    ]
    return checks, stalls.error_ms_p99()


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
                if (probe_key := key(place, number, seen.series)) in self._sent_bits
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


class _Stalls:
    """Moments at which the whole ether stood still (the machine had other things to do), and all links with
    it.

    They count against the ether, over all links together; a link is accused only of what it did by itself.
    """

    def __init__(self, streams: Sequence[Stream], decided: Decided, seen: Observations) -> None:
        self._arrivals = sorted(
            (fate.due_s, at_s, stream.medium)
            for place, stream in enumerate(streams)
            for (number, target), at_s in seen.received_s[place].items()
            if (fate := decided.get((key(place, number, seen.series), target))) is not None
            and fate.due_s >= 0.0
        )

    def held_all(self, medium: str, due_s: float, received_s: float) -> bool:
        """Whether whatever was due on other media after `due_s` had to wait until `received_s` too; False
        where nothing was."""
        low = bisect_left(self._arrivals, (due_s,))
        high = bisect_left(self._arrivals, (received_s - _MOMENT_S,))
        others = [(at_s, other) for _, at_s, other in self._arrivals[low:high] if other != medium]
        return len({other for _, other in others}) >= _WITNESSES and all(
            at_s > received_s - _MOMENT_S for at_s, _ in others
        )

    def error_ms_p99(self) -> float | None:
        """Over all probes, stalls included."""
        return percentile([abs(at_s - due_s) * 1e3 for due_s, at_s, _ in self._arrivals], 0.99)


def _judge(
    place: int,
    stream: Stream,
    target: str,
    decided: Decided,
    schedule: _Schedule,
    rate: _Rate | None,
    seen: Observations,
    stalls: _Stalls,
) -> DirectionCheck:
    errors_ms, own_ms, transits_ms, delays_ms = [], [], [], []
    unseen = extra_lost = revived = lost_decided = 0
    arrived = seen.received_s[place]
    for number, sent_s in enumerate(seen.sent_s[place]):
        fate = decided.get((key(place, number, seen.series), target))
        received_s = arrived.get((number, target))
        if fate is None:
            unseen += 1
        elif fate.due_s < 0.0:
            lost_decided += 1
            revived += received_s is not None
        elif received_s is None:
            extra_lost += 1
        else:
            error_ms = (received_s - fate.due_s) * 1e3
            errors_ms.append(error_ms)
            if abs(error_ms) <= DELAY_ERROR_MAX_MS or not stalls.held_all(
                stream.medium, fate.due_s, received_s
            ):
                own_ms.append(abs(error_ms))
            transits_ms.append(((received_s - sent_s) - (fate.due_s - fate.offered_s)) * 1e3)
            delays_ms.append((received_s - schedule.sent_s[key(place, number, seen.series)]) * 1e3)
    probes = len(seen.sent_s[place])
    # From host to host, less what the model made of it: shows who is slow to read. Only the median, because
    # the prober's own waiting between looking at its clock and sending is in it.
    held_ms = percentile(transits_ms, 0.5)
    late_ms = percentile(own_ms, 0.99)
    wrong: list[Claim] = [
        (unseen, f"{unseen} probes never reached the ether"),
        (extra_lost, f"{extra_lost} frames vanished that the model let pass"),
        (revived, f"{revived} frames arrived that the model had dropped"),
        (
            late_ms is not None and late_ms > DELAY_ERROR_MAX_MS,
            f"delay error p99 {late_ms} ms by itself, at most {DELAY_ERROR_MAX_MS} ms allowed",
        ),
        (
            held_ms is not None and abs(held_ms) > DELAY_ERROR_MAX_MS,
            f"frames were held {held_ms} ms before the model saw them",
        ),
    ]
    unclear: list[Claim] = []
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
    status, reason = conclude(seen, len(errors_ms), wrong, unclear)
    return DirectionCheck(
        medium=stream.medium,
        source=stream.source,
        target=target,
        status=status,
        reason=reason,
        time_scale=round(stream.time_scale, 3),
        rate_scale=round(stream.rate_scale, 4),
        probes=probes,
        received=len(errors_ms) + revived,
        delay_ms_asked=stream.spec.delay_ms,
        delay_ms_achieved=_delay_achieved_ms(stream, delays_ms, errors_ms),
        delay_error_ms_p50=percentile(errors_ms, 0.5),
        delay_error_ms_p99=percentile([abs(error_ms) for error_ms in errors_ms], 0.99),
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


def percentile(values: Sequence[float], share: float) -> float | None:
    """Nearest rank."""
    return round(sorted(values)[ceil(share * len(values)) - 1], 3) if values else None


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)
