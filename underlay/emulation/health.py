"""What a run must report about itself: how busy the machine was, and what went wrong without ending the run.

Owns those notes; whether a run is valid is decided by whoever reads them beside the links' verification.
"""

from __future__ import annotations

from pathlib import Path
from time import monotonic

import msgspec

from underlay.emulation.reactor import Reactor
from underlay.trace import ProcessEnded

_INTERVAL_S = 1.0


class CpuSummary(msgspec.Struct, frozen=True):
    """How busy this machine's processors were during the run, 0..1 of all cores."""

    cores: int
    mean_ratio: float
    peak_ratio: float
    """In the busiest second."""


class CpuWatch:
    """Samples /proc/stat every second."""

    def __init__(self) -> None:
        self._first = self._last = (0, 0)
        self._peak_ratio = 0.0
        self._cores = 1

    def start(self, reactor: Reactor) -> None:
        """Begin, and go on until the reactor is not asked any more."""
        self._first = self._last = _busy_and_total()
        self._cores = sum(line.startswith("cpu") for line in Path("/proc/stat").read_text().splitlines()) - 1
        self._again(reactor)

    def summary(self) -> CpuSummary:
        """Up to now."""
        return CpuSummary(
            self._cores, round(_ratio(self._first, _busy_and_total()), 4), round(self._peak_ratio, 4)
        )

    def _again(self, reactor: Reactor) -> None:
        reactor.at(monotonic() + _INTERVAL_S, lambda: self._sample(reactor))

    def _sample(self, reactor: Reactor) -> None:
        now = _busy_and_total()
        self._peak_ratio = max(self._peak_ratio, _ratio(self._last, now))
        self._last = now
        self._again(reactor)


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
