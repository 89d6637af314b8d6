"""What the ether's frames pass through: a TAP at each end, a hop per direction, an antenna per sender on a
channel.

Owns their counters. Every frame read from a TAP is accounted for: cut by a fault, dropped by the model,
written to its receiver, refused by the receiver's kernel, or still under way. The physics is in
`underlay.link` and `underlay.channel`; time and descriptors are the loop's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import msgspec

from underlay.channel import ChannelModel
from underlay.link import LinkModel, LinkSpec
from underlay.network import Channel, Link, Network, hearer_rng, link_rng
from underlay.trace import LinkUsage

CUT = -3.0
"""A frame's fate beside `LOST` and `QUEUE_FULL`: a fault swallowed it before it was sent."""
ETHERNET_BYTES = 14
"""The header that the TAP adds to an IP packet, and that no emulated link carries."""
VLAN_BYTES = 4

FrameClass = Callable[[memoryview], bool]
"""Whether an IP packet carries users' data."""


class Port(msgspec.Struct, frozen=True):
    """A TAP: where a device meets a link or a channel."""

    device: str
    medium: str
    """Name of the link or channel."""
    fd: int
    mac: bytes = b""
    """Six bytes; a channel finds the receiver of a frame by it."""
    mtu_bytes: int = 1500


class Tap:
    """A port at work."""

    __slots__ = ("antenna", "fd", "frame_bytes", "hop", "port", "read")

    def __init__(self, port: Port) -> None:
        self.port = port
        self.fd = port.fd
        self.frame_bytes = port.mtu_bytes + ETHERNET_BYTES + VLAN_BYTES
        self.read = 0
        """Frames taken from the device since the ether began."""
        self.hop: LinkHop | None = None
        self.antenna: Antenna | None = None


class Hop:
    """One direction between two neighbours, and the fate of every frame that was to take it."""

    __slots__ = (
        "cut", "cut_late", "dropped", "is_cut", "medium", "offered", "out_fd", "refused", "source", "target",
        "written",
    )  # fmt: skip

    def __init__(self, medium: str, source: str, target: str, out: Tap) -> None:
        self.medium = medium
        self.source = source
        self.target = target
        self.out_fd = out.fd
        self.is_cut = False
        self.offered = self.cut = self.dropped = self.cut_late = self.refused = self.written = 0

    @property
    def under_way(self) -> int:
        """Frames that the model let pass and whose time has not come."""
        return self.offered - self.cut - self.dropped - self.cut_late - self.refused - self.written


class LinkHop(Hop):
    """A direction of a point-to-point link."""

    __slots__ = ("_cut_before", "_link", "_reported", "_seed", "model")

    def __init__(self, seed: int, link: Link, source: str, out: Tap) -> None:
        super().__init__(link.name, source, link.other(source), out)
        self._seed = seed
        self._link = link
        self.restart()

    def restart(self) -> None:
        """The model as at the start of a run: planned spec, nothing queued, counters at zero, its stream from
        its beginning."""
        self.model = LinkModel(
            self._link.spec_from(self.source), link_rng(self._seed, self._link, self.source)
        )
        self._cut_before = self.cut + self.cut_late
        self._reported = _NOTHING

    def rehearse(self, spec: LinkSpec) -> None:
        """A fresh model of another spec, until the next restart."""
        self.model = LinkModel(spec, link_rng(self._seed, self._link, self.source))

    def reshape(self, spec: LinkSpec, nth: int) -> None:
        """Take on another spec; what is queued keeps its schedule."""
        self.model.configure(spec, link_rng(self._seed, self._link, self.source, nth))

    def usage(self) -> LinkUsage | None:
        """What it carried since the last call; None for nothing."""
        model, before = self.model, self._reported
        cut = self.cut + self.cut_late - self._cut_before
        counted = (
            model.frames,
            model.bytes_on_air,
            model.data_bytes,
            model.airtime_s,
            model.lost,
            model.queue_dropped,
            cut,
        )
        if counted == before:
            return None
        self._reported = counted
        airtime_s = round(counted[3] - before[3], 9)
        return LinkUsage(
            link=self.medium,
            source=self.source,
            target=self.target,
            frames=counted[0] - before[0],
            bytes_on_air=counted[1] - before[1],
            data_bytes=counted[2] - before[2],
            airtime_s=airtime_s,
            received_s=airtime_s,
            lost=counted[4] - before[4],
            queue_dropped=counted[5] - before[5],
            cut=counted[6] - before[6],
        )


class ChannelHop(Hop):
    """From one sender to one hearer of a channel."""

    __slots__ = ("cut_before", "mac", "reported_cut", "reported_lost")

    def __init__(self, channel: Channel, source: str, out: Tap) -> None:
        super().__init__(channel.name, source, out.port.device, out)
        self.mac = out.port.mac
        self.reported_lost = self.reported_cut = self.cut_before = 0


