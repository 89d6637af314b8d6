"""The Mininet fabric: runs a plan on an emulated network, in real time.

Owns the runner's side: it starts the supervisor in a world of its own, waits for it, and removes what is
left, whatever happens. SIGINT and SIGTERM end a run and leave nothing; after a SIGKILL the kernel ends every
process at once and `cleanup.clean` removes the files.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import msgspec

from underlay.emulation.cleanup import Journal
from underlay.emulation.processes import fork_first
from underlay.emulation.programs import last_lines
from underlay.errors import BirdhouseError, InputError, RunFailed, Unavailable
from underlay.plan import Plan

if TYPE_CHECKING:
    from underlay.emulation.enforcers import EnforcerName
    from underlay.emulation.forwarding import Way


class Emulation:
    """Runs plans on Mininet (`underlay.plan.Fabric`)."""

    name = "mininet"

    def run(
        self,
        plan: Plan,
        folder: Path,
        *,
        verify: bool = True,
        pcap: bool = False,
        cli: bool = False,
        enforcer: EnforcerName = "ether",
        ways: Sequence[Way] = (),
        on_start: Callable[[], None] = lambda: None,
    ) -> None:
        """Run `plan` to its end; `folder` then holds `trace.jsonl`, `verdict.json`, `logs` and `devices`.

        A `duration_s` of infinity keeps the network up until `control.stop`, or until the command line is
        left.

        Args:
            verify: probe every link before the run (6 to 15 s); without it the verdict is `not verified`.
            pcap: also write every link's frames to `captures`.
            cli: open Mininet's command line on this terminal; the run is over when it is left.
            enforcer: who makes the links what the plan says.
            ways: ports of this machine that lead to devices, for as long as the run lasts.
            on_start: called when the run's clock starts.

        Raises:
            Unavailable: this machine cannot emulate.
            RunFailed: the run ended before its time; `folder` keeps the logs beside a file `FAILED`.
        """
        if os.geteuid() != 0:
            raise Unavailable("emulating a network needs root", hint="use sudo, or the simulation")
        if enforcer == "netem":
            _prepare_netem(plan, pcap)
        from underlay.emulation.layout import Layout
        from underlay.emulation.supervisor import Options, Supervisor, supervise

        layout, options = Layout(folder), Options(verify, pcap, enforcer, cli, tuple(ways))
        with _ended_by_sigterm(), Journal.open() as journal:
            layout.make(journal)
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            sys.stdout.flush()
            sys.stderr.flush()

            def main() -> NoReturn:
                ours.close()
                supervise(Supervisor(plan, layout, journal, theirs, options), layout, theirs)
                os._exit(0)

            pid = fork_first(main)
            theirs.close()
            try:
                with _deaf_to_ctrl_c() if cli else nullcontext():
                    _await_end(ours, layout.logs / "supervisor.log", on_start)
                journal.finish()
            finally:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)  # returns when every process of the run is gone
                ours.close()


def _prepare_netem(plan: Plan, pcap: bool) -> None:
    """Refuse what it cannot do before anything is made."""
    from underlay.emulation import doctor, netem

    doctor.require_netem()
    netem.refuse(plan)
    if pcap:
        raise InputError("netem captures no frames", key="--pcap", hint='use the enforcer "ether"')


class Terminated(KeyboardInterrupt):
    """SIGTERM arrived; like Ctrl-C, for whoever has to clean up."""


_KINDS: dict[str, type[BirdhouseError]] = {"InputError": InputError, "Unavailable": Unavailable}


def _await_end(lifeline: socket.socket, log: Path, on_start: Callable[[], None]) -> None:
    """Until the supervisor says how it went; raises what it says."""
    while True:
        select.select([lifeline], [], [])
        data = lifeline.recv(1 << 20)
        if not data:
            raise RunFailed("\n".join(("the supervisor ended by itself:", *last_lines(log))))
        if data.startswith(b"{"):
            break
        on_start()
    outcome = msgspec.json.decode(data, type=dict[str, str])
    if "failed" in outcome:
        raise _KINDS.get(outcome["kind"], RunFailed)(outcome["failed"])


@contextmanager
def _deaf_to_ctrl_c() -> Iterator[None]:
    """On a shared terminal it is for the command that runs in Mininet's command line."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """Turn SIGTERM into an exception, so that what was made is removed."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def terminate(_number: int, _frame: object) -> NoReturn:
        raise Terminated("SIGTERM")

    before = signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
