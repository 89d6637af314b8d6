"""Where the engine runs: the coordinator on the gateway's device, a worker on every storage host."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import msgspec

from gateway.mapreduce.coordinator import Coordinator, CoordinatorConfig
from gateway.mapreduce.messages import JOBS, PORTS, WORKER
from gateway.mapreduce.scratch import scratch_binding
from gateway.mapreduce.worker import Worker, WorkerConfig
from kv.client import Client
from underlay.node import Context, Node, address
from underlay.plan import DevicePlan, NodePlan

Connect = Callable[[int], Client[Context]]
"""Makes a client of the storage tier with so many lanes."""


def jobs_plan(
    coordinator: str,
    workers: Sequence[str],
    connect: Connect | None,
    *,
    hops: Mapping[str, Mapping[str, int]] | None = None,
    config: CoordinatorConfig | None = None,
    worker: WorkerConfig | None = None,
) -> dict[str, DevicePlan]:
    """What the engine adds to each device.

    Args:
        coordinator: its device.
        workers: theirs; the coordinator's may be among them.
        connect: None where there is no storage tier: jobs read files, and their results have nowhere to be.
        hops: between devices, for what is near.
        config, worker: how they behave; who they are is put in.
    """
    hops = hops or {}
    whole = msgspec.structs.replace(
        config or CoordinatorConfig(()),
        workers=tuple(address(device, WORKER) for device in workers),
        hops=hops,
    )
    plans: dict[str, DevicePlan] = {}
    for device in dict.fromkeys([coordinator, *workers]):
        nodes: list[NodePlan] = []
        if device == coordinator:
            nodes.append(NodePlan(JOBS, partial(_coordinator, connect, whole), PORTS[JOBS]))
        if device in workers:
            own = msgspec.structs.replace(
                worker or WorkerConfig(""), boss=address(coordinator, JOBS), near=hops.get(device, {})
            )
            nodes.append(NodePlan(WORKER, partial(_worker, connect, own), PORTS[WORKER]))
        plans[device] = DevicePlan(tuple(nodes), (scratch_binding(),))
    return plans


def _coordinator(connect: Connect | None, config: CoordinatorConfig) -> Node:
    return Coordinator(connect, config)


def _worker(connect: Connect | None, config: WorkerConfig) -> Node:
    return Worker(connect, config)
