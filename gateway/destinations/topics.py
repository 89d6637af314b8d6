"""MQTT topics as destinations: each observation is published under a topic of its own, and written with its
PUBACK.

QoS 1. What is not acknowledged when a connection is lost is published again over the next one, and so is
what was under way when the gateway died: subscribers may get an observation twice, and tell by its id. A
device has one publish under way at a time, so that they first get each device's observations in their order,
whatever the broker refuses or loses. A PUBACK that says that nobody is subscribed is one: what nobody wants
is written.

The protocol is the client's (`edge.mqtt.messages`), reconnecting the session's (`edge.mqtt.session`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import msgspec

from edge.mqtt.messages import REFUSED, Connected, Disconnected, Forget, Publish, Published
from edge.mqtt.model_client import ModelClient
from edge.mqtt.packets import PORT
from edge.mqtt.session import Session, SessionConfig
from edge.observation import Observation
from gateway.destinations.driver import RETRY_S, Driver, Failed
from gateway.lane import Entry
from gateway.readings import document
from gateway.routing.targets import Topic
from gateway.writer import Finish, Write
from underlay.messages import Message
from underlay.node import Address, Context, Timer
from underlay.plan import Binding, BindingPlan

ENDPOINT = "@mqtt-routes"
"""A client beside that of the dissemination: they come and go by themselves."""
QOS = 1


class _Batch(msgspec.Struct):
    """One device's that are under way."""

    topic: Topic
    left: deque[Observation]
    finish: Finish
    failed: Failed


class _Broker:
    """One, and what goes there."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.batches: dict[int, _Batch] = {}
        """By token: all that are not written."""
        self.waiting: deque[int] = deque()
        """Those whose next is to be published."""
        self.in_flight: dict[int, None] = {}


class Topics(Driver):
    """The node's side of all such destinations."""

    def __init__(self) -> None:
        self._names: dict[str, None] = {}
        self._brokers: dict[str, _Broker] = {}
        self._number = 0

    def write_to(self, topic: Topic, failed: Failed) -> Write:
        """Publishes under that topic."""
        self._names[topic.broker] = None

        def write(ctx: Context, _batch: tuple[Entry, ...], data: list[bytes], finish: Finish) -> None:
            broker = self._brokers[topic.broker]
            self._number += 1
            observations = deque(Observation.decode(value) for value in data)
            broker.batches[self._number] = _Batch(topic, observations, finish, failed)
            broker.waiting.append(self._number)
            self._publish(ctx, broker)

        return write

    def on_start(self, ctx: Context) -> None:
        config = SessionConfig(clean_start=True, session_expiry_s=0, client_id=f"{ctx.device}-routes")
        for name in self._names:
            self._brokers[name] = _Broker(Session(name, config, ENDPOINT))
            self._brokers[name].session.open(ctx)

    def on_message(self, ctx: Context, sender: Address, message: Message) -> bool:
        match message:
            case Connected(name):
                broker = self._brokers[name]
                broker.session.on_connected(ctx, message)
                self._publish(ctx, broker)
            case Disconnected(name, reason):
                self._on_disconnected(ctx, self._brokers[name], message, reason)
            case Published(name, token, reason_code):
                self._on_published(ctx, self._brokers[name], token, reason_code)
            case _:
                return False
        return True

    def on_timer(self, ctx: Context, timer: Timer) -> bool:
        if isinstance(timer, tuple) and timer[0] == ENDPOINT:
            _, name, token = timer
            broker = self._brokers[name]
            broker.waiting.append(token)
            self._publish(ctx, broker)
            return True
        for broker in self._brokers.values():
            if timer == broker.session.retry:
                broker.session.on_retry(ctx)
                return True
        return False

    # ------------------------------------------------------------------------------------------------ helpers

    def _publish(self, ctx: Context, broker: _Broker) -> None:
        """As many as the broker takes at a time."""
        session = broker.session
        while (
            session.state == "connected"
            and broker.waiting
            and len(broker.in_flight) < session.receive_maximum
        ):
            token = broker.waiting.popleft()
            batch = broker.batches[token]
            observation = batch.left[0]
            broker.in_flight[token] = None
            ctx.send(
                ENDPOINT,
                Publish(
                    broker=session.broker,
                    token=token,
                    topic=batch.topic.topic_of(observation.id.device, observation.kind),
                    payload=msgspec.json.encode(document(observation)),
                    qos=QOS,
                    retain=batch.topic.retain,
                ),
            )

    def _on_published(self, ctx: Context, broker: _Broker, token: int, reason_code: int) -> None:
        if token not in broker.in_flight:
            return
        del broker.in_flight[token]
        batch = broker.batches[token]
        if reason_code >= REFUSED:
            batch.failed(f"the broker on {broker.session.broker} refuses it (reason code {reason_code:#x})")
            ctx.set_timer((ENDPOINT, broker.session.broker, token), RETRY_S)
        else:
            batch.left.popleft()
            if batch.left:
                broker.waiting.append(token)
            else:
                del broker.batches[token]
                batch.finish(ctx, "written", "")
        self._publish(ctx, broker)

    def _on_disconnected(self, ctx: Context, broker: _Broker, message: Disconnected, reason: str) -> None:
        ctx.send(ENDPOINT, Forget(message.broker))  # what is published again is by us
        broker.waiting.extendleft(reversed(broker.in_flight))
        broker.in_flight.clear()
        broker.session.on_disconnected(ctx, message)
        for failed in dict.fromkeys(batch.failed for batch in broker.batches.values()):
            failed(f"no connection to the broker on {message.broker}: {reason}")


def topics_binding(engine: Callable[[], Binding] | None = None, port: int = PORT) -> BindingPlan:
    """For the gateway's `DevicePlan`.

    Args:
        engine: makes a client; None: paho's.
        port: of the brokers, for what is counted.
    """
    return BindingPlan(ENDPOINT, ModelClient, engine or _paho, port)


def _paho() -> Binding:
    from edge.mqtt.paho_binding import PahoBinding  # only the emulation needs paho

    return PahoBinding()
