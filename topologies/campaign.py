"""Many runs of one spec: architectures beside each other, seeds, sweeps over settings, numbers of failures.

Owns which runs there are and their order (one after another: two at once would disturb each other); one run
is `topologies.runner`'s.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import msgspec

from topologies.experiment import Experiment, build_experiment
from topologies.fabrics import choose_fabric
from topologies.folders import building, new_folder
from topologies.manifest import Chosen
from topologies.results import CaseRecord, Comparison, write_csv
from topologies.runner import Say, quiet, run_experiment, write_page
from topologies.spec import Spec
from topologies.spec_file import load_spec, naming
from topologies.victims import busiest_first, candidates, killing, random_order
from underlay.errors import InputError

Settings = Mapping[str, Sequence[Any]]
"""Dotted key to one value, or to several: then it is swept."""


class Case(msgspec.Struct, frozen=True):
    """One run to be made."""

    spec: Spec
    architecture: str
    settings: dict[str, Any]
    kills: int | None = None

    def label(self, many_seeds: bool) -> str:
        """Its folder's name: what distinguishes it from the others."""
        parts = [self.architecture]
        parts += _settings_label(self.settings)
        parts += [f"kill={self.kills}"] if self.kills is not None else []
        parts += [f"seed={self.spec.seed}"] if many_seeds else []
        return ",".join(parts)


class Campaign(msgspec.Struct, frozen=True):
    """What is to be run."""

    cases: tuple[Case, ...]
    folder: Path
    """Where relative file names of the spec start."""
    targeted: bool = False
    command: str = ""


def plan_campaign(
    path: Path,
    *,
    architectures: Sequence[str] = (),
    seed: int | None = None,
    seeds: int = 1,
    settings: Settings | None = None,
    kill: int | None = None,
    targeted: bool = False,
    command: str = "",
) -> Campaign:
    """Every run that the arguments mean, checked; raises InputError.

    Args:
        architectures: instead of the spec's.
        seed, seeds: `seeds` runs of each, from `seed` (default: the spec's) upwards.
        kill: from no failure up to this many.
        targeted: the busiest machines fail first, by their load in the run without failures.
    """
    settings = settings or {}
    swept = [key for key, values in settings.items() if len(values) > 1]
    cases = []
    for values in product(*settings.values()):
        overrides = dict(zip(settings, values, strict=True))
        spec = load_spec(path, list(overrides.items()))
        if architectures:
            spec = msgspec.structs.replace(spec, architectures=tuple(architectures))
        first = spec.seed if seed is None else seed
        for kills, number in product(_kills(kill), range(first, first + seeds)):
            seeded_spec = msgspec.structs.replace(spec, seed=number)
            with naming(path):
                for name in spec.architectures:
                    experiment = build_experiment(seeded_spec, name, path.parent)
                    _check_kill(kill, experiment)
                    changed = {key: overrides[key] for key in swept}
                    cases.append(Case(seeded_spec, name, changed, kills))
    return Campaign(tuple(cases), path.parent, targeted, command)


def run_campaign(
    campaign: Campaign, *, fabric: str | None = None, out: Path | None = None, say: Say = quiet
) -> Comparison:
    """Run all of it; the comparison's folder appears when it is complete. Raises RunFailed."""
    first = campaign.cases[0].spec
    chosen = choose_fabric(first, fabric)
    say(f"{chosen.fabric} ({chosen.reason})")
    many_seeds = len({case.spec.seed for case in campaign.cases}) > 1
    folder = new_folder(first.name, out)
    with building(folder) as partial:
        records: list[CaseRecord] = []
        for number, case in enumerate(campaign.cases, 1):
            label = case.label(many_seeds)
            say(f"[{number}/{len(campaign.cases)}] {label}: {case.spec.duration_s:g} s")
            records.append(_run_case(campaign, case, label, chosen, partial, records, say))
        (partial / Comparison.FILE).write_bytes(msgspec.json.encode(records))
        comparison = Comparison(partial)
        write_csv(comparison.table(), partial / "summary.csv")
        _write_reports(comparison)
    return Comparison(folder)


def _run_case(
    campaign: Campaign,
    case: Case,
    label: str,
    chosen: Chosen,
    partial: Path,
    before: Iterable[CaseRecord],
    say: Say,
) -> CaseRecord:
    experiment = build_experiment(case.spec, case.architecture, campaign.folder)
    victims: tuple[str, ...] | None = None
    if case.kills is not None:
        victims = _victims(campaign, case, experiment, partial, before)
        experiment = build_experiment(killing(case.spec, victims), case.architecture, campaign.folder)
    run_folder = partial / label
    run_folder.mkdir()
    run_experiment(experiment, chosen, run_folder, command=campaign.command, say=say)
    return CaseRecord(label, case.architecture, case.spec.seed, case.settings, victims)


def _victims(
    campaign: Campaign, case: Case, experiment: Experiment, partial: Path, before: Iterable[CaseRecord]
) -> tuple[str, ...]:
    topology = experiment.topology
    if not case.kills:
        return ()
    if not campaign.targeted:
        return tuple(random_order(topology, case.spec.seed)[: case.kills])
    unharmed = next(
        record
        for record in before
        if record.killed == ()
        and (record.architecture, record.seed, record.settings)
        == (case.architecture, case.spec.seed, case.settings)
    )
    return tuple(busiest_first(topology, partial / unharmed.folder / "trace.jsonl")[: case.kills])


def _kills(kill: int | None) -> Sequence[int | None]:
    return [None] if kill is None else range(max(kill, 0) + 1)


def _check_kill(kill: int | None, experiment: Experiment) -> None:
    most = len(candidates(experiment.topology))
    if kill is not None and not 1 <= kill <= most:
        hint = f"1 to {most}: all but the sink"
        raise InputError(f"{kill} machines cannot fail", key="--kill", hint=hint)


def _settings_label(settings: Mapping[str, Any]) -> list[str]:
    return [f"{key.rpartition('.')[2]}={_word(value)}" for key, value in settings.items()]


def _word(value: Any) -> str:
    return "".join(c if c.isalnum() or c in "._-" else "_" for c in str(value))


def _write_reports(comparison: Comparison) -> None:
    """One page, or one for each combination of swept settings."""
    for group in comparison.together():
        name = ",".join(["report", *_settings_label(group.settings)])
        folders = [run.folder for run in group.runs]
        write_page(folders, comparison.folder / f"{name}.html", group.names)
