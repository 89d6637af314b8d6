"""Networks that are up: keeping one up, looking inside one, and clearing away what killed ones left."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from topologies.experiment import Experiment
from topologies.folders import building, new_folder
from topologies.runner import Say
from underlay.errors import Unavailable

if TYPE_CHECKING:
    from topologies.deployment import Reach
    from underlay.emulation.enforcers import EnforcerName

_UP = "up; Ctrl-C takes it down; `birdhouse exec NODE COMMAND` and `birdhouse logs NODE` look inside"
_A_LINE = 6


def keep_up(
    experiment: Experiment,
    enforcer: EnforcerName,
    *,
    cli: bool,
    say: Say,
    ports: Mapping[str, int] | None = None,
    token: str = "",
    ready: Callable[[list[Reach]], None] = lambda _: None,
) -> None:
    """Run the experiment's plan until interrupted. Faults happen at their times; others by hand.

    Args:
        ports: of this machine, by the name of the way in; those that are not named are chosen.
        token: what HTTP clients on other devices of the network have to show; empty: none is let in.
        ready: told of all ways in when everything is up.
    """
    from topologies.deployment import lasting_plan, reaches, wanted_ways, with_ways  # brings FastAPI
    from underlay.emulation.blueprint import addresses
    from underlay.emulation.fabric import Emulation
    from underlay.emulation.forwarding import take

    plan = lasting_plan(experiment, token)
    ways = take(wanted_ways(experiment, plan, ports or {}))
    plan = with_ways(plan, ways)

    def up() -> None:
        say("\n  ".join(told))
        ready(reaches(experiment, ways))

    folder = new_folder(f"{experiment.spec.name}-up", None)
    with building(folder) as partial:
        say("coming up")
        told = [*_address_lines(addresses(plan.network)), _UP]
        started = partial.absolute()
        Emulation().run(
            plan,
            started,
            verify=False,
            cli=cli,
            enforcer=enforcer,
            ways=ways,
            on_start=up,
        )
    shutil.rmtree(folder)  # after `exit` as after Ctrl-C: what was up for a look is no run


def _address_lines(addresses: Mapping[str, str]) -> list[str]:
    """Devices and their addresses inside the run, a few on a line; names resolve there too."""
    told = [f"{device} {ip}" for device, ip in addresses.items()]
    return [
        "these devices are reachable from each other:",
        *(", ".join(told[i : i + _A_LINE]) for i in range(0, len(told), _A_LINE)),
    ]


def execute(node: str, command: Sequence[str], run: str | None = None) -> int:
    """Run a command inside a device, on this terminal; its exit status."""
    _need_linux()
    from underlay.emulation import control

    return control.execute(node, command, run)


def log_files(node: str, run: str | None = None) -> list[Path]:
    """Files with the output of a device's processes."""
    _need_linux()
    from underlay.emulation import control

    return control.logs(node, run)


def clean() -> list[str]:
    """Remove what killed runs left; returns what was removed."""
    if not sys.platform.startswith("linux"):
        return []
    from underlay.emulation.cleanup import clean as clean_up

    return clean_up()


def _need_linux() -> None:
    if not sys.platform.startswith("linux"):
        raise Unavailable("networks are up on Linux only", hint="`vagrant up` gives one")
