"""Puts the page together: what each section of `report.html.j2` is given."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import jinja2

from topologies.captures import CaptureAnalysis, protocol_rows
from topologies.manifest import Manifest
from topologies.metrics.comparison import (
    Line,
    Spread,
    age,
    architectures,
    effect_of,
    in_words,
    joules,
    least_harmed,
    lines,
    percent,
    recovered_after,
    seconds,
    shared_outages,
    size,
    span,
)
from topologies.metrics.outages import OutageEffect, Window
from topologies.metrics.summary import Summary
from topologies.reporting import charts, drawing
from topologies.reporting.answer import answer
from topologies.reporting.jobs import Jobs, job_sections
from topologies.reporting.palette import Palette
from topologies.reporting.verification import verification

Runs = Sequence[tuple[Manifest, Summary]]
Captures = Mapping[str, CaptureAnalysis]
"""By architecture, where there are any."""

OUTCOMES = ("hit", "joined", "validated", "miss", "stale", "error")


def render(runs: Runs, captures: Captures, jobs: Jobs = ()) -> str:
    """The page over at least one run, as HTML; of runs with captures also what was in them."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters.update(tied=tied, opened=opened)
    return environment.get_template("report.html.j2").render(_context(runs, captures, jobs))


def tied(text: str) -> str:
    """Numbers and their units stay on one line.

    >>> tied("within 10 s of it").replace("\u00a0", "_")
    'within 10_s of it'
    """
    return re.sub(r"(?<=\d) (?=(?:s|ms|min|h|days|%|B|kB|MB|GB|J|mJ)\b|%)", "\u00a0", text)


def _context(runs: Runs, captures: Captures, jobs: Jobs) -> dict[str, Any]:
    everything = [summary for _, summary in runs]
    compared = least_harmed(everything)
    manifests = {manifest.architecture: manifest for manifest, _ in reversed(runs)}
    groups = architectures(compared)
    palette = Palette(architectures(everything))
    told = answer(everything)
    return {
        "run": everything[0].run,
        "manifest": runs[0][0],
        "seeds": sorted({summary.run.seed for summary in everything}),
        "architectures": list(groups),
        "palette": palette,
        "answer": told,
        "deadline": seconds(everything[0].run.deadline_s),
        "simulated": any(summary.run.simulated for summary in everything),
        "validity": _validity(everything),
        "doubtful": [summary.run for summary in everything if summary.run.validity != "valid"],
        "charts": _charts(everything, compared, palette),
        "maps": _maps(manifests, groups, palette),
        "parts": _parts(compared if compared == everything else everything),
        "failures": _failures(compared),
        "kinds": _kinds(groups),
        "caches": _caches(groups),
        "protocols": (list(captures), protocol_rows(captures)) if captures else None,
        "captures_agree": all(analysis.agrees for analysis in captures.values()),
        "jobs": job_sections(jobs),
        "verdicts": _verdicts(runs),
        "links": [verification(manifest) for manifest, _ in runs if manifest.verdict.links],
        "health": _health(runs),
        "notes": list(dict.fromkeys(note for manifest, _ in runs for note in manifest.notes)),
        "commands": list(dict.fromkeys(manifest.command for manifest, _ in runs if manifest.command)),
        "versions": runs[0][0].versions,
        "chosen": runs[0][0].chosen,
        "several": len(everything) > len(groups),
    }


def _charts(everything: list[Summary], compared: list[Summary], palette: Palette) -> dict[str, str]:
    groups = architectures(compared)
    found = {
        "age_wide": charts.age_over_time(compared, palette, wide=True),
        "age_narrow": charts.age_over_time(compared, palette, wide=False),
        "delivery_wide": charts.delivery_over_time(compared, palette, wide=True),
        "delivery_narrow": charts.delivery_over_time(compared, palette, wide=False),
        "latency": charts.latency(compared, palette),
        "front_latency": charts.front(compared, palette, against="latency"),
        "load": charts.by_device(
            {name: _mean_load(group) for name, group in groups.items()},
            palette, name="load", about="Bytes transmitted by each device", write=size,
        ),
    }  # fmt: skip
    if any(charts.survival_value(summary) is not None for summary in everything):
        found["front_survival"] = charts.front(everything, palette, against="survivability")
    if any(summary.energy.by_device for summary in compared):
        found["energy"] = charts.by_device(
            {name: _mean_energy(group) for name, group in groups.items()},
            palette, name="energy", about="Joules spent by each radio", write=joules,
        )  # fmt: skip
    if any(summary.survivors.k for summary in everything):
        found["survival"] = charts.survival(everything, palette)
    return found


