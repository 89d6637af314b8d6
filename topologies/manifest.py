"""`manifest.json`: what a run was, written beside its trace. With the trace it is all that metrics and
reports read."""

from __future__ import annotations

from math import isinf
from pathlib import Path
from typing import Any, Literal

import msgspec

from underlay.energy import Radio
from underlay.errors import InputError
from underlay.network import Network

SCHEMA_VERSION = 1

Validity = Literal["valid", "not verified", "invalid"]


class DeviceInfo(msgspec.Struct, frozen=True):
    """A device as the report draws and accounts it."""

    name: str
    role: str
    """`birdhouse`, `hub`, `relay`, `sink`, `storage`."""
    profile: str
    x: float | None = None
    y: float | None = None
    radio: Radio | None = None
    battery_j: float | None = None


class LinkInfo(msgspec.Struct, frozen=True):
    """A link, or one pair of a channel, as the report draws it."""

    name: str
    """As in the trace's `link-usage` records (a channel's name for its pairs)."""
    a: str
    b: str
    profile: str
    rate_kbps: float | None
    """None is unlimited."""
    delay_ms: float
    jitter_ms: float
    loss_ratio: float
    mtu_bytes: int = 1500
    overhead_bytes: int = 0
    """Framing per fragment of at most mtu_bytes."""
    channel: bool = False


class Chosen(msgspec.Struct, frozen=True):
    """Which fabric and enforcer ran, and why."""

    fabric: Literal["simulation", "mininet"]
    enforcer: Literal["simulation", "ether", "netem"]
    asked: str
    """What the user asked for: `auto`, `simulation`, `mininet`."""
    reason: str

    @property
    def fell_back(self) -> bool:
        """Whether the user did not ask for the simulation and got it: shown as SIMULATED."""
        return self.fabric == "simulation" and self.asked != "simulation"


class Verdict(msgspec.Struct, frozen=True):
    """Whether the links were what the spec says."""

    validity: Validity
    reason: str
    links: tuple[dict[str, Any], ...] = ()
    """One row per link direction: asked beside achieved."""
    health: dict[str, Any] = {}
    """Lag of the ether (`lag_p99_ms`, `lag_max_ms`), CPU saturation (`cpu_ratio`), what the machine is."""


class Manifest(msgspec.Struct, frozen=True):
    """One run of one architecture."""

    name: str
    """Of the spec."""
    architecture: str
    seed: int
    chosen: Chosen
    verdict: Verdict
    duration_s: float
    warmup_s: float
    """Observations generated before it are not counted."""
    stop_s: float
    """Sensors stop here; the rest of the run is cool-down."""
    deadline_s: float
    subscribers: Literal["storage", "all"]
    sink: str
    birdhouses: tuple[str, ...]
    devices: tuple[DeviceInfo, ...]
    links: tuple[LinkInfo, ...]
    storage: str = "sink"
    """What the observations end in: the sink's own disk, or a tier of hosts behind it."""
    ports: dict[str, int] = {}
    """UDP and TCP port of each node name: tells protocols apart in captures."""
    command: str = ""
    """What reproduces the run."""
    versions: dict[str, str] = {}
    notes: tuple[str, ...] = ()
    """What is not modelled or not enforced here."""
    schema: int = SCHEMA_VERSION

    def write(self, folder: Path) -> None:
        """Write `manifest.json` into the run's folder."""
        data = msgspec.json.format(msgspec.json.encode(self), indent=2)
        (folder / "manifest.json").write_bytes(data + b"\n")

    @staticmethod
    def read(folder: Path) -> Manifest:
        """Read a run's manifest; raises InputError where the folder is no run."""
        path = folder / "manifest.json"
        try:
            return msgspec.json.decode(path.read_bytes(), type=Manifest)
        except FileNotFoundError as error:
            raise InputError("no run is there: it has no manifest.json", file=folder) from error
        except msgspec.DecodeError as error:
            raise InputError(f"is no manifest of this version: {error}", file=path) from error


def device_infos(network: Network, roles: dict[str, str]) -> tuple[DeviceInfo, ...]:
    """The devices of a network, in its order."""
    return tuple(
        DeviceInfo(d.name, roles.get(d.name, "device"), d.profile, d.x, d.y, d.radio, d.battery_j)
        for d in network.devices
    )


def link_infos(network: Network) -> tuple[LinkInfo, ...]:
    """Links, then every pair of every channel."""
    links = [(link.name, link.a, link.b, link.profile, link.forward, False) for link in network.links]
    links += [
        (channel.name, a, b, channel.profile, channel.spec, True)
        for channel in network.channels
        for a, b in channel.pairs
    ]
    return tuple(
        LinkInfo(
            name, a, b, profile, None if isinf(spec.rate_kbps) else spec.rate_kbps, spec.delay_ms,
            spec.jitter_ms, spec.loss_ratio, spec.mtu_bytes, spec.overhead_bytes, channel,
        )
        for name, a, b, profile, spec, channel in links
    )  # fmt: skip
