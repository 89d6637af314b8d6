"""Which fabric a run stands on, and why: what was asked, what this machine can do, and no silent fall-back.

`auto` takes Mininet where it works and the simulation elsewhere, and says so; asked for by name, a fabric
that is not there is an error that says what would make it possible.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Literal, get_args

from topologies.experiment import options_of
from topologies.manifest import Chosen
from topologies.profiles import unknown
from topologies.spec import Spec
from underlay.errors import Unavailable
from underlay.plan import Plan

Asked = Literal["auto", "simulation", "mininet"]


def choose_fabric(spec: Spec, asked: str | None = None) -> Chosen:
    """The fabric for a spec; `asked` overrides the spec's own wish. Raises Unavailable or InputError."""
    asked = asked or spec.fabric.default
    if asked not in get_args(Asked):
        raise unknown("fabric", asked, get_args(Asked), "fabric")
    if asked == "simulation":
        return Chosen("simulation", "simulation", asked, "asked for")
    try:
        enforcer, why = _probe_mininet(spec)
    except Unavailable as error:
        if asked == "mininet":
            raise
        return Chosen("simulation", "simulation", asked, f"Mininet is not possible here: {error}")
    return Chosen("mininet", enforcer, asked, why if asked == "auto" else f"asked for; {why}")


def run_plan(plan: Plan, chosen: Chosen, folder: Path, *, pcap: bool = False) -> None:
    """Run `plan` on the chosen fabric; its trace and what it found out are then in `folder`. Raises
    RunFailed."""
    if chosen.fabric == "simulation":
        from underlay.simulation import Simulation

        Simulation().run(plan, folder)
    else:
        from underlay.emulation.fabric import Emulation

        Emulation().run(plan, folder.absolute(), pcap=pcap, enforcer=enforcer_of(chosen))


def enforcer_of(chosen: Chosen) -> Literal["ether", "netem"]:
    """Who makes the links on Mininet."""
    return "netem" if chosen.enforcer == "netem" else "ether"


def _probe_mininet(spec: Spec) -> tuple[Literal["ether", "netem"], str]:
    """The enforcer that would run, and why; raises Unavailable where none can."""
    if not sys.platform.startswith("linux"):
        raise Unavailable("it needs Linux", hint="`vagrant up` gives one; --fabric simulation runs here")
    from underlay.emulation import doctor

    shared = bool(spec.channel) or spec.links.radio.shared or spec.links.backhaul.shared
    enforcer, why = doctor.choose_enforcer(spec.fabric.enforcer, shared=shared)
    if any(options_of(spec, name)[0] == "star" for name in spec.architectures):
        for finding in doctor.examine():
            if finding.need == "star" and not finding.good:
                raise Unavailable(f"{finding.name}: {finding.detail}", hint=finding.remedy)
    return enforcer, why
