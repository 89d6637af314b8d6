"""Gossip: every machine is a peer and talks to whoever is in its range; the hub is one among them.

Owns the knobs that a spec leaves open: they follow from the links. On links that carry a small message in a
few milliseconds they are the node's own defaults.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

import msgspec

from edge.gossip.frames import carries_payload
from edge.gossip.peer import GossipConfig, GossipPeer
from topologies.architectures import Deployment
from topologies.architectures.options import GossipOptions
from topologies.experiment import PORTS, Experiment
from underlay.link import LinkSpec
from underlay.network import Channel, Link, Network
from underlay.plan import DevicePlan

NOTE_BYTES = 100
"""A packet of bookkeeping: an announcement or a request that names two or three streams."""
PART_HEADER_BYTES = 56
"""IPv4, UDP, and what a Gossip says about the part it brings."""
ANNOUNCE_TURNS = 10
"""An announcement takes a tenth of what the slowest medium in range bears."""
GRAFT_TURNS = 3
"""What is not here after the turns of a few others was lost."""
PART_SIZES = (1024, 512, 256, 128)
"""The largest is one datagram on the usual MTU; a reading fits the smallest."""
DEARER = 1.1
"""So much more may a larger part cost on the air: fewer parts are fewer requests."""


def deploy(experiment: Experiment) -> Deployment:
    """A gossip node on every device."""
    assert isinstance(experiment.options, GossipOptions)
    network = experiment.topology.network
    options = experiment.options
    part_bytes = part_bytes_of(options, network)
    turns_s = turns(network)
    heard = {device: set[str]() for device in turns_s}
    for channel in network.channels:
        for a, b in channel.pairs:
            heard[a].add(b)
            heard[b].add(a)
    devices = {}
    for device, peers in network.neighbours().items():
        knobs = msgspec.structs.asdict(options) | intervals(options, turns_s[device])
        knobs["part_bytes"] = part_bytes
        config = GossipConfig(
            neighbours=peers,
            on_channel=frozenset(heard[device]),
            subscriber=experiment.subscribes(device),
            deliver_to=experiment.deliver_to(device),
            turn_s=turns_s[device],
            **knobs,
        )
        devices[device] = DevicePlan(nodes=(experiment.node(partial(GossipPeer, config)),))
    return Deployment(devices, partial(carries_payload, port=PORTS[experiment.architecture]))


def turns(network: Network) -> dict[str, float]:
    """For each device, the seconds from one small message to the next that the slowest medium in its range
    bears."""
    found = {device.name: 0.0 for device in network.devices}
    for link in network.links:
        turn_s = link_turn_s(link)
        for device in (link.a, link.b):
            found[device] = max(found[device], turn_s)
    for channel in network.channels:
        turn_s = channel_turn_s(channel)
        for device in channel.members:
            found[device] = max(found[device], turn_s)
    return found


def link_turn_s(link: Link) -> float:
    """How long a small message takes the slower way."""
    return max(link.forward.airtime_s(NOTE_BYTES), link.backward.airtime_s(NOTE_BYTES))


def channel_turn_s(channel: Channel) -> float:
    """From one small message of a member to its next, when all send as much: its share of the medium, or its
    duty cycle."""
    return channel.spec.airtime_s(NOTE_BYTES) * max(len(channel.members), 1 / channel.duty_cycle_ratio)


def intervals(options: GossipOptions, turn_s: float) -> dict[str, float]:
    """A device's intervals: the spec's, else the node's defaults, or more where messages are slow.

    >>> intervals(GossipOptions(graft_timeout_s=5.0), turn_s=19.0)
    {'announce_interval_s': 190.0, 'graft_timeout_s': 5.0}
    """
    node = GossipConfig(neighbours=())
    return {
        "announce_interval_s": options.announce_interval_s
        or max(node.announce_interval_s, ANNOUNCE_TURNS * turn_s),
        "graft_timeout_s": options.graft_timeout_s or max(node.graft_timeout_s, GRAFT_TURNS * turn_s),
    }


def part_bytes_of(options: GossipOptions, network: Network) -> int:
    """The spec's, else the size that all media of the network carry well."""
    return options.part_bytes or min(
        map(_best_part_bytes, dict.fromkeys(media(network))), default=PART_SIZES[0]
    )


def media(network: Network) -> Iterable[LinkSpec]:
    """Every direction of every link, and every channel."""
    for link in network.links:
        yield link.forward
        yield link.backward
    for channel in network.channels:
        yield channel.spec


def _best_part_bytes(spec: LinkSpec) -> int:
    """The largest that costs about the least on the air for each byte that arrives, repetitions included:
    small ones are mostly headers, large ones are lost with any of their fragments."""

    def cost(part_bytes: int) -> float:
        size_bytes = part_bytes + PART_HEADER_BYTES
        return spec.bytes_on_air(size_bytes) / (part_bytes * max(spec.arrival_ratio(size_bytes), 1e-9))

    least = min(map(cost, PART_SIZES))
    return next(size for size in PART_SIZES if cost(size) <= DEARER * least)
