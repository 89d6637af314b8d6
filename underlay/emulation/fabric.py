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
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NoReturn

import msgspec

from underlay.emulation.cleanup import Journal
from underlay.emulation.processes import fork_first
from underlay.emulation.programs import last_lines
from underlay.errors import BirdhouseError, InputError, RunFailed, Unavailable
from underlay.plan import Plan


class Emulation:
    """Runs plans on Mininet (`underlay.plan.Fabric`)."""

    name = "mininet"

    def run(self, plan: Plan, folder: Path, *, pcap: bool = False) -> None:
        """Run `plan` to its end; `folder` then holds `trace.jsonl`, `verification.json`, `logs` and
        `devices`.

        Args:
            pcap: also write every link's frames to `captures`.

        Raises:
            Unavailable: this machine cannot emulate.
            RunFailed: the run ended before its time; `folder` keeps the logs beside a file `FAILED`.
        """
        from underlay.emulation.supervisor import Layout, Supervisor, supervise

        if os.geteuid() != 0:
            raise Unavailable("emulating a network needs root", hint="use sudo, or the simulation")
        layout = Layout(folder)
        with _ended_by_sigterm(), Journal.open() as journal:
            layout.make(journal)
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            sys.stdout.flush()
            sys.stderr.flush()

            def main() -> NoReturn:
                ours.close()
                supervise(
                    Supervisor(plan, layout, journal, theirs, pcap=pcap),
                    layout,
                    theirs,
                )
                os._exit(0)

            pid = fork_first(main)
            theirs.close()
            try:
                self._wait(ours, layout.logs / "supervisor.log")
                journal.finish()
            finally:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)  # returns when every process of the run is gone
                ours.close()

    def _wait(self, lifeline: socket.socket, log: Path) -> None:
        while True:
            select.select([lifeline], [], [])
            data = lifeline.recv(1 << 20)
            if not data:
                raise RunFailed("the supervisor ended by itself:\n" + "\n".join(last_lines(log)))
            if data.startswith(b"{"):
                break
        outcome = msgspec.json.decode(data, type=dict[str, str])
        if "failed" in outcome:
            raise _KINDS.get(outcome["kind"], RunFailed)(outcome["failed"])


_KINDS: dict[str, type[BirdhouseError]] = {"InputError": InputError, "Unavailable": Unavailable}


class Terminated(KeyboardInterrupt):
    """SIGTERM arrived; like Ctrl-C, for whoever has to clean up."""


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
