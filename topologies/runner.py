"""Runs one experiment and leaves a folder: resolved spec, manifest, trace, summary, report.

Owns the order of things and what the manifest says; how a run is run is the fabric's, what it means is
`topologies.metrics`'.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path

import msgspec

from gateway.mapreduce.job import load
from topologies.experiment import Experiment, build_plan
from topologies.fabrics import run_plan
from topologies.feasibility import warnings_of
from topologies.job_results import collect
from topologies.jobs import on_the_way
from topologies.manifest import Chosen, Manifest, Verdict, device_infos, link_infos
from topologies.metrics import summarize
from topologies.spec_file import to_toml
from underlay.plan import Plan

Say = Callable[[str], None]
"""Told in words what is going on."""

_VERSIONED = ("birdhouse", "mininet", "paho-mqtt", "aiocoap", "msgspec", "networkx")


def quiet(_: str) -> None:
    """For callers who do not want to be told."""


def run_experiment(
    experiment: Experiment, chosen: Chosen, folder: Path, *, command: str = "", say: Say = quiet
) -> None:
    """Run it on the chosen fabric, into an existing empty folder; raises RunFailed.

    Args:
        command: what reproduces the run, for the manifest.
        say: told of warnings.
    """
    plan = build_plan(experiment)
    unsimulated = _unsimulated(plan) if chosen.fabric == "simulation" else []
    warnings = [*warnings_of(experiment), *unsimulated]
    for warning in warnings:
        say(f"{experiment.name}: {warning}")
    (folder / "spec.toml").write_text(to_toml(experiment.spec), encoding="utf-8")
    run_plan(plan, chosen, folder, pcap=experiment.spec.pcap)
    notes = (*warnings, *_not_modelled(plan, chosen))
    manifest = manifest_of(experiment, chosen, _verdict(folder, chosen), command, notes)
    msgspec.structs.replace(manifest, ports=plan.ports()).write(folder)
    summarize(folder)
    if experiment.jobs:
        combined = on_the_way(experiment.spec, experiment.topology, experiment.jobs)
        places = {device: place.level for device, place in combined.items()}
        wanted = {
            source.name: load(source).source
            for (_, source), settings in zip(experiment.jobs, experiment.spec.job, strict=True)
            if settings.on_the_way
        }
        collect(folder, wanted, places)
    if experiment.spec.pcap:
        _analyse_captures(folder, chosen, say)


def manifest_of(
    experiment: Experiment, chosen: Chosen, verdict: Verdict, command: str = "", notes: tuple[str, ...] = ()
) -> Manifest:
    """What the run was."""
    spec, topology = experiment.spec, experiment.topology
    _, stop_s = spec.counted_s
    return Manifest(
        name=spec.name,
        architecture=experiment.name,
        seed=spec.seed,
        chosen=chosen,
        verdict=verdict,
        duration_s=spec.duration_s,
        warmup_s=spec.warmup_s,
        stop_s=stop_s,
        deadline_s=spec.deadline_s,
        subscribers=spec.subscribers,
        sink=topology.sink,
        storage=spec.storage.kind,
        birdhouses=topology.birdhouses,
        devices=device_infos(topology.network, {name: str(role) for name, role in topology.roles.items()}),
        links=link_infos(topology.network),
        command=command,
        versions=versions(),
        notes=notes,
    )


def versions() -> dict[str, str]:
    """Of what a result may depend on."""
    found = {"python": platform.python_version(), "system": f"{platform.system()} {platform.release()}"}
    for name in _VERSIONED:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def _verdict(folder: Path, chosen: Chosen) -> Verdict:
    """What the fabric found out about its links."""
    path = folder / "verdict.json"
    if path.exists():
        return msgspec.json.decode(path.read_bytes(), type=Verdict)
    if chosen.fabric == "simulation":
        return Verdict("valid", "the simulation's links are the model itself")
    return Verdict("not verified", "the fabric did not verify its links")


def _not_modelled(plan: Plan, chosen: Chosen) -> list[str]:
    notes = []
    if plan.network.channels:
        notes.append("collisions and spatial reuse on shared channels are not modelled")
    if chosen.fabric == "mininet":
        notes.append("a crash discards unsynced data at the storage seam: the page cache outlives it")
    return notes


def _unsimulated(plan: Plan) -> list[str]:
    programs = {p.name for device in plan.devices.values() for p in device.programs if p.model is None}
    return [f"the program {name} is not simulated" for name in sorted(programs)]


def _analyse_captures(folder: Path, chosen: Chosen, say: Say) -> None:
    if chosen.fabric == "simulation":
        say("the simulation has no frames to capture; --pcap needs --fabric mininet")
        return
    from topologies.captures import analyse  # brings scapy, which only captures need

    analysis = analyse(folder)
    if not analysis.agrees:
        say(f"{folder.name}: the captures and the ether's counters disagree, see captures.json")


def write_page(folders: Sequence[Path], target: Path, names: Sequence[str] = ()) -> None:
    """The report over these runs; `names` in place of their architectures'."""
    from topologies import reporting  # brings matplotlib, which a run does not need

    reporting.write(folders, target, names)
