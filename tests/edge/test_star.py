"""The star node: what it promises about observations while brokers come and go."""

from __future__ import annotations

from functools import partial
from itertools import pairwise
from typing import Any

import msgspec
import pytest

from edge.events import Delivered, Discarded, SessionChanged, Stored
from edge.mqtt.messages import (
    NO_MATCHING_SUBSCRIBERS,
    Connected,
    Disconnect,
    Disconnected,
    Forget,
    Publish,
    Published,
)
from edge.mqtt.model_broker import BrokerConfig, ModelBroker
from edge.mqtt.model_client import ModelClient
from edge.mqtt.outbox import Outbox
from edge.mqtt.packets import BROKER, MQTT_5, PublishPacket
from edge.mqtt.session import SessionConfig
from edge.observation import Observation, ObservationId, Observed
from edge.sink import Sink
from edge.star import Arrivals, PublishConfig, Star, StarConfig, SubscribeConfig
from tests.edge.mqtt.wire import Wire
from underlay.messages import Message
from underlay.node import Node
from underlay.store import OrderedMap

SESSION = SessionConfig(keepalive_s=4, connect_timeout_s=2.0, backoff_base_s=0.5, backoff_max_s=4.0)


class Network:
    """Brokers on `hub` and perhaps `standby`, a sink, and one camera."""

    def __init__(
        self,
        *,
        brokers: tuple[str, ...] = ("hub",),
        publish: PublishConfig = PublishConfig(),  # noqa: B008 - frozen
        broker: BrokerConfig = BrokerConfig(),  # noqa: B008 - frozen
        cam_subscribes: bool = False,
        version: int = MQTT_5,
        seed: int = 0,
    ) -> None:
        self.wire = Wire(seed)
        self._sequence = 0
        for device in brokers:
            self.wire.add(f"{device}/{BROKER}", partial(ModelBroker, broker))
        sink = StarConfig(brokers, subscribe=SubscribeConfig(deliver_to="sink"), session=SESSION)
        also = SubscribeConfig() if cam_subscribes else None
        cam = StarConfig(brokers, publish=publish, subscribe=also, session=SESSION)
        for device, config in {"sink": sink, "cam": cam}.items():
            self.wire.add(f"{device}/@mqtt", partial(ModelClient, version))
            self.wire.add(f"{device}/sink", Sink)
            self.wire.add(f"{device}/star", partial(Star, config))
        self.wire.run(1.0)

    def observe(self, count: int = 1, every_s: float = 0.1, size_bytes: int = 20) -> None:
        for _ in range(count):
            observation = Observation(
                ObservationId("cam", self._sequence), "motion", 0.0, 0.0, bytes(size_bytes)
            )
            self._sequence += 1
            self.wire.tell("cam/star", "cam/sensors", Observed(observation))
            self.wire.run(every_s)

    def power_cut(self, device: str) -> None:
        """Silence, as the emulation's crash is."""
        self.wire.cut[device] = True
        self.wire.crash(device)

    def power_on(self, device: str) -> None:
        self.wire.cut[device] = False
        self.wire.restart(device)

    @property
    def stored(self) -> list[str]:
        return [event.id for event in self.wire.events_of(Stored)]

    @property
    def discarded(self) -> list[tuple[str, str]]:
        return [(event.id, event.reason) for event in self.wire.events_of(Discarded)]

    def broker_used(self) -> str:
        """Where the camera's last observation went."""
        published = [message for message in self.wire.local["cam"] if isinstance(message, Publish)]
        return published[-1].broker


def ids(*numbers: int) -> list[str]:
    return [f"cam:{n}" for n in numbers]


@pytest.mark.parametrize("qos", [0, 1, 2])
def test_what_is_observed_is_stored_once_and_in_order(qos: Any) -> None:
    network = Network(publish=PublishConfig(qos=qos))
    network.observe(5)
    assert network.stored == ids(0, 1, 2, 3, 4)
    assert [event.hops for event in network.wire.events_of(Delivered)] == [2] * 5


@pytest.mark.parametrize("qos", [1, 2])
def test_during_the_hubs_crash_nothing_arrives_and_afterwards_everything_does(qos: Any) -> None:
    """Also what was on its way when the power went."""
    network = Network(publish=PublishConfig(qos=qos))
    network.observe(3)
    network.power_cut("hub")
    network.observe(10, every_s=1.0)
    assert network.stored == ids(0, 1, 2)
    network.power_on("hub")
    network.wire.run(20.0)
    assert network.stored == ids(*range(13))
    states = [
        event.state
        for device, event in network.wire.events
        if isinstance(event, SessionChanged) and device == "cam"
    ]
    assert states == ["connected", "disconnected", "connected"]


