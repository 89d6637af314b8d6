"""Gossip: every machine is a peer and talks to whoever is in its range; the hub is one among them."""

from __future__ import annotations

from functools import partial

import msgspec

from edge.gossip.frames import carries_payload
from edge.gossip.peer import GossipConfig, GossipPeer
from topologies.architectures import Deployment
from topologies.architectures.options import GossipOptions
from topologies.experiment import PORTS, Experiment
from underlay.plan import DevicePlan


def deploy(experiment: Experiment) -> Deployment:
    """A gossip node on every device."""
    assert isinstance(experiment.options, GossipOptions)
    network = experiment.topology.network
    knobs = msgspec.structs.asdict(experiment.options)
    neighbours = network.neighbours()
    heard: dict[str, set[str]] = {device: set() for device in neighbours}
    for channel in network.channels:
        for a, b in channel.pairs:
            heard[a].add(b)
            heard[b].add(a)
    devices = {}
    for device, peers in neighbours.items():
        config = GossipConfig(
            neighbours=peers,
            on_channel=frozenset(heard[device]),
            subscriber=experiment.subscribes(device),
            deliver_to=experiment.deliver_to(device),
            **knobs,
        )
        devices[device] = DevicePlan(nodes=(experiment.node(partial(GossipPeer, config)),))
    return Deployment(devices, partial(carries_payload, port=PORTS[experiment.architecture]))
