"""Energy by node over the whole run, fairness over the nodes, and when the first battery is empty.

Only devices with a radio are accounted; one that is crashed draws nothing. On a shared channel every device
in range pays for what it hears.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

import msgspec

from topologies.metrics.balance import jain
from topologies.metrics.reading import Readings
from underlay.energy import RadioTime, energy


class NodeEnergy(msgspec.Struct, frozen=True):
    """Joules of one device's radio, by state."""

    total_j: float
    transmit_j: float
    receive_j: float
    listen_j: float
    sleep_j: float
    battery: bool
    lifetime_s: float | None
    """At this mean power, from full; None on mains."""


class EnergyShare(msgspec.Struct, frozen=True):
    """Energy of a group of nodes."""

    nodes: int
    total_j: float
    mean_j: float | None
    max_j: float | None
    jain: float | None
    """1 is even."""


class EnergyUse(msgspec.Struct, frozen=True):
    """Energy of the run."""

    all: EnergyShare
    battery: EnergyShare
    lifetime_s: float | None
    """Until the first battery is empty; None without batteries."""
    by_device: dict[str, NodeEnergy]


def energy_use(readings: Readings, down_s: Mapping[str, float]) -> EnergyUse:
    """Joules of every device that has a radio; `down_s` is how long a device was without power."""
    transmit_s: defaultdict[str, float] = defaultdict(float)
    receive_s: defaultdict[str, float] = defaultdict(float)
    for kept in (readings.setup, readings.usage):
        for (_, source, target), usage in kept.items():
            transmit_s[source] += usage.airtime_s
            if target != "*":
                receive_s[target] += usage.received_s
    by_device = {}
    for device in readings.manifest.devices:
        if device.radio is None:
            continue
        on_s = readings.manifest.duration_s - down_s.get(device.name, 0.0)
        spent = energy(device.radio, RadioTime(on_s, transmit_s[device.name], receive_s[device.name]))
        lifetime_s = None
        if device.battery_j is not None and spent.total_j > 0:
            lifetime_s = round(device.battery_j / spent.total_j * readings.manifest.duration_s, 3)
        by_device[device.name] = NodeEnergy(
            total_j=round(spent.total_j, 6),
            transmit_j=round(spent.transmit_j, 6),
            receive_j=round(spent.receive_j, 6),
            listen_j=round(spent.listen_j, 6),
            sleep_j=round(spent.sleep_j, 6),
            battery=device.battery_j is not None,
            lifetime_s=lifetime_s,
        )
    lifetimes = [node.lifetime_s for node in by_device.values() if node.lifetime_s is not None]
    return EnergyUse(
        all=_share([node.total_j for node in by_device.values()]),
        battery=_share([node.total_j for node in by_device.values() if node.battery]),
        lifetime_s=min(lifetimes, default=None),
        by_device=by_device,
    )


def _share(joules: list[float]) -> EnergyShare:
    total_j = sum(joules)
    fairness = jain(joules) if joules else None
    return EnergyShare(
        nodes=len(joules),
        total_j=round(total_j, 6),
        mean_j=round(total_j / len(joules), 6) if joules else None,
        max_j=max(joules, default=None),
        jain=None if fairness is None else round(fairness, 6),
    )
