"""The star: every birdhouse publishes to a broker on the hub, and whoever wants the data subscribes there
(MQTT).

Owns what a device does about it: which broker it uses, what it queues and for how long, what it does when an
acknowledgement is bad news, and recognising duplicates. The protocol itself is the client's
(`edge.mqtt.messages`), the reconnecting `edge.mqtt.session`'s, the queue `edge.mqtt.outbox`'s.

Each observation goes out under `birdhouse/<device>/<kind>`; the payload is the encoded observation. What is
promised, for QoS 1 and 2: an observation stays in the queue until a broker has acknowledged it, and is
published again whenever the acknowledgement may have been lost: by the client with DUP when the session goes
on, by this node, as a new message, after a failover or (with `durable_queue`) after its own restart. So
subscribers may see an observation twice, and tell by its id. What a broker acknowledged and then lost is
beyond the device's reach; MQTT 5 at least lets it hear that nobody was subscribed (`require_subscriber`),
which is the state of a broker that has just lost its sessions.

With several brokers, a device that only publishes uses one, goes to the next after `failover_after` failures
in a row, and returns when the better one is back; a subscriber stays connected to all of them.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from edge.events import Delivered, Discarded
from edge.intervals import Intervals
from edge.mqtt.messages import (
    CLIENT,
    NO_MATCHING_SUBSCRIBERS,
    REFUSED,
    Acknowledge,
    Connected,
    Disconnected,
    Forget,
    Publish,
    Published,
    Received,
    Subscribe,
    Subscribed,
)
from edge.mqtt.outbox import Outbox, WhenFull
from edge.mqtt.session import Session, SessionConfig
from edge.observation import Observation, ObservationId, Observed
from edge.sink import Kept
from underlay.messages import Message, Protocol
from underlay.node import Address, Context, Node, Timer, address
from underlay.trace import Malformed

FILTER = "birdhouse/+/+"
"""Selects every observation."""

HOPS = 2
"""Overlay transmissions from a device to a subscriber: to the broker, and from it."""

_GAPS_MAX = 1000
_UNHEARD = "unheard"


class PublishConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How a device publishes what it observes."""

    qos: Literal[0, 1, 2] = 1
    retain: bool = True
    """The broker keeps the last observation of each device and kind for whoever subscribes later."""
    in_flight_max: Annotated[int, msgspec.Meta(ge=1)] = 16
    """Published and not acknowledged; the broker's own limit (MQTT 5's Receive Maximum) may be lower."""
    queue_max: Annotated[int, msgspec.Meta(ge=1)] = 1000
    """Observations, those in flight included."""
    queue_bytes: Annotated[int, msgspec.Meta(ge=1)] = 4_000_000
    when_full: WhenFull = "drop-oldest"
    durable_queue: bool = False
    """Keep the queue in the device's store, so that a restart loses nothing of it."""
    require_subscriber: bool = True
    """Publish again what the broker acknowledged with "no matching subscribers" (MQTT 5, QoS 1)."""
    unheard_retry_s: float = 1.0
    """How long to wait then."""
    failover_after: Annotated[int, msgspec.Meta(ge=1)] = 2
    """Failures in a row (a lost connection, a failed attempt) after which the next broker is used."""
    return_to_preferred: bool = True
    """Go on trying better brokers, and return to them."""


class SubscribeConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How a device takes part as a subscriber."""

    qos: Literal[0, 1, 2] = 1
    deliver_to: str | None = None
    """A node on the device that keeps observations (`sink`). A message is acknowledged to its broker only
    once that node has said `Kept`; without one, on arrival."""
    filters: tuple[str, ...] = (FILTER,)
    """Topic filters: by default, everybody's observations."""


class StarConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A device's part in the star: it publishes, or subscribes, or both over the same connection."""

    brokers: tuple[str, ...]
    """Devices with a broker, the preferred one first."""
    publish: PublishConfig | None = None
    subscribe: SubscribeConfig | None = None
    session: SessionConfig = SessionConfig()


