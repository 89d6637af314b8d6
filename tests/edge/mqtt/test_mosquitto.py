"""The star with the real broker and clients: standard tools see it, and it survives what the broker does."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TypeVar

import msgspec
import pytest

from edge.events import SessionChanged, Stored
from edge.mqtt.messages import (
    Acknowledge,
    Connect,
    Connected,
    Disconnected,
    Publish,
    Published,
    Received,
    Subscribed,
)
from edge.mqtt.model_broker import BrokerConfig
from edge.mqtt.mosquitto import configuration, mosquitto
from edge.mqtt.session import SessionConfig
from edge.observation import Observation, ObservationId, Observed
from edge.sink import Kept, Sink
from edge.star import PublishConfig, Star, StarConfig, SubscribeConfig
from tests.edge.mqtt.loopback import Loopback, brokers, free_port, needs_mosquitto, until
from underlay.messages import Message
from underlay.node import Address, Context, Node

HUB, STANDBY = "127.0.0.1", "127.0.0.2"
QUICK = SessionConfig(keepalive_s=1, connect_timeout_s=0.5, backoff_base_s=0.1, backoff_max_s=0.3)

pytestmark = needs_mosquitto


def observed(sequence: int, kind: str = "motion", size_bytes: int = 40) -> Observed:
    return Observed(Observation(ObservationId("cam", sequence), kind, 0.0, 0.0, bytes(size_bytes)))


def cam(*names: str, publish: PublishConfig = PublishConfig()) -> dict[str, Callable[[], Node]]:  # noqa: B008 - frozen
    return {"star": partial(Star, StarConfig(names or ("hub",), publish=publish, session=QUICK))}


def sink(*names: str) -> dict[str, Callable[[], Node]]:
    subscribe = SubscribeConfig(deliver_to="sink")
    config = StarConfig(names or ("hub",), subscribe=subscribe, session=QUICK)
    return {"sink": Sink, "star": partial(Star, config)}


def stored(world: Loopback) -> list[str]:
    return [event.id for event in world.events_of(Stored)]


def connections(world: Loopback, device: str) -> list[tuple[str, str]]:
    changes = [event for name, event in world.events if name == device and isinstance(event, SessionChanged)]
    return [(event.state, event.peer) for event in changes]


@pytest.mark.needs("mosquitto_sub")
def test_mosquitto_sub_sees_each_observation_under_its_topic(tmp_path: Path) -> None:
    async def scenario() -> list[str]:
        port = free_port()
        async with brokers(tmp_path, port, HUB):
            world = Loopback({"hub": HUB}, port)
            await world.add("cam", cam())
            await world.add("sink", sink())
            await until(lambda: connections(world, "sink") != [])
            world.tell("cam/star", "cam/sensors", observed(0, "temperature"))
            await until(lambda: stored(world) == ["cam:0"])
            # The first is retained, so the tool sees it however late it comes.
            arguments = (
                "-h",
                HUB,
                "-p",
                str(port),
                "-t",
                "birdhouse/#",
                "-q",
                "1",
                "-F",
                "%t %l %r",
                "-C",
                "3",
            )
            tool = await asyncio.create_subprocess_exec(
                "mosquitto_sub", *arguments, stdout=asyncio.subprocess.PIPE
            )
            assert tool.stdout is not None
            lines = [await tool.stdout.readline()]
            world.tell("cam/star", "cam/sensors", observed(1))
            world.tell("cam/star", "cam/sensors", observed(2, "photograph", 30_000))
            lines += [await tool.stdout.readline(), await tool.stdout.readline()]
            await tool.wait()
            await world.close()
            return [line.decode().strip() for line in lines]

    sizes = [
        len(observed(*case).observation.encode())
        for case in ((0, "temperature"), (1,), (2, "photograph", 30_000))
    ]
    assert asyncio.run(scenario()) == [
        f"birdhouse/cam/temperature {sizes[0]} 1",
        f"birdhouse/cam/motion {sizes[1]} 0",
        f"birdhouse/cam/photograph {sizes[2]} 0",
    ]


def test_a_broker_that_stands_still_is_given_up_and_what_it_owed_arrives_later(tmp_path: Path) -> None:
    """SIGSTOP: its kernel accepts and acknowledges, and no word of MQTT comes."""

    async def scenario() -> list[str]:
        port = free_port()
        async with brokers(tmp_path, port, HUB) as [hub]:
            world = Loopback({"hub": HUB}, port)
            await world.add("cam", cam())
            await world.add("sink", sink())
            await until(lambda: connections(world, "sink") != [] and connections(world, "cam") != [])
            hub.signal(signal.SIGSTOP)
            for sequence in range(5):
                world.tell("cam/star", "cam/sensors", observed(sequence))
            await until(lambda: ("disconnected", "hub") in connections(world, "cam"))
            await until(lambda: count_lost(world, "timeout") >= 1)
            assert count_lost(world, "keepalive") == 1
            hub.signal(signal.SIGCONT)
            await until(lambda: len(stored(world)) == 5)
            await world.close()
            return stored(world)

    assert sorted(asyncio.run(scenario())) == [f"cam:{n}" for n in range(5)]


def test_with_the_hub_dead_the_standby_carries_on_until_the_hub_is_back(tmp_path: Path) -> None:
    async def scenario() -> None:
        port = free_port()
        async with brokers(tmp_path, port, HUB, STANDBY) as [hub, _]:
            world = Loopback({"hub": HUB, "standby": STANDBY}, port)
            await world.add("sink", sink("hub", "standby"))
            await until(lambda: len(connections(world, "sink")) == 2)
            await world.add("cam", cam("hub", "standby"))
            world.tell("cam/star", "cam/sensors", observed(0))
            await until(lambda: stored(world) == ["cam:0"])
            hub.kill()
            world.tell("cam/star", "cam/sensors", observed(1))
            await until(lambda: "cam:1" in stored(world))
            assert connections(world, "cam")[-1] == ("connected", "standby")
            await hub.start()
            await until(lambda: connections(world, "cam")[-1] == ("disconnected", "standby"))
            world.tell("cam/star", "cam/sensors", observed(2))
            await until(lambda: "cam:2" in stored(world))
            assert heard(world, "cam", Publish)[-1].broker == "hub"
            await world.close()

    asyncio.run(scenario())


def test_a_restarted_sink_gets_what_its_session_kept(tmp_path: Path) -> None:
    """The session is the broker's: a client of the same id, in another process lifetime, takes it up."""

    async def scenario() -> list[str]:
        port = free_port()
        async with brokers(tmp_path, port, HUB):
            world = Loopback({"hub": HUB}, port)
            await world.add("sink", sink())
            await until(lambda: heard(world, "sink", Subscribed) != [])
            await world.close()
            later = Loopback({"hub": HUB}, port)
            await later.add("cam", cam())
            for sequence in range(3):
                later.tell("cam/star", "cam/sensors", observed(sequence))
            await until(lambda: len(heard(later, "cam", Published)) == 3)
            await later.add("sink", sink())
            await until(lambda: len(stored(later)) == 3)
            await later.close()
            return stored(later)

    assert sorted(asyncio.run(scenario())) == ["cam:0", "cam:1", "cam:2"]


