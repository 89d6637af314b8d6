"""MQTT topics as destinations: published once the broker has it, each device's in order, whatever fails."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections import defaultdict
from functools import partial
from pathlib import Path
from random import Random

import pytest

from edge.mqtt.messages import CLIENT, Acknowledge, Connect, Connected, Disconnected, Received, Subscribe
from edge.mqtt.model_broker import BrokerConfig
from edge.mqtt.model_client import ModelClient
from edge.mqtt.mosquitto import mosquitto
from edge.mqtt.packets import PORT
from edge.mqtt.paho_binding import PahoBinding
from gateway.destinations.topics import topics_binding
from gateway.gateway import GatewayConfig
from gateway.messages import DestinationStates
from gateway.routing.routing import Routing
from gateway.routing.targets import Topic
from tests.edge.mqtt.loopback import Broker, free_port
from tests.gateway.destinations.rapid import DEVICES, MADE, rapid_gateway, until
from tests.gateway.test_gateway import Scene, ids, made, seen
from underlay.emulation.loopback import Hosts, Site, loopback_addresses
from underlay.faults import Crash, LinkDown, LinkUp, Restart
from underlay.messages import Message, Protocol
from underlay.node import Address, Context, Node, Timer
from underlay.plan import BindingPlan, DevicePlan, NodePlan

ROUTING = Routing(destination={"garden": Topic("garden/{kind}/{device}")}, unmatched="garden")


class Listener(Node):
    """Subscribes to everything, and remembers what it got."""

    protocol = Protocol("listener")

    def __init__(self) -> None:
        self.got: list[tuple[str, str]] = []
        """Topic and id."""

    def on_start(self, ctx: Context) -> None:
        ctx.send(CLIENT, Connect("hub", ctx.device, False, 15, 3600, 5.0))

    def on_message(self, ctx: Context, sender: Address, message: Message) -> None:
        match message:
            case Connected():
                ctx.send(CLIENT, Subscribe("hub", "garden/#", 1))
            case Disconnected():
                ctx.set_timer("again", 0.5)
            case Received(_, token, topic, payload) if token is not None:
                said = json.loads(payload)
                self.got.append((topic, f"{said['device']}:{said['sequence']}"))
                ctx.send(CLIENT, Acknowledge("hub", token))

    def on_timer(self, ctx: Context, timer: Timer) -> None:
        self.on_start(ctx)


class Garden(Scene):
    """And a hub with a broker, and somebody who listens there."""

    def __init__(self, routing: Routing = ROUTING) -> None:
        broker = mosquitto(BrokerConfig(autosave_on_changes=True))
        client = BindingPlan(CLIENT, ModelClient, PahoBinding, PORT)
        listener = DevicePlan((NodePlan("listener", Listener, 7005),), (client,))
        more = {"hub": DevicePlan(programs=(broker,)), "listener": listener}
        super().__init__(config=GatewayConfig(routing=routing), more=more)

    @property
    def got(self) -> list[tuple[str, str]]:
        node = self.world.node("listener/listener")
        assert isinstance(node, Listener)
        return node.got


def test_each_is_published_under_a_topic_of_its_own() -> None:
    scene = Garden()
    scene.offer(
        made("cam1", 1, "motion"), made("cam2", 7, "temperature"), made("cam1", 2, "motion"), for_s=2.0
    )
    assert sorted(scene.got) == [
        ("garden/motion/cam1", "cam1:1"),
        ("garden/motion/cam1", "cam1:2"),
        ("garden/temperature/cam2", "cam2:7"),
    ]
    assert scene.stored == []
    assert scene.world.durable("sink/gateway") == {}


def test_more_than_the_broker_takes_at_a_time_wait_for_each_other() -> None:
    scene = Garden()
    some = [made(f"cam{n}", k, "motion") for n in range(60) for k in range(3)]
    scene.offer(*some, for_s=5.0)
    assert sorted(id_ for _, id_ in scene.got) == sorted(ids(some))


def test_a_broker_that_is_away_is_said_and_waited_for() -> None:
    scene = Garden()
    scene.world.apply(Crash("hub"))
    some = seen(1, 2, 3)
    assert scene.offer(*some, for_s=60.0) == ["kept"] * 3
    (state,) = [each for each in scene.ask(DestinationStates()) if each.name == "garden"]
    assert (state.type, state.waiting) == ("mqtt", 3)
    assert "no connection to the broker on hub" in state.trouble
    scene.world.apply(Restart("hub"))
    scene.run(40.0)
    assert [id_ for _, id_ in scene.got] == ids(some)
    (state,) = [each for each in scene.ask(DestinationStates()) if each.name == "garden"]
    assert (state.delivered, state.trouble) == (3, "")


@pytest.mark.sweep(6)
def test_nothing_that_was_acknowledged_is_missing_or_out_of_order(seed: int) -> None:
    """Gateway and link fail again and again; what comes twice is recognised by its id."""
    rng = Random(seed)
    scene = Garden()
    offered: dict[str, list[str]] = defaultdict(list)
    for n in range(30):
        match rng.randrange(5):
            case 0:
                scene.world.apply(Crash("sink"))
                scene.run(rng.uniform(0.0, 0.3))
                scene.world.apply(Restart("sink"))
                scene.run(0.1)
            case 1:
                scene.world.apply(LinkDown("hub", "sink"))
            case 2:
                scene.world.apply(LinkUp("hub", "sink"))
        device = rng.choice(("cam1", "cam2", "cam3"))
        some = [made(device, 10 * n + k, "motion") for k in range(rng.randrange(1, 6))]
        assert set(scene.offer(*some, for_s=rng.uniform(0.02, 1.0))) == {"kept"}
        offered[device] += ids(some)
    scene.world.apply(LinkUp("hub", "sink"))
    scene.run(120.0)
    heard: dict[str, list[str]] = defaultdict(list)
    for _, id_ in scene.got:
        if id_ not in heard[id_.partition(":")[0]]:
            heard[id_.partition(":")[0]].append(id_)
    assert heard == offered
    assert scene.world.durable("sink/gateway") == {}


# ---------------------------------------------------------------------------------- mosquitto and its client


@pytest.mark.needs("mosquitto_sub")
@pytest.mark.needs("mosquitto")
def test_mosquittos_client_gets_everything_in_order_though_gateway_and_broker_are_killed(
    tmp_path: Path,
) -> None:
    port = free_port()
    addresses = loopback_addresses(("hub", "gate", "store1"), "127.79.2.1")
    plan = rapid_gateway(ROUTING, (topics_binding(partial(PahoBinding, port=port), port),))
    broker = Broker(tmp_path / "broker", addresses["hub"], port, BrokerConfig(autosave_on_changes=True))
    asyncio.run(broker.start())
    arguments = ["-h", addresses["hub"], "-p", str(port), "-i", "test", "-c", "-q", "1", "-t", "garden/#"]
    heard = tmp_path / "heard"
    with heard.open("wb") as out:
        listener = subprocess.Popen(["mosquitto_sub", *arguments, "-F", "%p"], stdout=out)
    try:
        with Hosts(Site(tmp_path, {"gate": plan}, addresses)) as hosts:
            hosts.start("gate")
            until(lambda: heard.read_bytes().count(b"\n") >= 60)
            hosts.kill("gate")
            hosts.start("gate")
            until(lambda: heard.read_bytes().count(b"\n") >= 150)
            broker.kill()
            asyncio.run(broker.start())
            until(lambda: len(read(heard)) == MADE * len(DEVICES))
    finally:
        listener.kill()
        listener.wait()
        broker.kill()
    for device in DEVICES:
        assert [n for name, n in read(heard) if name == device] == list(range(MADE))


def read(heard: Path) -> dict[tuple[str, int], None]:
    """By device and number, in the order in which each first came."""
    found: dict[tuple[str, int], None] = {}
    for line in heard.read_text().splitlines():
        said = json.loads(line)
        found.setdefault((said["device"], said["sequence"]))
    return found
