"""Who fails when survivability is asked for: `compare --kill K`.

Victims crash for good, all at once, a quarter into the counted time, and the spec's own faults are left out;
the sink and what is behind it are never among them. What the survivors still deliver is said by
`topologies.metrics.survivability`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import msgspec

from topologies.spec import FaultSettings, Spec
from topologies.topology import Topology
from underlay.network import seeded
from underlay.trace import read_trace


def killing(spec: Spec, victims: Sequence[str]) -> Spec:
    """The spec with nothing failing but `victims`."""
    at_s = kill_time_s(spec)
    faults = tuple(FaultSettings(at_s=at_s, kind="crash", device=victim) for victim in victims)
    return msgspec.structs.replace(spec, fault=faults, random_fault=())


def kill_time_s(spec: Spec) -> float:
    """When the victims crash."""
    first_s, last_s = spec.counted_s
    return round(first_s + (last_s - first_s) / 4, 3)


def candidates(topology: Topology) -> list[str]:
    """Who can be asked to fail: all machines but the sink and the storage tier's hosts."""
    spared = {topology.sink, *topology.storage}
    return [device for device in topology.roles if device not in spared]


def random_order(topology: Topology, seed: int) -> list[str]:
    """All candidates, shuffled; the first k fail. The same in every architecture."""
    order = candidates(topology)
    seeded(seed, "kill").shuffle(order)
    return order


def busiest_first(topology: Topology, trace: Path) -> list[str]:
    """All candidates, by the bytes they sent in a run without failures."""
    sent: Counter[str] = Counter()
    for record in read_trace(trace):
        if record["event"] == "link-usage":
            sent[record["source"]] += record["bytes_on_air"]
    return sorted(candidates(topology), key=lambda device: (-sent[device], device))
