"""The physical network as data: devices, links, channels. What both fabrics build and all architectures
share."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from random import Random

import msgspec

from underlay.clock import DeviceClock
from underlay.energy import Radio
from underlay.link import LinkSpec


class Device(msgspec.Struct, frozen=True):
    """A machine with a place in the network."""

    name: str
    profile: str = "server"
    """Name of its device profile, for reports."""
    radio: Radio | None = None
    """None: wired or mains powered, its energy is not counted."""
    battery_j: float | None = None
    """Joules; None is mains."""
    cpu_share: float | None = None
    """Share of one core of this machine, 0..1; None is no limit."""
    memory_mb: int | None = None
    clock: DeviceClock = DeviceClock()
    x: float | None = None
    y: float | None = None
    """Place in the plane, in the unit square, for drawing and for radio range."""


class Link(msgspec.Struct, frozen=True):
    """A point-to-point link between two devices; its two directions may differ."""

    a: str
    b: str
    forward: LinkSpec
    """From a to b."""
    backward: LinkSpec
    profile: str = "custom"

    @property
    def name(self) -> str:
        """`"cam1-hub"`: unique in a network."""
        return f"{self.a}-{self.b}"

    def spec_from(self, device: str) -> LinkSpec:
        """The direction that leaves `device`."""
        return self.forward if device == self.a else self.backward

    def other(self, device: str) -> str:
        """The far end."""
        return self.b if device == self.a else self.a


class Channel(msgspec.Struct, frozen=True):
    """A shared medium; `pairs` lists who hears whom (both ways)."""

    name: str
    spec: LinkSpec
    pairs: tuple[tuple[str, str], ...]
    duty_cycle_ratio: float = 1.0
    profile: str = "custom"

    @property
    def members(self) -> tuple[str, ...]:
        """Devices on the channel, in order of first mention."""
        return tuple(dict.fromkeys(device for pair in self.pairs for device in pair))


class Network(msgspec.Struct, frozen=True):
    """Devices, links and channels. Names are unique; construct through `topologies.shapes` or by hand."""

    devices: tuple[Device, ...]
    links: tuple[Link, ...] = ()
    channels: tuple[Channel, ...] = ()

    def __post_init__(self) -> None:
        names = [device.name for device in self.devices]
        if len(set(names)) != len(names):
            raise ValueError("two devices share a name")
        known = set(names)
        for a, b in self.edges():
            if a not in known or b not in known or a == b:
                raise ValueError(f"an edge {a} - {b} does not join two known devices")
        if len({frozenset((link.a, link.b)) for link in self.links}) != len(self.links):
            raise ValueError("two links join the same pair of devices")

    def device(self, name: str) -> Device:
        """The device of that name; KeyError if there is none."""
        for device in self.devices:
            if device.name == name:
                return device
        raise KeyError(name)

    def link(self, a: str, b: str) -> Link | None:
        """The point-to-point link between two devices, whichever way it is named."""
        for link in self.links:
            if {link.a, link.b} == {a, b}:
                return link
        return None

    def edges(self) -> Iterator[tuple[str, str]]:
        """Every pair that can hear each other, links first, each once, in a stable order."""
        for link in self.links:
            yield link.a, link.b
        for channel in self.channels:
            yield from channel.pairs

    def neighbours(self) -> dict[str, tuple[str, ...]]:
        """For each device those one hop away, in a stable order."""
        found: dict[str, dict[str, None]] = {device.name: {} for device in self.devices}
        for a, b in self.edges():
            found[a][b] = None
            found[b][a] = None
        return {name: tuple(peers) for name, peers in found.items()}


def seeded(seed: int, *names: object) -> Random:
    """A random stream that depends on the run's seed and on what it is for, and on nothing else.

    `seeded(7, "link", "cam1-hub", "forward")` is the same stream on both fabrics, in every process, under
    every PYTHONHASHSEED.
    """
    text = "\x1f".join((str(seed), *(str(name) for name in names)))
    return Random(int.from_bytes(hashlib.blake2b(text.encode(), digest_size=16).digest()))


def link_rng(seed: int, link: Link, source: str, *changes: int) -> Random:
    """The stream of the link's direction that leaves `source`; `changes` tells apart those after a
    `Degrade`."""
    return seeded(seed, "link", link.name, "forward" if source == link.a else "backward", *changes)


def hearer_rng(seed: int, channel: Channel, source: str, target: str, *changes: int) -> Random:
    """The stream of what `target` hears of `source` on a channel; `changes` as in `link_rng`."""
    return seeded(seed, "channel", channel.name, source, target, *changes)