def test_a_subscription_that_is_there_already_brings_no_retained_message(tmp_path: Path) -> None:
    """A sink that restarts subscribes again, and its session still has the subscription."""

    async def one_life(number: int, port: int, camera: Loopback) -> list[str]:
        world = Loopback({"hub": HUB}, port)
        await world.add("sink", sink())
        await until(lambda: heard(world, "sink", Subscribed) != [])
        camera.tell("cam/star", "cam/sensors", observed(number))
        await until(lambda: f"cam:{number}" in stored(world))
        await until(lambda: len(heard(world, "sink", Acknowledge)) == len(stored(world)))
        await world.close()
        return stored(world)

    async def scenario() -> list[list[str]]:
        port = free_port()
        async with brokers(tmp_path, port, HUB):
            camera = Loopback({"hub": HUB}, port)
            await camera.add("cam", cam(publish=PublishConfig(require_subscriber=False)))
            camera.tell("cam/star", "cam/sensors", observed(0))
            await until(lambda: heard(camera, "cam", Published) != [])
            lives = [await one_life(number, port, camera) for number in (1, 2)]
            await camera.close()
            return lives

    assert asyncio.run(scenario()) == [["cam:0", "cam:1"], ["cam:2"]]


class Bare(Node):
    """Records what the client says."""

    def __init__(self) -> None:
        self.heard: list[Message] = []

    def on_start(self, ctx: Context) -> None:
        ctx.send("@mqtt", Connect("hub", ctx.device, False, 5, 60, 0.3))

    def on_message(self, ctx: Context, sender: Address, message: Message) -> None:
        self.heard.append(message)


