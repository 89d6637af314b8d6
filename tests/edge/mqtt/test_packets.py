"""The sizes of simulated packets: by the standard's arithmetic, and against what paho and mosquitto really
send."""

from __future__ import annotations

import asyncio
from functools import partial
from pathlib import Path
from typing import Literal

import pytest

from edge.events import Stored
from edge.mqtt.frames import packet_size
from edge.mqtt.model_broker import BrokerConfig, ModelBroker
from edge.mqtt.model_client import ModelClient
from edge.mqtt.packets import (
    MQTT_3_1_1,
    MQTT_5,
    ConnackPacket,
    ConnectPacket,
    Packet,
    PingreqPacket,
    PubackPacket,
    PublishPacket,
    PubrelPacket,
    SubackPacket,
    SubscribePacket,
)
from edge.observation import Observation, ObservationId, Observed
from edge.sink import Sink
from edge.star import PublishConfig, Star, StarConfig, SubscribeConfig
from tests.edge.mqtt.loopback import Call, Loopback, brokers, free_port, needs_mosquitto, relay, until
from tests.edge.mqtt.wire import Wire

TOPIC = "birdhouse/ab"
PAYLOAD = bytes(32)


def publish(version: int, qos: int, payload: bytes = PAYLOAD) -> PublishPacket:
    return PublishPacket(1, version, 7 if qos else 0, TOPIC, payload, qos, retain=False)


@pytest.mark.parametrize(
    ("packet", "size"),
    [
        pytest.param(publish(MQTT_3_1_1, 0), 48, id="PUBLISH of 32 bytes on a topic of 12, QoS 0"),
        pytest.param(publish(MQTT_3_1_1, 1), 50, id="PUBLISH of QoS 1 adds a packet identifier"),
        pytest.param(publish(MQTT_5, 1), 51, id="PUBLISH of MQTT 5 adds an empty property list"),
        pytest.param(publish(MQTT_3_1_1, 0, bytes(113)), 129, id="remaining length 127 takes one byte"),
        pytest.param(publish(MQTT_3_1_1, 0, bytes(114)), 131, id="remaining length 128 takes two"),
        pytest.param(publish(MQTT_3_1_1, 0, bytes(16_370)), 16_388, id="remaining length 16384 takes three"),
        pytest.param(PubackPacket(1, 7), 4, id="PUBACK"),
        pytest.param(PubackPacket(1, 7, 0x10), 5, id="PUBACK with a reason"),
        pytest.param(PubrelPacket(1, 7), 4, id="PUBREL"),
        pytest.param(PingreqPacket(1), 2, id="PINGREQ"),
        pytest.param(ConnectPacket(1, MQTT_3_1_1, "cam1", False, 15, 60), 18, id="CONNECT"),
        pytest.param(ConnectPacket(1, MQTT_5, "cam1", False, 15, 60), 24, id="CONNECT with session expiry"),
        pytest.param(ConnectPacket(1, MQTT_5, "cam1", False, 15, 60, 20), 27, id="CONNECT with both"),
        pytest.param(ConnackPacket(1, MQTT_3_1_1, False, 20), 4, id="CONNACK"),
        pytest.param(ConnackPacket(1, MQTT_5, False, 20), 11, id="CONNACK with mosquitto's properties"),
        pytest.param(SubscribePacket(1, MQTT_3_1_1, 1, "b/+/+", 1, True, True), 12, id="SUBSCRIBE"),
        pytest.param(SubackPacket(1, MQTT_5, 1, 1), 6, id="SUBACK of MQTT 5"),
    ],
)
def test_size_by_the_standard(packet: Packet, size: int) -> None:
    assert packet.wire_size() == size