class Star(Node):
    """The star's node on every device."""

    protocol = Protocol("star")

    def __init__(self, config: StarConfig) -> None:
        self._sessions = {broker: Session(broker, config.session) for broker in config.brokers}
        self._publisher = (
            Publisher(config.publish, self._sessions, bool(config.subscribe)) if config.publish else None
        )
        self._subscriber = Subscriber(config.subscribe) if config.subscribe else None

    def on_start(self, ctx: Context) -> None:
        if self._publisher:
            self._publisher.on_start(ctx)
        if self._subscriber:
            for session in self._sessions.values():
                session.open(ctx)

    def on_message(self, ctx: Context, sender: Address, message: Message) -> None:
        match message:
            case Connected():
                self._sessions[message.broker].on_connected(ctx, message)
                if self._subscriber:
                    self._subscriber.on_connected(ctx, message)
                if self._publisher:
                    self._publisher.on_connected(ctx, message)
            case Disconnected():
                session = self._sessions[message.broker]
                if self._subscriber and session.state == "connecting":
                    self._subscriber.on_attempt_failed(message.broker)
                session.on_disconnected(ctx, message)
                if self._publisher:
                    self._publisher.on_disconnected(ctx, message)
            case Observed() | Published() if self._publisher:
                self._publisher.on_message(ctx, message)
            case Received() | Subscribed() | Kept() if self._subscriber:
                self._subscriber.on_message(ctx, message)

    def on_timer(self, ctx: Context, timer: Timer) -> None:
        if self._publisher and timer == _UNHEARD:
            self._publisher.on_unheard_timer(ctx)
        for session in self._sessions.values():
            if timer == session.retry:
                session.on_retry(ctx)


class Publisher:
    """Moves observations from the outbox to the broker in use."""

    def __init__(self, config: PublishConfig, sessions: dict[str, Session], keep_all: bool) -> None:
        self._config = config
        self._sessions = sessions
        self._brokers = tuple(sessions)
        self._keep_all = keep_all
        """The device subscribes too: connections stay although nothing is published over them."""
        self._using = 0
        self._outbox = Outbox(config.queue_max, config.queue_bytes, config.when_full, config.durable_queue)
        self._carried_by: dict[int, str] = {}
        """Broker of each entry in flight, by token."""
        self._waiting = False
        self._probing = False
        """The broker last said that nobody is subscribed: one observation at a time, until somebody is."""

    def on_start(self, ctx: Context) -> None:
        if self._config.durable_queue:
            self._outbox.load(ctx.store)
        self._sessions[self._brokers[0]].open(ctx)

    def on_message(self, ctx: Context, message: Observed | Published) -> None:
        match message:
            case Observed(observation):
                self._queue(ctx, observation)
            case Published():
                self._on_published(ctx, message)
        self._publish(ctx)

    def on_connected(self, ctx: Context, message: Connected) -> None:
        index = self._brokers.index(message.broker)
        better = index < self._using and self._config.return_to_preferred
        if better or self._used.failures:
            self._use(ctx, index)
        for broker in self._brokers:
            self._leave_if_done(ctx, broker)
        self._publish(ctx)

    def on_disconnected(self, ctx: Context, message: Disconnected) -> None:
        session = self._sessions[message.broker]
        if self._config.qos == 0:
            # Nothing holds on to these but we: what had not been handed to the network waits again.
            self._take_back(message.broker)
        if session is self._used and session.failures >= self._config.failover_after:
            self._use(ctx, (self._using + 1) % len(self._brokers))
        if session is not self._used:
            self._abandon(ctx, message.broker)
            if not self._config.return_to_preferred and not self._keep_all:
                session.close(ctx)
        self._publish(ctx)

    def on_unheard_timer(self, ctx: Context) -> None:
        """What nobody was subscribed to may go again."""
        self._waiting = False
        self._publish(ctx)

    @property
    def _used(self) -> Session:
        return self._sessions[self._brokers[self._using]]

    def _queue(self, ctx: Context, observation: Observation) -> None:
        payload = observation.encode()
        topic = f"birdhouse/{observation.id.device}/{observation.kind}"
        reason = "queue-full" if len(payload) <= self._config.queue_bytes else "too-large"
        for entry in self._outbox.add(ctx.store, str(observation.id), topic, payload):
            ctx.emit(Discarded(entry.id, reason))

    def _publish(self, ctx: Context) -> None:
        session = self._used
        if session.state != "connected" or self._waiting:
            return
        window = 1 if self._probing else min(self._config.in_flight_max, session.receive_maximum)
        while self._outbox.in_flight < window:
            entry = self._outbox.take()
            if entry is None:
                return
            self._carried_by[entry.token] = session.broker
            qos, retain = self._config.qos, self._config.retain
            ctx.send(CLIENT, Publish(session.broker, entry.token, entry.topic, entry.payload, qos, retain))

    def _on_published(self, ctx: Context, message: Published) -> None:
        if self._carried_by.pop(message.token, None) is None:
            return  # of one that was taken back
        self._probing = message.reason_code == NO_MATCHING_SUBSCRIBERS and self._config.require_subscriber
        if self._probing:
            self._outbox.put_back([message.token])
            self._waiting = True
            ctx.set_timer(_UNHEARD, self._config.unheard_retry_s)
        else:
            entry = self._outbox.acknowledge(ctx.store, message.token)
            if entry is not None and message.reason_code >= REFUSED:
                ctx.emit(Discarded(entry.id, "refused"))
        self._leave_if_done(ctx, message.broker)

    def _use(self, ctx: Context, index: int) -> None:
        """Publish over that broker from now on. What the one before it carries, it may still acknowledge."""
        self._using = index
        self._used.open(ctx)

    def _abandon(self, ctx: Context, broker: str) -> None:
        """Take back what a broker carries and will not acknowledge soon."""
        if self._carries(broker):
            ctx.send(CLIENT, Forget(broker))
            self._take_back(broker)

    def _take_back(self, broker: str) -> None:
        tokens = [token for token, carrier in self._carried_by.items() if carrier == broker]
        for token in tokens:
            del self._carried_by[token]
        self._outbox.put_back(tokens)

    def _carries(self, broker: str) -> bool:
        return broker in self._carried_by.values()

    def _leave_if_done(self, ctx: Context, broker: str) -> None:
        """Leave a broker worse than the one in use, once it has acknowledged all that it was given."""
        worse = self._brokers.index(broker) > self._using
        if worse and not self._keep_all and not self._carries(broker):
            self._sessions[broker].close(ctx)


