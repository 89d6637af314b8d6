"""One run of a plan: devices, media, faults and trace, in virtual time.

`World` puts the parts together and is what tests hold on to; each part's rules are in its own module.
"""

from __future__ import annotations

import gc
from collections.abc import Sequence
from io import BytesIO
from typing import BinaryIO

import msgspec

from underlay.errors import InputError, nearest
from underlay.faults import (
    AnyFault,
    Crash,
    Degrade,
    DiskFault,
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
    cut_edges,
)
from underlay.messages import Message
from underlay.network import seeded
from underlay.node import Address, Node
from underlay.plan import Plan
from underlay.simulation.agenda import Agenda
from underlay.simulation.carrier import Carrier
from underlay.simulation.disk import Disk
from underlay.simulation.host import Endpoint, Host
from underlay.simulation.tamper import Rule, Tamper
from underlay.simulation.ways import Post
from underlay.trace import (
    Event,
    FaultApplied,
    Record,
    RoutesChanged,
    RunEnded,
    RunStarted,
    TraceWriter,
)

_YOUNG_OBJECTS = 100_000
"""Allocations between two collections. The agenda's entries are many and in no cycles: Python's own threshold
would have it look through them all the time."""


class World:
    """A plan come alive at time 0, with every node started.

    Args:
        plan: what to run. Its faults happen by themselves.
        trace_file: where the trace goes; None keeps it in memory for `records`.
        check_codec: send every message through its codec, as a test that what is sent can be received.
        tamper: what happens to messages between nodes above the transport.
    """

    def __init__(
        self,
        plan: Plan,
        trace_file: BinaryIO | None = None,
        *,
        check_codec: bool = False,
        tamper: Sequence[Rule] = (),
    ) -> None:
        self.plan = plan
        self.check_codec = check_codec
        self.agenda = Agenda()
        self.carrier = Carrier(plan.network, plan.seed, self.agenda)
        self.post = Post(self)
        self.tamper = Tamper(tamper, seeded(plan.seed, "tamper"), self.agenda) if tamper else None
        self.hosts: dict[str, Host] = {}
        self.endpoints: dict[Address, Endpoint] = {}
        self.answers: dict[Address, list[Message]] = {}
        """What nodes sent to callers from outside, by the handle under which `inject` made them call."""
        self._file = trace_file or BytesIO()
        self._trace = TraceWriter(self._file)
        self._faults = 0
        self._reports = 0
        self._converging_at_s = -1.0
        self.emit(RunStarted("simulation", plan.seed))
        self._install()
        for timed in sorted(plan.faults, key=lambda timed: timed.at_s):
            self.agenda.at(timed.at_s, self._apply_planned, timed.fault)
        self.agenda.at(plan.usage_interval_s, self._report)
        for host in self.hosts.values():
            host.start()

    @property
    def now(self) -> float:
        """Global seconds since the run's start."""
        return self.agenda.now

    def run_until(self, t_s: float) -> None:
        """Let everything happen up to and including `t_s`.

        What a handler raises comes out of here, with a note of when it happened and how to get there again.
        """
        thresholds = gc.get_threshold()
        gc.set_threshold(_YOUNG_OBJECTS, *thresholds[1:])
        try:
            self.agenda.run_until(t_s)
        except Exception as error:
            error.add_note(f"at {self.now:.6f} s of a simulation with seed {self.plan.seed}")
            self._trace.flush()
            raise
        finally:
            gc.set_threshold(*thresholds)

    def node(self, address: Address) -> Node:
        """The running node, to look into; KeyError where there is none or its device is down."""
        live = self.endpoints[address].live
        if live is None:
            raise KeyError(f"{address} is down")
        return live.node

    def durable(self, address: Address) -> dict[bytes, bytes]:
        """What the node would find in its store after a power cut now."""
        endpoint = self.endpoints[address]
        return endpoint.host.disk.durable(endpoint.name)

    def inject(self, address: Address, message: Message, sender: Address = "@test") -> None:
        """Hand a message to a node as if from its own device, at the current time; with a handle such as
        `"caller:1"` as `sender`, as if from outside the network."""
        live = self.endpoints[address].live
        if live is not None:
            self.agenda.soon(live.receive_local, sender, message)

    def apply(self, fault: AnyFault) -> None:
        """Make a fault so, now; raises InputError where it names what is not there."""
        self._faults += 1
        self._check(fault)
        match fault:
            case Crash(device):
                self.carrier.set_power(device, up=False)
                if device in self.hosts:
                    self.hosts[device].lose_power()
            case Restart(device):
                self._restart(device)
            case Pause(device) | Resume(device):
                self._pause(device, isinstance(fault, Pause))
            case LinkDown(a, b):
                self.carrier.cut([(a, b), (b, a)])
            case LinkUp(a, b):
                self.carrier.mend([(a, b), (b, a)])
            case OneWayCut(source, target):
                self.carrier.cut([(source, target)])
            case Degrade():
                self.carrier.degrade(fault, self._faults)
            case Partition():
                edges = cut_edges(fault, self.plan.network)
                self.carrier.cut([pair for a, b in edges for pair in ((a, b), (b, a))])
            case Heal():
                self.carrier.mend()
            case SlowDisk(device) | FailDisk(device) | LoseDisk(device) | RotDisk(device):
                if device in self.hosts:
                    self._disturb(self.hosts[device].disk, fault)
        self.emit(FaultApplied(msgspec.to_builtins(fault)))
        if not isinstance(fault, Pause | Resume | Degrade | DiskFault):
            self._converge_later()

    def emit(self, event: Event, source: Endpoint | None = None) -> None:
        """Write to the trace, stamped with global time."""
        if source is None:
            self._trace.write(self.agenda.now, event)
        else:
            self._trace.write(self.agenda.now, event, source.host.name, source.name)

    def emit_for(self, event: Event, device: str) -> None:
        """Write to the trace what is a device's and no node's."""
        self._trace.write(self.agenda.now, event, device)

    def finish(self) -> None:
        """Write the last records; nothing may happen afterwards."""
        self._write_usage()
        self.emit(RunEnded())
        self._trace.flush()

    def records(self) -> list[Record]:
        """The trace so far; only where it is kept in memory."""
        assert isinstance(self._file, BytesIO), (
            "the trace is in a file: read it with underlay.trace.read_trace"
        )
        self._trace.flush()
        return [msgspec.json.decode(line) for line in self._file.getvalue().splitlines()]

    # ------------------------------------------------------------------------------------------------ helpers

    def _install(self) -> None:
        devices = {device.name: device for device in self.plan.network.devices}
        for name, device_plan in self.plan.devices.items():
            device = devices[name]
            host = Host(self, self.carrier.machines[name], device.clock, device.cpu_share)
            self.hosts[name] = host
            for program in device_plan.programs:
                if program.model is not None:
                    host.add(program.name, program.model, is_model=True)
            for binding in device_plan.bindings:
                host.add(binding.name, binding.model, is_model=True)
            for node in device_plan.nodes:
                host.add(node.name, node.make, is_model=False)
            self.endpoints.update((endpoint.address, endpoint) for endpoint in host.endpoints.values())

    def _apply_planned(self, fault: AnyFault, _: object) -> None:
        self.apply(fault)

    def _restart(self, device: str) -> None:
        host = self.hosts.get(device)
        if not self.carrier.machines[device].up:
            self.carrier.set_power(device, up=True)
        elif host is not None:
            host.disk.failing = False
        if host is not None and not host.running:
            host.start()

    def _disturb(self, disk: Disk, fault: DiskFault) -> None:
        match fault:
            case SlowDisk(_, factor):
                disk.slowness = factor
            case FailDisk():
                disk.failing = True
            case LoseDisk():
                disk.lost = True
            case RotDisk():
                disk.rot()

    def _pause(self, device: str, pause: bool) -> None:
        host = self.hosts.get(device)
        if host is not None and host.machine.up and host.paused != pause:
            if pause:
                host.pause()
            else:
                host.resume()

    def _check(self, fault: AnyFault) -> None:
        named = _devices_named(fault)
        for device in named:
            if device not in self.carrier.machines:
                guess = nearest(device, self.carrier.machines)
                hint = f"did you mean {guess!r}?" if guess else None
                raise InputError(f"a fault names the unknown device {device!r}", hint=hint)
        if isinstance(fault, LinkDown | LinkUp | OneWayCut | Degrade) and not self.carrier.media.between(
            *named
        ):
            raise InputError(f"a fault names the link {named[0]}-{named[1]}, but they are no neighbours")

    def _converge_later(self) -> None:
        """Faults of one moment share one recomputation."""
        delay_s = self.plan.route_convergence_s
        if delay_s is not None and self._converging_at_s != self.agenda.now + delay_s:
            self._converging_at_s = self.agenda.now + delay_s
            self.agenda.at(self._converging_at_s, self._converge)

    def _converge(self, _: object, __: object) -> None:
        self.emit(RoutesChanged(self.carrier.converge()))
        for endpoint in self.endpoints.values():
            endpoint.ways.clear()

    def _report(self, _: object, __: object) -> None:
        self._reports += 1
        self._write_usage()
        self.agenda.at((self._reports + 1) * self.plan.usage_interval_s, self._report)

    def _write_usage(self) -> None:
        for usage in self.carrier.media.usage():
            self.emit(usage)
        for endpoint in self.endpoints.values():
            for tally in endpoint.sent.values():
                if tally.count:
                    self.emit(tally.take(), endpoint)


def _devices_named(fault: AnyFault) -> tuple[str, ...]:
    match fault:
        case Crash(device) | Restart(device) | Pause(device) | Resume(device):
            return (device,)
        case SlowDisk(device) | FailDisk(device) | LoseDisk(device) | RotDisk(device):
            return (device,)
        case LinkDown(a, b) | LinkUp(a, b) | OneWayCut(a, b) | Degrade(a, b):
            return (a, b)
        case Partition(groups):
            return tuple(device for group in groups for device in group)
        case Heal():
            return ()
