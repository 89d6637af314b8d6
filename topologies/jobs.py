"""The job engine in an experiment: on which devices it runs, and how far they are from each other."""

from __future__ import annotations

from functools import partial

from gateway.mapreduce.coordinator import CoordinatorConfig
from gateway.mapreduce.deployment import jobs_plan
from gateway.mapreduce.job import JobSource
from kv.client import Client
from kv.tiers import Tier
from topologies.graph import hops_from
from topologies.topology import Topology
from underlay.network import Network
from underlay.node import Context
from underlay.plan import DevicePlan


def engine(
    topology: Topology, storage: Tier, scheduled: tuple[tuple[float, JobSource], ...] = ()
) -> dict[str, DevicePlan]:
    """A worker on every storage host, the coordinator on the gateway's device.

    Args:
        scheduled: jobs that it submits to itself, and when, by its own clock.
    """
    hosts = list(topology.storage)
    return jobs_plan(
        topology.sink,
        hosts,
        partial(_client, storage),
        hops={host: _hops(topology.network, host) for host in hosts},
        config=CoordinatorConfig((), scheduled=scheduled),
    )


def _hops(network: Network, device: str) -> dict[str, int]:
    peers = network.neighbours()
    return hops_from([(here, there) for here in peers for there in peers[here]], device)


def _client(storage: Tier, lanes: int) -> Client[Context]:
    return Client(storage.directory(), lanes=lanes)