def test_a_broker_that_forgot_its_subscribers_does_not_swallow_what_it_acknowledges() -> None:
    """MQTT 5 says that nobody was subscribed, and the device publishes again until somebody is."""
    network = Network()
    network.power_cut("sink")
    network.power_cut("hub")
    network.power_on("hub")
    network.wire.run(20.0)
    network.observe(3)
    network.wire.run(5.0)
    assert network.stored == []
    network.power_on("sink")
    network.wire.run(20.0)
    assert sorted(network.stored) == ids(0, 1, 2)


def test_without_that_answer_the_broker_loses_what_it_acknowledged() -> None:
    """The finding: QoS 1, acknowledged, gone; only the last value of each kind is retained."""
    network = Network(publish=PublishConfig(require_subscriber=False))
    network.power_cut("sink")
    network.power_cut("hub")
    network.power_on("hub")
    network.wire.run(20.0)
    network.observe(3)
    network.power_on("sink")
    network.wire.run(20.0)
    assert network.stored == ids(2)


def test_a_sink_that_was_away_gets_what_its_persistent_session_kept() -> None:
    network = Network()
    network.power_cut("sink")
    network.observe(5)
    network.wire.run(10.0)
    network.power_on("sink")
    network.wire.run(10.0)
    assert sorted(network.stored) == ids(0, 1, 2, 3, 4)


@pytest.mark.parametrize(
    ("when_full", "lost"),
    [("drop-oldest", [0, 1, 2]), ("drop-newest", [4, 5, 6])],
)
def test_the_queue_is_bounded_in_entries(when_full: Any, lost: list[int]) -> None:
    network = Network(publish=PublishConfig(queue_max=4, when_full=when_full))
    network.power_cut("hub")
    network.wire.run(10.0)
    network.observe(7)
    assert network.discarded == [(f"cam:{n}", "queue-full") for n in lost]
    network.power_on("hub")
    network.wire.run(20.0)
    assert network.stored == ids(*(n for n in range(7) if n not in lost))


def test_the_queue_is_bounded_in_bytes() -> None:
    network = Network(publish=PublishConfig(queue_bytes=5000))
    network.power_cut("hub")
    network.wire.run(10.0)
    network.observe(1, size_bytes=6000)
    network.observe(4, size_bytes=2000)
    assert network.discarded == [("cam:0", "too-large"), ("cam:1", "queue-full"), ("cam:2", "queue-full")]


def test_a_session_that_is_present_but_empty_is_subscribed_again() -> None:
    """The restarted hub accepted the sink, but its CONNACK was lost: the session that is met next is new."""
    network = Network()
    network.power_cut("hub")
    network.wire.run(10.0)
    network.power_on("hub")
    network.wire.deaf["sink"] = True
    network.wire.run(15.0)
    network.wire.deaf["sink"] = False
    network.wire.run(15.0)
    network.observe(2)
    resumed = [event.resumed for device, event in network.wire.events if isinstance(event, SessionChanged)]
    assert resumed[-1]
    assert network.stored == ids(0, 1)


def test_what_is_in_flight_is_never_discarded() -> None:
    network = Network(publish=PublishConfig(queue_max=2, in_flight_max=2))
    network.wire.cut["hub"] = True
    network.observe(3)
    assert network.discarded == [("cam:2", "queue-full")]
    network.wire.run(10.0)
    network.wire.cut["hub"] = False
    network.wire.run(20.0)
    assert network.stored == ids(0, 1)


@pytest.mark.parametrize(("durable", "kept"), [(True, [0, 1, 2]), (False, [])])
def test_a_durable_queue_survives_the_devices_own_crash(durable: bool, kept: list[int]) -> None:
    network = Network(publish=PublishConfig(durable_queue=durable))
    network.power_cut("hub")
    network.wire.run(10.0)
    network.observe(3)
    network.power_cut("cam")
    network.power_on("cam")
    network.power_on("hub")
    network.wire.run(20.0)
    assert sorted(network.stored) == ids(*kept)


def test_the_window_of_unacknowledged_publishes_is_kept() -> None:
    network = Network(publish=PublishConfig(in_flight_max=3))
    network.wire.cut["hub"] = True
    network.observe(10, every_s=0.0)
    assert len([m for m in network.wire.local["cam"] if isinstance(m, Publish)]) == 3


@pytest.mark.sweep(5)
def test_with_a_standby_delivery_goes_on_during_the_hubs_crash_and_returns_to_the_hub(seed: int) -> None:
    network = Network(brokers=("hub", "standby"), publish=PublishConfig(failover_after=2), seed=seed)
    network.observe(2)
    network.power_cut("hub")
    network.observe(20, every_s=1.0)
    network.wire.run(5.0)
    assert sorted(network.stored, key=number) == ids(*range(22))
    assert network.broker_used() == "standby"
    network.power_on("hub")
    network.wire.run(20.0)
    network.observe(2)
    assert network.broker_used() == "hub"
    assert sorted(network.stored, key=number) == ids(*range(24))


