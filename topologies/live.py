"""Networks that are up: keeping one up, looking inside one, and clearing away what killed ones left."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from math import inf
from pathlib import Path

import msgspec

from topologies.experiment import Experiment, build_plan
from topologies.folders import building, new_folder
from topologies.runner import Say
from underlay.errors import Unavailable

_UP = "up; Ctrl-C takes it down; `birdhouse exec NODE COMMAND` and `birdhouse logs NODE` look inside"


def keep_up(experiment: Experiment, *, cli: bool, say: Say) -> None:
    """Run the experiment's plan until interrupted. Faults happen at their times; others by hand."""
    from underlay.emulation.fabric import Emulation

    plan = msgspec.structs.replace(build_plan(experiment), duration_s=inf)
    with building(new_folder(f"{experiment.spec.name}-up", None)) as partial:
        say("coming up")
        Emulation().run(plan, partial.absolute(), verify=False, cli=cli, on_start=lambda: say(_UP))


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
