"""Puts a plan's devices together: host, programs, what its driver is given, its share of this machine.

Owns that wiring and nothing that happens later. A device's folder is its disk: one for each program, and the
nodes' store.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
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

RESOLVER, NAME_SWITCH = Path("/etc/resolv.conf"), Path("/etc/nsswitch.conf")
SERVERS_MAX = 3
"""Of `nameserver` lines, the C library reads so many (resolv.conf(5), MAXNS)."""


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
        self._name_hosts(findings)
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

    def _name_hosts(self, findings: Findings) -> None:
        """Let programs and people say `ping hub`: the run's own /etc/hosts, or its own DNS servers."""
        plan = self._plan
        if not plan.name_servers:
            names = "".join(f"{ip}\t{device}\n" for device, ip in self._addresses.items())
            self._lay("hosts", f"127.0.0.1\tlocalhost\n{names}", Path("/etc/hosts"))
            return
        # Nothing else may answer: not a file, not the host's own resolver, which listens on a local socket.
        self._lay("hosts", "127.0.0.1\tlocalhost\n", Path("/etc/hosts"))
        servers = [self._addresses[device] for device in plan.name_servers[:SERVERS_MAX]]
        if not self._lay("resolv.conf", resolver_configuration(servers, plan.search_domain), RESOLVER):
            findings.note(
                f"there is no {RESOLVER} on this machine: programs will not ask the run's name servers"
            )
        if NAME_SWITCH.exists():
            self._lay("nsswitch.conf", files_then_dns(NAME_SWITCH.read_text()), NAME_SWITCH)

    def _lay(self, name: str, text: str, target: Path) -> bool:
        """Show the run's own file at `target`; False if there is nothing that it could be laid over."""
        if not target.exists():
            return False
        own = self._journal.directory / name
        own.write_text(text)
        bind_mount(own, target)
        return True


def resolver_configuration(servers: Sequence[str], search_domain: str) -> str:
    """What resolv.conf(5) says, for servers that may be down and links that are no local network."""
    lines = [f"nameserver {ip}" for ip in servers]
    if search_domain:
        lines.append(f"search {search_domain}")
    return "\n".join((*lines, "options timeout:1 attempts:2", ""))


def files_then_dns(name_switch: str) -> str:
    """An nsswitch.conf(5) by which hosts are looked for in /etc/hosts and by DNS, and nowhere else.

    >>> files_then_dns("passwd: files\\nhosts: files resolve [!UNAVAIL=return] dns\\n")
    'passwd: files\\nhosts: files dns\\n'
    """
    lines = [line for line in name_switch.splitlines() if not line.lstrip().startswith("hosts:")]
    return "\n".join((*lines, "hosts: files dns", ""))
