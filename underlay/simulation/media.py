"""The media of a simulated network: one `Hop` per direction that a packet can take, over links and channels.

Owns which hops exist, which are open, and what they carried; the physics is in `underlay.link` and
`underlay.channel`. A hop is closed while a fault cuts it or either end has no power; what would cross it
then, or was crossing it, is counted as cut.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from random import Random
from typing import Protocol

from underlay.channel import ChannelModel
from underlay.faults import Degrade
from underlay.link import LinkModel, LinkSpec
from underlay.network import Channel, Link, Network, hearer_rng, link_rng
from underlay.trace import LinkUsage

Offer = Callable[[float, int, bool], float]
"""`offer(now_s, size_bytes, data)`: arrival time of an IP packet, or LOST or QUEUE_FULL (both below 0)."""


class Hop(Protocol):
    """One direction between two neighbouring devices."""

    source: str
    target: str
    open: bool
    spec: LinkSpec
    offer: Offer

    def swallow(self) -> None:
        """Count a packet that found the hop closed."""

    def degrade(self, fault: Degrade, nth: int) -> None:
        """Take on the fault's changes to the planned spec; `nth` counts the faults, for a random stream."""


class LinkHop:
    """A direction of a point-to-point link. Many stay idle: its model is made on first use."""

    __slots__ = (
        "_link", "_planned", "_reported", "_seed", "cut", "model", "offer", "open", "source", "spec",
        "target",
    )  # fmt: skip

    def __init__(self, seed: int, link: Link, source: str) -> None:
        self._seed = seed
        self._link = link
        self._planned = self.spec = link.spec_from(source)
        self._reported = _NOTHING
        self.source = source
        self.target = link.other(source)
        self.open = True
        self.cut = 0
        self.model: LinkModel | None = None
        self.offer: Offer = self._first_offer

    def swallow(self) -> None:
        self.cut += 1

    def degrade(self, fault: Degrade, nth: int) -> None:
        self.spec = fault.applied_to(self._planned)
        if self.model is not None:
            self.model.configure(self.spec, link_rng(self._seed, self._link, self.source, nth))

    def usage(self) -> LinkUsage | None:
        """What it carried since the last call; None for nothing."""
        model = self.model
        if model is None:
            if not self.cut:
                return None
            model = self._make_model()
        counted = (
            model.frames,
            model.lost,
            model.queue_dropped,
            self.cut,
            model.bytes_on_air,
            model.data_bytes,
            model.airtime_s,
        )
        before = self._reported
        if counted == before:
            return None
        self._reported = counted
        airtime_s = round(counted[6] - before[6], 9)
        return LinkUsage(
            link=self._link.name,
            source=self.source,
            target=self.target,
            frames=counted[0] - before[0],
            bytes_on_air=counted[4] - before[4],
            data_bytes=counted[5] - before[5],
            airtime_s=airtime_s,
            received_s=airtime_s,
            lost=counted[1] - before[1],
            queue_dropped=counted[2] - before[2],
            cut=counted[3] - before[3],
        )

    def _first_offer(self, now_s: float, size_bytes: int, data: bool) -> float:
        return self._make_model().offer(now_s, size_bytes, data)

    def _make_model(self) -> LinkModel:
        random_needed = self.spec.loss_ratio or self.spec.jitter_ms
        rng = link_rng(self._seed, self._link, self.source) if random_needed else _UNUSED
        self.model = LinkModel(self.spec, rng)
        self.offer = self.model.offer
        return self.model


class ChannelHop:
    """From one sender to one hearer of a channel: a unicast there is one transmission too."""

    __slots__ = (
        "_channel", "_seed", "cut", "model", "offer", "open", "reported_cut", "reported_lost", "source",
        "spec", "target",
    )  # fmt: skip

    def __init__(self, seed: int, channel: Channel, model: ChannelModel, source: str, target: str) -> None:
        self._seed = seed
        self._channel = channel
        self.spec = channel.spec
        self.model = model
        self.source = source
        self.target = target
        self.open = True
        self.offer: Offer = self._unicast
        self.cut = self.reported_cut = self.reported_lost = 0
        model.add_hearer(source, target, hearer_rng(seed, channel, source, target))

    def _unicast(self, now_s: float, size_bytes: int, data: bool) -> float:
        end_s = self.model.transmit(self.source, now_s, size_bytes, data)
        return end_s if end_s < 0 else self.model.hear(self.source, self.target, end_s, size_bytes)

    def swallow(self) -> None:
        self.cut += 1

    def degrade(self, fault: Degrade, nth: int) -> None:
        self.spec = fault.applied_to(self._channel.spec)
        rng = hearer_rng(self._seed, self._channel, self.source, self.target, nth)
        self.model.add_hearer(self.source, self.target, rng, self.spec)


