"""The simulation as a `Fabric`: a plan in, a folder with a trace out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO, ClassVar

from underlay.errors import RunFailed
from underlay.plan import Plan
from underlay.simulation.tamper import Rule
from underlay.simulation.world import World


class Simulation:
    """Runs plans in virtual time (`underlay.plan.Fabric`).

    Args:
        check_codec: send every message through its codec (slower; for tests).
    """

    name: ClassVar[str] = "simulation"

    def __init__(self, *, check_codec: bool = False) -> None:
        self._check_codec = check_codec

    def run(self, plan: Plan, folder: Path) -> None:
        """Run `plan` to its end, leaving `trace.jsonl` in `folder`; RunFailed if that cannot be written."""
        try:
            with (folder / "trace.jsonl").open("wb") as trace_file:
                world = World(plan, trace_file, check_codec=self._check_codec)
                world.run_until(plan.duration_s)
                world.finish()
        except OSError as error:
            raise RunFailed(f"the trace could not be written: {error}") from error

    @staticmethod
    def from_plan(
        plan: Plan,
        trace_file: BinaryIO | None = None,
        *,
        check_codec: bool = False,
        tamper: Sequence[Rule] = (),
    ) -> World:
        """A run in the caller's hands: `run_until`, `apply`, `node`, `inject`, `now`, `records`."""
        return World(plan, trace_file, check_codec=check_codec, tamper=tamper)
