"""The physical graph of an experiment: a shape with profiles on it. The same for all of its architectures.

Owns which link parameters and device figures apply where, roles and patterns as names of devices, and the
checks that make a comparison fair: everything connected, and the sink on two disjoint paths.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from functools import cached_property
from itertools import combinations
from pathlib import Path
from typing import Any

import msgspec

from topologies.graph import hops_from, two_disjoint_paths
from topologies.profiles import device_profile, link_profile, radio_of, unknown
from topologies.shapes import Edge, Layout, Place, Role
from topologies.spec import (
    DeviceSettings,
    ExplicitChannel,
    ExplicitLink,
    Globs,
    LinkClass,
    LinkSettings,
    Spec,
)
from topologies.tier import with_storage
from underlay.clock import DeviceClock
from underlay.energy import Radio
from underlay.errors import InputError
from underlay.link import LinkSpec
from underlay.network import Channel, Device, Link, Network

PROFILE_OF_ROLE: dict[Role, str] = {
    "birdhouse": "esp32-cam",
    "relay": "raspberry-pi",
    "hub": "laptop",
    "sink": "server",
    "storage": "server",
}
"""What a machine is where the spec does not say."""


class Cast(msgspec.Struct, frozen=True, dict=True):
    """Who plays which part, and what names, roles and patterns of a spec mean."""

    roles: Mapping[str, Role]
    """Of every device, in the network's order."""

    def of_role(self, role: Role) -> tuple[str, ...]:
        """Devices of that role, in the network's order."""
        return tuple(name for name, its_role in self.roles.items() if its_role == role)

    @cached_property
    def birdhouses(self) -> tuple[str, ...]:
        return self.of_role("birdhouse")

    @cached_property
    def relays(self) -> tuple[str, ...]:
        return self.of_role("relay")

    @cached_property
    def hub(self) -> str:
        return self.of_role("hub")[0]

    @cached_property
    def sink(self) -> str:
        return self.of_role("sink")[0]

    @cached_property
    def storage(self) -> tuple[str, ...]:
        """The storage tier's hosts; none where the sink keeps everything itself."""
        return self.of_role("storage")

    @cached_property
    def cache(self) -> str:
        """The machine that the role `cache` means in every architecture: the first relay, else the first
        birdhouse."""
        return (self.relays or self.birdhouses)[0]

    @cached_property
    def aliases(self) -> dict[str, str]:
        """Role names that stand for one machine."""
        return {
            "hub": self.hub,
            "broker": self.hub,
            "sink": self.sink,
            "storage": (self.storage or (self.sink,))[0],
            "cache": self.cache,
        }

    def device(self, name: str, key: str) -> str:
        """The device that a name or a role means; raises InputError."""
        if name in self.roles:
            return name
        if name in self.aliases:
            return self.aliases[name]
        raise unknown("device", name, [*self.roles, *self.aliases], key)

    def devices(self, patterns: Globs, key: str) -> tuple[str, ...]:
        """The devices that names, roles and patterns mean, in the network's order; raises InputError where
        one has none."""
        found: set[str] = set()
        for pattern in (patterns,) if isinstance(patterns, str) else patterns:
            matching = [name for name in self.roles if fnmatchcase(name, pattern)]
            found.update(matching or [self.device(pattern, key)])
        return tuple(name for name in self.roles if name in found)


class Topology(Cast, frozen=True, dict=True, kw_only=True):
    """The network, and who plays which part in it."""

    network: Network

    def neighbours_of(self, a: str, b: str, key: str) -> tuple[str, str]:
        """Two devices that hear each other; raises InputError where they do not."""
        first, second = self.device(a, key), self.device(b, key)
        if second not in self.network.neighbours()[first]:
            near = ", ".join(self.network.neighbours()[first]) or "nobody"
            raise InputError(
                f"{first} and {second} do not hear each other", key=key, hint=f"{first} hears {near}"
            )
        return first, second

    def single_points_of_failure(self) -> dict[str, int]:
        """Devices whose crash cuts birdhouses off from the sink, with how many; the worst first."""
        import networkx as nx

        graph = nx.Graph(list(self.network.edges()))
        cut_off: dict[str, int] = {}
        for device in nx.articulation_points(graph):
            if device == self.sink:
                continue
            rest = hops_from(((a, b) for a, b in graph.edges if device not in (a, b)), self.sink)
            cut_off[device] = sum(1 for name in self.birdhouses if name not in rest and name != device)
        return dict(sorted(((d, n) for d, n in cut_off.items() if n), key=lambda item: (-item[1], item[0])))


