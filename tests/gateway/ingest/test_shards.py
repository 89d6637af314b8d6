"""Gateways side by side: every device has one of them, in order, whichever of them fails."""

from __future__ import annotations

import asyncio
import shutil
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from time import monotonic, sleep

import pytest

from edge.events import Stored
from edge.mqtt.messages import CLIENT
from edge.mqtt.model_broker import BrokerConfig
from edge.mqtt.model_client import ModelClient
from edge.mqtt.mosquitto import mosquitto
from edge.mqtt.paho_binding import PahoBinding
from edge.mqtt.session import SessionConfig
from edge.observation import Observation, ObservationId, Observed
from edge.sensor import SensorConfig, Sensors
from edge.sink import Kept
from edge.star import PublishConfig, Star, StarConfig
from gateway.ingest.shards import ShardsConfig, preference, shard_of, shard_plan
from tests.edge.mqtt.loopback import Broker, free_port
from underlay.emulation.loopback import Hosts, Site, loopback_addresses
from underlay.emulation.store_log import Disk
from underlay.faults import AnyFault, Crash, LinkDown, LinkUp, Restart
from underlay.link import LinkSpec
from underlay.messages import Message, Protocol
from underlay.node import Address, Context, Node, Timer
from underlay.plan import BindingPlan, DevicePlan, NodePlan
from underlay.simulation.scenario import plan_of
from underlay.simulation.world import World
from underlay.trace import Record

CAMS = tuple(f"cam{n}" for n in range(1, 9))
GATEWAYS = ("gate1", "gate2", "gate3")
CRASH_S, RESTART_S, OBSERVED_UNTIL_S, END_S = 20.0, 40.0, 60.0, 100.0
RADIO = LinkSpec(rate_kbps=500.0, delay_ms=10.0, loss_ratio=0.02)
WIRE = LinkSpec(rate_kbps=100_000.0, delay_ms=1.0)
SHARDS = 6


class Slow(Node):
    """A sink that takes its time, so that there is always something that is not acknowledged."""

    protocol = Protocol("sink")

    def __init__(self, delay_s: float = 0.3) -> None:
        self._delay_s = delay_s
        self.held = 0
        self.held_max = 0

    def on_message(self, ctx: Context, sender: Address, message: Message) -> None:
        if isinstance(message, Observed):
            self.held += 1
            self.held_max = max(self.held, self.held_max)
            id_ = str(message.observation.id)
            first = ctx.store.get(id_.encode()) is None
            if first:
                ctx.store.put(id_.encode(), b"%.6f" % ctx.now)
            ctx.set_timer((id_, sender, first), self._delay_s)

    def on_timer(self, ctx: Context, timer: Timer) -> None:
        assert isinstance(timer, tuple)
        id_, sender, first = timer
        self.held -= 1
        if first:
            ctx.emit(Stored(id_))
        ctx.send(sender, Kept(id_))


def config(port_session: SessionConfig | None = None) -> ShardsConfig:
    session = port_session or SessionConfig(keepalive_s=5, receive_maximum=5)
    return ShardsConfig(
        GATEWAYS,
        ("hub",),
        CAMS,
        shards=SHARDS,
        deliver_to="sink",
        session=session,
        beat_s=0.5,
        patience_s=2.0,
    )


def simulated(*faults: tuple[float, AnyFault], seed: int = 0) -> World:
    shards = shard_plan(config())
    nodes: dict[str, dict[str, Callable[[], Node]]] = {"hub": {}}
    for gateway in GATEWAYS:
        nodes[gateway] = {"sink": Slow, **{plan.name: plan.make for plan in shards.nodes}}
    for i, cam in enumerate(CAMS):
        sensor = SensorConfig("temperature", 0.5, 5.0 + 0.05 * i, OBSERVED_UNTIL_S, i, seed)
        star = StarConfig(("hub",), PublishConfig(), session=SessionConfig(keepalive_s=5))
        nodes[cam] = {"star": partial(Star, star), "sensors": partial(Sensors, (sensor,), "star")}
    client = BindingPlan(CLIENT, ModelClient, PahoBinding, 1883)
    gates = [(a, b, WIRE) for n, a in enumerate(GATEWAYS) for b in GATEWAYS[n + 1 :]]
    world = World(
        plan_of(
            nodes,
            [*gates, *(("hub", gate, WIRE) for gate in GATEWAYS), *(("hub", cam, RADIO) for cam in CAMS)],
            faults=faults,
            bindings={**{cam: [client] for cam in CAMS}, **dict.fromkeys(GATEWAYS, shards.bindings)},
            programs={"hub": [mosquitto(BrokerConfig())]},
            seed=seed,
            duration_s=END_S,
            route_convergence_s=None,  # a link that is down leads nowhere
        )
    )
    world.run_until(END_S)
    world.finish()
    return world


