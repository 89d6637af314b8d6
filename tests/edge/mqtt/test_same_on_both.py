"""The star node cannot tell the model from paho-mqtt and mosquitto: one scenario, the same local messages."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Literal

import pytest

from edge.events import SessionChanged, Stored
from edge.mqtt.messages import Subscribed
from edge.mqtt.model_broker import BrokerConfig, ModelBroker
from edge.mqtt.model_client import ModelClient
from edge.mqtt.packets import MQTT_3_1_1, MQTT_5
from edge.mqtt.session import SessionConfig
from edge.observation import Observation, ObservationId, Observed
from edge.sink import Sink
from edge.star import PublishConfig, Star, StarConfig, SubscribeConfig
from tests.edge.mqtt.loopback import Loopback, brokers, free_port, needs_mosquitto, until
from tests.edge.mqtt.wire import Wire
from underlay.messages import Message
from underlay.node import Node

Qos = Literal[0, 1, 2]


@needs_mosquitto
@pytest.mark.parametrize("version", [MQTT_3_1_1, MQTT_5], ids=["MQTT 3.1.1", "MQTT 5"])
@pytest.mark.parametrize("qos", [0, 1, 2])
def test_the_same_scenario_gives_the_same_local_messages(tmp_path: Path, qos: Qos, version: int) -> None:
    """Observe, lose the broker to a kill -9, come back to a broker that forgot everybody, observe again."""
    modelled = modelled_scenario(qos, version)
    real = asyncio.run(real_scenario(tmp_path, qos, version))
    assert real == modelled


def devices(qos: Qos) -> dict[str, dict[str, Callable[[], Node]]]:
    session = SessionConfig(backoff_base_s=1.0)
    cam = StarConfig(brokers=("hub",), publish=PublishConfig(qos=qos), session=session)
    sink = StarConfig(
        brokers=("hub",), subscribe=SubscribeConfig(qos=qos, deliver_to="sink"), session=session
    )
    return {"cam": {"star": partial(Star, cam)}, "sink": {"star": partial(Star, sink), "sink": Sink}}


def observed(sequence: int) -> Observed:
    return Observed(Observation(ObservationId("cam", sequence), "motion", 0.0, 0.0, bytes(40)))


def modelled_scenario(qos: Qos, version: int) -> dict[str, list[Message]]:
    wire = Wire()
    wire.add("hub/mosquitto", partial(ModelBroker, BrokerConfig()))
    for device, nodes in devices(qos).items():
        wire.add(f"{device}/@mqtt", partial(ModelClient, version))
        for name, make in nodes.items():
            wire.add(f"{device}/{name}", make)
    wire.run(1.0)
    for sequence in range(3):
        wire.tell("cam/star", "cam/sensors", observed(sequence))
        wire.run(1.0)
    wire.crash("hub")
    wire.reset("hub")
    wire.restart("hub")
    wire.run(3.0)
    for sequence in range(3, 6):
        wire.tell("cam/star", "cam/sensors", observed(sequence))
        wire.run(1.0)
    assert len(wire.events_of(Stored)) == 6
    return wire.local


async def real_scenario(folder: Path, qos: Qos, version: int) -> dict[str, list[Message]]:
    port = free_port()
    async with brokers(folder, port, "127.0.0.1") as [hub]:
        world = Loopback({"hub": "127.0.0.1"}, port, version)
        for device, nodes in devices(qos).items():
            await world.add(device, nodes)
        await until(lambda: ready(world, times=1))
        for sequence in range(6):
            if sequence == 3:
                hub.kill()
                await hub.start()
                await until(lambda: ready(world, times=2))
            world.tell("cam/star", "cam/sensors", observed(sequence))
            await until(lambda count=sequence + 1: settled(world, qos, count))  # type: ignore[misc]
        transcript = {device: list(messages) for device, messages in world.local.items()}
        await world.close()
    return transcript


def ready(world: Loopback, times: int) -> bool:
    """Both devices were connected so often, and the sink subscribed."""
    connected = [e for e in world.events_of(SessionChanged) if e.state == "connected"]
    subscribed = [m for m in world.local.get("sink", ()) if isinstance(m, Subscribed)]
    return len(connected) == 2 * times and len(subscribed) == times


def settled(world: Loopback, qos: Qos, count: int) -> bool:
    """So many are stored, and every acknowledgement has been said."""
    names = [type(message).__name__ for messages in world.local.values() for message in messages]
    acknowledged = names.count("Acknowledge") == count if qos == 1 else True
    return len(world.events_of(Stored)) == count and names.count("Published") == count and acknowledged