def build_topology(spec: Spec, folder: Path = Path()) -> Topology:
    """The spec's physical graph; `folder` is where its relative file names start. Raises InputError."""
    layout = with_storage(spec.network.layout(spec.seed, folder), spec.storage)
    places = {place.name: place for place in layout.places}
    cast = Cast({name: place.role for name, place in places.items()})

    channels = [_explicit_channel(channel, n, cast, folder) for n, channel in enumerate(spec.channel)]
    covered = {frozenset(pair) for channel in channels for pair in channel.pairs}
    edges = _edges(spec, layout, cast, covered)
    links, class_channels = _links(spec, edges, places, folder)
    channels += class_channels
    _check_names(spec, class_channels)

    radios = _radios(links, channels)
    network = Network(
        devices=tuple(_devices(spec, layout, cast, radios)),
        links=tuple(links),
        channels=tuple(channels),
    )
    topology = Topology(roles=cast.roles, network=network)
    _check_connected(topology)
    _check_two_paths(topology)
    return topology


def link_specs(settings: LinkSettings, key: str, folder: Path = Path()) -> tuple[LinkSpec, LinkSpec]:
    """Forward and backward parameters that the settings mean; raises InputError."""
    profile = link_profile(settings.profile or "ideal", f"{key}.profile")
    given: dict[str, Any] = {
        name: getattr(settings, name)
        for name in LinkSpec.__struct_fields__
        if getattr(settings, name, None) is not None
    }
    if settings.opportunities_file is not None:
        given["opportunities_ms"] = _opportunities(folder / settings.opportunities_file, key)
    back = dict(given)
    if settings.down_rate_kbps is not None:
        back["rate_kbps"] = settings.down_rate_kbps
    try:
        return (
            msgspec.structs.replace(profile.forward, **given),
            msgspec.structs.replace(profile.backward, **back),
        )
    except ValueError as error:
        raise InputError(
            f"{error} (profile {settings.profile})" if settings.profile else str(error), key=key
        ) from error


# ------------------------------------------------------------------------------------------------------ links


class _Wanted(msgspec.Struct, frozen=True):
    """An edge with the settings that apply to it."""

    edge: Edge
    settings: LinkSettings
    key: str


def _edges(spec: Spec, layout: Layout, cast: Cast, covered: set[frozenset[str]]) -> list[_Wanted]:
    """The shape's edges with their class's settings, then what `[[link]]` changes."""
    found: dict[frozenset[str], _Wanted] = {}
    for edge in layout.edges:
        for end in (edge.a, edge.b):
            cast.device(end, "network.sink_at")
        pair = frozenset((edge.a, edge.b))
        if pair in covered or len(pair) == 1:
            continue
        kind = _class_of(edge, cast)
        settings: LinkSettings = getattr(spec.links, kind)
        key = f"links.{kind}"
        if edge.settings:
            settings, key = _overridden(settings, _from_file(edge)), f"{edge.a}-{edge.b}"
        found[pair] = _Wanted(edge, settings, key)
    for n, link in enumerate(spec.link):
        key = f"link[{n}]"
        a, b = (cast.device(name, f"{key}.between") for name in link.between)
        if a == b:
            raise InputError(f"{a} cannot be linked to itself", key=f"{key}.between")
        pair = frozenset((a, b))
        before = found.get(pair)
        if link.remove:
            if before is None:
                raise InputError(f"there is no link between {a} and {b} to remove", key=key)
            del found[pair]
            continue
        edge = before.edge if before else Edge(a, b)
        base = before.settings if before else getattr(spec.links, _class_of(edge, cast))
        found[pair] = _Wanted(edge, _overridden(base, link), key)
    return list(found.values())


