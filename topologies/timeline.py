"""The fault timeline: what a spec's faults mean on this network, as timed verbs. Same machines in every
architecture.

Owns names and roles to devices, `for_s` to the verb that undoes it, and random faults from the run's seed;
what a verb does is the fabrics' (`underlay.faults`).
"""

from __future__ import annotations

from collections.abc import Iterator
from math import inf

from topologies.spec import FaultSettings, RandomFault, Spec
from topologies.topology import Topology
from underlay.errors import InputError, nearest
from underlay.faults import (
    AnyFault,
    Crash,
    Degrade,
    FailDisk,
    Heal,
    LinkDown,
    LinkUp,
    LoseDisk,
    OneWayCut,
    Partition,
    Pause,
    Restart,
    Resume,
    RotDisk,
    SlowDisk,
    TimedFault,
)
from underlay.link import LinkSpec
from underlay.network import seeded

VERBS: dict[str, tuple[str, str]] = {
    "crash": (
        "device",
        "power cut: processes die, links go silent, unsynced state is lost; `for_s` restarts it",
    ),
    "restart": ("device", "power returns, with what was durable"),
    "pause": ("device", "programs stand still, the kernel lives on; `for_s` resumes them"),
    "resume": ("device", "a paused device goes on"),
    "link-down": ("between", "nothing passes between two neighbours; `for_s` brings it up again"),
    "link-up": ("between", "undoes link-down and one-way-cut"),
    "degrade": ("between", "a link changes some parameters (`changes`); `for_s` restores them"),
    "one-way-cut": ("between", "nothing passes from the first to the second; `for_s` undoes it"),
    "partition": ("groups", "cuts every link between the groups; `for_s` heals it"),
    "slow-disk": ("device", "a commit takes `factor` times as long; `for_s` restores it"),
    "fail-disk": (
        "device",
        "the next commit fails and ends the device's nodes, as a full disk would; `for_s` restarts them",
    ),
    "lose-disk": ("device", "everything durable is gone: the nodes find nothing at their next start"),
    "rot-disk": ("device", "one bit of what is durable flips: whoever reads it at the next start notices"),
    "heal": ("", "undoes every partition, link-down and one-way-cut"),
}
"""Each verb's argument, and what it does."""
_FURTHER = (("changes", "degrade"), ("factor", "slow-disk"))
"""Arguments that verbs take beside."""


def timeline(spec: Spec, topology: Topology) -> tuple[TimedFault, ...]:
    """All faults in the order of their times; raises InputError where one names what is not there."""
    faults = [fault for n, f in enumerate(spec.fault) for fault in _timed(f, n, topology, spec.duration_s)]
    faults += [fault for n, r in enumerate(spec.random_fault) for fault in _random(r, n, topology, spec)]
    return tuple(sorted(faults, key=lambda timed: timed.at_s))


def _timed(settings: FaultSettings, n: int, topology: Topology, duration_s: float) -> Iterator[TimedFault]:
    key = f"fault[{n}]"
    wanted, _ = VERBS[settings.kind]
    for argument in ("device", "between", "groups", "changes", "factor"):
        given = getattr(settings, argument) is not None
        if given and argument != wanted and (argument, settings.kind) not in _FURTHER:
            raise InputError(
                f"{settings.kind} takes no {argument}",
                key=f"{key}.{argument}",
                hint=f"it takes {wanted or 'nothing'}",
            )
        if not given and argument == wanted:
            raise InputError(f"{settings.kind} needs one", key=f"{key}.{argument}")
    fault, undo = _verb(settings, key, topology)
    yield TimedFault(settings.at_s, fault)
    if settings.for_s is not None:
        if undo is None:
            raise InputError(f"{settings.kind} is not undone after a time", key=f"{key}.for_s")
        if settings.at_s + settings.for_s < duration_s:
            yield TimedFault(settings.at_s + settings.for_s, undo)


def _verb(settings: FaultSettings, key: str, topology: Topology) -> tuple[AnyFault, AnyFault | None]:
    """The verb, and what undoes it."""
    device = topology.device(settings.device, f"{key}.device") if settings.device is not None else ""
    a, b = topology.neighbours_of(*settings.between, f"{key}.between") if settings.between else ("", "")
    match settings.kind:
        case "crash":
            return Crash(device), Restart(device)
        case "restart":
            return Restart(device), None
        case "pause":
            return Pause(device), Resume(device)
        case "resume":
            return Resume(device), None
        case "link-down":
            return LinkDown(a, b), LinkUp(a, b)
        case "link-up":
            return LinkUp(a, b), None
        case "one-way-cut":
            return OneWayCut(a, b), LinkUp(a, b)
        case "degrade":
            return _degrade(settings, key, topology, a, b), Degrade(a, b)
        case "partition":
            return _partition(settings, key, topology), Heal()
        case "heal":
            return Heal(), None
        case "slow-disk":
            if settings.factor is None:
                raise InputError("slow-disk needs one", key=f"{key}.factor", hint="such as 20")
            return SlowDisk(device, settings.factor), SlowDisk(device, 1.0)
        case "fail-disk":
            return FailDisk(device), Restart(device)
        case "lose-disk":
            return LoseDisk(device), None
        case "rot-disk":
            return RotDisk(device), None


def _degrade(settings: FaultSettings, key: str, topology: Topology, a: str, b: str) -> Degrade:
    changes = settings.changes or {}
    known = [name for name in LinkSpec.__struct_fields__ if name != "opportunities_ms"]
    for name in changes:
        if name not in known:
            near = nearest(name, known)
            raise InputError(
                "unknown key",
                key=f"{key}.changes.{name}",
                hint=f"did you mean {near!r}?" if near else ", ".join(known),
            )
    if not changes:
        raise InputError("degrade needs some", key=f"{key}.changes", hint="such as { loss_ratio = 0.3 }")
    link = topology.network.link(a, b)
    if link is None:
        raise InputError(f"{a} and {b} share a channel; degrade takes a link", key=f"{key}.between")
    fault = Degrade(a, b, dict(changes))
    for spec in (link.forward, link.backward):
        try:
            fault.applied_to(spec)
        except ValueError as error:
            raise InputError(str(error), key=f"{key}.changes") from error
    return fault


def _partition(settings: FaultSettings, key: str, topology: Topology) -> Partition:
    groups = tuple(
        topology.devices(group, f"{key}.groups[{n}]") for n, group in enumerate(settings.groups or ())
    )
    everyone = [device for group in groups for device in group]
    twice = next((device for device in everyone if everyone.count(device) > 1), None)
    if twice is not None:
        raise InputError(f"{twice} is in two groups", key=f"{key}.groups")
    return Partition(groups)


def _random(settings: RandomFault, n: int, topology: Topology, spec: Spec) -> Iterator[TimedFault]:
    key = f"random_fault[{n}]"
    end_s = min(settings.to_s if settings.to_s is not None else inf, spec.duration_s)
    for device in topology.devices(settings.devices, f"{key}.devices"):
        rng = seeded(spec.seed, "random-fault", n, device)
        t_s = settings.from_s
        while True:
            t_s += rng.expovariate(1.0 / settings.mtbf_s)
            if t_s >= end_s:
                break
            yield TimedFault(round(t_s, 3), Crash(device) if settings.kind == "crash" else Pause(device))
            t_s += rng.expovariate(1.0 / settings.mttr_s)
            if t_s >= spec.duration_s:
                break
            yield TimedFault(round(t_s, 3), Restart(device) if settings.kind == "crash" else Resume(device))
