"""Whether the links can carry what is asked of them: said before a run, with the computed times.

Owns arithmetic on the plan of the workload (time on air, duty cycle, load along the shortest paths); none of
it stops a run, for a link that drowns is a result too.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from itertools import pairwise
from math import inf
from statistics import fmean

import msgspec

from edge.datasets import track
from edge.observation import Observation, ObservationId
from topologies.architectures.gossip import (
    ANNOUNCE_TURNS,
    NOTE_BYTES,
    PART_HEADER_BYTES,
    PART_SIZES,
    channel_turn_s,
    intervals,
    link_turn_s,
    part_bytes_of,
)
from topologies.architectures.options import GossipOptions
from topologies.experiment import Experiment
from underlay.link import LinkSpec
from underlay.network import seeded
from underlay.routes import path, shortest_paths

PACKET_BYTES = 1052
"""A packet of a large observation: a part of 1 KiB with its headers."""
HEADER_BYTES = 28
"""IPv4 and UDP."""
PUBLISH_BYTES = 154 + 56
"""MQTT at QoS 1: a PUBLISH of 32 bytes, its PUBACK and TCP's acknowledgements, both ways on the publisher's
link."""
NOTES_AN_ANNOUNCEMENT = 2
"""Gossip's messages for each announcement made: itself, and the request or the repair that it draws."""
TCP_RTO_S = 1.0
"""TCP's initial retransmission timeout (RFC 6298 §2)."""
LOAD_WORTH_SAYING = 0.8
NOTES_WORTH_SAYING = 0.5
"""Share of what a sender may send that gossip's bookkeeping takes."""
_PATHS_UP_TO_DEVICES = 400


class FirstHop(msgspec.Struct, frozen=True):
    """The link that a source's data leaves by."""

    name: str
    profile: str
    spec: LinkSpec
    duty_cycle_ratio: float = 1.0


def warnings_of(experiment: Experiment) -> list[str]:
    """What the links cannot carry, one sentence each; devices with the same trouble are counted together."""
    troubled: dict[str, list[str]] = {}
    hops = _first_hops(experiment)
    packet_bytes = _packet_bytes(experiment)
    for device, sensors in experiment.sources.items():
        hop = hops[device]
        for sensor in sensors:
            for trouble in _airtime_trouble(
                hop, sensor.kind, sensor.period_s, experiment.spec.deadline_s, packet_bytes
            ):
                troubled.setdefault(trouble, []).append(device)
        if experiment.architecture == "star":
            for trouble in _tcp_trouble(hop):
                troubled.setdefault(trouble, []).append(device)
    found = [f"{trouble} ({_counted(devices)})" for trouble, devices in troubled.items()]
    if isinstance(experiment.options, GossipOptions):
        found += _gossip_trouble(experiment, experiment.options)
    if len(experiment.topology.roles) <= _PATHS_UP_TO_DEVICES:
        found += _load_trouble(experiment)
    return found


def expected_observations(experiment: Experiment) -> dict[str, int]:
    """About how many observations are counted, by kind, if every source lives."""
    first_s, last_s = experiment.spec.counted_s
    found: dict[str, float] = {}
    for sensors in experiment.sources.values():
        for sensor in sensors:
            found[sensor.kind] = found.get(sensor.kind, 0.0) + (last_s - first_s) / sensor.period_s
    return {kind: round(count) for kind, count in found.items()}


@cache
def typical_bytes(kind: str) -> int:
    """Mean size of an encoded observation of that kind, over the first devices' data."""
    sizes = []
    for index in range(18):
        sample = track(kind, index, seeded(1, "size", kind)).sample(index, 600.0)
        sizes.append(
            len(Observation(ObservationId("cam10", 100), kind, sample.t_event, 1.0, sample.payload).encode())
        )
    return round(fmean(sizes))


def airtime_s(spec: LinkSpec, size_bytes: int) -> float:
    """Time on air of an observation of that size, in packets of about a kilobyte, without retransmissions."""
    whole, rest = divmod(size_bytes, PACKET_BYTES - HEADER_BYTES)
    return whole * spec.airtime_s(PACKET_BYTES) + (spec.airtime_s(rest + HEADER_BYTES) if rest else 0.0)


def _packet_bytes(experiment: Experiment) -> int:
    """Of a packet of a large observation."""
    if isinstance(experiment.options, GossipOptions):
        return part_bytes_of(experiment.options, experiment.topology.network) + PART_HEADER_BYTES
    return PACKET_BYTES


