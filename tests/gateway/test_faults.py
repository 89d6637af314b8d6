"""A gateway among failures, seed after seed: what was acknowledged is stored in the end, once, in order."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from random import Random

import pytest

from edge.observation import Observation, ObservationId
from gateway.gateway import GatewayConfig
from gateway.routing.routes import Route
from gateway.routing.routing import Routing
from gateway.routing.targets import Lines
from gateway.spool import Bounds
from tests.gateway.test_gateway import HOSTS, Scene
from underlay.faults import Crash, Heal, Partition, Restart

STEPS = 40
DEVICES = ("cam1", "cam2", "cam3")


KINDS = ("temperature", "humidity", "motion", "photograph")
TERMS = Routing(
    route=(
        Route(to="store", name="paced", kind="humidity", rate_limit_per_s=8.0, rate_burst=2, priority=2),
        Route(to="store", name="lossy", kind="motion", overflow="drop-oldest", spool_max_observations=3),
        Route(to="archive", name="pushed", kind="photograph", rate_limit_per_s=5.0, overflow="block"),
        Route(to="store", name="few", device="cam1", spool_max_observations=6, priority=-1),
    ),
    destination={"archive": Lines("all.jsonl")},
)


class Trouble:
    """What goes wrong, a little at a time."""

    def __init__(self, scene: Scene, rng: Random) -> None:
        self._scene = scene
        self._rng = rng
        self._down: str | None = None

    def go_on(self) -> None:
        """One more step, or none."""
        world, rng = self._scene.world, self._rng
        match rng.randrange(6):
            case 0:
                world.apply(Crash("sink"))
                self._scene.run(rng.uniform(0.0, 0.5))
                world.apply(Restart("sink"))
                self._scene.run(0.1)
            case 1 if self._down is None:
                self._down = rng.choice(HOSTS)
                world.apply(Crash(self._down))
            case 2 if self._down is not None:
                world.apply(Restart(self._down))
                self._down = None
            case 3:
                world.apply(Partition((("sink", "stranger"),)))
            case 4:
                world.apply(Heal())

    def end(self) -> None:
        """Everything is well again."""
        self._scene.world.apply(Heal())
        if self._down is not None:
            self._scene.world.apply(Restart(self._down))
        self._scene.run(120.0)


class Source:
    """A device's queue: the oldest first, and again what was not acknowledged."""

    def __init__(self, device: str, kinds: Sequence[str], rng: Random) -> None:
        self._device = device
        self._kinds = kinds
        self._rng = rng
        self._number = 0
        self._again: list[Observation] = []
        self.acknowledged: dict[str, str] = {}
        """Kinds by id, in the order in which they were."""

    def offer(self, scene: Scene) -> None:
        """What is left of the last time, and some more."""
        for n in range(self._rng.randrange(1, 6)):
            id_ = ObservationId(self._device, self._number)
            kind = self._rng.choice(self._kinds)
            self._again.append(Observation(id_, kind, 1e6 - n, 0.5, b"x" * 40))
            self._number += 1
        batch = self._again
        outcomes = scene.offer(*batch, for_s=self._rng.uniform(0.05, 1.5))
        busy = outcomes.index("busy") if "busy" in outcomes else len(batch)
        self._again = batch[busy:]
        for observation, outcome in zip(batch, outcomes, strict=True):
            if outcome != "busy":
                self.acknowledged.setdefault(str(observation.id), observation.kind)


def suffered(seed: int, config: GatewayConfig, kinds: Sequence[str]) -> tuple[Scene, list[Source]]:
    """Doors bring observations, and repeat those that were not acknowledged, while the gateway and storage
    hosts crash and are cut off from each other; then everything is well again for a while."""
    rng = Random(seed)
    scene = Scene("sharded", config)
    trouble, sources = Trouble(scene, rng), [Source(device, kinds, rng) for device in DEVICES]
    for _ in range(STEPS):
        trouble.go_on()
        rng.choice(sources).offer(scene)
    trouble.end()
    return scene, sources


def once(ids: Iterable[str], device: str) -> list[str]:
    """A device's, without repetition: one that was being written as the gateway died is written again."""
    return list(dict.fromkeys(id_ for id_ in ids if id_.partition(":")[0] == device))


@pytest.mark.sweep(6)
def test_what_was_acknowledged_is_stored_once_and_in_order(seed: int) -> None:
    config = GatewayConfig(bounds=Bounds(bytes_max=3000, batch_max=4))
    scene, sources = suffered(seed, config, ["temperature"])
    for device, source in zip(DEVICES, sources, strict=True):
        assert once(scene.stored, device) == list(source.acknowledged)
    assert scene.world.durable("sink/gateway") == {}


@pytest.mark.sweep(6)
def test_with_rates_priorities_and_overflow_too_but_for_what_gave_way_by_choice(seed: int) -> None:
    config = GatewayConfig(bounds=Bounds(bytes_max=3000, batch_max=4), routing=TERMS)
    scene, sources = suffered(seed, config, KINDS)
    gave_way = {record["id"]: record["route"] for record in scene.told("gave-way")}
    filed = [record["id"] for record in scene.told("destination-has")]
    for device, source in zip(DEVICES, sources, strict=True):
        for ids, into_archive in ((scene.stored, False), (filed, True)):
            taken = [
                id_
                for id_, kind in source.acknowledged.items()
                if (kind == "photograph") == into_archive and id_ not in gave_way
            ]
            assert [id_ for id_ in once(ids, device) if id_ not in gave_way] == taken
        assert all(source.acknowledged.get(id_, "motion") == "motion" for id_ in gave_way)
    assert set(gave_way.values()) <= {"lossy"}
    assert scene.world.durable("sink/gateway") == {}
