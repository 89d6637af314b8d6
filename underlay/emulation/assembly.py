"""Puts a plan's devices together: host, programs, what its driver is given, its share of this machine.

Owns that wiring and nothing that happens later. A device's folder is its disk: one for each program, and the
nodes' store.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from underlay.emulation.cgroups import Cgroup, limit
from underlay.emulation.cleanup import Journal
from underlay.emulation.driver import Incarnation
from underlay.emulation.health import Findings
from underlay.emulation.layout import Layout
from underlay.emulation.machine import Machine, Watcher
from underlay.emulation.net import Network
from underlay.emulation.processes import bind_mount
from underlay.emulation.programs import Program
from underlay.emulation.reactor import Reactor
from underlay.network import Device
from underlay.plan import DevicePlan, Plan

Hops = Mapping[str, Mapping[str, int]]
"""`hops[source][destination]`."""


class Assembly:
    """Makes the machines of one run.

    Args:
        hops: asked whenever a device starts: the hops to everybody as routes are then.
    """

    def __init__(
        self,
        plan: Plan,
        layout: Layout,
        journal: Journal,
        addresses: Mapping[str, str],
        hops: Callable[[], Hops],
    ) -> None:
        self._plan = plan
        self._layout = layout
        self._journal = journal
        self._addresses = addresses
        self._hops = hops
        self._ports = plan.ports()

    def machines(
        self, network: Network, reactor: Reactor, watcher: Watcher, findings: Findings
    ) -> dict[str, Machine]:
        """All devices of the plan, by name, none of them up; what cannot be had is noted in `findings`."""
        self._name_hosts()
        return {
            device.name: Machine(
                device.name,
                network[device.name],
                self._life(device),
                self._programs(network, device.name),
                self._cgroup(device, findings),
                reactor,
                watcher,
            )
            for device in self._plan.network.devices
        }

    def _on(self, device: str) -> DevicePlan:
        return self._plan.devices.get(device, DevicePlan())

    def _life(self, device: Device) -> Callable[[int], Incarnation] | None:
        """What the n-th incarnation's driver is given; None where only programs run, or nothing."""
        plan, layout, name = self._plan, self._layout, device.name
        if not (self._on(name).nodes or self._on(name).bindings):
            return None
        disk = layout.devices / name
        disk.mkdir(exist_ok=True)
        return lambda number: Incarnation(
            device=name,
            number=number,
            seed=plan.seed,
            plan=plan.devices[name],
            addresses=self._addresses,
            ports=self._ports,
            hops=self._hops().get(name, {}),
            clock=device.clock,
            duration_s=plan.duration_s,
            usage_interval_s=plan.usage_interval_s,
            store=disk / "store",
            trace=layout.shard(name, number),
            log=layout.logs / f"{name}.log",
            run=self._journal.run,
        )

    def _programs(self, network: Network, device: str) -> list[Program]:
        layout = self._layout
        return [
            Program(
                program,
                network[device],
                self._addresses[device],
                layout.devices / device / program.name,
                layout.logs / f"{device}-{program.name}.log",
            )
            for program in self._on(device).programs
        ]

    def _cgroup(self, device: Device, findings: Findings) -> Cgroup | None:
        if device.cpu_share is None and device.memory_mb is None:
            return None
        made = limit(
            self._journal.run,
            device.name,
            device.cpu_share,
            device.memory_mb,
            lambda path: self._journal.record("cgroup", path),
        )
        if made is None:
            findings.note(
                f"{device.name}: no control group could be made, CPU share and memory are not limited"
            )
        return made

    def _name_hosts(self) -> None:
        """Let programs and people say `ping hub`: the run's own /etc/hosts."""
        hosts = self._journal.directory / "hosts"
        names = "".join(f"{ip}\t{device}\n" for device, ip in self._addresses.items())
        hosts.write_text(f"127.0.0.1\tlocalhost\n{names}")
        if Path("/etc/hosts").exists():
            bind_mount(hosts, Path("/etc/hosts"))