Fate = tuple[Hop, float]
"""When a hop's receiver should have a frame, in the model's time, or `LOST`, `QUEUE_FULL` or `CUT`."""


class Air:
    """A channel: one medium, an antenna for every member."""

    def __init__(self, seed: int, channel: Channel, taps: Sequence[Tap]) -> None:
        self._seed = seed
        self.channel = channel
        tap_of = {tap.port.device: tap for tap in taps}
        hops: dict[str, list[ChannelHop]] = {member: [] for member in channel.members}
        for a, b in channel.pairs:
            for source, target in ((a, b), (b, a)):
                hops[source].append(ChannelHop(channel, source, tap_of[target]))
        self.antennas = [Antenna(self, member, hops[member]) for member in channel.members]
        for antenna in self.antennas:
            tap_of[antenna.source].antenna = antenna
        self.restart()

    def restart(self) -> None:
        """As `LinkHop.restart`."""
        self._use(ChannelModel(self.channel.spec, self.channel.duty_cycle_ratio))

    def rehearse(self, spec: LinkSpec) -> None:
        """As `LinkHop.rehearse`. Without the duty cycle, which would leave no time to measure anything."""
        self._use(ChannelModel(spec))

    def _use(self, model: ChannelModel) -> None:
        self.model = model
        for antenna in self.antennas:
            antenna.restart()
            for hop in antenna.hops:
                rng = hearer_rng(self._seed, self.channel, hop.source, hop.target)
                self.model.add_hearer(hop.source, hop.target, rng)

    def reshape(self, hop: ChannelHop, spec: LinkSpec, nth: int) -> None:
        """Let one hearer lose or wait differently; the medium's rate stays."""
        rng = hearer_rng(self._seed, self.channel, hop.source, hop.target, nth)
        self.model.add_hearer(hop.source, hop.target, rng, spec)


class Antenna:
    """A sender on a channel: whatever it sends is one transmission, heard or lost by each hearer on its
    own."""

    __slots__ = ("_air", "_by_mac", "_reported", "hops", "source")

    def __init__(self, air: Air, source: str, hops: list[ChannelHop]) -> None:
        self._air = air
        self.source = source
        self.hops = hops
        self._by_mac = {hop.mac: [hop] for hop in hops}

    def restart(self) -> None:
        """As `LinkHop.restart`."""
        self._reported: tuple[float, ...] = (0, 0, 0, 0.0, 0)
        for hop in self.hops:
            hop.reported_lost = hop.reported_cut = 0
            hop.cut_before = hop.cut + hop.cut_late

    def carry(self, frame: bytes, now_s: float, frame_class: FrameClass | None) -> list[Fate]:
        """What becomes of a frame for each hearer that it is meant for: all of them if its group bit is set,
        else the one with its destination address. A frame for somebody out of range is transmitted all the
        same; one whose every receiver is cut off is not."""
        model, source = self._air.model, self.source
        hops = self.hops if frame[0] & 1 else self._by_mac.get(frame[:6], [])
        fates: list[Fate] = []
        open_hops = []
        for hop in hops:
            hop.offered += 1
            if hop.is_cut:
                hop.cut += 1
                fates.append((hop, CUT))
            else:
                open_hops.append(hop)
        if fates and not open_hops:
            return fates
        size_bytes = len(frame) - ETHERNET_BYTES
        data = frame_class is not None and frame_class(memoryview(frame)[ETHERNET_BYTES:])
        end_s = model.transmit(source, now_s, size_bytes, data)
        for hop in open_hops:
            arrival_s = end_s if end_s < 0 else model.hear(source, hop.target, end_s, size_bytes)
            if arrival_s < 0:
                hop.dropped += 1
            fates.append((hop, arrival_s))
        return fates

    def usage(self) -> Iterator[LinkUsage]:
        """What was transmitted since the last call, then what each hearer received of it."""
        model, source, before = self._air.model, self.source, self._reported
        counted = (
            model.frames.get(source, 0),
            model.bytes_on_air.get(source, 0),
            model.data_bytes.get(source, 0),
            model.airtime_s.get(source, 0.0),
            model.queue_dropped.get(source, 0),
        )
        self._reported = counted
        airtime_s = round(counted[3] - before[3], 9)
        if counted != before:
            yield LinkUsage(
                link=self._air.channel.name,
                source=source,
                target="*",
                frames=int(counted[0] - before[0]),
                bytes_on_air=int(counted[1] - before[1]),
                data_bytes=int(counted[2] - before[2]),
                airtime_s=airtime_s,
                queue_dropped=int(counted[4] - before[4]),
            )
        for hop in self.hops:
            lost = model.lost[source, hop.target]
            cut = hop.cut + hop.cut_late - hop.cut_before
            if airtime_s or lost != hop.reported_lost or cut != hop.reported_cut:
                yield LinkUsage(
                    link=self._air.channel.name,
                    source=source,
                    target=hop.target,
                    received_s=airtime_s,
                    lost=lost - hop.reported_lost,
                    cut=cut - hop.reported_cut,
                )
                hop.reported_lost, hop.reported_cut = lost, cut