def _mean_load(runs: Sequence[Summary]) -> dict[str, float]:
    return _mean([{name: float(each) for name, each in run.load.by_device.items()} for run in runs])


def _mean_energy(runs: Sequence[Summary]) -> dict[str, float]:
    return _mean([{name: node.total_j for name, node in run.energy.by_device.items()} for run in runs])


def _mean(rows: Sequence[dict[str, float]]) -> dict[str, float]:
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: sum(row.get(name, 0.0) for row in rows) / len(rows) for name in names}


def opened(text: str) -> str:
    """With a capital letter at its start, and the others as they are.

    >>> opened("mininet ran as CI")
    'Mininet ran as CI'
    """
    return text[:1].upper() + text[1:]


class Map(NamedTuple):
    """A drawn topology and what to read off it."""

    architecture: str
    svg: str
    caption: str


def _maps(manifests: dict[str, Manifest], groups: dict[str, list[Summary]], palette: Palette) -> list[Map]:
    if any(len(manifest.devices) > drawing.DRAWN_MAX for manifest in manifests.values()):
        return []
    carried = {name: drawing.carried(group) for name, group in groups.items()}
    most = max((amount for links in carried.values() for amount in links.values()), default=0.0)
    found = []
    for number, (name, group) in enumerate(groups.items()):
        total = sum(carried[name].values())
        caption = "Nothing was sent."
        if total:
            link, amount = max(carried[name].items(), key=lambda item: item[1])
            caption = (
                f"{size(total)} in all; {link} carried the most, {size(amount)} or {percent(amount / total)}."
            )
        svg = drawing.topology(manifests[name], group, most, palette, name=f"map-{number}")
        found.append(Map(name, svg, caption))
    return found


def _parts(summaries: Sequence[Summary]) -> list[tuple[str, list[Line]]]:
    return [(part, list(group)) for part, group in groupby(lines(summaries), key=lambda line: line.part)]


class FailureRow(NamedTuple):
    """One architecture under one failure."""

    architecture: str
    delivery: tuple[str, str, str]
    """Before, during, after."""
    age: tuple[str, str, str]
    made: str
    through: str
    recovered: str
    late: str
    lost: str
    recovery: str


def _failures(summaries: Sequence[Summary]) -> list[tuple[str, list[FailureRow]]]:
    found = []
    for outage in shared_outages(summaries):
        rows = [
            _failure_row(name, [effect_of(run, outage) for run in group])
            for name, group in architectures(summaries).items()
        ]
        found.append((f"{opened(in_words(outage))}, {span(outage)}", rows))
    return found


def _failure_row(architecture: str, effects: Sequence[OutageEffect]) -> FailureRow:
    windows = [[effect.before, effect.during, effect.after] for effect in effects]
    ratios = [_spread((row[i].ratio for row in windows), percent) for i in range(3)]
    ages = [_spread((row[i].age_mean_s for row in windows if _lasted(row[i])), age) for i in range(3)]
    return FailureRow(
        architecture=architecture,
        delivery=(ratios[0], ratios[1], ratios[2]),
        age=(ages[0], ages[1], ages[2]),
        made=_sum(effect.during.expected for effect in effects),
        through=_sum(effect.through for effect in effects),
        recovered=_sum(effect.recovered for effect in effects),
        late=_sum(effect.recovered_late for effect in effects),
        lost=_sum(effect.lost for effect in effects),
        recovery=_spread((recovered_after(effect) for effect in effects), seconds),
    )


def _lasted(window: Window) -> bool:
    return window.end_s > window.start_s


def _sum(values: Iterable[int]) -> str:
    return f"{sum(values):,}".replace(",", "\u202f")


