"""What failures did: delivery and age before, during and after each, what came back, what was lost for good.

Owns how faults on the timeline pair up to outages (a crash lasts until its restart, a cut until it is undone)
and the time to recovery: from the failure to the first of three successive 5 s windows whose delivery within
the deadline is back at 95 % of the mean before the failure. A window holds the observations made in it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from math import ceil, inf
from typing import Literal

import msgspec
import numpy as np

from topologies.metrics.age import AgeCurve, mean_age
from topologies.metrics.delivery import Pairs
from underlay import faults as verbs
from underlay.faults import AnyFault

WINDOW_S = 5.0
RECOVERED_SHARE = 0.95
RECOVERED_WINDOWS = 3
SERIES_WINDOWS_MAX = 240


class Outage(msgspec.Struct, frozen=True):
    """Something was broken, from when until when."""

    kind: str
    """The verb that began it: `crash`, `pause`, `link-down`, `one-way-cut`, `partition`, `degrade`,
    `slow-disk`, `fail-disk`."""
    subject: str
    """The device, `a - b`, `a -> b`, or the groups."""
    start_s: float
    end_s: float | None
    """None: it lasted to the end of the run."""

    def until(self, end_s: float) -> float:
        """Its end, at most `end_s`."""
        return end_s if self.end_s is None else min(self.end_s, end_s)

    @property
    def devices(self) -> tuple[str, ...]:
        """Those that its subject names.

        >>> Outage("partition", "store1, store2 | store3", 60.0, 68.0).devices
        ('store1', 'store2', 'store3')
        """
        return tuple(re.split(r" [–→|] |, ", self.subject))


class Window(msgspec.Struct, frozen=True):
    """Observations made in a stretch of time."""

    start_s: float
    end_s: float
    expected: int
    on_time: int
    ratio: float | None
    age_mean_s: float | None
    """At the sink, time average, mean over sources."""
    age_peak_s: float | None
    """Of the worst source."""


class Recovery(msgspec.Struct, frozen=True):
    """When delivery within the deadline was back, as the module says."""

    state: Literal["back", "not back", "cannot tell"]
    """`cannot tell`: the sensors stopped too soon afterwards, or nothing was observed before."""
    after_s: float | None
    """From the failure; 0 if it never fell; None unless it was back."""


class OutageEffect(msgspec.Struct, frozen=True, kw_only=True):
    """One failure, and what it did."""

    outage: Outage
    before: Window
    """From the end of the previous outage, or of the warm-up."""
    during: Window
    after: Window
    """Until the next outage, or until the sensors stop."""
    through: int
    """Pairs made during the outage and delivered before its end."""
    recovered: int
    """Pairs made during it and delivered after its end."""
    recovered_late: int
    """Those of them that missed the deadline."""
    lost: int
    """Pairs made during it that never arrived."""
    recovery: Recovery


class DeliverySeries(msgspec.Struct, frozen=True):
    """Window i holds what was made in `[start_s + i * step_s, start_s + (i+1) * step_s)`."""

    start_s: float
    step_s: float
    expected: tuple[int, ...]
    on_time: tuple[int, ...]
    late: tuple[int, ...]


def outages(faults: Iterable[tuple[float, AnyFault]]) -> tuple[Outage, ...]:
    """Pair the verbs of a timeline, in order of time."""
    open_: dict[tuple[str, str], float] = {}
    closed: list[Outage] = []

    def close(t_s: float, *keys: tuple[str, str]) -> None:
        for key in keys:
            if key in open_:
                closed.append(Outage(*key, open_.pop(key), t_s))

    for t_s, fault in faults:
        match fault:
            case verbs.Crash(device):
                # A power cut ends a pause too.
                close(t_s, ("pause", device), ("fail-disk", device))
                open_.setdefault(("crash", device), t_s)
            case verbs.Restart(device):
                close(t_s, ("crash", device), ("fail-disk", device))
            case verbs.Pause(device):
                open_.setdefault(("pause", device), t_s)
            case verbs.Resume(device):
                close(t_s, ("pause", device))
            case verbs.LinkDown(a, b):
                open_.setdefault(("link-down", _pair(a, b)), t_s)
            case verbs.LinkUp(a, b):
                close(
                    t_s,
                    ("link-down", _pair(a, b)),
                    ("one-way-cut", f"{a} → {b}"),
                    ("one-way-cut", f"{b} → {a}"),
                )
            case verbs.OneWayCut(source, target):
                open_.setdefault(("one-way-cut", f"{source} → {target}"), t_s)
            case verbs.Degrade(a, b, changes):
                close(t_s, ("degrade", _pair(a, b)))
                if changes:
                    open_["degrade", _pair(a, b)] = t_s
            case verbs.Partition(groups):
                open_.setdefault(("partition", " | ".join(", ".join(group) for group in groups)), t_s)
            case verbs.FailDisk(device):
                open_.setdefault(("fail-disk", device), t_s)
            case verbs.SlowDisk(device, factor):
                close(t_s, ("slow-disk", device))
                if factor > 1.0:
                    open_["slow-disk", device] = t_s
            case verbs.Heal():
                close(
                    t_s, *(key for key in list(open_) if key[0] in ("partition", "link-down", "one-way-cut"))
                )
    closed += [Outage(*key, start_s, None) for key, start_s in open_.items()]
    return tuple(sorted(closed, key=lambda outage: (outage.start_s, outage.until(inf), outage.subject)))


def down_times(found: Iterable[Outage], duration_s: float) -> dict[str, float]:
    """Seconds that each crashed device was without power."""
    down: dict[str, float] = {}
    for outage in found:
        if outage.kind == "crash":
            down[outage.subject] = down.get(outage.subject, 0.0) + outage.until(duration_s) - outage.start_s
    return down


def effects(
    found: Sequence[Outage], pairs: Pairs, curves: Mapping[str, AgeCurve], warmup_s: float, stop_s: float
) -> tuple[OutageEffect, ...]:
    """The effect of each outage that began while sensors were at work."""
    return tuple(
        _effect(outage, found, pairs, curves, warmup_s, stop_s)
        for outage in found
        if warmup_s <= outage.start_s < stop_s
    )


def delivery_series(pairs: Pairs, start_s: float, end_s: float) -> DeliverySeries:
    """Delivery by the time of observation, in windows of whole seconds that hold about ten pairs or more."""
    per_s = pairs.expected / (end_s - start_s)
    step_s = float(max(1, ceil((end_s - start_s) / SERIES_WINDOWS_MAX), ceil(10 / per_s) if per_s else 1))
    windows = [pairs.between(t_s, min(t_s + step_s, end_s)) for t_s in _starts(start_s, end_s, step_s)]
    arrived = [int(np.count_nonzero(np.isfinite(window.arrived_s))) for window in windows]
    on_time = [int(np.count_nonzero(window.on_time)) for window in windows]
    return DeliverySeries(
        start_s=start_s,
        step_s=step_s,
        expected=tuple(window.expected for window in windows),
        on_time=tuple(on_time),
        late=tuple(all_ - timely for all_, timely in zip(arrived, on_time, strict=True)),
    )


def recovery(pairs: Pairs, failed_s: float, baseline: float | None, end_s: float) -> Recovery:
    """From a failure at `failed_s`; windows in which nothing was observed are passed over.

    Args:
        baseline: delivery within the deadline before the failure, 0..1; None where nothing was observed.
        end_s: when the sensors stopped.
    """
    if baseline is None:
        return Recovery("cannot tell", None)
    good: list[float] = []
    for t_s in _starts(failed_s, end_s, WINDOW_S):
        window = pairs.between(t_s, min(t_s + WINDOW_S, end_s))
        if not window.expected:
            continue
        ratio = np.count_nonzero(window.on_time) / window.expected
        good = [*good, t_s] if ratio >= RECOVERED_SHARE * baseline else []
        if len(good) == RECOVERED_WINDOWS:
            return Recovery("back", round(good[0] - failed_s, 6))
    lasted_s = end_s - failed_s
    seen_enough = lasted_s >= RECOVERED_WINDOWS * WINDOW_S and not good
    return Recovery("not back" if seen_enough else "cannot tell", None)


def _effect(
    outage: Outage,
    found: Sequence[Outage],
    pairs: Pairs,
    curves: Mapping[str, AgeCurve],
    warmup_s: float,
    stop_s: float,
) -> OutageEffect:
    start_s, end_s = outage.start_s, outage.until(stop_s)
    ends_before = [other.end_s for other in found if other.end_s is not None and other.end_s <= start_s]
    starts_after = [other.start_s for other in found if end_s <= other.start_s < stop_s]
    before = _window(pairs, curves, max([warmup_s, *ends_before]), start_s)
    during = pairs.between(start_s, end_s)
    restored_s = outage.until(inf)
    arrived = np.isfinite(during.arrived_s)
    afterwards = arrived & (during.arrived_s >= restored_s)
    return OutageEffect(
        outage=outage,
        before=before,
        during=_window(pairs, curves, start_s, end_s),
        after=_window(pairs, curves, end_s, min([stop_s, *starts_after])),
        through=int(np.count_nonzero(arrived & ~afterwards)),
        recovered=int(np.count_nonzero(afterwards)),
        recovered_late=int(np.count_nonzero(afterwards & ~during.on_time)),
        lost=int(np.count_nonzero(np.isinf(during.arrived_s))),
        recovery=recovery(pairs, start_s, before.ratio, stop_s),
    )


def _window(pairs: Pairs, curves: Mapping[str, AgeCurve], start_s: float, end_s: float) -> Window:
    inside = pairs.between(start_s, end_s)
    on_time = int(np.count_nonzero(inside.on_time))
    mean_s = mean_age(curves, start_s, end_s)
    peak_s = max((curve.peak(start_s, end_s) for curve in curves.values()), default=None)
    return Window(
        start_s=start_s,
        end_s=end_s,
        expected=inside.expected,
        on_time=on_time,
        ratio=on_time / inside.expected if inside.expected else None,
        age_mean_s=None if mean_s is None else round(mean_s, 6),
        age_peak_s=None if peak_s is None else round(peak_s, 6),
    )


def _starts(start_s: float, end_s: float, step_s: float) -> list[float]:
    n = max(0, int(np.ceil(round((end_s - start_s) / step_s, 9))))
    return [start_s + i * step_s for i in range(n)]


def _pair(a: str, b: str) -> str:
    return " – ".join(sorted((a, b)))