class HopTotals(msgspec.Struct, frozen=True):
    """The ledger of one direction, since the ether began."""

    medium: str
    source: str
    target: str
    offered: int
    cut: int
    """Swallowed by a fault, before or while under way."""
    dropped: int
    """By the model's decision: lost on the air, or the queue was full."""
    refused: int
    """The receiver's kernel would not take it."""
    written: int
    under_way: int


class PortTotals(msgspec.Struct, frozen=True):
    """What passed through one TAP since the ether began; to be compared with its kernel's own counters."""

    medium: str
    device: str
    read: int
    written: int


class Media:
    """Everything between the TAPs of a network.

    Args:
        ports: one for each end of every link and each member of every channel.
    """

    def __init__(self, network: Network, ports: Sequence[Port], seed: int) -> None:
        self.taps = [Tap(port) for port in ports]
        tap_at = {(tap.port.medium, tap.port.device): tap for tap in self.taps}
        self.link_hops: list[LinkHop] = []
        for link in network.links:
            for source in (link.a, link.b):
                hop = LinkHop(seed, link, source, tap_at[link.name, link.other(source)])
                tap_at[link.name, source].hop = hop
                self.link_hops.append(hop)
        self.airs = [
            Air(seed, channel, [tap_at[channel.name, member] for member in channel.members])
            for channel in network.channels
        ]

    def hops(self) -> Iterator[Hop]:
        """Every direction, links first, in the order of the network."""
        yield from self.link_hops
        for air in self.airs:
            for antenna in air.antennas:
                yield from antenna.hops

    def restart(self) -> None:
        """All models as at the start of a run."""
        for hop in self.link_hops:
            hop.restart()
        for air in self.airs:
            air.restart()

    def rehearse(self, specs: Mapping[tuple[str, str], LinkSpec]) -> None:
        """Use other specs until the run starts, by `(medium, source)`; a channel's source is `"*"`."""
        for hop in self.link_hops:
            if (hop.medium, hop.source) in specs:
                hop.rehearse(specs[hop.medium, hop.source])
        for air in self.airs:
            if (air.channel.name, "*") in specs:
                air.rehearse(specs[air.channel.name, "*"])

    def cut(self, pairs: Sequence[tuple[str, str]], cut: bool) -> None:
        """Cut or mend every hop from the first to the second of each pair, whatever medium it is on."""
        wanted = frozenset(pairs)
        for hop in self.hops():
            if (hop.source, hop.target) in wanted:
                hop.is_cut = cut

    def reshape(self, medium: str, source: str, target: str, spec: LinkSpec, nth: int) -> None:
        """Give one direction another spec."""
        for hop in self.link_hops:
            if (hop.medium, hop.source) == (medium, source):
                hop.reshape(spec, nth)
        for air in self.airs:
            for antenna in air.antennas:
                for heard in antenna.hops:
                    if (heard.medium, heard.source, heard.target) == (medium, source, target):
                        air.reshape(heard, spec, nth)

    def usage(self) -> Iterator[LinkUsage | None]:
        """What every direction carried since the last call; None for each idle link, so that a caller can
        pause."""
        for hop in self.link_hops:
            yield hop.usage()
        for air in self.airs:
            for antenna in air.antennas:
                yield from antenna.usage()

    def hop_totals(self) -> list[HopTotals]:
        """The ledger of every direction."""
        return [
            HopTotals(
                hop.medium,
                hop.source,
                hop.target,
                hop.offered,
                hop.cut + hop.cut_late,
                hop.dropped,
                hop.refused,
                hop.written,
                hop.under_way,
            )
            for hop in self.hops()
        ]

    def port_totals(self) -> list[PortTotals]:
        """What every TAP gave and took."""
        written: dict[int, int] = {}
        for hop in self.hops():
            written[hop.out_fd] = written.get(hop.out_fd, 0) + hop.written
        return [
            PortTotals(tap.port.medium, tap.port.device, tap.read, written.get(tap.fd, 0))
            for tap in self.taps
        ]


_NOTHING = (0, 0, 0, 0.0, 0, 0, 0)
