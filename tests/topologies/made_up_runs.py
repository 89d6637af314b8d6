"""Run folders written by hand, for tests of what reads traces: a manifest and any records, or a whole little
comparison whose three architectures behave as crudely as a caricature."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from pathlib import Path
from random import Random
from typing import Any

import msgspec

from edge.events import Delivered, Generated, OriginServed, Served
from topologies.manifest import Chosen, DeviceInfo, LinkInfo, Manifest, Verdict
from underlay.energy import Radio
from underlay.faults import AnyFault, Crash, Restart
from underlay.trace import Event, FaultApplied, LinkUsage, MessagesSent, RunEnded, RunStarted, TraceWriter

Timed = tuple[float, str | None, Event]
"""When, on which device (None: the fabric), what."""


def made(t_s: float, id_: str, kind: str = "temperature", size_bytes: int = 50) -> Timed:
    """An observation; its source is the device of its id."""
    return t_s, id_.rpartition(":")[0], Generated(id_, kind, size_bytes, t_event=0.0)


def arrived(t_s: float, id_: str, at: str = "sink", hops: int = 0) -> Timed:
    """It reached a subscriber."""
    return t_s, at, Delivered(id_, hops)


def broke(t_s: float, fault: AnyFault) -> Timed:
    """A fault took effect."""
    return t_s, None, FaultApplied(msgspec.to_builtins(fault))


def manifest(**changes: Any) -> Manifest:
    """Two birdhouses, a hub and a sink in a line; 100 s, of which [10, 90) count."""
    devices = tuple(DeviceInfo(name, role, "esp32-cam") for name, role in _ROLES.items())
    links = tuple(
        LinkInfo(f"{a}-{b}", a, b, "wifi-edge", 1000.0, 10.0, 1.0, 0.0)
        for a, b in (("cam1", "hub"), ("cam2", "hub"), ("hub", "sink"))
    )
    base = Manifest(
        name="by-hand",
        architecture="star",
        seed=7,
        chosen=Chosen("simulation", "simulation", "simulation", "asked for"),
        verdict=Verdict("valid", "the model is the link"),
        duration_s=100.0,
        warmup_s=10.0,
        stop_s=90.0,
        deadline_s=10.0,
        subscribers="storage",
        sink="sink",
        birdhouses=("cam1", "cam2"),
        devices=devices,
        links=links,
        command="birdhouse run by-hand.toml",
    )
    return msgspec.structs.replace(base, **changes)


def write_run(folder: Path, records: Iterable[Timed], run: Manifest | None = None) -> Path:
    """A run's folder with these records in order of time, and `run-started` and `run-ended` around them."""
    run = run or manifest()
    folder.mkdir(parents=True, exist_ok=True)
    run.write(folder)
    with (folder / "trace.jsonl").open("wb") as file:
        writer = TraceWriter(file)
        writer.write(0.0, RunStarted(run.chosen.fabric, run.seed))
        for t_s, device, event in sorted(records, key=lambda record: record[0]):
            writer.write(t_s, event, device)
        writer.write(run.duration_s, RunEnded())
        writer.flush()
    return folder


