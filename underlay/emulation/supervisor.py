"""The supervisor: the first process of a run's own PID namespace, which builds the network and sees the run
through.

Owns the order of things: network, ether, programs, links verified, nodes' processes, the start at t = 0,
faults and routes on the timeline, the end, the merged trace. It is its own warm parent: what devices need is
imported before they are forked. When it ends, however it ends, the kernel ends every process of the run, and
with them go namespaces and interfaces.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import traceback
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from math import inf
from pathlib import Path
from time import monotonic
from typing import Any

import msgspec

from underlay.emulation import stock
from underlay.emulation.assembly import Assembly
from underlay.emulation.blueprint import addresses
from underlay.emulation.cleanup import Journal
from underlay.emulation.control import Answer, ControlServer, Request, namespaces_of
from underlay.emulation.device import Failed
from underlay.emulation.enforcers import EnforcerName, build_for, conclude, enforce, verify_links
from underlay.emulation.forwarding import Way, forward
from underlay.emulation.health import CpuWatch, Findings, Promptness, judge
from underlay.emulation.layout import Layout
from underlay.emulation.machine import Machine
from underlay.emulation.medium import Medium, hop_counts
from underlay.emulation.net import Network
from underlay.emulation.processes import default_signals, prepare_log, run_to_end
from underlay.emulation.reactor import Reactor
from underlay.emulation.unnumbered import configure_unnumbered, route_table
from underlay.emulation.verification import LinkVerification
from underlay.emulation.warm import learn, scouts
from underlay.errors import RunFailed
from underlay.faults import (
    AnyFault,
    Crash,
    FailDisk,
    LoseDisk,
    Pause,
    Restart,
    Resume,
    RotDisk,
    SlowDisk,
)
from underlay.network import seeded
from underlay.plan import Plan
from underlay.routes import Routes, shortest_paths
from underlay.trace import (
    Event,
    FaultApplied,
    ProcessEnded,
    RoutesChanged,
    RunStarted,
    TraceWriter,
)

FABRIC = "mininet"
START_DELAY_S = 0.1
"""From the decision to start to t = 0: time for the word to reach every device."""
BOOT_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 5.0
ROOM_BYTES_MIN = 64 * 1024
PREPARED = "prepared"
"""Said to the runner once the clock runs."""


class Options(msgspec.Struct, frozen=True):
    """How to run, beside what."""

    verify: bool = True
    """Probe every link before the run, which takes 6 to 15 s; without it the run is `not verified`."""
    pcap: bool = False
    """Write every frame to `captures`."""
    enforcer: EnforcerName = "ether"
    """Who makes the links what the plan says."""
    cli: bool = False
    """Open Mininet's command line on this terminal; the run is over when it is left."""
    ways: tuple[Way, ...] = ()
    """Ports of this machine that lead to devices."""