def test_without_returning_the_standby_stays_in_use() -> None:
    network = Network(brokers=("hub", "standby"), publish=PublishConfig(return_to_preferred=False))
    network.power_cut("hub")
    network.wire.run(20.0)
    network.power_on("hub")
    network.wire.run(20.0)
    network.observe(2)
    assert network.broker_used() == "standby"
    assert network.stored == ids(0, 1)


def test_what_one_broker_may_already_have_delivered_is_recognised_when_the_other_delivers_it_too() -> None:
    """The hub got the observation and forwarded it, but the camera never heard so."""
    network = Network(brokers=("hub", "standby"))
    network.observe(1, every_s=0.0)
    network.wire.run(0.005)  # it is on its way to the hub, and nothing will come back
    network.wire.cut["cam"] = True
    network.wire.run(1.0)
    network.power_cut("hub")
    network.wire.cut["cam"] = False
    network.wire.run(30.0)
    forwarded = [p for s, r, p in network.wire.packets if isinstance(p, PublishPacket) and r == "sink"]
    assert len(forwarded) == 2
    assert network.stored == ids(0)


def test_a_birdhouse_that_subscribes_too_does_not_get_its_own_observations() -> None:
    network = Network(cam_subscribes=True)
    network.observe(3)
    received = [p for s, r, p in network.wire.packets if isinstance(p, PublishPacket) and r == "cam"]
    assert received == []
    assert network.stored == ids(0, 1, 2)


def test_the_sink_acknowledges_only_what_it_has_kept() -> None:
    """A sink that dies before its disk was written gets the observation again."""
    network = Network()
    network.wire.contexts.pop("sink/sink")
    network.observe(1)
    names = [type(packet).__name__ for s, r, packet in network.wire.packets if s == "sink"]
    assert "PubackPacket" not in names
    network.power_cut("sink")
    network.power_on("sink")
    network.wire.run(10.0)
    assert network.stored == ids(0)


ALMOST = (
    Observation(ObservationId("cam", 0), "motion", 0.0, 0.0, b"").encode().replace(b"cam", b"\xff\xfe\xfd")
)


@pytest.mark.parametrize(
    "payload", [b"hello", b"", ALMOST], ids=["a text", "nothing", "a name that is no UTF-8"]
)
def test_foreign_payloads_are_reported_and_do_not_come_again(payload: bytes) -> None:
    network = Network()
    network.wire.tell("cam/@mqtt", "cam/star", Publish("hub", 99, "birdhouse/cam/motion", payload, 1, False))
    network.wire.run(1.0)
    malformed = [event for event in network.wire.events if type(event[1]).__name__ == "Malformed"]
    acknowledged = [
        p for s, r, p in network.wire.packets if s == "sink" and type(p).__name__ == "PubackPacket"
    ]
    assert len(malformed) == len(acknowledged) == 1


def test_reconnecting_backs_off_and_no_two_devices_do_it_alike() -> None:
    attempts = {seed: _attempts(seed) for seed in range(3)}
    for times in attempts.values():
        waits = [b - a for a, b in pairwise(times)]
        assert waits[0] < waits[3]
        assert max(waits) <= SESSION.connect_timeout_s + SESSION.backoff_max_s
    assert len({tuple(times) for times in attempts.values()}) == 3


class Client(Node):
    """In the place of the device's MQTT client: does nothing, so that a test can say what it says."""


class Scripted:
    """A publishing star node alone, whose client speaks as the test wants."""

    def __init__(self, publish: PublishConfig, *brokers: str) -> None:
        self.wire = Wire()
        self._config = StarConfig(brokers or ("hub",), publish=publish, session=SESSION)
        self.wire.add("cam/@mqtt", Client)
        self.wire.add("cam/star", partial(Star, self._config))

    def hear(self, *messages: Message) -> None:
        for message in messages:
            self.wire.tell("cam/star", "@mqtt", message)
            self.wire.run(0.0)

    def observe(self, *sequences: int) -> None:
        for n in sequences:
            observation = Observation(ObservationId("cam", n), "motion", 0.0, 0.0, b"")
            self.wire.tell("cam/star", "cam/sensors", Observed(observation))
            self.wire.run(0.0)

    def said(self, kind: type[Message]) -> list[Any]:
        return [message for message in self.wire.local["cam"] if isinstance(message, kind)]

    def published(self) -> list[tuple[str, int]]:
        """Broker and token of each publish."""
        return [(message.broker, message.token) for message in self.said(Publish)]


CONNECTED = Connected("hub", session_present=False, receive_maximum=20)
LOST = Disconnected("hub", "closed")


