"""What it cost on the wire: bytes on air, messages, redundancy, and how the load falls on nodes and links.

All transmissions on all hops count, those lost on the air, retransmissions, acknowledgements, keep-alives
and membership included. Traffic before the first counted observation is the set-up and given apart. Relative
message redundancy: Leitão, Pereira, Rodrigues, "Epidemic broadcast trees", SRDS 2007, counted on the wire.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
import numpy as np

from topologies.metrics.balance import gini, max_over_mean
from topologies.metrics.delivery import Pairs
from topologies.metrics.reading import Readings, Usage


class MessageType(msgspec.Struct, frozen=True):
    """Messages of one type, as nodes sent them."""

    payload: bool
    count: int
    bytes: int
    transmissions: int
    """Messages times the hops that each went."""


class Traffic(msgspec.Struct, frozen=True, kw_only=True):
    """Of the whole network, after the first counted observation was made, to the end of the run."""

    bytes_on_air: int
    payload_bytes: int
    """Of packets that carry observations, with their framing."""
    control_bytes: int
    setup_bytes: int
    """Before the first counted observation; not in `bytes_on_air`."""
    frames: int
    lost_frames: int
    queue_dropped: int
    cut_frames: int
    """Swallowed by a fault."""
    bytes_per_delivered: float | None
    """Bytes on air over delivered pairs, late ones included; None where nothing was delivered."""
    payload_bytes_per_delivered: float | None
    control_bytes_per_delivered: float | None
    frames_per_delivered: float | None
    """Packets on air over delivered pairs: unlike messages, alike for a stream and for datagrams."""
    transmissions: int
    """Messages times hops, all types."""
    transmissions_per_delivered: float | None
    redundancy: float | None
    """Payload transmissions / delivered pairs - 1. A picture sent in parts is several messages."""
    byte_redundancy: float | None
    """The same in bytes: payload bytes on air / bytes of the delivered pairs' observations - 1. Parts of a
    picture do not distort it; framing is in it."""
    last_hop_mean: float | None
    """Overlay hops to the last receiver, mean over observations; None where the protocol carries none."""
    last_hop_max: int | None
    messages: dict[str, MessageType]


class LinkTraffic(msgspec.Struct, frozen=True):
    """What one sender put on one link; on a channel, `target` is `*`."""

    link: str
    source: str
    target: str
    bytes_on_air: int
    payload_bytes: int
    frames: int
    lost: int
    cut: int


class Load(msgspec.Struct, frozen=True):
    """Bytes that each device transmitted, its own and forwarded ones; devices that sent nothing included,
    hosts of the storage tier left out."""

    max_over_mean: float | None
    gini: float | None
    by_device: dict[str, int]


def traffic(readings: Readings, pairs: Pairs) -> Traffic:
    """Totals, and what they mean for each pair that was delivered, however late."""
    arrivals = np.isfinite(pairs.arrived_s).sum(axis=1)
    delivered = int(arrivals.sum())
    delivered_bytes = sum(made.size_bytes * int(n) for made, n in zip(pairs.made, arrivals, strict=True))
    usage = list(readings.usage.values())
    bytes_on_air = sum(each.bytes_on_air for each in usage)
    payload_bytes = sum(each.data_bytes for each in usage)
    # netem cannot tell observations from other bytes: something arrived, and nothing carried it.
    told = payload_bytes > 0 or not delivered
    messages = {
        name: MessageType(each.payload, each.count, each.bytes, each.hops)
        for name, each in sorted(readings.messages.items())
    }
    transmissions = sum(each.transmissions for each in messages.values())
    payload_transmissions = sum(each.transmissions for each in messages.values() if each.payload)
    hops = [
        readings.hops[id_]
        for id_, made in readings.made.items()
        if id_ in readings.hops and readings.counts(made)
    ]

    def per_delivered(amount: float) -> float | None:
        return round(amount / delivered, 4) if delivered else None

    return Traffic(
        bytes_on_air=bytes_on_air,
        payload_bytes=payload_bytes,
        control_bytes=bytes_on_air - payload_bytes,
        setup_bytes=sum(each.bytes_on_air for each in readings.setup.values()),
        frames=sum(each.frames for each in usage),
        lost_frames=sum(each.lost for each in usage),
        queue_dropped=sum(each.queue_dropped for each in usage),
        cut_frames=sum(each.cut for each in usage),
        bytes_per_delivered=per_delivered(bytes_on_air),
        payload_bytes_per_delivered=per_delivered(payload_bytes) if told else None,
        control_bytes_per_delivered=per_delivered(bytes_on_air - payload_bytes) if told else None,
        frames_per_delivered=per_delivered(sum(each.frames for each in usage)),
        transmissions=transmissions,
        transmissions_per_delivered=per_delivered(transmissions),
        redundancy=round(payload_transmissions / delivered - 1, 4) if delivered and messages else None,
        byte_redundancy=round(payload_bytes / delivered_bytes - 1, 4)
        if delivered_bytes and usage and told
        else None,
        last_hop_mean=round(sum(hops) / len(hops), 4) if hops else None,
        last_hop_max=max(hops, default=None),
        messages=messages,
    )


def link_traffic(usage: Mapping[tuple[str, str, str], Usage]) -> tuple[LinkTraffic, ...]:
    """One row for each link direction and each sender on a channel, in order of their names."""
    return tuple(
        LinkTraffic(
            link, source, target, each.bytes_on_air, each.data_bytes, each.frames, each.lost, each.cut
        )
        for (link, source, target), each in sorted(usage.items())
        if each.frames or each.cut
    )


def load(readings: Readings) -> Load:
    """How the transmitted bytes fall on the devices."""
    by_device = {device.name: 0 for device in readings.manifest.devices if device.role != "storage"}
    for (_, source, _), usage in readings.usage.items():
        by_device[source] = by_device.get(source, 0) + usage.bytes_on_air
    values = list(by_device.values())
    return Load(_rounded(max_over_mean(values)), _rounded(gini(values)), by_device)


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 6)