def _spread(values: Iterable[float | None], write: Any) -> str:
    known = tuple(value for value in values if value is not None)
    return Line("", None, write, {"": Spread(known) if known else None}, "").text("")


class KindRow(NamedTuple):
    """One kind of observation under one architecture."""

    kind: str
    architecture: str
    made: str
    ratio: str
    p50: str
    p99: str


def _kinds(groups: dict[str, list[Summary]]) -> list[tuple[str, list[KindRow]]]:
    kinds = sorted({kind for group in groups.values() for run in group for kind in run.by_kind})
    found = []
    for kind in kinds:
        rows = []
        for name, group in groups.items():
            each = [run.by_kind[kind] for run in group if kind in run.by_kind]
            if each:
                infinite = float("inf")
                rows.append(
                    KindRow(
                        kind,
                        name,
                        _sum(delivery.observations for delivery in each),
                        _spread((delivery.ratio for delivery in each), percent),
                        _spread((infinite if d.p50_s is None else d.p50_s for d in each), seconds),
                        _spread((infinite if d.p99_s is None else d.p99_s for d in each), seconds),
                    )
                )
        found.append((kind, rows))
    return found


class CacheRow(NamedTuple):
    """What the caches of one architecture did, over all seeds."""

    architecture: str
    requests: str
    outcomes: list[tuple[str, float, str]]
    """Outcome, share, share in words."""
    hit_ratio: str
    saved: str
    age_mean: str
    age_p99: str
    violations: int


def _caches(groups: dict[str, list[Summary]]) -> list[CacheRow]:
    rows = []
    for name, group in groups.items():
        uses = [run.cache for run in group if run.cache is not None]
        if not uses:
            continue
        outcomes: Counter[str] = sum((Counter(use.outcomes) for use in uses), Counter())
        requests = sum(outcomes.values())
        known = [*OUTCOMES, *sorted(set(outcomes) - set(OUTCOMES))]
        rows.append(
            CacheRow(
                name,
                _sum([requests]),
                [(o, outcomes[o] / requests, percent(outcomes[o] / requests)) for o in known if outcomes[o]],
                _spread((use.hit_ratio for use in uses), percent),
                _spread((use.origin_load_reduction for use in uses), percent),
                _spread((use.age_mean_s for use in uses), age),
                _spread((use.age_p99_s for use in uses), age),
                sum(use.violations for use in uses),
            )
        )
    return rows


class Verdicts(NamedTuple):
    """Runs that were judged alike."""

    validity: str
    reason: str
    runs: list[str]
    """`star, seed 1`, or `all runs`."""


def _verdicts(runs: Runs) -> list[Verdicts]:
    judged: dict[tuple[str, str], list[str]] = {}
    for manifest, _ in runs:
        key = (manifest.verdict.validity, manifest.verdict.reason)
        judged.setdefault(key, []).append(f"{manifest.architecture}, seed {manifest.seed}")
    if len(judged) == 1 and len(runs) > 1:
        judged = {key: ["all runs"] for key in judged}
    return [Verdicts(*key, names) for key, names in judged.items()]


def _health(runs: Runs) -> list[tuple[str, list[str]]]:
    found = []
    for manifest, summary in runs:
        health = summary.health
        facts = [f"{name.replace('_', ' ')} {_cell(value)}" for name, value in health.verified.items()]
        facts += [f"{health.slow_handlers} slow handlers"] if health.slow_handlers else []
        facts += [f"{health.malformed} malformed messages dropped"] if health.malformed else []
        facts += health.ended_processes
        if facts:
            found.append((f"{manifest.architecture}, seed {manifest.seed}", facts))
    return found


def _cell(value: Any) -> str:
    match value:
        case None:
            return "–"
        case bool():
            return "yes" if value else "no"
        case float():
            return f"{value:.4g}"
        case list() | tuple():
            return ", ".join(_cell(each) for each in value)
        case dict():
            return ", ".join(f"{key} {_cell(each)}" for key, each in value.items())
    return str(value)


def _validity(summaries: Sequence[Summary]) -> str:
    """The worst of all runs."""
    found = {summary.run.validity for summary in summaries}
    return next(each for each in ("invalid", "not verified", "valid") if each in found)