def _airtime_trouble(
    hop: FirstHop, kind: str, period_s: float, deadline_s: float, packet_bytes: int
) -> Iterator[str]:
    size = typical_bytes(kind)
    taken_s = airtime_s(hop.spec, size)
    if taken_s == 0:
        return
    what = f"a {kind} of {size:,} bytes is {_shown_s(taken_s)} on the air of {hop.profile}"
    an_hour = 3600 * hop.duty_cycle_ratio / taken_s
    asked = 3600 / period_s
    if hop.duty_cycle_ratio < 1 and asked > an_hour:
        yield (
            f"{what}: a duty cycle of {hop.duty_cycle_ratio:.1%} allows {an_hour:.3g} an hour, "
            f"and {asked:.3g} are asked for"
        )
    elif asked > an_hour:
        yield f"{what}, and one is asked for every {_shown_s(period_s)}"
    elif taken_s > deadline_s:
        yield f"{what}, longer than deadline_s = {deadline_s:g}"
    packet_bytes = min(size + HEADER_BYTES, packet_bytes)
    fragments, arrive = hop.spec.fragments(packet_bytes), hop.spec.arrival_ratio(packet_bytes)
    if fragments > 1 and arrive < 0.5:
        yield (
            f"a packet of a {kind} is {fragments} fragments on {hop.profile}: "
            f"at {hop.spec.loss_ratio:.0%} loss only {arrive:.0%} of such packets arrive"
        )


def _tcp_trouble(hop: FirstHop) -> Iterator[str]:
    taken_s = hop.spec.airtime_s(PUBLISH_BYTES)
    if taken_s > TCP_RTO_S:
        yield (
            f"MQTT runs over TCP, which retransmits after {TCP_RTO_S:g} s at first: one small PUBLISH with "
            f"its acknowledgements is {_shown_s(taken_s)} on the air of {hop.profile}"
        )


def _gossip_trouble(experiment: Experiment, options: GossipOptions) -> Iterator[str]:
    """Bookkeeping that keeps a slow medium from its observations, and readings that are cut to pieces."""
    network = experiment.topology.network
    for name, profile, turn_s, what in [
        *((link.name, link.profile, link_turn_s(link), "link") for link in network.links),
        *(
            (channel.name, channel.profile, channel_turn_s(channel), "channel")
            for channel in network.channels
        ),
    ]:
        announce_s = intervals(options, turn_s)["announce_interval_s"]
        taken = NOTES_AN_ANNOUNCEMENT * turn_s / announce_s
        if taken > NOTES_WORTH_SAYING:
            yield (
                f"gossip's bookkeeping takes {taken:.0%} of the {what} {name} ({profile}): a message of "
                f"{NOTE_BYTES} bytes keeps a sender busy for {_shown_s(turn_s)}, duty cycle included, and "
                f"about {NOTES_AN_ANNOUNCEMENT} are due every announce_interval_s = {announce_s:g}; "
                f"by default it would be {ANNOUNCE_TURNS * turn_s:.3g}"
            )
    part_bytes = part_bytes_of(options, network)
    for kind in dict.fromkeys(s.kind for sensors in experiment.sources.values() for s in sensors):
        size = typical_bytes(kind)
        if part_bytes < size <= PART_SIZES[-1]:
            yield (
                f"a {kind} of {size} bytes is more than part_bytes = {part_bytes}: gossip offers it and "
                f"sends it on request in {-(-size // part_bytes)} parts, instead of at once"
            )


def _load_trouble(experiment: Experiment) -> Iterator[str]:
    """Links that the observations alone, each sent once along the shortest path to the sink, would fill."""
    topology = experiment.topology
    routes = shortest_paths(topology.network, sources=tuple(topology.roles))
    kbps: dict[tuple[str, str], float] = {}
    for device, sensors in experiment.sources.items():
        offered = sum((typical_bytes(s.kind) + HEADER_BYTES) * 8e-3 / s.period_s for s in sensors)
        hops = path(routes, device, topology.sink) or [device]
        for a, b in pairwise(hops):
            kbps[a, b] = kbps.get((a, b), 0.0) + offered
    for (a, b), offered in kbps.items():
        link = topology.network.link(a, b)
        if link is not None and offered > LOAD_WORTH_SAYING * link.spec_from(a).rate_kbps:
            rate = link.spec_from(a).rate_kbps
            yield (
                f"the link {link.name} ({link.profile}) would carry {offered:.0f} of its {rate:g} kbit/s "
                f"with observations alone, each sent once"
            )


def _first_hops(experiment: Experiment) -> dict[str, FirstHop]:
    """The best link of every source: the one with the highest rate."""
    network = experiment.topology.network
    found: dict[str, FirstHop] = {}

    def offer(device: str, hop: FirstHop) -> None:
        if device in experiment.sources:
            best = found.get(device)
            if best is None or hop.spec.rate_kbps > best.spec.rate_kbps:
                found[device] = hop

    for link in network.links:
        offer(link.a, FirstHop(link.name, link.profile, link.forward))
        offer(link.b, FirstHop(link.name, link.profile, link.backward))
    for channel in network.channels:
        for device in channel.members:
            offer(device, FirstHop(channel.name, channel.profile, channel.spec, channel.duty_cycle_ratio))
    return found


def _counted(devices: list[str]) -> str:
    return devices[0] if len(devices) == 1 else f"{devices[0]} and {len(devices) - 1} more"


def _shown_s(seconds: float) -> str:
    if seconds == inf:
        return "for ever"
    if seconds < 1:
        return f"{seconds * 1e3:.0f} ms"
    return f"{seconds:.1f} s" if seconds < 600 else f"{seconds / 3600:.1f} h"