def of(records: list[Record], event: str) -> list[Record]:
    return [record for record in records if record["event"] == event]


def kept_by_device(records: list[Record]) -> dict[str, list[int]]:
    """What was kept of each device, in the order in which it first was, at whichever gateway."""
    found: dict[str, dict[int, None]] = {}
    for record in sorted(of(records, "stored"), key=lambda record: float(record["t"])):
        id_ = ObservationId.parse(record["id"])
        found.setdefault(id_.device, {})[id_.sequence] = None
    return {device: list(sequences) for device, sequences in found.items()}


def holders(records: list[Record], from_s: float, to_s: float) -> dict[str, set[str]]:
    """Gateways that kept something of each device meanwhile."""
    found: dict[str, set[str]] = {}
    for record in of(records, "stored"):
        if from_s <= float(record["t"]) < to_s:
            found.setdefault(ObservationId.parse(record["id"]).device, set()).add(record["device"])
    return found


def assert_all_in_order(records: list[Record]) -> None:
    made = Counter(ObservationId.parse(record["id"]).device for record in of(records, "generated"))
    kept = kept_by_device(records)
    assert {device: len(sequences) for device, sequences in kept.items()} == made
    for device, sequences in kept.items():
        assert sequences == sorted(sequences), device


def expected(device: str, *, without: str = "") -> set[str]:
    order = preference(shard_of(device, SHARDS), GATEWAYS)
    return {next(gateway for gateway in order if gateway != without)}


