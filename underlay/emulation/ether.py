"""The ether: one process that holds the TAP ends of every link and runs the same models as the simulation, in
real time.

Owns the runner's end: forking the process, telling it what to do, ending it. The process itself is
`ether_process`, moving frames `ether_loop`, counting them `ether_hops`. The ether decides nothing about
faults: it is told which hops are cut and when.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import traceback
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from underlay.emulation.ether_hops import FrameClass, Media, Port
from underlay.emulation.ether_process import EtherProcess, become_ether
from underlay.emulation.ether_wire import (
    Answer,
    Capture,
    Command,
    Count,
    Cut,
    Done,
    Failed,
    LogProbes,
    ProbeFate,
    ProbeLog,
    Rehearse,
    Reshape,
    Start,
    Stop,
    Totals,
    receive_answer,
    send,
)
from underlay.errors import RunFailed
from underlay.link import LinkSpec
from underlay.network import Network
from underlay.trace import TraceWriter

_Expected = TypeVar("_Expected", bound=Answer)


class Ether:
    """A running ether. Commands raise RunFailed if it has died or cannot go on."""

    unknown = ()
    """What a run's report must say is missing: nothing."""

    def __init__(self, pid: int, control: socket.socket) -> None:
        self.pid = pid
        self._control = control
        self._changes = 0
        self._totals: Totals | None = None
        self._ended = False

    @classmethod
    def fork(
        cls,
        network: Network,
        ports: Sequence[Port],
        seed: int,
        trace: Path,
        *,
        usage_interval_s: float = 1.0,
        frame_class: FrameClass | None = None,
    ) -> Ether:
        """Start moving frames between `ports`. The child closes every other descriptor it inherits.

        Args:
            ports: one for each end of every link and each member of every channel; the descriptors stay open
                here.
            seed: the run's; each direction's stream is the one that the simulation uses.
            trace: the file its own records go to.
            frame_class: which IP packets count as users' data (None: none).
        """
        here, there = socket.socketpair()
        parent = os.getpid()
        sys.stdout.flush()
        sys.stderr.flush()
        pid = os.fork()
        if pid:
            there.close()
            return cls(pid, here)
        status = 1
        try:
            become_ether(parent, [there.fileno(), *(port.fd for port in ports)])
            with trace.open("wb") as file:
                EtherProcess(
                    Media(network, ports, seed), there, TraceWriter(file), usage_interval_s, frame_class
                ).run()
            status = 0
        except OSError as problem:  # the disk is full, or the devices are gone
            print(f"ether: {problem}", file=sys.stderr, flush=True)
        except BaseException:
            traceback.print_exc()
            sys.stderr.flush()
        finally:
            os._exit(status)

    def start(self, t0_s: float) -> None:
        """Begin the run at `t0_s` of `time.monotonic()`: from then on models, counters and records are those
        of the run, whatever was sent before."""
        self._ask(Start(t0_s), Done)

    def cut(self, pairs: Collection[tuple[str, str]]) -> None:
        """Let nothing pass from the first to the second device of each pair; what is under way is lost
        too."""
        self._ask(Cut(list(pairs), cut=True), Done)

    def mend(self, pairs: Collection[tuple[str, str]]) -> None:
        """Undo `cut`."""
        self._ask(Cut(list(pairs), cut=False), Done)

    def check(self, medium: str, spec: LinkSpec) -> None:
        """Raise InputError if a link cannot become that; of the ether's all can."""

    def reshape(self, medium: str, source: str, target: str, spec: LinkSpec) -> None:
        """Give one direction another spec, as a `Degrade` does; on a channel, one hearer."""
        self._changes += 1
        self._ask(Reshape(medium, source, target, spec, self._changes), Done)

    def rehearse(self, specs: Mapping[tuple[str, str], LinkSpec]) -> None:
        """Use other specs until `start`, by `(medium, source)`; a channel's source is `"*"`, and its duty
        cycle is not kept meanwhile."""
        self._ask(Rehearse([(*direction, spec) for direction, spec in specs.items()]), Done)

    def totals(self) -> Totals:
        """Counters so far; after `stop`, the last ones."""
        return self._totals or self._ask(Count(), Totals)

    def log_probes(self) -> None:
        """Note the fate of every frame from now on: of probes, and of what else is on their links."""
        self._ask(LogProbes(on=True), Done)

    def probe_log(self) -> list[ProbeFate]:
        """The fates noted since `log_probes`; no more are."""
        return self._ask(LogProbes(on=False), ProbeLog).fates

    def capture(self, folder: Path) -> None:
        """Write every frame from now on to `folder`, a file for each link and channel."""
        self._ask(Capture(str(folder)), Done)

    def stop(self) -> Totals:
        """Move no more frames, finish the trace and any captures, end the process."""
        if self._totals is None:
            self._totals = self._ask(Stop(), Totals)
            self._reap()
        return self._totals

    def kill(self) -> None:
        """End the process whatever it does; harmless if it has ended."""
        if not self._ended:
            os.kill(self.pid, signal.SIGKILL)
            self._reap()

    def _ask(self, command: Command, expected: type[_Expected]) -> _Expected:
        try:
            send(self._control, command)
            answer = receive_answer(self._control)
        except (EOFError, OSError) as problem:
            raise RunFailed("the ether's process has ended by itself") from problem
        if isinstance(answer, Failed):
            raise RunFailed(f"the ether cannot go on: {answer.reason}")
        assert isinstance(answer, expected), answer
        return answer

    def _reap(self) -> None:
        self._ended = True
        self._control.close()
        os.waitpid(self.pid, 0)