class Antenna:
    """A sender on a channel: a broadcast is one transmission, heard or lost by each hearer on its own."""

    __slots__ = ("_reported", "hops", "model", "name", "source")

    def __init__(self, channel: Channel, model: ChannelModel, source: str, hops: list[ChannelHop]) -> None:
        self._reported = _NOTHING
        self.name = channel.name
        self.model = model
        self.source = source
        self.hops = hops

    def cast(self, now_s: float, sizes: list[int], data: bool) -> list[float]:
        """Broadcast a datagram's IP fragments: when each hearer has them all, below 0 if it lost any."""
        model, source = self.model, self.source
        heard = [0.0] * len(self.hops)
        for size_bytes in sizes:
            end_s = model.transmit(source, now_s, size_bytes, data)
            for index, hop in enumerate(self.hops):
                arrival_s = end_s if end_s < 0.0 else model.hear(source, hop.target, end_s, size_bytes)
                heard[index] = arrival_s if heard[index] >= 0.0 else heard[index]
        return heard

    def usage(self) -> Iterator[LinkUsage]:
        """What was transmitted since the last call, then what each hearer received of it."""
        model, source = self.model, self.source
        counted = (
            model.frames.get(source, 0),
            0,
            model.queue_dropped.get(source, 0),
            0,
            model.bytes_on_air.get(source, 0),
            model.data_bytes.get(source, 0),
            model.airtime_s.get(source, 0.0),
        )
        before, self._reported = self._reported, counted
        airtime_s = round(counted[6] - before[6], 9)
        if counted != before:
            yield LinkUsage(
                link=self.name,
                source=source,
                target="*",
                frames=counted[0] - before[0],
                bytes_on_air=counted[4] - before[4],
                data_bytes=counted[5] - before[5],
                airtime_s=airtime_s,
                queue_dropped=counted[2] - before[2],
            )
        for hop in self.hops:
            lost = model.lost[source, hop.target]
            if airtime_s or lost != hop.reported_lost or hop.cut != hop.reported_cut:
                yield LinkUsage(
                    link=self.name,
                    source=source,
                    target=hop.target,
                    received_s=airtime_s,
                    lost=lost - hop.reported_lost,
                    cut=hop.cut - hop.reported_cut,
                )
                hop.reported_lost, hop.reported_cut = lost, hop.cut


class Media:
    """Every hop and antenna of a network.

    `hops[source][target]` lists the hops between two neighbours, links first; `antennas[source]` a device's.
    """

    def __init__(self, network: Network, seed: int) -> None:
        self.hops: dict[str, dict[str, list[Hop]]] = {device.name: {} for device in network.devices}
        self.antennas: dict[str, list[Antenna]] = {device.name: [] for device in network.devices}
        self._links: list[LinkHop] = []
        for link in network.links:
            for source in (link.a, link.b):
                hop = LinkHop(seed, link, source)
                self._links.append(hop)
                self.hops[source].setdefault(hop.target, []).append(hop)
        for channel in network.channels:
            self._add_channel(channel, seed)

    def _add_channel(self, channel: Channel, seed: int) -> None:
        model = ChannelModel(channel.spec, channel.duty_cycle_ratio)
        heard_by: dict[str, list[ChannelHop]] = {member: [] for member in channel.members}
        for a, b in channel.pairs:
            for source, target in ((a, b), (b, a)):
                hop = ChannelHop(seed, channel, model, source, target)
                heard_by[source].append(hop)
                self.hops[source].setdefault(target, []).append(hop)
        for source, hops in heard_by.items():
            self.antennas[source].append(Antenna(channel, model, source, hops))

    def links_from(self, source: str) -> list[Hop]:
        """The point-to-point hops that leave `source`."""
        return [hop for hops in self.hops[source].values() for hop in hops if isinstance(hop, LinkHop)]

    def between(self, source: str, target: str) -> list[Hop]:
        """The hops from `source` to `target`; empty where they are no neighbours."""
        return self.hops[source].get(target, [])

    def usage(self) -> Iterator[LinkUsage]:
        """What every direction carried since the last call, in the network's order, idle ones left out."""
        for hop in self._links:
            record = hop.usage()
            if record is not None:
                yield record
        for antennas in self.antennas.values():
            for antenna in antennas:
                yield from antenna.usage()


_NOTHING = (0, 0, 0, 0, 0, 0, 0.0)
_UNUSED = Random(0)
"""Stands in where a spec asks for no randomness: a real stream takes 2.5 kB."""
