"""Whether the links were what the spec asks: directions of the manifest's verdict, by link profile.

Reads the rows that the emulation writes; a row may lack any of their keys, then there is nothing to show for
it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import median
from typing import Any, NamedTuple

from topologies.manifest import Manifest

DOUBTS_MAX = 12

Row = dict[str, Any]


class ProfileCheck(NamedTuple):
    """All directions of one link profile, as the page shows them: medians, the error's worst, sums."""

    profile: str
    directions: int
    ok: int
    delay_asked: str
    delay_achieved: str
    delay_error: str
    """p99 of the worst direction."""
    rate_asked: str
    rate_achieved: str
    decided: str
    """Probes that the model dropped."""
    missing: str
    """Probes that did not arrive: the same ones, if all is well."""
    frames: str
    """Of the run, offered to these links."""


class Verification(NamedTuple):
    """One run's links."""

    title: str
    profiles: list[ProfileCheck]
    doubts: list[str]
    """Directions that were not ok, in words; the first ones."""
    more_doubts: int


def verification(manifest: Manifest) -> Verification:
    """What a run's verdict says of its links."""
    profile_of = {link.name: link.profile for link in manifest.links}
    by_profile: dict[str, list[Row]] = {}
    for row in manifest.verdict.links:
        by_profile.setdefault(profile_of.get(row.get("medium", ""), "link"), []).append(row)
    doubts = [f"{_direction(row)}: {reason}" for row in manifest.verdict.links for reason in _reasons(row)]
    return Verification(
        title=f"{manifest.architecture}, seed {manifest.seed}",
        profiles=[_check(profile, rows) for profile, rows in sorted(by_profile.items())],
        doubts=doubts[:DOUBTS_MAX],
        more_doubts=max(0, len(doubts) - DOUBTS_MAX),
    )


def _check(profile: str, rows: Sequence[Row]) -> ProfileCheck:
    errors_ms = _numbers(rows, "delay_error_ms_p99")
    return ProfileCheck(
        profile=profile,
        directions=len(rows),
        ok=sum(not _reasons(row) for row in rows),
        delay_asked=_delay(rows, "delay_ms_asked"),
        delay_achieved=_delay(rows, "delay_ms_achieved"),
        delay_error=f"{max(errors_ms):.2f} ms" if errors_ms else "–",
        rate_asked=_rate(rows, "rate_kbps_asked"),
        rate_achieved=_rate(rows, "rate_kbps_achieved"),
        decided=_total(rows, "lost_decided"),
        missing=_total(rows, "lost_observed"),
        frames=_total(rows, "offered"),
    )


def _reasons(row: Row) -> list[str]:
    """Why a direction was not ok, before the run and in it; empty if it was."""
    return [
        f"{row[status]}, {row.get(reason) or 'no reason given'}"
        for status, reason in (("status", "reason"), ("run_status", "run_reason"))
        if row.get(status, "ok") != "ok"
    ]


def _direction(row: Row) -> str:
    return f"{row.get('source', '?')} → {row.get('target', '?')}"


def _delay(rows: Iterable[Row], key: str) -> str:
    values = _numbers(rows, key)
    return f"{median(values):.2f} ms" if values else "–"


def _rate(rows: Iterable[Row], key: str) -> str:
    values = _numbers(rows, key)
    if not values:
        return "–"
    kbps = median(values)
    return f"{kbps / 1000:.2f} Mbit/s" if kbps >= 1000 else f"{kbps:.4g} kbit/s"


def _total(rows: Iterable[Row], key: str) -> str:
    values = _numbers(rows, key)
    return f"{sum(values):,.0f}".replace(",", "\u202f") if values else "–"


def _numbers(rows: Iterable[Row], key: str) -> list[float]:
    return [row[key] for row in rows if isinstance(row.get(key), int | float)]
