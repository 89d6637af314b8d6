"""The answer where it is the storage tiers that differ: what each kept, and how long it was away.

Computed from the runs, like `topologies.reporting.answer`, which says when it is asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import inf

from topologies.metrics.comparison import (
    architectures,
    in_words,
    never,
    seconds,
    shared_behind_the_sink,
    span,
    tier_effect_of,
    tier_kinds,
)
from topologies.metrics.outages import Outage
from topologies.metrics.summary import Summary


def is_about_storage(summaries: Sequence[Summary]) -> bool:
    """Whether the tiers are what tells the runs apart, or the only thing that failed."""
    several = len(tier_kinds(summaries)) > 1
    return several or (bool(shared_behind_the_sink(summaries)) and not any(s.effects for s in summaries))


def headline(summaries: Sequence[Summary]) -> str:
    """Who was away for how long, and whether anything was lost."""
    away = {name: _mean([run.tier.unavailable_s for run in runs]) for name, runs in _groups(summaries)}
    told = ", ".join(f"{name} for {seconds(away_s)}" for name, away_s in sorted(away.items(), key=_by_time))
    failures = len(shared_behind_the_sink(summaries))
    times = "once" if failures == 1 else f"{failures} times"
    when = f"Storage failed {times}" if failures else "Nothing of the storage failed"
    return f"{when}: out of reach were {told}. {_lost(summaries)}"


def tale(runs: Sequence[Summary]) -> str:
    """What one tier did; counts are sums over the seeds."""
    given, kept = sum(run.tier.given for run in runs), sum(run.tier.kept for run in runs)
    share = "All" if kept == given else f"{kept} of"
    p50_s, p99_s = (_mean([never(each) for each in values]) for values in _latencies(runs))
    told = (
        f"{share} {given} observations that reached the sink were stored, half of them within "
        f"{seconds(p50_s)} and 99 % within {seconds(p99_s)}. {_lost(runs)}"
    )
    worst = max(shared_behind_the_sink(runs), key=lambda outage: _waited(runs, outage), default=None)
    if worst is None or not _waited(runs, worst):
        return told
    when, waited = f"While {in_words(worst)}, {span(worst)}", seconds(_waited(runs, worst))
    return f"{told} {when}, something waited for {waited}, longer than at any other failure."


# ---------------------------------------------------------------------------------------------------- helpers


def _groups(summaries: Sequence[Summary]) -> list[tuple[str, list[Summary]]]:
    return list(architectures(summaries).items())


def _by_time(item: tuple[str, float]) -> float:
    return item[1]


def _lost(runs: Sequence[Summary]) -> str:
    """Of all runs; only of those in which everything was read back."""
    read = [run.tier.lost for run in runs if run.tier.lost is not None]
    if not read:
        return "Nobody read back what was acknowledged."
    lost = sum(read)
    if not lost:
        return "Nothing that was acknowledged is lost."
    return f"{lost} that {'was' if lost == 1 else 'were'} acknowledged {'is' if lost == 1 else 'are'} lost."


def _latencies(runs: Sequence[Summary]) -> tuple[list[float | None], list[float | None]]:
    return [run.tier.p50_s for run in runs], [run.tier.p99_s for run in runs]


def _waited(runs: Sequence[Summary], outage: Outage) -> float:
    return max(never(tier_effect_of(run, outage).longest_s) for run in runs)


def _mean(values: Sequence[float]) -> float:
    return inf if inf in values else sum(values) / len(values)
