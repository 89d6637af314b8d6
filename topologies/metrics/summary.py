"""`summary.json`: every metric of one run, a stable and documented schema (`docs/summary.md`).

Owns how the metrics are put together, and the one-row table `summary.csv`. A number that is infinite or has
no meaning is null.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from topologies.manifest import Manifest, Validity
from topologies.metrics.age import Age, age, age_curves
from topologies.metrics.caching import CacheUse, cache_use
from topologies.metrics.convergence import Convergence, convergence
from topologies.metrics.delivery import Delivery, Pairs, delivery
from topologies.metrics.energy import EnergyUse, energy_use
from topologies.metrics.outages import (
    DeliverySeries,
    Outage,
    OutageEffect,
    delivery_series,
    down_times,
    effects,
    outages,
)
from topologies.metrics.reading import Readings
from topologies.metrics.survivability import Survivors, survivors
from topologies.metrics.tier import Tier, behind_the_sink, tier
from topologies.metrics.traffic import LinkTraffic, Load, Traffic, link_traffic, load, traffic
from underlay.errors import InputError

SCHEMA_VERSION = 3


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """Which run it is, and whether it may be believed."""

    name: str
    architecture: str
    seed: int
    fabric: str
    enforcer: str
    simulated: bool
    """The user asked for more and got the simulation: shown as SIMULATED."""
    validity: Validity
    reason: str
    subscribers: str
    duration_s: float
    warmup_s: float
    stop_s: float
    deadline_s: float


class Health(msgspec.Struct, frozen=True):
    """Signs of trouble that are no part of the experiment."""

    verified: dict[str, Any]
    """The emulator's own: lag of the ether, CPU saturation."""
    slow_handlers: int
    malformed: int
    ended_processes: tuple[str, ...]
    """Those that ended by themselves, with their last line."""


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """One run in numbers."""

    schema: int = SCHEMA_VERSION
    run: Run
    delivery: Delivery
    """To the run's subscriber set."""
    storage: Delivery
    """To the sink alone, whatever the subscriber set."""
    tier: Tier
    """What the storage tier behind the sink did with it."""
    by_kind: dict[str, Delivery]
    """`delivery` for each kind of observation, without its quantiles."""
    age: Age
    traffic: Traffic
    links: tuple[LinkTraffic, ...]
    load: Load
    energy: EnergyUse
    cache: CacheUse | None
    outages: tuple[Outage, ...]
    effects: tuple[OutageEffect, ...]
    """Of those on the way to the sink; what befell the tier behind it is in `tier`."""
    survivors: Survivors
    convergence: Convergence
    series: DeliverySeries
    discarded: dict[str, int]
    """Observations that a device gave up, by reason."""
    disconnects: int
    health: Health

    def called(self, name: str) -> Summary:
        """The same under another name than its architecture's."""
        return msgspec.structs.replace(self, run=msgspec.structs.replace(self.run, architecture=name))

    @property
    def row(self) -> dict[str, Any]:
        """The headline numbers, flat: a row of `summary.csv`."""
        worst = min((e.during.ratio for e in self.effects if e.during.ratio is not None), default=None)
        return {
            "name": self.run.name,
            "architecture": self.run.architecture,
            "seed": self.run.seed,
            "fabric": self.run.fabric,
            "simulated": self.run.simulated,
            "validity": self.run.validity,
            "subscribers": self.run.subscribers,
            "observations": self.delivery.observations,
            "expected": self.delivery.expected,
            "delivery_ratio": self.delivery.ratio,
            "delivery_ratio_ever": self.delivery.ratio_ever,
            "storage_delivery_ratio": self.storage.ratio,
            "outage_delivery_ratio_min": worst,
            "undelivered": self.delivery.undelivered,
            "latency_p50_s": self.delivery.p50_s,
            "latency_p99_s": self.delivery.p99_s,
            "age_mean_s": self.age.mean_s,
            "age_peak_s": self.age.peak_s,
            "age_share_above": self.age.share_above,
            "bytes_on_air": self.traffic.bytes_on_air,
            "bytes_per_delivered": self.traffic.bytes_per_delivered,
            "control_bytes_per_delivered": self.traffic.control_bytes_per_delivered,
            "setup_bytes": self.traffic.setup_bytes,
            "transmissions_per_delivered": self.traffic.transmissions_per_delivered,
            "frames_per_delivered": self.traffic.frames_per_delivered,
            "redundancy": self.traffic.redundancy,
            "byte_redundancy": self.traffic.byte_redundancy,
            "last_hop_max": self.traffic.last_hop_max,
            "load_max_over_mean": self.load.max_over_mean,
            "load_gini": self.load.gini,
            "energy_mean_j": self.energy.all.mean_j,
            "energy_jain": self.energy.all.jain,
            "battery_energy_mean_j": self.energy.battery.mean_j,
            "battery_energy_jain": self.energy.battery.jain,
            "lifetime_s": self.energy.lifetime_s,
            "cache_hit_ratio": self.cache.hit_ratio if self.cache else None,
            "origin_load_reduction": self.cache.origin_load_reduction if self.cache else None,
            "failed": self.survivors.k,
            "survivors_delivery_ratio": self.survivors.ratio,
            "recovery_max_s": _worst_recovery_s(self.effects),
            "recovered": sum(effect.recovered for effect in self.effects),
            "lost_in_outages": sum(effect.lost for effect in self.effects),
            "tier_kind": self.tier.kind,
            "tier_kept": self.tier.kept,
            "tier_lost": self.tier.lost,
            "tier_latency_p50_s": self.tier.p50_s,
            "tier_latency_p99_s": self.tier.p99_s,
            "tier_unavailable_s": self.tier.unavailable_s,
            "convergence_t50_s": self.convergence.t50_s,
            "convergence_t90_s": self.convergence.t90_s,
            "convergence_t100_s": self.convergence.t100_s,
            "same_set_s": self.convergence.same_set_s,
        }


