"""Several runs side by side: which numbers are compared, their spread over the seeds, how they are written.

The terminal's table and the report show the same lines. Nothing here computes a metric.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from math import inf, isinf
from typing import Any, Literal, NamedTuple

from topologies.metrics.outages import Outage, OutageEffect
from topologies.metrics.summary import Summary
from topologies.metrics.survivability import SurvivalCurve, survivability
from topologies.metrics.tier import TierEffect


class Spread(NamedTuple):
    """Values of one metric over the runs of one architecture; `inf` is what never happened."""

    values: tuple[float, ...]

    @property
    def mean(self) -> float:
        return sum(self.values) / len(self.values)

    @property
    def low(self) -> float:
        return min(self.values)

    @property
    def high(self) -> float:
        return max(self.values)


Format = Callable[[float], str]


class Line(NamedTuple):
    """One compared number."""

    label: str
    better: Literal["more", "less"] | None
    format: Format
    spreads: dict[str, Spread | None]
    """By architecture; None where the number has no meaning there."""
    part: str
    """The heading it belongs under."""

    def best(self) -> set[str]:
        """Architectures whose mean is best as written; empty where none stands out."""
        means = {name: spread.mean for name, spread in self.spreads.items() if spread is not None}
        if self.better is None or len(means) < 2:
            return set()
        target = (max if self.better == "more" else min)(means.values())
        best = {name for name, mean in means.items() if self.format(mean) == self.format(target)}
        return best if len(best) < len(means) else set()

    def text(self, architecture: str) -> str:
        """`mean`, and `mean (low–high)` over several seeds that differ; `–` where it has no meaning."""
        spread = self.spreads[architecture]
        if spread is None:
            return "–"
        mean, low, high = (self.format(value) for value in (spread.mean, spread.low, spread.high))
        return mean if low == high else f"{mean} ({_range(low, high)})"


def architectures(summaries: Iterable[Summary]) -> dict[str, list[Summary]]:
    """The runs by architecture, in order of first mention."""
    grouped: dict[str, list[Summary]] = {}
    for summary in summaries:
        grouped.setdefault(summary.run.architecture, []).append(summary)
    return grouped


def shared_outages(summaries: Sequence[Summary]) -> list[Outage]:
    """Outages that hit every run, as the first run met them; random failures differ and are left out. Those
    of the storage tier are `shared_behind_the_sink`."""
    return _shared([[effect.outage for effect in summary.effects] for summary in summaries])


def shared_behind_the_sink(summaries: Sequence[Summary]) -> list[Outage]:
    """The same of the storage tier alone."""
    return _shared([[effect.outage for effect in summary.tier.effects] for summary in summaries])


def effect_of(summary: Summary, outage: Outage) -> OutageEffect:
    """What a shared outage did in one run."""
    return next(effect for effect in summary.effects if _identity(effect.outage) == _identity(outage))


def tier_effect_of(summary: Summary, outage: Outage) -> TierEffect:
    """What one of the storage tier did in one run."""
    return next(effect for effect in summary.tier.effects if _identity(effect.outage) == _identity(outage))


def tier_kinds(summaries: Iterable[Summary]) -> list[str]:
    """Where the observations ended, in order of first mention."""
    return list(dict.fromkeys(summary.tier.kind for summary in summaries))


def in_words(outage: Outage) -> str:
    """What was the case during it.

    >>> in_words(Outage("crash", "hub", 40.0, 65.0))
    'the hub was down'
    """
    subject = outage.subject
    match outage.kind:
        case "crash":
            return f"{the(subject)} was down"
        case "pause":
            return f"{the(subject)} stood still"
        case "link-down":
            return f"the link {subject} was cut"
        case "one-way-cut":
            return f"the way {subject} was cut"
        case "slow-disk":
            return f"the disk of {the(subject)} was slow"
        case "fail-disk":
            return f"the disk of {the(subject)} failed its nodes"
        case "partition":
            return f"the network was split ({subject})"
    return f"the link {subject} was degraded"


def the(device: str) -> str:
    """A device that bears the name of its role gets an article.

    >>> the("hub"), the("cam3")
    ('the hub', 'cam3')
    """
    return f"the {device}" if device in ("hub", "sink", "cache") else device


def lines(summaries: Sequence[Summary], outages_max: int | None = None) -> list[Line]:
    """What is compared, in the order in which it is read.

    Every outage has lines of its own, but more than `outages_max` share those of the worst. Where runs differ
    in how many machines failed for good, only those with the fewest are compared in general, and
    survivability has a line for each number.
    """
    everything, summaries = summaries, least_harmed(summaries)
    groups = architectures(summaries)
    deadline = seconds(summaries[0].run.deadline_s) if summaries else ""
    found: list[Line] = []

    def add(
        part: str,
        label: str,
        value: Callable[[Summary], float | None],
        format_: Format,
        better: Literal["more", "less"] | None,
    ) -> None:
        spreads: dict[str, Spread | None] = {}
        for name, runs in groups.items():
            values = [value(run) for run in runs]
            known = tuple(each for each in values if each is not None)
            spreads[name] = Spread(known) if known else None
        if any(spread is not None for spread in spreads.values()):
            found.append(Line(label, better, format_, spreads, part))

    if len(tier_kinds(summaries)) > 1:  # then this is what the comparison is about
        _add_tier(add, tier_kinds(summaries), summaries)
    part = "Delivery"
    add(part, f"within {deadline}", lambda s: s.delivery.ratio, percent, "more")
    add(part, "ever", lambda s: s.delivery.ratio_ever, percent, "more")
    add(part, "latency p50", lambda s: never(s.delivery.p50_s), seconds, "less")
    add(part, "latency p99", lambda s: never(s.delivery.p99_s), seconds, "less")
    if any(summary.run.subscribers == "all" for summary in summaries):
        add(part, f"to the sink, within {deadline}", lambda s: s.storage.ratio, percent, "more")
    part = "Age at the sink"
    add(part, "mean", lambda s: s.age.mean_s, age, "less")
    add(part, "peak", lambda s: s.age.peak_s, age, "less")
    add(part, f"time above {deadline}", lambda s: s.age.share_above, percent, "less")
    outages = shared_outages(summaries)
    if outages_max is not None and len(outages) > outages_max:
        _add_worst(add, outages, deadline)
    else:
        for outage in outages:
            _add_outage(add, outage, deadline)
    part = "Cost"
    add(part, "bytes on air / delivered", lambda s: s.traffic.bytes_per_delivered, size, "less")
    add(part, "of these control", lambda s: s.traffic.control_bytes_per_delivered, size, "less")
    add(part, "packets on air / delivered", lambda s: s.traffic.frames_per_delivered, plain, "less")
    add(part, "payload bytes, redundancy", lambda s: s.traffic.byte_redundancy, plain, "less")
    add(part, "load, max / mean", lambda s: s.load.max_over_mean, plain, "less")
    add(part, "energy / radio node", lambda s: s.energy.all.mean_j, joules, "less")
    add(part, "first battery empty", lambda s: s.energy.lifetime_s, seconds, "more")
    kinds = tier_kinds(summaries)
    if len(kinds) == 1 and kinds != ["sink"]:
        _add_tier(add, kinds, summaries)
    part = "Caches"
    add(part, "hit ratio", lambda s: s.cache.hit_ratio if s.cache else None, percent, None)
    add(
        part, "origin load saved", lambda s: s.cache.origin_load_reduction if s.cache else None, percent, None
    )
    if any(summary.survivors.k for summary in everything):
        curves = survivability(everything)
        numbers = sorted({point.k for curve in curves for point in curve.points})
        found += [_survival_line(curves, k, groups) for k in numbers]
    return found


def least_harmed(summaries: Sequence[Summary]) -> list[Summary]:
    """The runs with the fewest machines that failed for good."""
    least = min((summary.survivors.k for summary in summaries), default=0)
    return [summary for summary in summaries if summary.survivors.k == least]


def _survival_line(curves: Sequence[SurvivalCurve], k: int, groups: Iterable[str]) -> Line:
    ratios: dict[str, Spread | None] = dict.fromkeys(groups)
    for curve in curves:
        ratios[curve.architecture] = next((Spread(p.ratios) for p in curve.points if p.k == k), None)
    label = f"{k} failed" if k else "none failed"
    return Line(label, "more", percent, ratios, "Delivery among survivors")


def _add_outage(add: Callable[..., None], outage: Outage, deadline: str) -> None:
    part = f"While {in_words(outage)}, {span(outage)}"
    add(part, f"delivered within {deadline}", lambda s: effect_of(s, outage).during.ratio, percent, "more")
    add(part, "recovered afterwards", lambda s: effect_of(s, outage).recovered, count, None)
    add(part, "lost for good", lambda s: effect_of(s, outage).lost, count, "less")
    add(part, "age, mean", lambda s: effect_of(s, outage).during.age_mean_s, age, "less")
    add(part, "time to recovery", lambda s: recovered_after(effect_of(s, outage)), seconds, "less")


def _add_worst(add: Callable[..., None], outages: Sequence[Outage], deadline: str) -> None:
    """The worst that any of many outages did; they overlap, so that sums would count twice."""

    def of_all(
        pick: Callable[[Iterable[float]], float], value: Callable[[OutageEffect], float | None]
    ) -> Any:
        def picked(summary: Summary) -> float | None:
            values = (value(effect_of(summary, outage)) for outage in outages)
            known = [each for each in values if each is not None]
            return pick(known) if known else None

        return picked

    part = f"While something was broken, {len(outages)} times: the worst"
    add(part, f"delivered within {deadline}", of_all(min, lambda e: e.during.ratio), percent, "more")
    add(part, "lost for good", of_all(max, lambda e: e.lost), count, "less")
    add(part, "age, mean", of_all(max, lambda e: e.during.age_mean_s), age, "less")
    add(part, "time to recovery", of_all(max, recovered_after), seconds, "less")


def _add_tier(add: Callable[..., None], kinds: Iterable[str], summaries: Sequence[Summary]) -> None:
    part = f"Storage tier, {', '.join(kinds)}"
    add(part, "kept of what reached it", lambda s: s.tier.kept_ratio, percent, "more")
    add(part, "acknowledged, then lost", lambda s: s.tier.lost, count, "less")
    add(part, "latency p50", lambda s: never(s.tier.p50_s), seconds, "less")
    add(part, "latency p99", lambda s: never(s.tier.p99_s), seconds, "less")
    add(part, "time unavailable", lambda s: s.tier.unavailable_s, seconds, "less")
    add(part, "longest at a time", lambda s: s.tier.longest_s, seconds, "less")
    outages = shared_behind_the_sink(summaries)

    def add_each(part: str, value: Callable[[TierEffect], float]) -> None:
        for outage in outages:
            label = f"{in_words(outage)}, {span(outage)}"
            add(part, label, lambda s, o=outage: value(tier_effect_of(s, o)), seconds, "less")

    add_each("Storage tier unavailable, while", lambda effect: effect.unavailable_s)
    add_each("Longest wait of what reached it, while", lambda effect: never(effect.longest_s))


def span(outage: Outage) -> str:
    """`40–65 s`, or `from 40 s on`."""
    start = f"{outage.start_s:.0f}"
    return f"from {start} s on" if outage.end_s is None else f"{start}–{outage.end_s:.0f} s"


# ------------------------------------------------------------------------------------------- numbers in words


def recovered_after(effect: OutageEffect) -> float | None:
    """Seconds from the failure; infinite if delivery was not back; None if that cannot be told."""
    return inf if effect.recovery.state == "not back" else effect.recovery.after_s


def never(value_s: float | None) -> float:
    """None stands for infinite."""
    return inf if value_s is None else value_s


def percent(ratio: float) -> str:
    """Whole per cents near the middle, and no 100 % or 0 % that is not exact.

    >>> percent(0.5), percent(0.9996), percent(1.0), percent(0.0004)
    ('50 %', '99.9 %', '100 %', '0.1 %')
    """
    if ratio in (0.0, 1.0):
        return f"{ratio * 100:.0f} %"
    shown = min(max(ratio * 100, 0.1), 99.9)
    return f"{shown:.1f} %" if shown < 10 or shown > 90 else f"{shown:.0f} %"


def seconds(value_s: float) -> str:
    """Three digits at most, in the unit that fits.

    >>> seconds(0.0153), seconds(1.234), seconds(9.004), seconds(7200), seconds(inf)
    ('15 ms', '1.2 s', '9 s', '2.0 h', '∞')
    """
    if isinf(value_s):
        return "∞"
    if value_s == 0:
        return "0 s"
    if value_s < 0.9995:
        return f"{value_s * 1000:.0f} ms" if value_s >= 0.01 else f"{value_s * 1000:.1f} ms"
    if value_s < 600:
        tenths = round(value_s, 1)
        return f"{tenths:.1f} s" if tenths < 10 and tenths % 1 else f"{tenths:.0f} s"
    if value_s < 5400:
        return f"{value_s / 60:.0f} min"
    return f"{value_s / 3600:.1f} h" if value_s < 172_800 else f"{value_s / 86_400:.0f} days"


def age(value_s: float) -> str:
    """Seconds with a tenth: an age has no use for milliseconds.

    >>> age(0.692), age(13.04), age(250.0)
    ('0.7 s', '13.0 s', '250 s')
    """
    return f"{value_s:.1f} s" if value_s < 100 else seconds(value_s)


def size(bytes_: float) -> str:
    """Bytes in powers of 1000.

    >>> size(950), size(12_345), size(2_500_000)
    ('950 B', '12.3 kB', '2.5 MB')
    """
    for limit, unit in ((1e3, "B"), (1e6, "kB"), (1e9, "MB"), (inf, "GB")):
        if bytes_ < limit * 0.9995:
            scaled = bytes_ / {"B": 1.0, "kB": 1e3, "MB": 1e6, "GB": 1e9}[unit]
            return f"{scaled:.0f} {unit}" if unit == "B" or scaled >= 99.95 else f"{scaled:.1f} {unit}"
    raise AssertionError("unreachable")


def joules(value_j: float) -> str:
    """
    >>> joules(0.0123), joules(24.0)
    ('12 mJ', '24.0 J')
    """
    if value_j < 0.9995:
        return f"{value_j * 1000:.0f} mJ"
    return f"{value_j:.1f} J" if value_j < 99.95 else f"{value_j:.0f} J"


def plain(value: float) -> str:
    """A bare number."""
    return f"{value:.2f}" if abs(value) < 10 else f"{value:.1f}"


def count(value: float) -> str:
    """A whole number, or the mean of some."""
    return f"{value:.0f}" if value == int(value) else f"{value:.1f}"


def _range(low: str, high: str) -> str:
    """`27 %` and `30 %` give `27–30 %`."""
    number, _, unit = low.partition(" ")
    return f"{number}–{high}" if unit and high.endswith(f" {unit}") else f"{low}–{high}"


def _shared(found: Sequence[Sequence[Outage]]) -> list[Outage]:
    """Those that are in every list, as in the first."""
    common = [{_identity(outage) for outage in each} for each in found]
    return [
        outage
        for outage in (found[0] if found else ())
        if all(_identity(outage) in known for known in common)
    ]


def _identity(outage: Outage) -> tuple[str, str, int]:
    """Wall clocks jitter: an emulated fault strikes some milliseconds late."""
    return outage.kind, outage.subject, round(outage.start_s)
