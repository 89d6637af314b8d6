"""Subscribers behind caches: whatever breaks on the way, in the end they lack nothing that still exists."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest

from edge.sensor import SensorConfig, Sensors
from edge.sink import Sink
from tests.edge.caching.asking import birdhouse, cache, endpoint, observed, of, subscriber
from underlay.faults import AnyFault, Crash, LinkDown, LinkUp, Pause, Restart, Resume
from underlay.link import LinkSpec
from underlay.messages import Message
from underlay.node import Address, Context, Node
from underlay.simulation.scenario import plan_of
from underlay.simulation.world import World

CAMS = ("cam1", "cam2", "cam3")
RELAYS = ("relay1", "relay2")
GOOD = LinkSpec(rate_kbps=1000.0, delay_ms=10.0)
LOSSY = LinkSpec(rate_kbps=1000.0, delay_ms=10.0, jitter_ms=5.0, loss_ratio=0.05, burst_frames=2.0)
FAIR = LinkSpec(rate_kbps=1000.0, delay_ms=10.0, jitter_ms=5.0, loss_ratio=0.01)
PARENTS = {cam: ("relay1", "relay2", cam) for cam in CAMS}
SENSING_S, END_S = 60.0, 90.0


def world_of(
    faults: tuple[tuple[float, AnyFault], ...] = (),
    link: LinkSpec = LOSSY,
    seed: int = 0,
    kind: str = "temperature",
    period_s: float = 1.0,
    **collector: object,
) -> World:
    """Three cameras, two relays that cache, and a sink that hears both relays."""
    nodes: dict[str, dict[str, Callable[[], Node]]] = {
        relay: {"caching": partial(cache, {cam: (cam,) for cam in CAMS})} for relay in RELAYS
    }
    for n, cam in enumerate(CAMS):
        sensor = SensorConfig(kind, period_s, 2.0 + 0.1 * n, SENSING_S, n, seed)
        nodes[cam] = {
            "caching": partial(birdhouse, 3),
            "sensors": partial(Sensors, (sensor,), "caching"),
        }
    nodes["sink"] = {"caching": partial(subscriber, PARENTS, deliver_to="sink", **collector), "sink": Sink}
    plan = plan_of(
        nodes,
        [(device, relay, link) for relay in RELAYS for device in (*CAMS, "sink")],
        faults=faults,
        bindings={device: [endpoint()] for device in nodes},
        seed=seed,
        duration_s=END_S,
    )
    world = World(plan)
    world.run_until(END_S)
    world.finish()
    return world


def made(world: World) -> list[str]:
    return [record["id"] for record in of(world, "generated")]


def arrived(world: World) -> set[str]:
    return {record["id"] for record in of(world, "delivered") if record["device"] == "sink"}


SCENARIOS: dict[str, tuple[tuple[float, AnyFault], ...]] = {
    "nothing but losses": (),
    "the cache in use crashes for good": ((20.0, Crash("relay1")),),
    "the cache in use is away for a while": ((20.0, Crash("relay1")), (35.0, Restart("relay1"))),
    "one cache after the other": (
        (15.0, Crash("relay1")),
        (30.0, Restart("relay1")),
        (31.0, Crash("relay2")),
        (45.0, Restart("relay2")),
    ),
    "no cache at all for a while": (
        (20.0, Crash("relay1")),
        (20.0, Crash("relay2")),
        (40.0, Restart("relay1")),
        (41.0, Restart("relay2")),
    ),
    "a camera hears nobody for a while": (
        (20.0, LinkDown("cam1", "relay1")),
        (20.0, LinkDown("cam1", "relay2")),
        (40.0, LinkUp("cam1", "relay1")),
        (40.0, LinkUp("cam1", "relay2")),
    ),
    "the cache in use stands still": ((20.0, Pause("relay1")), (40.0, Resume("relay1"))),
    "the sink loses power": ((20.0, Crash("sink")), (40.0, Restart("sink"))),
}


@pytest.mark.sweep(3)
@pytest.mark.parametrize("faults", SCENARIOS.values(), ids=SCENARIOS.keys())
def test_everything_arrives(faults: tuple[tuple[float, AnyFault], ...], seed: int) -> None:
    world = world_of(faults, seed=seed)
    assert len(made(world)) == 3 * 58
    assert sorted(set(made(world)) - arrived(world)) == []


@pytest.mark.sweep(2)
def test_everything_arrives_by_polling(seed: int) -> None:
    world = world_of(SCENARIOS["the cache in use is away for a while"], seed=seed, observe=False)
    assert sorted(set(made(world)) - arrived(world)) == []


@pytest.mark.sweep(2)
def test_photographs_arrive(seed: int) -> None:
    faults = SCENARIOS["the cache in use is away for a while"]
    world = world_of(faults, link=FAIR, seed=seed, kind="photograph", period_s=10.0)
    assert len(made(world)) == 3 * 6
    assert sorted(set(made(world)) - arrived(world)) == []


@pytest.mark.sweep(3)
def test_a_camera_that_restarts_loses_only_what_was_not_fetched(seed: int) -> None:
    """What it observes in its second life arrives, though its positions are new."""
    world = world_of(((20.0, Crash("cam1")), (30.0, Restart("cam1"))), seed=seed)
    missing = set(made(world)) - arrived(world)
    lost_at_s = [record["t"] for record in of(world, "generated") if record["id"] in missing]
    assert all(10.0 < t_s < 20.0 for t_s in lost_at_s), lost_at_s
    assert len(missing) <= 5


def test_a_sink_that_restarts_does_not_fetch_again_what_it_keeps() -> None:
    world = world_of(((50.0, Crash("sink")), (55.0, Restart("sink"))), link=GOOD)
    ids = [record["id"] for record in of(world, "delivered")]
    assert len(ids) - len(set(ids)) <= len(CAMS)
    assert {record["id"] for record in of(world, "stored")} == set(made(world))


def test_the_cameras_are_asked_by_one_cache_at_a_time() -> None:
    """Without faults nobody but the first relay ever asks."""
    world = world_of(link=GOOD)
    asking = {r["device"] for r in of(world, "messages-sent") if r["message"] == "RequestPacket"}
    assert asking == {"sink", "relay1"}
    assert not of(world, "session-changed")


def test_without_faults_an_observation_costs_one_notification_a_hop() -> None:
    world = world_of(link=GOOD)
    sent = sum(record["count"] for record in of(world, "messages-sent") if record["payload"])
    assert sent <= 2 * len(made(world)) + 2 * len(CAMS)


def test_same_seed_same_trace() -> None:
    faults = SCENARIOS["one cache after the other"]
    assert world_of(faults, seed=7).records() == world_of(faults, seed=7).records()


class Swamp(Node):
    """Tells its device's caching node more than its log can hold."""

    def on_start(self, ctx: Context) -> None:
        ctx.set_timer("burst", 5.0)

    def on_message(self, ctx: Context, sender: Address, message: Message) -> None:
        """Nothing is said to it."""

    def on_timer(self, ctx: Context, timer: object) -> None:
        for sequence in range(30):
            ctx.send(f"{ctx.device}/caching", observed(sequence, bytes(400), by=ctx.device))


def test_a_burst_arrives_though_its_notifications_overtake_the_network() -> None:
    slow = LinkSpec(rate_kbps=30.0, delay_ms=20.0, queue_bytes=3000)
    plan = plan_of(
        {
            "cam": {"caching": birdhouse, "sensors": Swamp},
            "relay": {"caching": partial(cache, {"cam": ("cam",)})},
            "sink": {
                "caching": partial(subscriber, {"cam": ("relay", "cam")}, deliver_to="sink"),
                "sink": Sink,
            },
        },
        [("cam", "relay", slow), ("relay", "sink", slow)],
        bindings={device: [endpoint()] for device in ("cam", "relay", "sink")},
    )
    world = World(plan)
    world.run_until(60.0)
    assert len({record["id"] for record in of(world, "delivered")}) == 30
