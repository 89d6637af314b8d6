"""A gateway among failures, seed after seed: what was acknowledged is stored in the end, once, in order."""

from __future__ import annotations

from collections import defaultdict
from random import Random

import pytest

from edge.observation import Observation, ObservationId
from gateway.gateway import GatewayConfig
from gateway.spool import Bounds
from tests.gateway.test_gateway import HOSTS, Scene
from underlay.faults import Crash, Heal, Partition, Restart

STEPS = 40
DEVICES = ("cam1", "cam2", "cam3")


@pytest.mark.sweep(6)
def test_what_was_acknowledged_is_stored_once_and_in_order(seed: int) -> None:
    """Doors and a dissemination bring observations, and repeat those that were not acknowledged, while the
    gateway and storage hosts crash and are cut off from each other."""
    rng = Random(seed)
    scene = Scene("sharded", GatewayConfig(bounds=Bounds(bytes_max=3000, batch_max=4)))
    numbers = dict.fromkeys(DEVICES, 0)
    again: dict[str, list[Observation]] = {device: [] for device in DEVICES}
    acknowledged: dict[str, list[str]] = defaultdict(list)
    down: str | None = None
    for _ in range(STEPS):
        match rng.randrange(6):
            case 0:
                scene.world.apply(Crash("sink"))
                scene.run(rng.uniform(0.0, 0.5))
                scene.world.apply(Restart("sink"))
                scene.run(0.1)
            case 1 if down is None:
                down = rng.choice(HOSTS)
                scene.world.apply(Crash(down))
            case 2 if down is not None:
                scene.world.apply(Restart(down))
                down = None
            case 3:
                scene.world.apply(Partition((("sink", "stranger"),)))
            case 4:
                scene.world.apply(Heal())
        device = rng.choice(DEVICES)
        fresh = [
            Observation(ObservationId(device, numbers[device] + n), "temperature", 1e6 - n, 0.5, b"x" * 40)
            for n in range(rng.randrange(1, 6))
        ]
        numbers[device] += len(fresh)
        batch = again[device] + fresh  # as a device's own queue would have it: the oldest first
        outcomes = scene.offer(*batch, for_s=rng.uniform(0.05, 1.5))
        busy = outcomes.index("busy") if "busy" in outcomes else len(batch)
        again[device] = batch[busy:]
        for observation, outcome in zip(batch, outcomes, strict=True):
            if outcome != "busy" and str(observation.id) not in acknowledged[device]:
                acknowledged[device].append(str(observation.id))
    scene.world.apply(Heal())
    if down is not None:
        scene.world.apply(Restart(down))
    scene.run(120.0)

    stored: dict[str, list[str]] = defaultdict(list)
    for id_ in scene.stored:
        device = id_.partition(":")[0]
        if id_ not in stored[device]:  # one that was being written as the gateway died is written again
            stored[device].append(id_)
    assert dict(stored) == dict(acknowledged)
    assert scene.world.durable("sink/gateway") == {}
