"""Two runs against each other: what was set differently, which numbers changed, where the traces part.

Between a simulated and an emulated run, four numbers have bands within which the two fabrics must agree.
"""

from __future__ import annotations

from itertools import zip_longest
from pathlib import Path
from typing import Any

import msgspec

from topologies.manifest import Manifest
from topologies.metrics.summary import Summary, read_summary

_UNCOMPARED = ("schema", "command", "verdict")


class Change(msgspec.Struct, frozen=True):
    """One number of `summary.csv` in both runs; None is infinite or without meaning."""

    name: str
    a: float | None
    b: float | None
    relative: float | None
    """(b - a) / |a|; None where that has no meaning."""
    within: bool | None = None
    """Whether the two fabrics agree as they should; None where there is no band, or nothing to compare."""


class Setting(msgspec.Struct, frozen=True):
    """What was set differently."""

    name: str
    a: Any
    b: Any


class Diff(msgspec.Struct, frozen=True):
    """Two runs."""

    a: str
    b: str
    settings: tuple[Setting, ...]
    changes: tuple[Change, ...]
    """All numbers, those first that changed most."""
    same_trace: bool
    first_difference: int | None
    """Line of the traces, counted from 1; None if they are the same."""
    across_fabrics: bool


def diff(a: Path, b: Path) -> Diff:
    """Compare two run folders; raises InputError where one is no run."""
    manifests = Manifest.read(a), Manifest.read(b)
    across = manifests[0].chosen.fabric != manifests[1].chosen.fabric
    line = _first_difference(a / "trace.jsonl", b / "trace.jsonl")
    return Diff(
        a=str(a),
        b=str(b),
        settings=_settings(*manifests),
        changes=_changes(read_summary(a), read_summary(b), across),
        same_trace=line is None,
        first_difference=line,
        across_fabrics=across,
    )


def within_band(name: str, a: float | None, b: float | None) -> bool | None:
    """Whether two fabrics' values of a number agree; None for a number without a band.

    Delivery +-2 points, latency p50 10 % or 5 ms, p99 20 %, bytes 10 %.

    >>> within_band("latency_p50_s", 0.010, 0.014), within_band("latency_p99_s", 1.0, 1.3)
    (True, False)
    """
    if name not in _BANDS:
        return None
    if a is None or b is None:
        return a is b
    absolute, relative = _BANDS[name]
    return abs(a - b) <= max(absolute, relative * max(abs(a), abs(b))) + 1e-12


_BANDS = {
    "delivery_ratio": (0.02, 0.0),
    "delivery_ratio_ever": (0.02, 0.0),
    "storage_delivery_ratio": (0.02, 0.0),
    "latency_p50_s": (0.005, 0.10),
    "latency_p99_s": (0.0, 0.20),
    "bytes_on_air": (0.0, 0.10),
    "bytes_per_delivered": (0.0, 0.10),
}


def _settings(a: Manifest, b: Manifest) -> tuple[Setting, ...]:
    before, after = msgspec.to_builtins(a), msgspec.to_builtins(b)
    differing = [name for name in before if name not in _UNCOMPARED and before[name] != after[name]]
    return tuple(
        # The whole network is too long to show twice.
        Setting(name, f"{len(before[name])} of them", f"{len(after[name])}, not the same")
        if name in ("devices", "links")
        else Setting(name, before[name], after[name])
        for name in differing
    )


def _changes(a: Summary, b: Summary, across_fabrics: bool) -> tuple[Change, ...]:
    before, after = a.row, b.row
    changes = []
    for name, value in before.items():
        other = after[name]
        if isinstance(value, str | bool) or isinstance(other, str | bool) or name == "seed":
            continue
        relative = (other - value) / abs(value) if value and other is not None else None
        within = within_band(name, value, other) if across_fabrics else None
        changes.append(Change(name, value, other, relative, within))
    return tuple(sorted(changes, key=_importance))


def _importance(change: Change) -> tuple[bool, float]:
    appeared = (change.a is None) != (change.b is None)
    return not appeared, -abs(change.relative or 0.0)


def _first_difference(a: Path, b: Path) -> int | None:
    with a.open("rb") as before, b.open("rb") as after:
        for number, (left, right) in enumerate(zip_longest(before, after), 1):
            if left != right:
                return number
    return None
