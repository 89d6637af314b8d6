"""A plan: everything a fabric needs to run one experiment, and nothing about why.

`topologies.experiment` turns a spec into a plan; a fabric turns a plan into a trace. Nodes are given as
factories, called anew for each incarnation, on the device where they live.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

import msgspec

from underlay.faults import TimedFault
from underlay.messages import Message
from underlay.network import Network
from underlay.node import Node
from underlay.trace import Event

FIRST_PORT = 7000
"""A node's UDP and TCP port is its `NodePlan.port`; plans number from here."""


class NodePlan(msgspec.Struct, frozen=True):
    """A node on a device."""

    name: str
    make: Callable[[], Node]
    port: int
    """UDP and TCP port in the emulation, the same for nodes of that name on every device."""


class BindingHost(Protocol):
    """What the emulation's driver offers a binding; all calls are made in the device's event loop."""

    @property
    def device(self) -> str: ...

    @property
    def ip(self) -> str:
        """This device's address."""

    @property
    def run(self) -> str | None:
        """The run's name, by which its supervisor can be asked (`underlay.emulation.control`); None outside
        of one."""

    @property
    def folder(self) -> Path:
        """Of the device, on this machine's disk: what a binding keeps there outlives a crash."""

    def ip_of(self, device: str) -> str:
        """A device's address; KeyError if there is none of that name."""

    def device_at(self, ip: str) -> str | None:
        """The device with that address, or None."""

    def now(self) -> float:
        """The device's clock, seconds."""

    def deliver(self, node: str, message: Message) -> None:
        """Hand `message` to the device's node of that name; its `sender` is `"@<binding name>"`."""

    def sent(self, message: str, size_bytes: int, *, payload: bool, to: str) -> None:
        """Count a protocol message that the binding hands to the network for device `to` (`MessagesSent`)."""

    def emit(self, event: Event) -> None:
        """Write to the trace, as the binding."""


class Binding(Protocol):
    """A protocol engine on a device (paho-mqtt, aiocoap), in the emulation. It lives in the device's
    asyncio loop."""

    async def start(self, host: BindingHost) -> None:
        """Open sockets; called before any node starts."""

    def send(self, node: str, message: Message) -> None:
        """The device's node of that name sent `message` to `"@<name>"`."""

    async def close(self) -> None:
        """Release sockets; not called on a crash."""


class BindingPlan(msgspec.Struct, frozen=True):
    """A binding: a model node in the simulation, the real engine in the emulation; both speak the same
    local messages."""

    name: str
    """With the leading `@`: the address by which the device's nodes reach it."""
    model: Callable[[], Node]
    engine: Callable[[], Binding]
    """Called anew for each incarnation. What a real engine needs beside its host (further addresses on which
    it listens, names by which it is known outside) is in this closure."""
    port: int
    """Of the real protocol (1883, 5683); the model's traffic is counted under it."""


class ProgramPlan(msgspec.Struct, frozen=True):
    """A real program on a device: a broker, or a user's own."""

    name: str
    argv: tuple[str, ...]
    """`{dir}` stands for the program's own folder, which survives a crash of the device, `{ip}` for its
    address."""
    files: Mapping[str, str] = {}
    """Files laid in its folder before the first start, by relative name; `{dir}` and `{ip}` are replaced in
    them too."""
    environment: Mapping[str, str] = {}
    ready_port: int | None = None
    """TCP port that accepts connections once the program is up; nodes start afterwards."""
    model: Callable[[], Node] | None = None
    """What stands for it in the simulation (a broker's model); None: not simulated, the run says so."""
    expected_to_end: bool = False
    """False: an exit is reported as a finding."""


class DevicePlan(msgspec.Struct, frozen=True):
    """What runs on one device."""

    nodes: tuple[NodePlan, ...] = ()
    bindings: tuple[BindingPlan, ...] = ()
    programs: tuple[ProgramPlan, ...] = ()


class Plan(msgspec.Struct, frozen=True):
    """One run."""

    seed: int
    duration_s: float
    network: Network
    devices: Mapping[str, DevicePlan]
    """By device name; devices that are not listed only forward."""
    faults: tuple[TimedFault, ...] = ()
    route_convergence_s: float | None = 5.0
    """Seconds from a change to new routes; None is never."""
    usage_interval_s: float = 1.0
    """How often `LinkUsage` and `MessagesSent` records are written."""
    disk_sync_ms: float = 1.0
    """What the simulation charges for one group commit."""
    name_servers: tuple[str, ...] = ()
    """Devices with a DNS server, which programs ask for names; the C library asks three of them at most.
    None: programs know the devices' names from a file, and nothing else."""
    search_domain: str = ""
    """Where they look for names without a dot: `birdhouse.test`."""
    frame_class: Callable[[memoryview], bool] | None = None
    """Whether an IP packet carries users' observations (real frames; the simulation asks the message)."""

    def ports(self) -> dict[str, int]:
        """Port of every node name."""
        return {node.name: node.port for device in self.devices.values() for node in device.nodes}


class Fabric(Protocol):
    """Runs plans."""

    name: str

    def run(self, plan: Plan, folder: Path) -> None:
        """Run `plan` to its end, leaving `trace.jsonl` (and what the fabric verified) in `folder`.

        Raises RunFailed; leaves nothing else behind, whatever happens.
        """