def test_every_gateway_has_its_share() -> None:
    firsts = Counter(preference(n, GATEWAYS)[0] for n in range(SHARDS))
    assert set(firsts.values()) == {SHARDS // len(GATEWAYS)}
    assert all(sorted(preference(n, GATEWAYS)) == sorted(GATEWAYS) for n in range(SHARDS))
    spread = Counter(shard_of(f"cam{n}", SHARDS) for n in range(6000))
    assert all(900 < count < 1100 for count in spread.values())


@pytest.mark.sweep(3)
def test_while_all_are_well_each_device_has_its_gateway(seed: int) -> None:
    records = simulated(seed=seed).records()
    assert_all_in_order(records)
    assert holders(records, 10.0, END_S) == {cam: expected(cam) for cam in CAMS}


@pytest.mark.sweep(5)
@pytest.mark.parametrize("dead", GATEWAYS)
def test_a_devices_order_survives_a_gateways_failure_and_return(dead: str, seed: int) -> None:
    records = simulated((CRASH_S, Crash(dead)), (RESTART_S, Restart(dead)), seed=seed).records()
    assert_all_in_order(records)
    assert holders(records, CRASH_S + 12.0, RESTART_S) == {cam: expected(cam, without=dead) for cam in CAMS}
    assert holders(records, RESTART_S + 10.0, END_S) == {cam: expected(cam) for cam in CAMS}


@pytest.mark.sweep(3)
def test_a_gateway_that_reaches_no_broker_is_passed_over(seed: int) -> None:
    """It hears the other gateways, and they hear nothing from it."""
    records = simulated(
        (CRASH_S, LinkDown("hub", "gate1")), (RESTART_S, LinkUp("hub", "gate1")), seed=seed
    ).records()
    assert_all_in_order(records)
    meanwhile = holders(records, CRASH_S + 10.0, RESTART_S)
    assert meanwhile == {cam: expected(cam, without="gate1") for cam in CAMS}


@pytest.mark.sweep(3)
def test_gateways_that_do_not_hear_each_other_lose_nothing(seed: int) -> None:
    """Each thinks itself the only one, and the broker lets one in at a time."""
    pairs = [(a, b) for n, a in enumerate(GATEWAYS) for b in GATEWAYS[n + 1 :]]
    down = [(CRASH_S, LinkDown(a, b)) for a, b in pairs]
    world = simulated(*down, *((RESTART_S, LinkUp(a, b)) for a, b in pairs), seed=seed)
    assert_all_in_order(world.records())


def test_what_is_in_a_gateways_hands_is_bounded_by_the_receive_maximum() -> None:
    """While the sink is slow the broker holds the rest back: five of each of its shards."""
    world = simulated((CRASH_S, Crash("gate2")), (RESTART_S, Restart("gate2")))
    for gateway in GATEWAYS:
        sink = world.node(f"{gateway}/sink")
        assert isinstance(sink, Slow)
        assert 0 < sink.held_max <= 5 * SHARDS


# ------------------------------------------------------------------------------------------ the real programs

REAL_CAMS, REAL_GATEWAYS = CAMS[:4], GATEWAYS[:2]
MADE = 60
"""Observations of each camera."""


class Rapid(Node):
    """A sensor that hands the star so many observations at so many a second."""

    protocol = Protocol("sensors")

    def on_start(self, ctx: Context) -> None:
        ctx.set_timer(0, 0.5)

    def on_timer(self, ctx: Context, timer: Timer) -> None:
        assert isinstance(timer, int)
        id_ = ObservationId(ctx.device, timer)
        ctx.send(f"{ctx.device}/star", Observed(Observation(id_, "temperature", float(timer), 0.0, b"21.5")))
        if timer + 1 < MADE:
            ctx.set_timer(timer + 1, 0.1)


@pytest.mark.needs("mosquitto")
def test_a_gateway_that_is_killed_under_load_is_replaced_in_order(tmp_path: Path) -> None:
    """kill -9 of one of two, with mosquitto and paho: what each camera published is kept, and in its
    order; the other takes over the sessions, and gives them back."""
    port = free_port()
    addresses = loopback_addresses(("hub", *REAL_CAMS, *REAL_GATEWAYS), "127.79.1.1")
    quick = SessionConfig(
        keepalive_s=2, connect_timeout_s=0.5, backoff_base_s=0.1, backoff_max_s=0.3, receive_maximum=5
    )
    shards = ShardsConfig(
        REAL_GATEWAYS, ("hub",), REAL_CAMS, deliver_to="sink", session=quick, beat_s=0.1, patience_s=0.5
    )
    paho = partial(PahoBinding, port=port)
    part = shard_plan(shards, paho, port)
    star = StarConfig(("hub",), PublishConfig(), session=quick)
    camera = DevicePlan(
        (NodePlan("star", partial(Star, star), 7000), NodePlan("sensors", Rapid, 7001)),
        (BindingPlan(CLIENT, ModelClient, paho, port),),
    )
    gateway = DevicePlan((NodePlan("sink", partial(Slow, 0.02), 7002), *part.nodes), part.bindings)
    devices = {**dict.fromkeys(REAL_CAMS, camera), **dict.fromkeys(REAL_GATEWAYS, gateway)}
    dead, other = REAL_GATEWAYS
    broker = Broker(tmp_path / "broker", addresses["hub"], port, BrokerConfig())
    asyncio.run(broker.start())
    try:
        with Hosts(Site(tmp_path, devices, addresses, trace_bytes_max=1 << 24)) as hosts:
            # Its sessions must be there before anybody publishes: the broker keeps nothing for nobody.
            hosts.start(*REAL_GATEWAYS)
            hosts.start(*REAL_CAMS)
            until(lambda: len(kept_on_disk(tmp_path, dead)) >= 20)
            hosts.kill(dead)
            before = len(kept_on_disk(tmp_path, other))
            until(lambda: len(kept_on_disk(tmp_path, other)) >= before + 40)
            hosts.start(dead)
            until(
                lambda: (
                    len({id_ for gate in REAL_GATEWAYS for _, id_ in kept_on_disk(tmp_path, gate)})
                    == MADE * len(REAL_CAMS)
                )
            )
    finally:
        broker.kill()
    everything = sorted(item for gateway in REAL_GATEWAYS for item in kept_on_disk(tmp_path, gateway))
    for camera_name in REAL_CAMS:
        order = dict.fromkeys(id_.sequence for _, id_ in everything if id_.device == camera_name)
        assert list(order) == list(range(MADE)), camera_name


def kept_on_disk(folder: Path, gateway: str) -> list[tuple[float, ObservationId]]:
    """When it was kept and what, as a device that starts now would find it; in that order."""
    log, copy = folder / gateway / "store", folder / f"{gateway}.copy"
    if not log.exists():
        return []
    shutil.copy(log, copy)
    disk = Disk(copy)
    items = list(disk.store("sink").scan())
    disk.close()
    found = ((float(value), ObservationId.parse(key.decode())) for key, value in items)
    return sorted(found, key=lambda item: item[0])


def until(condition: Callable[[], bool]) -> None:
    """Wait for something real to happen."""
    deadline_s = monotonic() + 30.0
    while not condition():
        assert monotonic() < deadline_s
        sleep(0.05)
