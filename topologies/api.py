"""The Python API: each command of `birdhouse` as one documented call. Re-exported by `topologies`.

>>> import topologies
>>> checked = topologies.check(topologies.quickstart())
>>> checked.birdhouses, checked.hops_max
(12, 5)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from topologies import quickstart
from topologies.campaign import Settings, plan_campaign, run_campaign
from topologies.difference import Diff
from topologies.difference import diff as compare_runs
from topologies.experiment import build_experiment, build_plan
from topologies.fabrics import choose_fabric, enforcer_of
from topologies.feasibility import expected_observations, warnings_of
from topologies.folders import building, new_folder
from topologies.graph import hops_from
from topologies.results import Comparison, Run, load
from topologies.runner import Say, quiet, run_experiment, write_page
from topologies.spec import Spec
from topologies.spec_file import load_spec, naming
from topologies.topology import build_topology
from underlay.errors import InputError

if TYPE_CHECKING:
    from topologies.deployment import Reach

__all__ = [
    "Checked",
    "Comparison",
    "Run",
    "check",
    "compare",
    "diff",
    "load",
    "load_spec",
    "new",
    "report",
    "run",
    "up",
]  # fmt: skip


class Checked(msgspec.Struct, frozen=True):
    """What a spec means, as `birdhouse check` says it."""

    name: str
    architectures: tuple[str, ...]
    birdhouses: int
    relays: int
    links: int
    channels: int
    hops_max: int
    """From the birdhouse furthest from the sink."""
    observations: dict[str, int]
    """About how many are counted, by kind."""
    faults: tuple[dict[str, Any], ...]
    """The timeline."""
    single_points_of_failure: dict[str, int]
    """Machines whose crash cuts birdhouses off from the sink, with how many."""
    warnings: tuple[str, ...]
    """What the links cannot carry."""


def check(spec: Path | str, *, settings: Mapping[str, Any] | None = None) -> Checked:
    """Read a spec and everything it refers to, and build its plans; nothing is run. Raises InputError."""
    path = Path(spec)
    loaded = load_spec(path, list((settings or {}).items()))
    with naming(path):
        topology = build_topology(loaded, path.parent)
        experiments = [build_experiment(loaded, name, path.parent, topology) for name in loaded.architectures]
        for experiment in experiments:
            build_plan(experiment)
    warnings = [warning for experiment in experiments for warning in warnings_of(experiment)]
    hops = hops_from(topology.network.edges(), topology.sink)
    return Checked(
        name=loaded.name,
        architectures=loaded.architectures,
        birdhouses=len(topology.birdhouses),
        relays=len(topology.relays),
        links=len(topology.network.links),
        channels=len(topology.network.channels),
        hops_max=max(hops[name] for name in topology.birdhouses),
        observations=expected_observations(experiments[0]),
        faults=tuple({"at_s": f.at_s, **msgspec.to_builtins(f.fault)} for f in experiments[0].faults),
        single_points_of_failure=topology.single_points_of_failure(),
        warnings=tuple(dict.fromkeys(warnings)),
    )


def run(
    spec: Path | str,
    architecture: str | None = None,
    *,
    fabric: str | None = None,
    seed: int | None = None,
    settings: Mapping[str, Any] | None = None,
    pcap: bool = False,
    out: Path | str | None = None,
    command: str = "",
    say: Say = quiet,
) -> Run:
    """Run one architecture of a spec; its folder appears when it is complete.

    Args:
        architecture: default: the spec's first.
        fabric: `auto`, `simulation` or `mininet`; default: the spec's.
        settings: dotted keys of the spec to values that replace its own.
        out: a folder that is not there yet; default: `runs/<name>-<n>`.
        say: is told what is going on.

    Raises:
        InputError: the spec is wrong, or the folder is there already.
        Unavailable: this machine has not the fabric that was asked for.
        RunFailed: the run ended before its time; its log is kept in `<folder>.failed`.
    """
    path = Path(spec)
    loaded = _with(load_spec(path, list((settings or {}).items())), seed, pcap)
    with naming(path):
        experiment = build_experiment(loaded, architecture or loaded.architectures[0], path.parent)
    chosen = choose_fabric(loaded, fabric)
    say(f"{chosen.fabric} ({chosen.reason})")
    folder = new_folder(loaded.name, Path(out) if out is not None else None)
    with building(folder) as partial:
        run_experiment(experiment, chosen, partial, command=command, say=say)
        write_page([partial], partial / "report.html")
    return Run(folder)


def compare(
    spec: Path | str | None = None,
    *,
    architectures: Sequence[str] = (),
    fabric: str | None = None,
    seed: int | None = None,
    seeds: int = 1,
    settings: Settings | None = None,
    kill: int | None = None,
    targeted: bool = False,
    pcap: bool = False,
    out: Path | str | None = None,
    command: str = "",
    say: Say = quiet,
) -> Comparison:
    """Run the architectures of a spec one after another, on the same network under the same faults.

    Args:
        spec: default: the bundled quickstart.
        architectures: instead of the spec's.
        seeds: so many runs of each, from `seed` upwards.
        settings: dotted keys of the spec to lists of values; more than one value makes a sweep.
        kill: survivability: from no failure up to this many, in place of the spec's faults.
        targeted: the busiest machines fail first; else random ones, the same in every architecture.

    Raises: as `run`.
    """
    settings = {**(settings or {}), **({"pcap": [True]} if pcap else {})}
    campaign = plan_campaign(
        Path(spec) if spec is not None else quickstart(),
        architectures=architectures,
        seed=seed,
        seeds=seeds,
        settings=settings,
        kill=kill,
        targeted=targeted,
        command=command,
    )
    return run_campaign(campaign, fabric=fabric, out=Path(out) if out is not None else None, say=say)


def up(
    spec: Path | str | None = None,
    architecture: str | None = None,
    *,
    seed: int | None = None,
    settings: Mapping[str, Any] | None = None,
    cli: bool = False,
    ports: Mapping[str, int] | None = None,
    token: str = "",
    ready: Callable[[list[Reach]], None] = lambda _: None,
    say: Say = quiet,
) -> None:
    """Build the network on Mininet and keep it up until interrupted; then nothing of it is left.

    Args:
        spec: default: the bundled quickstart.
        cli: open Mininet's own command line on it.
        ports: of 127.0.0.1, by the name of the way in: `{"http": 9000}`; others are chosen.
        token: what HTTP clients on other devices of the network have to show; empty: none is let in.
        ready: told of all ways in when everything is up.

    Raises: as `run`.
    """
    from topologies.live import keep_up

    path = Path(spec) if spec is not None else quickstart()
    loaded = _with(load_spec(path, list((settings or {}).items())), seed, pcap=False)
    with naming(path):
        experiment = build_experiment(loaded, architecture or loaded.architectures[0], path.parent)
    chosen = choose_fabric(loaded, "mininet")
    keep_up(experiment, enforcer_of(chosen), cli=cli, say=say, ports=ports, token=token, ready=ready)


def report(folders: Iterable[Path | str], target: Path | str) -> Path:
    """Write one self-contained page about runs, from their folders alone; returns its path.

    Raises InputError where a folder is no run, or the page cannot be written.
    """
    runs: list[Path] = []
    names: list[str] = []
    for folder in folders:
        loaded = load(folder) if not (Path(folder) / "manifest.json").exists() else Run(folder)
        if isinstance(loaded, Comparison):
            runs += [run.folder for run in loaded.runs]
            names += loaded.names()
        else:
            runs.append(loaded.folder)
            names.append(loaded.manifest.architecture)
    try:
        write_page(runs, Path(target), names)
    except OSError as error:
        raise InputError(f"cannot write it: {error.strerror}", file=target) from error
    return Path(target)


def diff(a: Path | str, b: Path | str) -> Diff:
    """Two runs side by side: what was set differently, which numbers changed, where their traces part."""
    return compare_runs(_single(a).folder, _single(b).folder)


def new(path: Path | str) -> Path:
    """Write a commented spec that runs, to start one's own from. Raises InputError where a file is there."""
    from importlib import resources

    target = Path(path)
    if target.suffix != ".toml":
        target = target.with_name(target.name + ".toml")
    template = (resources.files("topologies") / "new.toml").read_text(encoding="utf-8")
    try:
        with target.open("x", encoding="utf-8") as file:
            file.write(template.replace("NAME", _name(target.stem)))
    except FileExistsError as error:
        raise InputError("is already there", file=target, hint="choose another name") from error
    except OSError as error:
        target.unlink(missing_ok=True)
        raise InputError(f"cannot write it: {error.strerror}", file=target) from error
    return target


def _single(folder: Path | str) -> Run:
    loaded = load(folder)
    if isinstance(loaded, Comparison):
        inside = ", ".join(case.folder for case in loaded.cases[:5])
        raise InputError("is a comparison, not a run", file=folder, hint=f"name a run inside it: {inside}")
    return loaded


def _with(spec: Spec, seed: int | None, pcap: bool) -> Spec:
    changed: dict[str, Any] = {} if seed is None else {"seed": seed}
    return msgspec.structs.replace(spec, **changed, pcap=pcap or spec.pcap)


def _name(stem: str) -> str:
    cleaned = "".join(c if c.isalnum() or c in "._-" else "-" for c in stem).lstrip("._-")
    return cleaned or "experiment"
