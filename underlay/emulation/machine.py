"""A device as the supervisor sees it: its processes over its lives, in their namespace.

Owns booting (programs first, then the nodes' process), crash, pause, and the end; and noticing a process that
ended by itself. The network around the device is `medium`'s.
"""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from time import monotonic
from typing import Any, Protocol

from underlay.emulation.cgroups import Cgroup
from underlay.emulation.device import DiskIs, Failed, Go, Hops, Ready, Stop, fork_device, heard, say
from underlay.emulation.driver import Incarnation
from underlay.emulation.namespace import end_processes, signal_processes
from underlay.emulation.programs import Program, connected, last_lines
from underlay.emulation.reactor import Reactor
from underlay.emulation.sock_diag import destroy_sockets
from underlay.emulation.store_log import lose, rot
from underlay.faults import DiskFault, FailDisk, LoseDisk, RotDisk, SlowDisk
from underlay.trace import ProcessEnded

NODES = "nodes"
"""What `ProcessEnded` calls the process of a device's own nodes."""
PROBE_INTERVAL_S = 0.01
READY_TIMEOUT_S = 30.0


class Watcher(Protocol):
    """Who is told what happens to machines."""

    def ended(self, machine: Machine, event: ProcessEnded, expected: bool) -> None:
        """A process ended by itself."""

    def failed(self, machine: Machine, problem: Failed) -> None:
        """The nodes' process cannot go on; its end follows."""

    def booted(self, machine: Machine) -> None:
        """The programs serve and the nodes' sockets are bound."""


