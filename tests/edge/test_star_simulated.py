"""The star on the simulation: real links, modelled TCP, sensors, and a hub that loses power."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import pytest

from edge.mqtt.messages import CLIENT
from edge.mqtt.model_broker import BrokerConfig
from edge.mqtt.model_client import ModelClient
from edge.mqtt.mosquitto import mosquitto
from edge.mqtt.packets import PORT
from edge.mqtt.paho_binding import PahoBinding
from edge.mqtt.session import SessionConfig
from edge.sensor import SensorConfig, Sensors
from edge.sink import Sink
from edge.star import PublishConfig, Star, StarConfig, SubscribeConfig
from underlay.faults import AnyFault, Crash, Restart
from underlay.link import LinkSpec
from underlay.node import Node
from underlay.plan import BindingPlan, Plan
from underlay.simulation.scenario import plan_of
from underlay.simulation.world import World
from underlay.trace import Record

CAMS = ("cam1", "cam2", "cam3", "cam4")
CRASH_S, RESTART_S = 30.0, 60.0
OBSERVED_UNTIL_S, END_S = 90.0, 130.0
LOSSY = LinkSpec(rate_kbps=500.0, delay_ms=10.0, loss_ratio=0.05)
HUB_FAILS = ((CRASH_S, Crash("hub")), (RESTART_S, Restart("hub")))


def star_plan(
    seed: int,
    *,
    faults: tuple[tuple[float, AnyFault], ...] = (),
    brokers: tuple[str, ...] = ("hub",),
    publish: PublishConfig = PublishConfig(),  # noqa: B008 - frozen
    kind: str = "temperature",
    subscribers: Mapping[str, SubscribeConfig] | None = None,
) -> Plan:
    """Cameras and sink around the hub, and a second way round through `standby`."""
    session = SessionConfig(keepalive_s=5)
    client = BindingPlan(CLIENT, ModelClient, PahoBinding, PORT)
    sink = StarConfig(brokers, subscribe=SubscribeConfig(deliver_to="sink"), session=session)
    nodes: dict[str, dict[str, Callable[[], Node]]] = {
        "hub": {},
        "standby": {},
        "sink": {"sink": Sink, "star": partial(Star, sink)},
    }
    for i, cam in enumerate(CAMS):
        config = StarConfig(brokers, publish, (subscribers or {}).get(cam), session)
        sensor = SensorConfig(kind, 2.0, 5.0 + 0.1 * i, OBSERVED_UNTIL_S, i, seed)
        nodes[cam] = {"star": partial(Star, config), "sensors": partial(Sensors, (sensor,), "star")}
    around = [(centre, device, LOSSY) for centre in ("hub", "standby") for device in (*CAMS, "sink")]
    return plan_of(
        nodes,
        around,
        faults=faults,
        bindings={device: [client] for device in (*CAMS, "sink")},
        programs={broker: [mosquitto(BrokerConfig())] for broker in brokers},
        seed=seed,
        duration_s=END_S,
    )


class Outcome:
    """What the trace of a run says."""

    def __init__(self, plan: Plan) -> None:
        world = World(plan)
        world.run_until(plan.duration_s)
        world.finish()
        self.records = world.records()
        self.made_s = {record["id"]: record["t"] for record in self.of("generated")}
        self.arrived_s: dict[str, float] = {}
        for record in self.of("delivered"):
            if record["device"] == "sink":
                self.arrived_s.setdefault(record["id"], record["t"])

    def of(self, event: str) -> list[Record]:
        return [record for record in self.records if record["event"] == event]

    def arrivals_between(self, from_s: float, to_s: float) -> list[str]:
        return [name for name, t_s in self.arrived_s.items() if from_s <= t_s < to_s]


@pytest.mark.sweep(3)
def test_on_lossy_links_everything_arrives_and_is_stored(seed: int) -> None:
    outcome = Outcome(star_plan(seed))
    assert set(outcome.arrived_s) == set(outcome.made_s)
    assert {record["id"] for record in outcome.of("stored")} == set(outcome.made_s)


@pytest.mark.sweep(5)
def test_while_the_hub_is_down_delivery_stops_and_afterwards_the_queues_arrive(seed: int) -> None:
    outcome = Outcome(star_plan(seed, faults=HUB_FAILS))
    assert outcome.arrivals_between(CRASH_S + 0.1, RESTART_S) == []
    made_meanwhile = [name for name, t_s in outcome.made_s.items() if CRASH_S < t_s < RESTART_S]
    assert len(made_meanwhile) == len(CAMS) * 15
    assert set(outcome.arrived_s) == set(outcome.made_s)


@pytest.mark.sweep(5)
def test_with_a_standby_delivery_goes_on(seed: int) -> None:
    outcome = Outcome(star_plan(seed, faults=HUB_FAILS, brokers=("hub", "standby")))
    detected_s = CRASH_S + 1.5 * 5 + 15.0
    assert len(outcome.arrivals_between(detected_s, RESTART_S)) > 0
    assert set(outcome.arrived_s) == set(outcome.made_s)


def test_images_cross_the_star_whole() -> None:
    outcome = Outcome(star_plan(0, kind="photograph"))
    assert set(outcome.arrived_s) == set(outcome.made_s)


def test_when_all_subscribe_everybody_gets_what_the_others_observe() -> None:
    outcome = Outcome(star_plan(0, subscribers=dict.fromkeys(CAMS, SubscribeConfig())))
    delivered = {(record["id"], record["device"]) for record in outcome.of("delivered")}
    wanted = {(name, d) for name in outcome.made_s for d in (*CAMS, "sink") if not name.startswith(d)}
    assert delivered == wanted


def test_a_short_queue_loses_the_oldest_and_says_so() -> None:
    outcome = Outcome(star_plan(0, faults=HUB_FAILS, publish=PublishConfig(queue_max=5)))
    lost = set(outcome.made_s) - set(outcome.arrived_s)
    assert lost
    # One that is discarded may still arrive: a broker without subscribers retains the last that it refused.
    assert {record["id"] for record in outcome.of("discarded")} >= lost


def test_the_same_seed_gives_the_same_trace() -> None:
    first, second = (Outcome(star_plan(3, faults=HUB_FAILS)).records for _ in range(2))
    assert first == second