def _class_of(edge: Edge, cast: Cast) -> str:
    roles = (cast.roles[edge.a], cast.roles[edge.b])
    if "storage" in roles:
        return "storage"
    return "radio" if "birdhouse" in roles and "sink" not in roles else "backhaul"


def _from_file(edge: Edge) -> LinkSettings:
    try:
        return msgspec.convert(edge.settings, LinkSettings, strict=False)
    except msgspec.ValidationError as error:
        raise InputError(f"the file's link {edge.a}-{edge.b}: {error}", key="network.file") from error


def _overridden(base: LinkSettings, over: LinkSettings) -> LinkSettings:
    """A new profile replaces all of the old settings; single keys replace single keys."""
    start = LinkClass() if over.profile else base
    fields = LinkSettings.__struct_fields__
    given = {name: getattr(over, name) for name in fields if getattr(over, name) is not None}
    kept = {name: getattr(start, name) for name in fields}
    shared = isinstance(start, LinkClass) and start.shared and not isinstance(over, ExplicitLink)
    return LinkClass(**{**kept, **given}, shared=shared)


def _links(
    spec: Spec, edges: list[_Wanted], places: dict[str, Place], folder: Path
) -> tuple[list[Link], list[Channel]]:
    links: list[Link] = []
    shared: dict[str, list[tuple[str, str]]] = {}
    specs: dict[LinkSettings, tuple[LinkSpec, LinkSpec]] = {}
    for wanted in edges:
        if isinstance(wanted.settings, LinkClass) and wanted.settings.shared:
            shared.setdefault(wanted.key, []).append((wanted.edge.a, wanted.edge.b))
            continue
        if wanted.settings not in specs:  # large networks have few kinds of links
            specs[wanted.settings] = link_specs(wanted.settings, wanted.key, folder)
        forward, backward = specs[wanted.settings]
        links.append(
            Link(wanted.edge.a, wanted.edge.b, forward, backward, wanted.settings.profile or "custom")
        )
    channels = []
    for key, pairs in shared.items():
        name = key.removeprefix("links.")
        settings: LinkClass = getattr(spec.links, name)
        channels.append(_channel(name, settings, settings.duty_cycle_ratio, tuple(pairs), key, folder))
    return links, channels


def _explicit_channel(channel: ExplicitChannel, n: int, cast: Cast, folder: Path) -> Channel:
    key = f"channel[{n}]"
    members = cast.devices(channel.members, f"{key}.members")
    if channel.pairs:
        pairs = tuple(
            (cast.device(a, f"{key}.pairs"), cast.device(b, f"{key}.pairs")) for a, b in channel.pairs
        )
        stray = next((d for pair in pairs for d in pair if d not in members), None)
        if stray is not None:
            raise InputError(f"{stray} is in a pair but not a member", key=f"{key}.pairs")
    else:
        pairs = tuple(combinations(members, 2))
    if not pairs:
        raise InputError("a channel needs two members", key=f"{key}.members")
    return _channel(channel.name, channel, channel.duty_cycle_ratio, pairs, key, folder)


def _channel(
    name: str,
    settings: LinkSettings,
    duty_cycle_ratio: float | None,
    pairs: tuple[tuple[str, str], ...],
    key: str,
    folder: Path,
) -> Channel:
    forward, _ = link_specs(settings, key, folder)
    profile = link_profile(settings.profile or "ideal", f"{key}.profile")
    return Channel(
        name=name,
        spec=forward,
        pairs=pairs,
        duty_cycle_ratio=duty_cycle_ratio or profile.duty_cycle_ratio,
        profile=settings.profile or "custom",
    )


