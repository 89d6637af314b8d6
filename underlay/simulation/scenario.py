"""Small plans in two lines, for tests and examples."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import combinations

from underlay.clock import DeviceClock
from underlay.faults import AnyFault, TimedFault
from underlay.link import LinkSpec
from underlay.network import Channel, Device, Link, Network
from underlay.node import Node
from underlay.plan import FIRST_PORT, BindingPlan, DevicePlan, NodePlan, Plan, ProgramPlan

WIRE = LinkSpec(rate_kbps=1000.0, delay_ms=10.0)

Edge = tuple[str, str] | tuple[str, str, LinkSpec]


def plan_of(
    devices: Mapping[str, Mapping[str, Callable[[], Node]]],
    edges: Iterable[Edge] = (),
    *,
    link: LinkSpec = WIRE,
    channels: Sequence[Channel] = (),
    faults: Sequence[tuple[float, AnyFault]] = (),
    clocks: Mapping[str, DeviceClock] | None = None,
    bindings: Mapping[str, Sequence[BindingPlan]] | None = None,
    programs: Mapping[str, Sequence[ProgramPlan]] | None = None,
    seed: int = 0,
    duration_s: float = 60.0,
    route_convergence_s: float | None = 5.0,
    usage_interval_s: float = 1.0,
    disk_sync_ms: float = 1.0,
) -> Plan:
    """A plan from `{device: {node name: factory}}` and edges `(a, b)` or `(a, b, spec)`, both ways alike.

    >>> plan = plan_of({"cam1": {"gossip": Node}, "cam2": {"gossip": Node}}, [("cam1", "cam2")])
    >>> plan.network.links[0].name
    'cam1-cam2'
    """
    links = tuple(Link(e[0], e[1], *((e[2] if len(e) == 3 else link,) * 2)) for e in edges)
    names = list(dict.fromkeys(name for nodes in devices.values() for name in nodes))
    clocks, bindings, programs = clocks or {}, bindings or {}, programs or {}
    return Plan(
        seed=seed,
        duration_s=duration_s,
        network=Network(
            tuple(Device(name, clock=clocks.get(name, DeviceClock())) for name in devices),
            links,
            tuple(channels),
        ),
        devices={
            device: DevicePlan(
                nodes=tuple(
                    NodePlan(name, make, FIRST_PORT + names.index(name)) for name, make in nodes.items()
                ),
                bindings=tuple(bindings.get(device, ())),
                programs=tuple(programs.get(device, ())),
            )
            for device, nodes in devices.items()
        },
        faults=tuple(TimedFault(at_s, fault) for at_s, fault in faults),
        route_convergence_s=route_convergence_s,
        usage_interval_s=usage_interval_s,
        disk_sync_ms=disk_sync_ms,
    )


def every_pair(devices: Iterable[str]) -> list[tuple[str, str]]:
    """The edges of a network in which everybody is in range of everybody."""
    return list(combinations(devices, 2))
