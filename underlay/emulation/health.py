"""What a run says about itself: were its links what the spec says, was the machine up to it, what went wrong
besides.

Owns the verdict on a whole run, made from the links' verification before and after it, the processors' load,
and findings; `verdict.json` in the run's folder. The links are measured in `verification`.
"""

from __future__ import annotations

from math import ceil
from pathlib import Path
from time import monotonic
from typing import Any

import msgspec

from underlay.emulation.reactor import Reactor
from underlay.emulation.verification import LinkVerification, RunVerification, Verdict
from underlay.trace import ProcessEnded

WAKE_LAG_MAX_MS = 5.0
"""p99 of how late a process of a node's priority wakes up. More makes the run invalid: its nodes answered
late.
"""
SATURATED_RATIO = 0.98
"""A second in which all cores were this busy."""

_INTERVAL_S = 1.0
_WAKE_INTERVAL_S = 0.02


class CpuSummary(msgspec.Struct, frozen=True):
    """How busy this machine's processors were during the run, 0..1 of all cores."""

    cores: int
    mean_ratio: float
    peak_ratio: float
    """In the busiest second."""
    seconds: int
    saturated_seconds: int


class WakeLag(msgspec.Struct, frozen=True):
    """How late the supervisor woke up for a timer, which is how late nodes did; milliseconds."""

    samples: int
    p99_ms: float
    max_ms: float


class RunVerdict(msgspec.Struct, frozen=True):
    """`verdict.json`."""

    validity: Verdict
    reason: str
    links: list[dict[str, Any]]
    """A row for each direction: asked beside achieved before the run, and what all frames of the run did."""
    health: dict[str, Any]
    """`lag_p50_ms`, `lag_p99_ms`, `lag_max_ms`, `ether_cpu_ratio`; `wake_lag_p99_ms`, `wake_lag_max_ms`;
    `cpu_ratio`, `cpu`; `findings`."""


def judge(
    before: LinkVerification | None,
    after: RunVerification,
    cpu: CpuSummary,
    wake_lag: WakeLag,
    findings: list[str],
) -> RunVerdict:
    """The worst of everything decides. `before` is None where nobody asked for it."""
    verdicts: list[tuple[Verdict, str]] = [
        (before.verdict, before.reason)
        if before
        else ("not verified", "links were not probed before the run"),
        (after.verdict, after.reason),
    ]
    if wake_lag.p99_ms > WAKE_LAG_MAX_MS:
        lag = f"the nodes woke up late: p99 {wake_lag.p99_ms:.1f} ms, at most {WAKE_LAG_MAX_MS} ms allowed"
        verdicts.append(("invalid", f"{lag}; the machine was {cpu.mean_ratio:.0%} busy"))
    ranks: list[Verdict] = ["invalid", "not verified", "valid"]
    validity = min((verdict for verdict, _ in verdicts), key=ranks.index)
    reasons = [reason for verdict, reason in verdicts if verdict == validity and reason]
    rows: dict[tuple[str, str, str], dict[str, Any]] = {}
    for direction in before.directions if before else ():
        rows[direction.medium, direction.source, direction.target] = msgspec.to_builtins(direction)
    for count in after.directions:
        row = rows.setdefault((count.medium, count.source, count.target), {})
        row |= {_AFTER.get(key, key): value for key, value in msgspec.to_builtins(count).items()}
    return RunVerdict(
        validity=validity,
        reason="; ".join(reasons),
        links=list(rows.values()),
        health={
            # Without a frame, or without an ether that notes when each was written, there is nothing to say.
            "lag_p50_ms": after.lag.p50_ms if after.lag.frames else None,
            "lag_p99_ms": after.lag.p99_ms if after.lag.frames else None,
            "lag_max_ms": after.lag.max_ms if after.lag.frames else None,
            "ether_cpu_ratio": after.cpu_ratio,
            "wake_lag_p99_ms": wake_lag.p99_ms,
            "wake_lag_max_ms": wake_lag.max_ms,
            "cpu_ratio": cpu.mean_ratio,
            "cpu": msgspec.to_builtins(cpu),
            "findings": findings,
        },
    )


_AFTER = {"status": "run_status", "reason": "run_reason"}
"""Both verifications have a status and a reason; those of the run itself get names of their own."""


class CpuWatch:
    """Samples /proc/stat every second."""

    def __init__(self) -> None:
        self._first = self._last = (0, 0)
        self._peak_ratio = 0.0
        self._seconds = self._saturated = 0

    def start(self, reactor: Reactor) -> None:
        """Begin, and go on until the reactor is not asked any more."""
        self._first = self._last = _busy_and_total()
        self._again(reactor)

    def summary(self) -> CpuSummary:
        """Up to now."""
        cores = sum(line.startswith("cpu") for line in Path("/proc/stat").read_text().splitlines()) - 1
        mean_ratio = round(_ratio(self._first, _busy_and_total()), 4)
        return CpuSummary(cores, mean_ratio, round(self._peak_ratio, 4), self._seconds, self._saturated)

    def _again(self, reactor: Reactor) -> None:
        reactor.at(monotonic() + _INTERVAL_S, lambda: self._sample(reactor))

    def _sample(self, reactor: Reactor) -> None:
        now = _busy_and_total()
        ratio = _ratio(self._last, now)
        self._peak_ratio = max(self._peak_ratio, ratio)
        self._seconds += 1
        self._saturated += ratio >= SATURATED_RATIO
        self._last = now
        self._again(reactor)


class Promptness:
    """Wakes up fifty times a second, as a node with a timer would, and notes how late."""

    def __init__(self) -> None:
        self._lags_ms: list[float] = []

    def start(self, reactor: Reactor) -> None:
        """Begin, and go on until the reactor is not asked any more."""
        due_s = monotonic() + _WAKE_INTERVAL_S
        reactor.at(due_s, lambda: self._awake(reactor, due_s))

    def summary(self) -> WakeLag:
        """Up to now."""
        lags_ms = sorted(self._lags_ms) or [0.0]
        p99_ms = lags_ms[ceil(0.99 * len(lags_ms)) - 1]
        return WakeLag(len(self._lags_ms), round(p99_ms, 2), round(lags_ms[-1], 2))

    def _awake(self, reactor: Reactor, due_s: float) -> None:
        self._lags_ms.append((monotonic() - due_s) * 1e3)
        self.start(reactor)


class Findings:
    """Sentences for the report: what a user must know about this run."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def note(self, line: str) -> None:
        """Add one."""
        self.lines.append(line)

    def ended(self, device: str, event: ProcessEnded) -> None:
        """A program ended that should not have."""
        how = f"by signal {-event.status}" if event.status < 0 else f"with status {event.status}"
        last = f"; its last line: {event.last_lines[-1]}" if event.last_lines else ""
        self.note(f"{device}: the program {event.program} ended by itself {how}{last}")


def _busy_and_total() -> tuple[int, int]:
    # user nice system idle iowait irq softirq steal (proc(5)); guest time is part of user time.
    ticks = [int(word) for word in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    total = sum(ticks)
    return total - ticks[3] - ticks[4], total


def _ratio(before: tuple[int, int], after: tuple[int, int]) -> float:
    total = after[1] - before[1]
    return (after[0] - before[0]) / total if total else 0.0