def summarize(folder: Path) -> Summary:
    """Compute the metrics of a run and write them beside its trace as `summary.json` and `summary.csv`.

    Raises InputError where the folder is no run.
    """
    summary = summary_of(Readings.of(folder))
    data = msgspec.json.format(msgspec.json.encode(summary), indent=2)
    (folder / "summary.json").write_bytes(data + b"\n")
    (folder / "summary.csv").write_text(to_csv([summary]), encoding="utf-8")
    return summary


def read_summary(folder: Path) -> Summary:
    """The summary of a run, computed if it is missing, of another version, or older than the trace."""
    path = folder / "summary.json"
    try:
        newer = max((folder / name).stat().st_mtime_ns for name in ("manifest.json", "trace.jsonl"))
        if path.stat().st_mtime_ns >= newer:
            summary = msgspec.json.decode(path.read_bytes(), type=Summary)
            if summary.schema == SCHEMA_VERSION:
                return summary
    except (FileNotFoundError, msgspec.DecodeError):
        pass
    return summarize(folder)


def to_csv(summaries: Iterable[Summary]) -> str:
    """A row for each run, with a header; null is an empty field."""
    rows = [summary.row for summary in summaries]
    if not rows:
        raise InputError("there is no run to write a table of")
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def summary_of(readings: Readings) -> Summary:
    """All metrics of what was read."""
    manifest = readings.manifest
    start_s, stop_s = manifest.warmup_s, manifest.stop_s
    everyone = tuple(dict.fromkeys((*manifest.birdhouses, manifest.sink)))
    to_sink = Pairs.of(readings, (manifest.sink,))
    pairs = to_sink if manifest.subscribers == "storage" else Pairs.of(readings, everyone)
    curves = age_curves(readings)
    found = outages(readings.faults)
    behind = behind_the_sink(found, manifest)
    return Summary(
        run=_run(manifest),
        delivery=delivery(pairs),
        storage=delivery(to_sink),
        tier=tier(readings, behind),
        by_kind=_by_kind(pairs),
        age=age(curves, start_s, stop_s, threshold_s=manifest.deadline_s),
        traffic=traffic(readings, pairs),
        links=link_traffic(readings.usage),
        load=load(readings),
        energy=energy_use(readings, down_times(found, manifest.duration_s)),
        cache=cache_use(readings.answers, readings.origin_requests),
        outages=found,
        effects=effects([each for each in found if each not in behind], pairs, curves, start_s, stop_s),
        survivors=survivors(pairs, found),
        convergence=convergence(pairs, [o.subject for o in found if o.kind == "crash" and o.end_s is None]),
        series=delivery_series(pairs, start_s, stop_s),
        discarded=dict(sorted(readings.discarded.items())),
        disconnects=readings.disconnects,
        health=Health(
            verified=manifest.verdict.health,
            slow_handlers=readings.slow_handlers,
            malformed=readings.malformed,
            ended_processes=tuple(readings.ended_processes),
        ),
    )


def _run(manifest: Manifest) -> Run:
    return Run(
        name=manifest.name,
        architecture=manifest.architecture,
        seed=manifest.seed,
        fabric=manifest.chosen.fabric,
        enforcer=manifest.chosen.enforcer,
        simulated=manifest.chosen.fell_back,
        validity=manifest.verdict.validity,
        reason=manifest.verdict.reason,
        subscribers=manifest.subscribers,
        duration_s=manifest.duration_s,
        warmup_s=manifest.warmup_s,
        stop_s=manifest.stop_s,
        deadline_s=manifest.deadline_s,
    )


def _by_kind(pairs: Pairs) -> dict[str, Delivery]:
    kinds = np.array([made.kind for made in pairs.made], dtype=object)
    return {
        kind: delivery(pairs.where(kinds == kind), quantiles=False)
        for kind in sorted({made.kind for made in pairs.made})
    }


def _worst_recovery_s(found: Iterable[OutageEffect]) -> float | None:
    """The longest; None if there was none, or if one had not ended or cannot be told."""
    times = [effect.recovery.after_s for effect in found]
    return max((t for t in times if t is not None), default=None) if None not in times else None