def caricature(folder: Path, architecture: str, seed: int = 1, **changes: Any) -> Path:
    """Twelve birdhouses on a tree, the hub down from 40 to 65 s, then a relay from 90 to 105 s.

    Star loses a tenth of what waits for the hub and delivers the rest afterwards; caching loses what it does
    not have; gossip goes round.
    """
    rng = Random(f"{architecture} {seed}")
    cams = [f"cam{i}" for i in range(1, 13)]
    relays = ["relay1", "relay2", "relay3"]
    radio = Radio(
        volts=3.3, transmit_ma=190.0, receive_ma=100.0, listen_ma=100.0, sleep_ma=0.01, listen_ratio=0.1
    )
    devices = [
        *(
            DeviceInfo(
                cam, "birdhouse", "esp32-cam", 0.04 + 0.084 * i, 0.92 - 0.10 * (i % 2), radio, 20_000.0
            )
            for i, cam in enumerate(cams)
        ),
        *(
            DeviceInfo(relay, "relay", "raspberry-pi", 0.17 + 0.33 * i, 0.58)
            for i, relay in enumerate(relays)
        ),
        DeviceInfo("hub", "hub", "raspberry-pi", 0.5, 0.32),
        DeviceInfo("sink", "sink", "server", 0.5, 0.05),
    ]
    pairs = [
        *((cam, relays[i // 4]) for i, cam in enumerate(cams)),
        *((a, b) for a, b in itertools.pairwise(cams)),
        *((relay, "hub") for relay in relays),
        ("hub", "sink"),
        ("relay3", "sink"),
    ]
    links = tuple(
        LinkInfo(f"{a}-{b}", a, b, "wifi-edge" if "cam" in a else "ethernet-100m", 1500.0, 15.0, 10.0, 0.08)
        for a, b in pairs
    )
    run = manifest(
        name="caricature",
        architecture=architecture,
        seed=seed,
        duration_s=150.0,
        stop_s=130.0,
        birdhouses=tuple(cams),
        devices=tuple(devices),
        links=links,
        versions={"birdhouse": "0.1.0", "python": "3.11"},
        command=f"birdhouse run caricature.toml --seed {seed}",
        notes=("Collisions on a shared channel are not modelled.",),
        **changes,
    )
    records: list[Timed] = [
        broke(40.0, Crash("hub")),
        broke(65.0, Restart("hub")),
        broke(90.0, Crash("relay1")),
        broke(105.0, Restart("relay1")),
    ]
    for i, cam in enumerate(cams):
        for n in range(125):
            t_s = 5.0 + n + i / 12 + rng.random() * 0.01
            id_ = f"{cam}:{n}"
            kind = "photograph" if n % 20 == 10 else "motion" if n % 7 == 3 else "temperature"
            records.append(made(t_s, id_, kind, 20_000 if kind == "photograph" else 60))
            fate = _fate_s(architecture, rng, t_s, in_first_branch=i < 4)
            if fate is not None:
                slow_s = 0.4 if kind == "photograph" else 0.0
                records.append(arrived(t_s + fate + slow_s, id_, hops=1 + rng.randrange(4)))
    factor = {"star": 1.0, "caching": 1.3, "gossip": 2.6}.get(architecture, 1.1)
    for t in range(1, 150):
        for link in links:
            if ("hub" in (link.a, link.b) and 40 < t <= 65) or (
                "relay1" in (link.a, link.b) and 90 < t <= 105
            ):
                continue
            for source, target in ((link.a, link.b), (link.b, link.a)):
                upward = source == link.a and not (link.a.startswith("cam") and link.b.startswith("cam"))
                busy = factor * (8 if upward else 1 if architecture != "gossip" else 4) * (0.5 + rng.random())
                data = int(500 * busy * (1 if upward or architecture == "gossip" else 0))
                sent = LinkUsage(
                    link.name, source, target, int(6 * busy), data + int(120 * busy), data,
                    airtime_s=0.004 * busy, received_s=0.004 * busy, lost=int(0.5 * busy),
                )  # fmt: skip
                records.append((float(t), None, sent))
        for cam in cams:
            records.append(
                (float(t), cam, MessagesSent("publish", int(3 * factor), 600, True, int(5 * factor)))
            )
            records.append((float(t), cam, MessagesSent("keepalive", 1, 20, False, 2)))
            if architecture == "caching":
                outcome = rng.choice(["hit", "hit", "hit", "validated", "miss", "joined", "stale"])
                records.append((float(t), cam, Served("temperature", outcome, rng.random() * 4, 5.0)))
                if outcome in ("validated", "miss"):
                    records.append((float(t), cam, OriginServed("temperature", "2.05")))
    return write_run(folder, records, run)


def comparison(folder: Path, seeds: Sequence[int] = (1,), **changes: Any) -> list[Path]:
    """Folders of the three architectures for each seed."""
    return [
        caricature(folder / f"{architecture}-{seed}", architecture, seed, **changes)
        for architecture in ("star", "caching", "gossip")
        for seed in seeds
    ]


def _fate_s(architecture: str, rng: Random, t_s: float, *, in_first_branch: bool) -> float | None:
    """Latency of an observation made at `t_s`, or None if it never arrives."""
    base_s = 0.05 + rng.expovariate(8)
    hub_down, relay_down = 40 <= t_s < 65, 90 <= t_s < 105 and in_first_branch
    if architecture.startswith("star"):
        if hub_down or relay_down:
            return None if rng.random() < 0.1 else (67 if hub_down else 106) - t_s + rng.random()
        return base_s
    if architecture.startswith("caching"):
        if hub_down or relay_down:
            return None if rng.random() < 0.3 else 0.5 + rng.random() * 6
        return base_s + rng.random() * 0.8
    if hub_down or relay_down:
        return 0.3 + rng.expovariate(1.5)
    return base_s + 0.15


_ROLES = {"cam1": "birdhouse", "cam2": "birdhouse", "hub": "hub", "sink": "sink"}