class Supervisor:
    """One run. `run` sees it through and raises RunFailed, InputError, or whatever is a bug."""

    def __init__(
        self, plan: Plan, layout: Layout, journal: Journal, lifeline: socket.socket, options: Options
    ) -> None:
        self._plan = plan
        self._layout = layout
        self._journal = journal
        self._lifeline = lifeline
        self._options = options
        self._terminal = os.dup(1)
        self._reactor = Reactor()
        self._addresses = addresses(plan.network)
        self._machines: dict[str, Machine] = {}
        self._booting: dict[str, None] = {}
        self._findings = Findings()
        self._problem: RunFailed | None = None
        self._stopped = False
        self._t0_s: float | None = None
        self._hops: dict[str, dict[str, int]] = {}
        self._forwarder: int | None = None
        self._chance = seeded(plan.seed, "disk")
        self._cpu = CpuWatch()
        self._promptness = Promptness()

    def run(self) -> None:
        """From nothing to the trace."""
        self._lifeline.setblocking(False)
        self._reactor.watch(self._lifeline.fileno(), self._word_of_runner)
        network = self._build()
        with network, self._layout.run_shard.open("wb") as shard:
            self._trace = TraceWriter(shard)
            try:
                before = self._start(network)
                assert self._t0_s is not None
                self._reactor.run(self._over, self._t0_s + self._plan.duration_s)
                self._unwatch_enforcer()
                if self._problem is not None:
                    raise self._problem
                after = conclude(self._enforcer, network)
                t_s = self.t()
                self._stop_devices()
            finally:
                self._close_ways()
                self._enforcer.kill()
            self._trace.flush()
        health = self._cpu.summary(), self._promptness.summary()
        self._layout.finish(t_s, judge(before, after, *health, self._findings.lines))

    def t(self) -> float:
        """Seconds since the run's start, 0 before."""
        return max(0.0, monotonic() - self._t0_s) if self._t0_s is not None else 0.0

    # ----------------------------------------------------------------------------------------------- building

    def _build(self) -> Network:
        graph = self._plan.network
        routes = shortest_paths(graph)
        self._hops = hop_counts(routes)
        network = build_for(self._options.enforcer, graph)
        try:
            configure_unnumbered(network, self._addresses, route_table(network, routes))
            assembly = Assembly(self._plan, self._layout, self._journal, self._addresses, lambda: self._hops)
            self._machines = assembly.machines(network, self._reactor, self, self._findings)
            self._enforce(network, routes)
        except BaseException:
            network.stop()
            raise
        return network

    def _enforce(self, network: Network, routes: Routes) -> None:
        self._enforcer = enforce(self._options.enforcer, self._plan, network, self._reactor, self._layout)
        for line in self._enforcer.unknown:
            self._findings.note(line)
        self._medium = Medium(self._plan.network, network, self._enforcer, routes)
        if self._enforcer.pid is not None:
            self._enforcer_pidfd = os.pidfd_open(self._enforcer.pid)
            self._reactor.watch(self._enforcer_pidfd, self._ether_ended)

    def _unwatch_enforcer(self) -> None:
        if self._enforcer.pid is not None:
            self._reactor.unwatch(self._enforcer_pidfd)

    # ------------------------------------------------------------------------------------------------ the run

    def _start(self, network: Network) -> LinkVerification | None:
        control = ControlServer(self._journal.directory, self._answer)
        self._reactor.watch(control.fileno(), control.serve)
        self._boot(
            self._machines, lambda machine: machine.start_programs(lambda: self._booting.pop(machine.name))
        )
        before = None
        if self._options.verify:
            before = verify_links(self._enforcer, self._plan.network, network)
        if self._options.pcap:
            self._layout.captures.mkdir()
            self._enforcer.capture(self._layout.captures)
        self._boot_nodes()
        self._t0_s = monotonic() + START_DELAY_S
        self._enforcer.start(self._t0_s)
        self._trace.write(0.0, RunStarted(FABRIC, self._plan.seed))
        for machine in self._machines.values():
            machine.go(self._t0_s)
        for timed in self._plan.faults:
            self._reactor.at(self._t0_s + timed.at_s, lambda fault=timed.fault: self.apply(fault))  # type: ignore[misc]
        self._cpu.start(self._reactor)
        self._promptness.start(self._reactor)
        self._tell(PREPARED)
        if self._options.ways:
            self._open_ways()
        if self._options.cli:
            self._open_cli(network)
        return before

    def _open_cli(self, network: Network) -> None:
        """Mininet's command line in a child, so that the run goes on behind it."""
        pid = os.fork()
        if pid == 0:
            run_to_end(lambda: _command_line(network, self._terminal))
        self._cli_pidfd = os.pidfd_open(pid)
        self._reactor.watch(self._cli_pidfd, self._leave)

    def _open_ways(self) -> None:
        """A child that forwards for as long as the run lasts."""
        ways = self._options.ways
        namespaces = {way.device: self._machines[way.device].host.namespace.fd for way in ways}
        pid = os.fork()
        if pid == 0:
            run_to_end(lambda: forward(ways, namespaces, self._addresses))
        self._forwarder = pid
        for way in ways:
            way.close()

    def _close_ways(self) -> None:
        """It holds namespaces that are about to be removed."""
        if self._forwarder is not None:
            os.kill(self._forwarder, signal.SIGKILL)
            os.waitpid(self._forwarder, 0)

    def _leave(self) -> None:
        self._reactor.unwatch(self._cli_pidfd)
        self._stopped = True

    def _ether_ended(self) -> None:
        if self._problem is None:
            self._problem = RunFailed("the ether's process ended by itself")

    def _boot_nodes(self) -> None:
        first = scouts(self._plan.devices)
        learn(())
        self._boot(first, Machine.start_nodes)
        learn({module for name in first for module in self._machines[name].imported})
        self._boot([name for name in self._machines if name not in first], Machine.start_nodes)

    def _boot(self, names: Iterable[str], step: Callable[[Machine], None]) -> None:
        """Take a step of booting with each machine and wait until all have got through."""
        self._booting.update(dict.fromkeys(names))
        for name in list(self._booting):
            step(self._machines[name])
        done = self._reactor.run(
            lambda: not self._booting or self._problem is not None or self._stopped,
            monotonic() + BOOT_TIMEOUT_S,
        )
        if not done:
            raise RunFailed(
                f"after {BOOT_TIMEOUT_S:.0f} s these devices are not up: {', '.join(self._booting)}"
            )
        if self._problem is not None:
            raise self._problem

    def _over(self) -> bool:
        return self._stopped or self._problem is not None or self.t() >= self._plan.duration_s

    def apply(self, fault: AnyFault) -> None:
        """Make it so, now."""
        if self._over():
            return
        t_s = self.t()
        changed = True
        match fault:
            case Crash(device):
                self._medium.set_power(device, False)
                self._machines[device].crash()
            case Restart(device):
                changed = self._restart(self._machines[device])
            case Pause(device):
                self._machines[device].pause()
                changed = False
            case Resume(device):
                self._machines[device].resume()
                changed = False
            case SlowDisk(device) | FailDisk(device) | LoseDisk(device) | RotDisk(device):
                self._machines[device].disturb_disk(fault, self._chance.getrandbits(64))
                changed = False
            case _:
                changed = self._medium.apply(fault)
        self._write(FaultApplied(msgspec.to_builtins(fault)), t_s=t_s)
        if changed and self._plan.route_convergence_s is not None:
            self._reactor.at(monotonic() + self._plan.route_convergence_s, self._converge)

    def _restart(self, machine: Machine) -> bool:
        if machine.up:
            machine.mend_disk()
            if machine.disk_failed:
                machine.start_nodes_again()
            return False
        self._medium.set_power(machine.name, True)
        machine.start_programs(machine.start_nodes)
        return True

    def _converge(self) -> None:
        entries = self._medium.converge()
        self._hops = hop_counts(self._medium.routes)
        for machine in self._machines.values():
            machine.set_hops(self._hops.get(machine.name, {}))
        self._write(RoutesChanged(entries))

    def _write(self, event: Event, device: str | None = None, t_s: float | None = None) -> None:
        t_s = self.t() if t_s is None else t_s
        if t_s <= self._plan.duration_s:
            self._trace.write(t_s, event, device)
            self._trace.flush()

    # ----------------------------------------------------------------------------------- what machines report

    def booted(self, machine: Machine) -> None:
        """See `machine.Watcher`."""
        self._booting.pop(machine.name, None)
        if self._t0_s is not None:
            machine.go(self._t0_s)

    def failed(self, machine: Machine, problem: Failed) -> None:
        """See `machine.Watcher`."""
        if self._problem is None:
            self._problem = RunFailed(f"{machine.name}: {problem.problem}")

    def ended(self, machine: Machine, event: ProcessEnded, expected: bool) -> None:
        """See `machine.Watcher`."""
        if self._stopped:
            return
        self._write(event, machine.name)
        if machine.is_nodes(event) and machine.disk_failed:
            return
        if machine.is_nodes(event) and self._problem is None:
            lines = "".join(f"\n  {line}" for line in event.last_lines)
            self._problem = RunFailed(
                f"the nodes of {machine.name} ended by themselves ({event.status}){lines}"
            )
        elif not expected:
            self._findings.ended(machine.name, event)

    # -------------------------------------------------------------------------------------------- the outside

    def _answer(self, request: Request) -> tuple[Answer, Sequence[int]]:
        machine = self._machines.get(request.device)
        match request.do:
            case "status":
                return Answer(status=self._status()), ()
            case "enter" if machine is not None:
                mounts, network, processes = namespaces_of(machine.host.namespace.fd)
                return Answer(), (mounts, network, processes)
            case "enter":
                return Answer(problem=f"there is no device {request.device!r}"), ()
            case "fault" if request.fault is not None:
                problem = self._medium.problem_with(request.fault)
                if not problem:
                    self.apply(request.fault)
                return Answer(problem=problem), ()
            case "stop":
                self._stopped = True
                return Answer(), ()
        return Answer(problem=f"cannot do {request.do!r}"), ()

    def _status(self) -> dict[str, Any]:
        return {
            "run": self._journal.run,
            "folder": str(self._layout.folder.absolute()),
            "t_s": round(self.t(), 3),
            "duration_s": None if self._plan.duration_s == inf else self._plan.duration_s,
            "cut": [list(pair) for pair in self._medium.cut],
            "devices": {
                name: {"ip": self._addresses[name], **machine.status()}
                for name, machine in self._machines.items()
            },
        }

    def _word_of_runner(self) -> None:
        if not self._lifeline.recv(64):
            os._exit(1)  # the runner is gone, and with us goes everything
        self._stopped = True

    def _tell(self, word: str) -> None:
        self._lifeline.send(word.encode())

    # ------------------------------------------------------------------------------------------------ the end

    def _stop_devices(self) -> None:
        self._stopped = True
        for machine in self._machines.values():
            machine.stop()
        self._reactor.run(
            lambda: not any(machine.running for machine in self._machines.values()),
            monotonic() + STOP_TIMEOUT_S,
        )


def supervise(supervisor: Supervisor, layout: Layout, lifeline: socket.socket) -> None:
    """The life of the supervisor's process: run, and tell the runner how it ended."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal's Ctrl-C is the runner's business
    prepare_log(layout.logs / "supervisor.log")
    try:
        supervisor.run()
        outcome: dict[str, str] = {"done": ""}
    except Exception as error:
        with suppress(OSError):
            traceback.print_exc()
        outcome = {"kind": type(error).__name__, "failed": str(error)}
        if _is_full(layout.folder):
            outcome["failed"] = f"the disk is full: {layout.folder} has no room for the trace"
    lifeline.setblocking(True)
    lifeline.send(msgspec.json.encode(outcome))


def _command_line(network: Network, terminal: int) -> None:
    for fd in (1, 2):
        os.dup2(terminal, fd)
    sys.stdin = os.fdopen(0, closefd=False)
    default_signals()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # Mininet's own way to stop a command
    stock.CLI(network, stdin=sys.stdin)


def _is_full(folder: Path) -> bool:
    """Whoever failed first said what it could not do; that the disk is full explains it better."""
    room = os.statvfs(folder)
    return room.f_bavail * room.f_frsize < ROOM_BYTES_MIN