class Subscriber:
    """Takes in what others publish, each observation once, and acknowledges what is safe."""

    def __init__(self, config: SubscribeConfig, client: Address = CLIENT) -> None:
        self._config = config
        self._client = client
        self._arrivals = Arrivals()
        self._missing: dict[str, dict[str, None]] = {}
        """By broker: filters that it is not known to have accepted in the session that it holds."""
        self._unsafe: dict[str, list[Acknowledge]] = {}
        """By observation id: acknowledgements that wait until it is kept."""

    def on_connected(self, ctx: Context, message: Connected) -> None:
        if not message.session_present:
            self.on_attempt_failed(message.broker)
        filters = dict.fromkeys(self._config.filters)
        for filter_ in self._missing.setdefault(message.broker, filters):
            ctx.send(self._client, Subscribe(message.broker, filter_, self._config.qos))

    def on_attempt_failed(self, broker: str) -> None:
        """Subscribe again, whatever the broker says next time. It may have accepted without our hearing of
        it, and then the session that is "present" is a new and empty one."""
        self._missing[broker] = dict.fromkeys(self._config.filters)

    def on_message(self, ctx: Context, message: Received | Subscribed | Kept) -> None:
        match message:
            case Subscribed():
                if message.reason_code < REFUSED:
                    self._missing[message.broker].pop(message.filter, None)
            case Kept(id):
                for acknowledgement in self._unsafe.pop(id, ()):
                    ctx.send(self._client, acknowledgement)
            case Received():
                self._on_received(ctx, message)

    def _on_received(self, ctx: Context, message: Received) -> None:
        acknowledgements = [] if message.token is None else [Acknowledge(message.broker, message.token)]
        try:
            observation = Observation.decode(message.payload)
        except msgspec.DecodeError as error:
            ctx.emit(Malformed(message.topic, str(error)))
            observation = None
        if observation is not None and observation.id.device != ctx.device:
            id_text = str(observation.id)
            if self._arrivals.add(observation.id):
                ctx.emit(Delivered(id_text, HOPS))
                if self._config.deliver_to:
                    ctx.send(address(ctx.device, self._config.deliver_to), Observed(observation))
                    self._unsafe[id_text] = []
            if id_text in self._unsafe:
                self._unsafe[id_text] += acknowledgements
                return
        for acknowledgement in acknowledgements:
            ctx.send(self._client, acknowledgement)


class Arrivals:
    """Which observations have arrived. Memory grows with the gaps only, and is bounded: of more than
    `_GAPS_MAX` gaps in a device's numbers the oldest is taken as arrived."""

    def __init__(self) -> None:
        self._of_device: dict[str, Intervals] = {}

    def add(self, id: ObservationId) -> bool:  # noqa: A002 - the data model's word
        """True on the first arrival."""
        held = self._of_device.setdefault(id.device, Intervals())
        if id.sequence in held:
            return False
        held.add(id.sequence)
        bounds = held.bounds()
        if len(bounds) > 2 * (_GAPS_MAX + 1):
            self._of_device[id.device] = Intervals((bounds[0], *bounds[3:]))
        return True
