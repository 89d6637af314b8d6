"""The job engine in an experiment: what it is given to do, on which devices it runs, how far apart."""

from __future__ import annotations

from functools import partial
from itertools import pairwise
from pathlib import Path

from gateway.mapreduce.coordinator import CoordinatorConfig
from gateway.mapreduce.deployment import jobs_plan
from gateway.mapreduce.errors import JobFailed
from gateway.mapreduce.job import JobSource, load
from gateway.mapreduce.jobs import ready_made
from gateway.mapreduce.on_the_way import CombineConfig, combinable, tree
from kv.client import Client
from kv.tiers import Tier
from topologies.graph import hops_from
from topologies.spec import JobSettings, Spec
from topologies.topology import Topology
from underlay.errors import InputError
from underlay.network import Network
from underlay.node import Context
from underlay.plan import DevicePlan
from underlay.routes import Router

TOLD_BEFORE_END_S = 1.0
"""What is combined on the way is looked at as late as can be: its last batches wait for their epoch."""


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


def job_of(settings: JobSettings, key: str, folder: Path) -> JobSource:
    """The job that a spec names. Raises InputError with that key.

    Args:
        folder: where relative file names start.
    """
    try:
        if settings.job.endswith(".py"):
            path = folder / settings.job
            source = JobSource(
                path.stem, path.name, path.read_text(encoding="utf-8"), dict(settings.parameters)
            )
        else:
            source = ready_made(settings.job, dict(settings.parameters))
        load(source)
        if settings.on_the_way:
            combinable(source)
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "is not UTF-8 text"
        raise InputError(f"cannot read {settings.job}: {reason}", key=f"{key}.job") from error
    except JobFailed as error:
        raise InputError(str(error), key=f"{key}.job") from error
    return source


def on_the_way(
    spec: Spec, topology: Topology, jobs: tuple[tuple[float, JobSource], ...]
) -> dict[str, CombineConfig]:
    """Who combines what on the way to the gateway: every device whose route to it carries observations."""
    told_s = spec.duration_s - TOLD_BEFORE_END_S
    wanted = tuple(
        (told_s, source) for (_, source), settings in zip(jobs, spec.job, strict=True) if settings.on_the_way
    )
    if not wanted:
        return {}
    sink = topology.sink
    router = Router(topology.network)
    parents = {sink: ""}
    for device in topology.birdhouses:
        parents.update(pairwise(router.path(device, sink) or [device]))
    levels = tree(parents)
    epoch_s = min(settings.epoch_s for settings in spec.job if settings.on_the_way)
    deepest = max(levels.values())
    slot_s = epoch_s / (2 * (deepest + 1))
    return {
        device: CombineConfig(wanted, parent, levels[device], deepest, epoch_s, slot_s)
        for device, parent in parents.items()
    }


def _hops(network: Network, device: str) -> dict[str, int]:
    peers = network.neighbours()
    return hops_from([(here, there) for here in peers for there in peers[here]], device)


def _client(storage: Tier, lanes: int) -> Client[Context]:
    return Client(storage.directory(), lanes=lanes)