def _opportunities(path: Path, key: str) -> tuple[float, ...]:
    try:
        return tuple(float(line) for line in path.read_text().split())
    except (OSError, ValueError) as error:
        raise InputError(
            f"cannot read delivery opportunities: {error}", key=f"{key}.opportunities_file"
        ) from error


# ---------------------------------------------------------------------------------------------------- devices


def _radios(links: Iterable[Link], channels: Iterable[Channel]) -> dict[str, Radio]:
    """Each device's radio: that of the first link with one."""
    found: dict[str, Radio] = {}
    for members, profile in [
        *(((link.a, link.b), link.profile) for link in links),
        *((channel.members, channel.profile) for channel in channels),
    ]:
        radio = radio_of(link_profile(profile)) if profile != "custom" else None
        for device in members:
            if radio is not None:
                found.setdefault(device, radio)
    return found


def _devices(spec: Spec, layout: Layout, cast: Cast, radios: Mapping[str, Radio]) -> Iterator[Device]:
    """Every place with the settings that apply to it; later ones override earlier ones."""
    settings_of: dict[str, list[DeviceSettings]] = {}
    for place in layout.places:
        settings_of[place.name] = [_device_from_file(place)] if place.settings else []
    for n, settings in enumerate(spec.device):
        if settings.profile is not None:
            device_profile(settings.profile, f"device[{n}].profile")
        for device in cast.devices(settings.devices, f"device[{n}].devices"):
            settings_of[device].append(settings)
    for place in layout.places:
        yield _device(place, settings_of[place.name], radios.get(place.name))


def _device(place: Place, settings: Sequence[DeviceSettings], radio: Radio | None) -> Device:
    given: dict[str, Any] = {}
    for one in settings:
        fields = ("profile", "battery_j", "cpu_share", "memory_mb")
        given |= {field: getattr(one, field) for field in fields if getattr(one, field) is not None}
        if one.clock_offset_s or one.drift_ppm:
            given["clock"] = DeviceClock(one.clock_offset_s, one.drift_ppm)
    profile_name = given.pop("profile", PROFILE_OF_ROLE[place.role])
    if place.role not in ("hub", "sink", "storage"):  # those are on the mains, whatever they are
        given.setdefault("battery_j", device_profile(profile_name).battery_j)
    return Device(name=place.name, profile=profile_name, radio=radio, x=place.x, y=place.y, **given)


def _device_from_file(place: Place) -> DeviceSettings:
    try:
        settings = msgspec.convert({"devices": place.name, **place.settings}, DeviceSettings, strict=False)
    except msgspec.ValidationError as error:
        raise InputError(f"the file's node {place.name}: {error}", key="network.file") from error
    if settings.profile is not None:
        device_profile(settings.profile, "network.file")
    return settings


# ----------------------------------------------------------------------------------------------------- checks


def _check_names(spec: Spec, class_channels: Sequence[Channel]) -> None:
    taken = {channel.name for channel in class_channels}
    for n, channel in enumerate(spec.channel):
        if channel.name in taken:
            raise InputError(f"there are two channels {channel.name!r}", key=f"channel[{n}].name")
        taken.add(channel.name)


def _check_connected(topology: Topology) -> None:
    reached = hops_from(topology.network.edges(), topology.hub)
    lost = [name for name in topology.roles if name not in reached]
    if lost:
        shown = ", ".join(lost[:5]) + (f" and {len(lost) - 5} more" if len(lost) > 5 else "")
        raise InputError(
            f"the network is not connected: no path from {topology.hub} to {shown}",
            key="network",
            hint="add [[link]]s, or choose another shape or range",
        )


def _check_two_paths(topology: Topology) -> None:
    sink = topology.sink
    if two_disjoint_paths(topology.network.edges(), topology.birdhouses, sink):
        return
    raise InputError(
        f"{sink} has only one path to the birdhouses: whatever fails on it fails every architecture alike",
        key="network.sink_at",
        hint="attach it in two places, such as sink_at = ["
        + ", ".join(f'"{name}"' for name in [topology.hub, topology.birdhouses[-1]])
        + "]",
    )