def test_what_a_broker_refuses_is_discarded() -> None:
    star = Scripted(PublishConfig())
    star.hear(CONNECTED)
    star.observe(0)
    star.hear(Published("hub", 1, 0x97))
    assert star.wire.events_of(Discarded) == [Discarded("cam:0", "refused")]


def test_the_brokers_receive_maximum_bounds_the_window() -> None:
    star = Scripted(PublishConfig(in_flight_max=16))
    star.hear(msgspec.structs.replace(CONNECTED, receive_maximum=2))
    star.observe(0, 1, 2)
    assert star.published() == [("hub", 1), ("hub", 2)]
    star.hear(Published("hub", 1, 0))
    assert star.published()[2:] == [("hub", 3)]


def test_while_nobody_is_subscribed_one_observation_at_a_time_is_tried() -> None:
    star = Scripted(PublishConfig(unheard_retry_s=1.0))
    star.hear(CONNECTED)
    star.observe(0, 1, 2)
    star.hear(*(Published("hub", token, NO_MATCHING_SUBSCRIBERS) for token in (1, 2, 3)))
    assert star.published() == [("hub", 1), ("hub", 2), ("hub", 3)]
    star.wire.run(1.0)
    assert star.published()[3:] == [("hub", 1)]
    star.hear(Published("hub", 1, 0))
    assert star.published()[4:] == [("hub", 2), ("hub", 3)]


def test_of_qos_0_what_did_not_reach_the_network_goes_again() -> None:
    star = Scripted(PublishConfig(qos=0))
    star.hear(CONNECTED)
    star.observe(0, 1)
    star.hear(Published("hub", 1, 0), LOST, CONNECTED)
    assert star.published() == [("hub", 1), ("hub", 2), ("hub", 2)]


def test_of_qos_1_what_is_not_acknowledged_is_left_to_the_client_while_the_session_lasts() -> None:
    star = Scripted(PublishConfig(qos=1))
    star.hear(CONNECTED)
    star.observe(0)
    star.hear(LOST, CONNECTED)
    assert star.published() == [("hub", 1)]


def test_a_failover_takes_along_what_the_failed_broker_had_not_acknowledged() -> None:
    star = Scripted(PublishConfig(failover_after=2), "hub", "standby")
    star.hear(CONNECTED)
    star.observe(0, 1)
    star.hear(Published("hub", 1, 0), LOST)
    star.wire.run(1.0)
    star.hear(LOST)
    assert star.said(Forget) == [Forget("hub")]
    star.hear(Connected("standby", session_present=False, receive_maximum=20))
    assert star.published()[2:] == [("standby", 2)]


def test_on_return_the_standby_is_left_when_it_has_acknowledged_everything() -> None:
    star = Scripted(PublishConfig(failover_after=1), "hub", "standby")
    star.hear(CONNECTED, LOST, Connected("standby", session_present=False, receive_maximum=20))
    star.observe(0)
    star.hear(CONNECTED)
    star.observe(1)
    assert star.published() == [("standby", 1), ("hub", 2)]
    assert star.said(Disconnect) == []
    star.hear(Published("standby", 1, 0))
    assert star.said(Disconnect) == [Disconnect("standby")]


def test_a_standby_that_fails_before_it_has_acknowledged_everything_gives_it_back() -> None:
    star = Scripted(PublishConfig(failover_after=1), "hub", "standby")
    star.hear(CONNECTED, LOST, Connected("standby", session_present=False, receive_maximum=20))
    star.observe(0)
    star.hear(CONNECTED, Disconnected("standby", "closed"))
    assert star.published() == [("standby", 1), ("hub", 1)]


def test_entries_taken_back_keep_their_places() -> None:
    store, outbox = OrderedMap(), Outbox(10, 1000, "drop-oldest", durable=False)
    for name in "abc":
        assert list(outbox.add(store, name, "topic", b"")) == []
    first, second = outbox.take(), outbox.take()
    assert first is not None
    assert second is not None
    outbox.put_back([second.token])
    outbox.put_back([first.token])
    assert [entry.id for entry in iter(outbox.take, None)] == ["a", "b", "c"]


def _attempts(seed: int) -> list[float]:
    network = Network(seed=seed)
    network.wire.log.clear()
    network.wire.crash("hub")
    network.wire.reset("hub")
    network.wire.run(60.0)
    lines = [line.split() for line in network.wire.log]
    return [float(line[0]) for line in lines if line[1] == "cam" and line[4] == "CONNECT"]


def test_arrivals_forget_the_oldest_gap_rather_than_grow() -> None:
    arrivals = Arrivals()
    for n in range(0, 4000, 2):
        assert arrivals.add(ObservationId("cam", n))
    assert not arrivals.add(ObservationId("cam", 1))
    assert arrivals.add(ObservationId("cam", 3999 - 2))
    assert not arrivals.add(ObservationId("cam", 0))


def number(id_text: str) -> int:
    return ObservationId.parse(id_text).sequence
