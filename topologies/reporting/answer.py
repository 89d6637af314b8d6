"""The answer in a sentence, and what each architecture did in a few: computed from the runs, never canned.

The failure that is told is the one that told the architectures apart most, by delivery within the deadline.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from topologies.metrics.comparison import (
    Spread,
    age,
    architectures,
    count,
    effect_of,
    in_words,
    least_harmed,
    percent,
    seconds,
    shared_outages,
    size,
    the,
)
from topologies.metrics.outages import Outage, OutageEffect
from topologies.metrics.summary import Summary
from topologies.metrics.survivability import survivability
from topologies.reporting import storing


class Tale(NamedTuple):
    """What one architecture did."""

    architecture: str
    text: str


class Answer(NamedTuple):
    """What the page says first."""

    headline: str
    tales: list[Tale]
    cost: str | None


def answer(summaries: Sequence[Summary]) -> Answer:
    """Of at least one run."""
    compared = least_harmed(summaries)
    outage = telling_outage(compared)
    groups = architectures(compared)
    if storing.is_about_storage(compared):
        headline = storing.headline(compared)
        tales = [Tale(name, storing.tale(runs)) for name, runs in groups.items()]
        return Answer(headline, tales, None)
    if outage is not None:
        headline = _of_outage(compared, outage)
        tales = [Tale(name, _tale(runs, outage)) for name, runs in groups.items()]
    elif any(summary.survivors.k for summary in summaries):
        headline, tales = _of_failures(summaries), []
    else:
        headline, tales = _of_calm(compared), []
    return Answer(headline, tales, _cost(compared))


def telling_outage(summaries: Sequence[Summary]) -> Outage | None:
    """The shared failure with the widest gap between architectures; the first where none tells them apart."""
    found = shared_outages(summaries)
    return max(found, key=lambda outage: _gap(summaries, outage), default=None)


def _gap(summaries: Sequence[Summary], outage: Outage) -> float:
    ratios = [spread.mean for _, spread in _during(summaries, outage)]
    return max(ratios) - min(ratios) if ratios else 0.0


def _during(summaries: Sequence[Summary], outage: Outage) -> list[tuple[str, Spread]]:
    """Delivery within the deadline of what was made during the outage, best first."""
    found = []
    for name, runs in architectures(summaries).items():
        ratios = [ratio for run in runs if (ratio := effect_of(run, outage).during.ratio) is not None]
        if ratios:
            found.append((name, Spread(tuple(ratios))))
    return sorted(found, key=lambda item: -item[1].mean)


def _of_outage(summaries: Sequence[Summary], outage: Outage) -> str:
    ranked = _during(summaries, outage)
    lasted = f" for {seconds(outage.end_s - outage.start_s)}" if outage.end_s is not None else ""
    when = f"While {in_words(outage)}{lasted}"
    if not ranked:
        return f"{when}, nothing was observed."
    return f"{when}, {_ranking(ranked, _what(summaries), seconds(summaries[0].run.deadline_s))}."


def _of_failures(summaries: Sequence[Summary]) -> str:
    curves = survivability(summaries)
    most = max(point.k for curve in curves for point in curve.points)
    ranked = [(c.architecture, Spread(p.ratios)) for c in curves for p in c.points if p.k == most]
    ranked.sort(key=lambda item: -item[1].mean)
    machines = "one machine" if most == 1 else f"{most} machines"
    deadline = seconds(summaries[0].run.deadline_s)
    return f"With {machines} gone for good, {_ranking(ranked, 'what the survivors observed', deadline)}."


def _of_calm(summaries: Sequence[Summary]) -> str:
    ranked = [
        (name, Spread(tuple(ratios)))
        for name, runs in architectures(summaries).items()
        if (ratios := [run.delivery.ratio for run in runs if run.delivery.ratio is not None])
    ]
    if not ranked:
        return "Nothing was observed."
    ranked.sort(key=lambda item: -item[1].mean)
    told = _ranking(ranked, _what(summaries), seconds(summaries[0].run.deadline_s))
    return f"{told[0].upper()}{told[1:]}, and nothing failed."


def _ranking(ranked: Sequence[tuple[str, Spread]], what: str, deadline: str) -> str:
    (first, best), *others = ranked
    alike = [name for name, spread in ranked if percent(spread.mean) == percent(best.mean)]
    verb = f"delivered {percent(best.mean)} of {what} within {deadline}"
    if len(alike) == len(ranked) > 1:
        return f"{_listed(alike)} each {verb}"
    rest = [_listed([f"{name} {percent(spread.mean)}" for name, spread in others])] if others else []
    return ", ".join([f"{first} {verb}", *rest])


def _what(summaries: Sequence[Summary]) -> str:
    return "the observations" if summaries[0].run.subscribers == "storage" else "all copies due"


def _tale(runs: Sequence[Summary], outage: Outage) -> str:
    """Counts are sums over the seeds."""
    found = [effect_of(run, outage) for run in runs]
    expected, through, recovered, late, lost = (
        sum(values)
        for values in zip(
            *((e.during.expected, e.through, e.recovered, e.recovered_late, e.lost) for e in found),
            strict=True,
        )
    )
    things = "observations" if runs[0].run.subscribers == "storage" else "copies"
    over = f" in {len(runs)} runs" if len(runs) > 1 else ""
    after = _after(outage)
    if not expected:
        return "nothing was observed meanwhile."
    sentence = f"{_of(through, expected)} {things} made meanwhile{over} arrived before {after}"
    if outage.end_s is not None and recovered:
        tardy = f"{_so_many(late, recovered)} too late" if late else "in time"
        sentence += f"; {recovered} {_were(recovered)} recovered afterwards, {tardy}"
    elif outage.end_s is not None and lost:
        sentence += "; nothing was recovered afterwards"
    sentence += f"; {lost} {_are(lost)} lost for good." if lost else "; nothing is lost for good."
    return f"{sentence} {_age(found)} {_recovery(found, outage)}".strip()


def _after(outage: Outage) -> str:
    if outage.end_s is None:
        return "the end"
    return f"{the(outage.subject)} came back" if outage.kind == "crash" else "it was repaired"


def _age(found: Sequence[OutageEffect]) -> str:
    during = [e.during.age_mean_s for e in found if e.during.age_mean_s is not None]
    before = [e.before.age_mean_s for e in found if e.before.age_mean_s is not None]
    peaks = [e.during.age_peak_s for e in found if e.during.age_peak_s is not None]
    if not during or not before:
        return ""
    now, then = sum(during) / len(during), sum(before) / len(before)
    return (
        f"What the sink knew was {age(now)} old on average and {age(max(peaks))} at worst; "
        f"before, it was {age(then)}."
    )


def _recovery(found: Sequence[OutageEffect], outage: Outage) -> str:
    if any(effect.recovery.state == "not back" for effect in found):
        return "Delivery within the deadline was not back before the sensors stopped."
    times = [effect.recovery.after_s for effect in found if effect.recovery.after_s is not None]
    if len(times) < len(found):
        return ""
    worst = max(times)
    if worst == 0:
        unharmed = all(effect.during.ratio == 1.0 for effect in found)
        return f"Delivery within the deadline {'never fell' if unharmed else 'hardly fell'}."
    return f"Delivery within the deadline was back {seconds(worst)} after the failure."


def _cost(summaries: Sequence[Summary]) -> str | None:
    """The widest gap in bytes on air, in words."""
    costs = {}
    for name, runs in architectures(summaries).items():
        values = [
            run.traffic.bytes_per_delivered for run in runs if run.traffic.bytes_per_delivered is not None
        ]
        if values:
            costs[name] = sum(values) / len(values)
    if len(costs) < 2:
        return None
    (least, low), *_, (most, high) = sorted(costs.items(), key=lambda item: item[1])
    if not low or high / low < 1.05:
        return f"The price was alike: about {size(low)} on air for each delivered observation."
    superlative = "cheaper" if len(costs) == 2 else "cheapest"
    return (
        f"{least.capitalize()} was the {superlative}, with {size(low)} on air for each delivered observation"
        f"; {most} put {high / low:.1f} times as much on air, {size(high)}."
    )


def _listed(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def _of(part: int, whole: int) -> str:
    if part == whole:
        return f"all {whole}"
    return f"{part} of the {whole}" if part else f"none of the {whole}"


def _so_many(part: int, whole: int) -> str:
    return "all of them" if part == whole else f"{count(part)} of them"


def _were(n: int) -> str:
    return "was" if n == 1 else "were"


def _are(n: int) -> str:
    return "is" if n == 1 else "are"
