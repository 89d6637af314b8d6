"""MQTT's handshakes as transcripts: a scenario of a few lines, and every packet that it causes.

The expected transcripts are in `transcripts/`, one file a scenario. After a wanted change write them anew
with `python -m tests.edge.mqtt.test_transcripts` and review the difference as code.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from edge.mqtt.messages import Acknowledge, Connect, Disconnect, Forget, Publish, Received, Subscribe
from edge.mqtt.model_broker import BrokerConfig, ModelBroker
from edge.mqtt.model_client import ModelClient
from edge.mqtt.packets import BROKER, MQTT_3_1_1, MQTT_5, ConnackPacket
from tests.edge.mqtt.wire import Wire
from underlay.messages import Message
from underlay.node import Address, Context, Node

FOLDER = Path(__file__).parent / "transcripts"
TOPIC = "birdhouse/cam/motion"


class Recorder(Node):
    """Stands where the star node is; may acknowledge what it receives."""

    def __init__(self, *, acknowledges: bool) -> None:
        self.received: list[Received] = []
        self._acknowledges = acknowledges

    def on_message(self, ctx: Context, sender: Address, message: Message) -> None:
        if isinstance(message, Received):
            self.received.append(message)
            if self._acknowledges and message.token is not None:
                ctx.send("@mqtt", Acknowledge(message.broker, message.token))


class Scenario:
    """A broker, and clients by name; each step takes a second."""

    def __init__(self, config: BrokerConfig = BrokerConfig(), version: int = MQTT_5) -> None:  # noqa: B008 - frozen
        self.wire = Wire()
        self._version = version
        self.wire.add(f"hub/{BROKER}", partial(ModelBroker, config))

    def client(self, name: str, *, acknowledges: bool = True) -> None:
        self.wire.add(f"{name}/@mqtt", partial(ModelClient, self._version))
        self.wire.add(f"{name}/star", partial(Recorder, acknowledges=acknowledges))

    def ask(self, name: str, request: Message, then_s: float = 1.0) -> None:
        self.wire.tell(f"{name}/@mqtt", f"{name}/star", request)
        self.wire.run(then_s)

    def connect(
        self, name: str, *, clean_start: bool = False, expiry_s: int = 3600, keepalive_s: int = 60
    ) -> None:
        self.ask(name, Connect("hub", name, clean_start, keepalive_s, expiry_s, 5.0))

    def subscribe(self, name: str, qos: int) -> None:
        self.ask(name, Subscribe("hub", "birdhouse/+/+", qos))

    def publish(self, name: str, token: int, qos: int, *, retain: bool = False, then_s: float = 1.0) -> None:
        self.ask(name, Publish("hub", token, TOPIC, bytes(token), qos, retain), then_s)

    def note(self, text: str) -> None:
        self.wire.log.append(f"-- {text}")


def delivery(qos: int, version: int) -> Scenario:
    scenario = Scenario(version=version)
    for name in ("sink", "cam"):
        scenario.client(name)
        scenario.connect(name)
    scenario.subscribe("sink", qos)
    scenario.publish("cam", 1, qos)
    return scenario


def resumed(qos: int, cut_after_s: float) -> Scenario:
    """The publisher is cut off in the middle of the handshake, and comes back to its session."""
    scenario = Scenario()
    for name in ("sink", "cam"):
        scenario.client(name)
        scenario.connect(name, keepalive_s=60 if name == "sink" else 4)
    scenario.subscribe("sink", qos)
    scenario.publish("cam", 1, qos, then_s=cut_after_s)
    scenario.note("cam is cut off for 10 s, and connects again")
    scenario.wire.cut["cam"] = True
    scenario.wire.run(10.0)
    scenario.wire.cut["cam"] = False
    scenario.connect("cam")
    return scenario


def subscriber_away() -> Scenario:
    """Its messages wait in its session, those it did not acknowledge go first, with DUP."""
    scenario = Scenario()
    scenario.client("cam")
    scenario.client("sink", acknowledges=False)
    for name in ("sink", "cam"):
        scenario.connect(name)
    scenario.subscribe("sink", 1)
    scenario.publish("cam", 1, 1)
    scenario.note("sink leaves without having acknowledged")
    scenario.ask("sink", Disconnect("hub"))
    for token in (2, 3):
        scenario.publish("cam", token, 1)
    scenario.publish("cam", 4, 0)
    scenario.note("sink is back")
    scenario.connect("sink")
    return scenario


def stale_acknowledgement() -> Scenario:
    """An acknowledgement that comes after the connection it belongs to is void."""
    scenario = Scenario()
    scenario.client("cam")
    scenario.client("sink", acknowledges=False)
    for name in ("sink", "cam"):
        scenario.connect(name)
    scenario.subscribe("sink", 1)
    scenario.publish("cam", 1, 1)
    scenario.ask("sink", Disconnect("hub"))
    scenario.connect("sink")
    star = scenario.wire.contexts["sink/star"].node
    assert isinstance(star, Recorder)
    for received in star.received:
        assert received.token is not None
        scenario.note(f"sink acknowledges token {received.token}")
        scenario.ask("sink", Acknowledge("hub", received.token))
    return scenario


def full_queue() -> Scenario:
    """One in flight, two queued, and the newest two are dropped."""
    scenario = Scenario(BrokerConfig(max_in_flight=1, max_queued=2))
    scenario.client("cam")
    scenario.client("sink", acknowledges=False)
    for name in ("sink", "cam"):
        scenario.connect(name)
    scenario.subscribe("sink", 1)
    for token in range(1, 6):
        scenario.publish("cam", token, 1)
    scenario.note("sink acknowledges what it has, one after the other")
    for _ in range(3):
        star = scenario.wire.contexts["sink/star"].node
        assert isinstance(star, Recorder)
        acknowledged = star.received[-1].token
        assert acknowledged is not None
        scenario.ask("sink", Acknowledge("hub", acknowledged))
    return scenario


def retained() -> Scenario:
    """Whoever subscribes later gets the last value, once; without a subscriber the broker says so."""
    scenario = Scenario()
    scenario.client("cam")
    scenario.connect("cam")
    for token in (1, 2):
        scenario.publish("cam", token, 1, retain=True)
    scenario.client("sink")
    scenario.connect("sink")
    scenario.subscribe("sink", 1)
    scenario.note("and again")
    scenario.subscribe("sink", 1)
    return scenario


def taken_over() -> Scenario:
    """A device that lost power connects anew, while the broker still believes in its old connection."""
    scenario = Scenario()
    scenario.client("cam")
    scenario.connect("cam")
    scenario.wire.crash("cam")
    scenario.wire.restart("cam")
    scenario.note("cam restarted")
    scenario.connect("cam")
    return scenario


def silence() -> Scenario:
    """Pings every keepalive; after 1.5 without a word each side gives the other up."""
    scenario = Scenario()
    scenario.client("cam")
    scenario.connect("cam", keepalive_s=10)
    scenario.wire.run(25.0)
    scenario.note("cam is cut off for a minute")
    scenario.wire.cut["cam"] = True
    scenario.wire.run(60.0)
    scenario.wire.cut["cam"] = False
    scenario.connect("cam")
    return scenario


def accepted_too_late() -> Scenario:
    """The client has given the attempt up, and says so to a broker that accepts it."""
    scenario = Scenario()
    scenario.client("cam")
    scenario.wire.deaf["cam"] = True
    scenario.connect("cam")
    scenario.wire.run(10.0)
    scenario.wire.deaf["cam"] = False
    scenario.note("CONNACK arrives now")
    scenario.wire.tell("cam/@mqtt", f"hub/{BROKER}", ConnackPacket(1, MQTT_5, False, 20))
    scenario.wire.run(1.0)
    return scenario


def expired() -> Scenario:
    """A session ends when its client was away for longer than it asked for."""
    scenario = Scenario()
    scenario.client("sink")
    scenario.connect("sink", expiry_s=5)
    scenario.subscribe("sink", 1)
    for away_s in (3.0, 8.0):
        scenario.ask("sink", Disconnect("hub"), away_s)
        scenario.note(f"sink is back after {away_s:.0f} s")
        scenario.connect("sink", expiry_s=5)
    return scenario


def forgotten() -> Scenario:
    """What the node has taken elsewhere is not sent again."""
    scenario = Scenario()
    scenario.client("cam")
    scenario.connect("cam", keepalive_s=4)
    scenario.wire.cut["cam"] = True
    scenario.publish("cam", 1, 1)
    scenario.ask("cam", Forget("hub"), 10.0)
    scenario.wire.cut["cam"] = False
    scenario.connect("cam")
    return scenario


def crashed(config: BrokerConfig) -> Scenario:
    """The broker loses power a minute after a sink subscribed."""
    scenario = Scenario(config)
    scenario.client("sink")
    scenario.connect("sink")
    scenario.subscribe("sink", 1)
    scenario.wire.run(60.0)
    scenario.wire.crash("hub")
    scenario.wire.reset("hub")
    scenario.wire.restart("hub")
    scenario.note("the hub restarted")
    scenario.connect("sink")
    return scenario


SCENARIOS: dict[str, Callable[[], Scenario]] = {
    **{
        f"delivery-qos-{qos}-{name}": partial(delivery, qos, version)
        for qos in (0, 1, 2)
        for name, version in (("mqtt-3.1.1", MQTT_3_1_1), ("mqtt-5", MQTT_5))
    },
    "resumed-qos-1-before-puback": partial(resumed, 1, 0.005),
    "resumed-qos-2-before-pubrec": partial(resumed, 2, 0.005),
    "resumed-qos-2-before-pubcomp": partial(resumed, 2, 0.025),
    "subscriber-away": subscriber_away,
    "stale-acknowledgement": stale_acknowledgement,
    "full-queue": full_queue,
    "retained": retained,
    "taken-over": taken_over,
    "silence": silence,
    "accepted-too-late": accepted_too_late,
    "expired": expired,
    "forgotten": forgotten,
    "crash-before-autosave": partial(crashed, BrokerConfig()),
    "crash-after-autosave": partial(crashed, BrokerConfig(autosave_interval_s=30)),
    "crash-with-autosave-on-changes": partial(crashed, BrokerConfig(autosave_on_changes=True)),
}


def transcript(name: str) -> str:
    return "\n".join(SCENARIOS[name]().wire.log) + "\n"


@pytest.mark.parametrize("name", SCENARIOS)
def test_transcript(name: str) -> None:
    assert transcript(name) == (FOLDER / f"{name}.txt").read_text()


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for scenario_name in SCENARIOS:
        (FOLDER / f"{scenario_name}.txt").write_text(transcript(scenario_name))