@needs_mosquitto
@pytest.mark.parametrize("version", [MQTT_3_1_1, MQTT_5], ids=["MQTT 3.1.1", "MQTT 5"])
@pytest.mark.parametrize("qos", [0, 1, 2])
def test_real_connections_carry_the_same_packets_of_the_same_sizes(
    tmp_path: Path, qos: Literal[0, 1, 2], version: int
) -> None:
    """Every packet of paho and of mosquitto, each way and in order, is one of the models'."""
    assert asyncio.run(recorded(tmp_path, qos, version)) == modelled(qos, version)


PAYLOADS = (bytes(10), bytes(60), bytes(3000))
Conversation = list[tuple[str, int]]
"""Type and size of each packet."""


def configs(qos: Literal[0, 1, 2]) -> dict[str, StarConfig]:
    return {
        "sink": StarConfig(("hub",), subscribe=SubscribeConfig(qos, "sink")),
        "cam": StarConfig(("hub",), publish=PublishConfig(qos)),
    }


def observed(sequence: int) -> Observed:
    return Observed(Observation(ObservationId("cam", sequence), "motion", 0.0, 0.0, PAYLOADS[sequence]))


def modelled(qos: Literal[0, 1, 2], version: int) -> dict[str, Conversation]:
    wire = Wire()
    wire.add("hub/mosquitto", partial(ModelBroker, BrokerConfig()))
    for device, config in configs(qos).items():
        wire.add(f"{device}/@mqtt", partial(ModelClient, version))
        wire.add(f"{device}/sink", Sink)
        wire.add(f"{device}/star", partial(Star, config))
        wire.run(1.0)
    for sequence in range(len(PAYLOADS)):
        wire.tell("cam/star", "cam/sensors", observed(sequence))
        wire.run(1.0)
    found: dict[str, Conversation] = {}
    for sender, receiver, packet in wire.packets:
        size = packet.wire_size()
        assert size is not None
        found.setdefault(f"{sender} > {receiver}", []).append((type(packet).__name__, size))
    return found


async def recorded(folder: Path, qos: Literal[0, 1, 2], version: int) -> dict[str, Conversation]:
    broker_port, relay_port = free_port(), free_port()
    async with brokers(folder, broker_port, "127.0.0.1"), relay(relay_port, broker_port) as calls:
        world = Loopback({"hub": "127.0.0.1"}, relay_port, version)
        for device, config in configs(qos).items():
            await world.add(device, {"sink": Sink, "star": partial(Star, config)})
            # CONNACK, and for the sink SUBACK: then the other may come.
            packets = 2 if config.subscribe else 1
            await until(lambda n=packets: len(split(calls[-1].down)) == n if calls else False)  # type: ignore[misc]
        for sequence in range(len(PAYLOADS)):
            world.tell("cam/star", "cam/sensors", observed(sequence))
            await until(lambda n=sequence + 1: settled(world, calls, n, qos))  # type: ignore[misc]
        sink, cam = calls
        found = {
            "sink > hub": split(sink.up),
            "hub > sink": split(sink.down),
            "cam > hub": split(cam.up),
            "hub > cam": split(cam.down),
        }
        await world.close()
    return found


def settled(world: Loopback, calls: list[Call], count: int, qos: int) -> bool:
    """So many are stored, and their handshakes are over on both sides."""
    sink, cam = calls
    acknowledged = [name for name, _ in split(cam.down) + split(sink.up)]
    last = ("none", "PubackPacket", "PubcompPacket")[qos]
    over = qos == 0 or acknowledged.count(last) == 2 * count
    return len(world.events_of(Stored)) == count and over


def split(data: bytes | bytearray) -> Conversation:
    """The whole packets in a byte stream."""
    found = []
    while (size := packet_size(data)) is not None and size <= len(data):
        found.append((NAMES[data[0] >> 4], size))
        data = data[size:]
    return found


NAMES = {
    1: "ConnectPacket",
    2: "ConnackPacket",
    3: "PublishPacket",
    4: "PubackPacket",
    5: "PubrecPacket",
    6: "PubrelPacket",
    7: "PubcompPacket",
    8: "SubscribePacket",
    9: "SubackPacket",
}
