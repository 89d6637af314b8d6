"""Who fails when survivability is asked for: `compare --kill K`.

Victims crash for good, all at once, a quarter into the counted time, and the spec's own faults are left out;
the sink is never one of them. What the survivors still deliver is `topologies.metrics.survivability`'s.
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


def random_order(topology: Topology, seed: int) -> list[str]:
    """All machines but the sink, shuffled; the first k fail. The same in every architecture."""
    order = [device for device in topology.roles if device != topology.sink]
    seeded(seed, "kill").shuffle(order)
    return order


def busiest_first(topology: Topology, trace: Path) -> list[str]:
    """All machines but the sink, by the bytes they sent in a run without failures."""
    sent: Counter[str] = Counter()
    for record in read_trace(trace):
        if record["event"] == "link-usage":
            sent[record["source"]] += record["bytes_on_air"]
    order = [device for device in topology.roles if device != topology.sink]
    return sorted(order, key=lambda device: (-sent[device], device))