@pytest.mark.parametrize(
    ("ip", "reason"),
    [
        pytest.param("127.0.0.1", "refused", id="nobody listens"),
        pytest.param("255.255.255.255", "unreachable", id="its address is none of a host"),
    ],
)
def test_a_failed_attempt_says_why(ip: str, reason: str) -> None:
    async def scenario() -> list[Message]:
        world = Loopback({"hub": ip}, free_port())
        node = Bare()
        await world.add("cam", {"star": lambda: node})
        await until(lambda: node.heard != [])
        await world.close()
        return node.heard

    assert asyncio.run(scenario()) == [Disconnected("hub", reason)]  # type: ignore[arg-type]


def test_what_autosave_on_changes_wrote_survives_kill_9(tmp_path: Path) -> None:
    """And without it nothing does: that is the crash of the hub in the comparison."""

    async def session_present(config: BrokerConfig, folder: Path) -> bool:
        port = free_port()
        folder.mkdir()
        async with brokers(folder, port, HUB, config=config) as [hub]:
            world = Loopback({"hub": HUB}, port)
            await world.add("sink", sink())
            await until(lambda: heard(world, "sink", Subscribed) != [])
            if config.autosave_on_changes:
                await until(lambda: any((folder / HUB).glob("mosquitto.db")))
            hub.kill()
            await hub.start()
            await until(lambda: len(heard(world, "sink", Connected)) == 2)
            await world.close()
            return heard(world, "sink", Connected)[1].session_present

    async def scenario() -> tuple[bool, bool]:
        return (
            await session_present(BrokerConfig(autosave_on_changes=True), tmp_path / "careful"),
            await session_present(BrokerConfig(), tmp_path / "default"),
        )

    assert asyncio.run(scenario()) == (True, False)


def test_the_configuration_names_its_limits() -> None:
    text = configuration(BrokerConfig(max_queued=7, autosave_interval_s=60))
    assert "listener 1883 {ip}\n" in text
    assert "max_queued_messages 7\n" in text
    assert "autosave_interval 60\n" in text
    assert mosquitto(BrokerConfig()).ready_port == 1883


def count_lost(world: Loopback, reason: str) -> int:
    return sum(message.reason == reason for message in heard(world, "cam", Disconnected))


M = TypeVar("M", bound=Message)


def heard(world: Loopback, device: str, kind: type[M]) -> list[M]:
    """What the device's node and client said to each other, of one type."""
    return [message for message in world.local.get(device, ()) if isinstance(message, kind)]


def test_a_subscriber_that_is_slow_has_no_more_in_its_hands_than_its_receive_maximum(tmp_path: Path) -> None:
    """And one, before it stops reading from a broker that sends more than that, as this one does."""

    async def scenario() -> tuple[int, list[int]]:
        port = free_port()
        async with brokers(tmp_path, port, HUB):
            world = Loopback({"hub": HUB}, port)
            session = msgspec.structs.replace(QUICK, receive_maximum=3)
            subscribe = SubscribeConfig(deliver_to="sink")
            star = partial(Star, StarConfig(("hub",), subscribe=subscribe, session=session))
            await world.add("sink", {"star": star, "sink": Node})
            await until(lambda: any(isinstance(m, Subscribed) for m in world.local["sink"]))
            await world.add("cam", cam())
            for sequence in range(40):
                world.tell("cam/star", "cam/sensors", observed(sequence))

            def received() -> list[int]:
                came = [m for m in world.local["sink"] if isinstance(m, Received)]
                return [Observation.decode(message.payload).id.sequence for message in came]

            held_max = 0
            for kept in range(40):
                await until(lambda count=kept: len(received()) > count)  # type: ignore[misc]
                await asyncio.sleep(0.02)  # for what should not come
                if kept == 5:  # when it does not read: neither side may take that for the other's end
                    await asyncio.sleep(4 * QUICK.keepalive_s)
                held_max = max(held_max, len(received()) - kept)
                world.tell("sink/star", "sink/sink", Kept(f"cam:{kept}"))
            await world.close()
            assert connections(world, "sink") == [("connected", "hub")]
            return held_max, received()

    held_max, sequences = asyncio.run(scenario())
    assert held_max <= 4
    assert sequences == list(range(40))