class Machine:
    """One device.

    Args:
        host: its Mininet host.
        life: makes what the driver of the n-th incarnation is given; None if no nodes or bindings run here.
        programs: its programs.
        cgroup: its share of this machine, or None.
    """

    def __init__(
        self,
        name: str,
        host: Any,
        life: Callable[[int], Incarnation] | None,
        programs: list[Program],
        cgroup: Cgroup | None,
        reactor: Reactor,
        watcher: Watcher,
    ) -> None:
        self.name = name
        self.host = host
        self.programs = programs
        self.incarnation = 0
        self.up = False
        self.paused = False
        self.pid: int | None = None
        self.disk_failed = False
        """The nodes ended because a fault let their disk fail; until they are started again."""
        self.imported: Sequence[str] = ()
        """What the nodes' process had to import until it was ready."""
        self._life = life
        self._cgroup = cgroup
        self._reactor = reactor
        self._watcher = watcher
        self._channel: socket.socket | None = None
        self._pidfds: dict[int, str] = {}
        self._log: Path | None = None
        self._disk = DiskIs()
        self._disk_lost = False

    # -------------------------------------------------------------------------------------------------- power

    def start_programs(self, then: Callable[[], None]) -> None:
        """Power on, first half: start the programs and call `then` once all of them serve."""
        self.up, self.paused = True, False
        self.incarnation += 1
        life = self.incarnation
        for program in self.programs:
            pid = program.start()
            self._take(pid)
            self._watch(pid, lambda program=program: self._program_ended(program), program.plan.name)  # type: ignore[misc]
        waiting = [program for program in self.programs if program.plan.ready_port is not None]
        self._await_ports(waiting, then, life, monotonic() + READY_TIMEOUT_S)

    def start_nodes(self) -> None:
        """Power on, second half: fork the nodes' process; the watcher hears when it is bound."""
        if self._life is None:
            self._watcher.booted(self)
            return
        life = self._life(self.incarnation)
        if self._disk_lost:
            lose(life.store)
        self.disk_failed = self._disk_lost = False
        self._log = life.log
        self.pid, self._channel = fork_device(life, self.host.namespace)
        self._take(self.pid)
        self._watch(self.pid, self._nodes_ended, NODES)
        self._reactor.watch(self._channel.fileno(), self._word)
        self.mend_disk()

    def start_nodes_again(self) -> None:
        """The nodes ended, the device is up: their next incarnation."""
        self.incarnation += 1
        self.start_nodes()

    def go(self, t0_s: float) -> None:
        """Start the nodes."""
        if self._channel is not None:
            say(self._channel, Go(t0_s))

    def set_hops(self, hops: dict[str, int]) -> None:
        """Routes changed."""
        if self._channel is not None:
            with suppress(BlockingIOError, ConnectionError):  # stopped for long, or about to be found dead
                say(self._channel, Hops(hops))

    def mend_disk(self) -> None:
        """It does not fail any more; if it was slow, it is."""
        self._set_disk(DiskIs(self._disk.slowness))

    def disturb_disk(self, fault: DiskFault, chance: int) -> None:
        """Something happens to the nodes' disk; `chance` says which of its bits rots."""
        if self._life is None:
            return
        match fault:
            case SlowDisk(_, factor):
                self._set_disk(DiskIs(factor, self._disk.fails))
            case FailDisk():
                self._set_disk(DiskIs(self._disk.slowness, fails=True))
            case LoseDisk():
                self._disk_lost = True
            case RotDisk():
                rot(self._life(self.incarnation).store, chance)

    def crash(self) -> None:
        """Power off: every process in the namespace is gone at once, and the kernel keeps none of its
        sockets.

        The links must be cut before, or the peers would hear the kernel say goodbye.
        """
        self._forget()
        end_processes([self.host.namespace])
        self._reap()
        destroy_sockets(self.host.namespace)
        self.up = self.paused = self.disk_failed = False

    def pause(self) -> None:
        """Processes stand still; the kernel goes on."""
        signal_processes([self.host.namespace], signal.SIGSTOP)
        self.paused = True

    def resume(self) -> None:
        """Processes go on."""
        signal_processes([self.host.namespace], signal.SIGCONT)
        self.paused = False

    def stop(self) -> None:
        """The run is over: the nodes may say goodbye. `running` tells when they have; what is left gets
        killed.
        """
        if self.paused:
            self.resume()
        if self._channel is not None:
            with suppress(ConnectionError):
                say(self._channel, Stop())

    @property
    def running(self) -> bool:
        """Whether the nodes' process lives."""
        return self.pid is not None

    def is_nodes(self, event: ProcessEnded) -> bool:
        """Whether it was the nodes' process that ended."""
        return event.program == NODES

    def status(self) -> dict[str, object]:
        """For people who ask."""
        return {
            "up": self.up,
            "paused": self.paused,
            "incarnation": self.incarnation,
            "nodes": self.pid,
            "programs": {p.plan.name: p.process.pid if p.process else None for p in self.programs},
        }

    # ----------------------------------------------------------------------------------------------- plumbing

    def _await_ports(
        self, waiting: list[Program], then: Callable[[], None], life: int, deadline_s: float
    ) -> None:
        if life != self.incarnation or not self.up:
            return  # crashed meanwhile
        if not waiting:
            then()
            return
        program = waiting[0]
        with program.probe() as knock:
            if connected(knock):
                waiting = waiting[1:]
        if monotonic() > deadline_s:
            lines = "\n".join(last_lines(program.log))
            problem = f"{program.plan.name} does not accept connections on port {program.plan.ready_port}"
            self._watcher.failed(self, Failed(f"{problem}\n{lines}"))
            return
        pause_s = PROBE_INTERVAL_S if waiting else 0.0
        self._reactor.at(monotonic() + pause_s, lambda: self._await_ports(waiting, then, life, deadline_s))

    def _word(self) -> None:
        assert self._channel is not None
        match heard(self._channel):
            case Ready(imported):
                self.imported = imported
                self._watcher.booted(self)
            case Failed() as failed:
                self._failed(failed)
            case None:
                self._close_channel()

    def _set_disk(self, disk: DiskIs) -> None:
        self._disk = disk
        if self._channel is not None:
            with suppress(BlockingIOError, ConnectionError):  # about to be found dead
                say(self._channel, disk)

    def _failed(self, word: Failed) -> None:
        if word.by_fault:
            self.disk_failed = True
        else:
            self._watcher.failed(self, word)

    def _nodes_ended(self) -> None:
        assert self.pid is not None
        _, status = os.waitpid(self.pid, 0)
        self._close_channel(listen=True)
        self.pid = None
        code = os.waitstatus_to_exitcode(status)
        lines = last_lines(self._log) if self._log is not None else ()
        self._watcher.ended(self, ProcessEnded(NODES, code, lines), expected=False)

    def _program_ended(self, program: Program) -> None:
        event = ProcessEnded(program.plan.name, program.ended(), last_lines(program.log))
        self._watcher.ended(self, event, expected=program.plan.expected_to_end)

    def _take(self, pid: int) -> None:
        if self._cgroup is not None:
            self._cgroup.add(pid)

    def _watch(self, pid: int, ended: Callable[[], None], name: str) -> None:
        pidfd = os.pidfd_open(pid)
        self._pidfds[pidfd] = name

        def gone() -> None:
            self._reactor.unwatch(pidfd)
            os.close(pidfd)
            del self._pidfds[pidfd]
            ended()

        self._reactor.watch(pidfd, gone)

    def _forget(self) -> None:
        for pidfd in self._pidfds:
            self._reactor.unwatch(pidfd)
            os.close(pidfd)
        self._pidfds.clear()
        self._close_channel()

    def _close_channel(self, *, listen: bool = False) -> None:
        if self._channel is None:
            return
        self._reactor.unwatch(self._channel.fileno())
        if listen:  # its last word may still be there
            with suppress(BlockingIOError):
                while (word := heard(self._channel)) is not None:
                    if isinstance(word, Failed):
                        self._failed(word)
        self._channel.close()
        self._channel = None

    def _reap(self) -> None:
        if self.pid is not None:
            os.waitpid(self.pid, 0)
            self.pid = None
        for program in self.programs:
            if program.process is not None:
                program.ended()
