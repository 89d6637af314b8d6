"""Gateways side by side on a broker: each device belongs to a shard, each shard to one gateway at a time.

Owns which gateway takes a shard in. A shard is one persistent MQTT session: its client id is the shard's
name, its subscriptions are its devices. Whichever gateway connects under that id gets what the session holds,
in the order in which the broker took it, beginning with what the one before did not acknowledge (MQTT 5, 4.4,
4.6). The broker itself sees to it that there is never more than one (3.1.4: a second connection under a
client id ends the first). So a device's order survives a failover, and what was not acknowledged is not lost.

A shared subscription (4.8.2) shares the load too, and needs no list of devices; but it deals a device's
messages out among the members, which keep them independently, so there is no order; and what is under way to
a member that died may stay in its session until it is back.

Who holds a shard: the gateways in the order in which its number rotates them, the first that is heard. A
gateway that is `fit` says so every `beat_s` to the others. Heartbeats are about who should, and may be wrong
about it (gateways that hear the broker and not each other): then a shard changes hands more often than it
needs, observations arrive twice and are recognised by their ids, and that is all.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Annotated, Literal
from zlib import crc32

import msgspec

from edge.mqtt.messages import CLIENT, Connected, Disconnected, Received, Subscribed
from edge.mqtt.model_client import ModelClient
from edge.mqtt.packets import PORT
from edge.mqtt.session import Session, SessionConfig
from edge.sink import Kept
from edge.star import SubscribeConfig, Subscriber
from gateway.messages import NODE
from underlay.messages import Message, Protocol
from underlay.node import Address, Context, Node, Timer, address, device_of
from underlay.plan import Binding, BindingPlan, DevicePlan, NodePlan

FIRST_PORT = 7200
"""Of the nodes: one for each shard, on every gateway."""
_BEAT: Timer = "beat"


class ShardsConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The same on every gateway."""

    gateways: tuple[str, ...]
    """Their devices."""
    brokers: tuple[str, ...]
    devices: tuple[str, ...]
    """All that may publish. What others publish is nobody's."""
    shards: Annotated[int, msgspec.Meta(ge=1, le=100)] = 4
    """A multiple of the number of gateways shares evenly."""
    qos: Literal[1, 2] = 1
    deliver_to: str = NODE
    """The node that keeps observations; what it has not said it `Kept` is not acknowledged."""
    session: SessionConfig = SessionConfig(receive_maximum=20)
    """Its receive maximum times the shards is what a gateway may have in its hands unacknowledged."""
    beat_s: float = 0.5
    patience_s: float = 2.0
    """A gateway that was not heard for so long is passed over."""


class Beat(Message, frozen=True, array_like=True, tag=1):
    """The sender is there, and can take its shard."""

    transport = "datagram"


def shard_of(device: str, shards: int) -> int:
    """The number of the device's shard, the same on every machine.

    >>> shard_of("cam1", 4), shard_of("cam2", 4), shard_of("cam3", 4)
    (2, 0, 2)
    """
    return crc32(device.encode()) % shards


def preference(shard: int, gateways: Sequence[str]) -> tuple[str, ...]:
    """Who should hold a shard, in order.

    >>> preference(1, ("a", "b", "c"))
    ('b', 'c', 'a')
    """
    first = shard % len(gateways)
    return (*gateways[first:], *gateways[:first])


def shard_plan(
    config: ShardsConfig, engine: Callable[[], Binding] | None = None, port: int = PORT
) -> DevicePlan:
    """For each gateway's device, beside the node `deliver_to`: a node and an MQTT client for each shard.

    Args:
        engine: makes a client; None: paho's.
        port: of the brokers, for what is counted.
    """
    numbers = range(config.shards)
    nodes = tuple(NodePlan(_name(n), partial(Shard, config, n), FIRST_PORT + n) for n in numbers)
    # One each: a client has one connection to a broker.
    clients = tuple(BindingPlan(_client(n), ModelClient, engine or _paho, port) for n in numbers)
    return DevicePlan(nodes, clients)


def _name(shard: int) -> str:
    return f"shard{shard}"


def _client(shard: int) -> Address:
    return f"{CLIENT}-shard{shard}"


def _paho() -> Binding:
    from edge.mqtt.paho_binding import PahoBinding  # only the emulation needs paho

    return PahoBinding()


class Shard(Node):
    """A gateway's part in one shard: it holds it, or stands by."""

    protocol = Protocol("shard", Beat)

    def __init__(self, config: ShardsConfig, number: int) -> None:
        self._config = config
        self._preference = preference(number, config.gateways)
        session = msgspec.structs.replace(config.session, client_id=f"gateways-shard{number}")
        self._sessions = {broker: Session(broker, session, _client(number)) for broker in config.brokers}
        own = [device for device in config.devices if shard_of(device, config.shards) == number]
        filters = tuple(f"birdhouse/{device}/+" for device in own)
        self._subscriber = Subscriber(
            SubscribeConfig(config.qos, config.deliver_to, filters), _client(number)
        )
        self._before: tuple[str, ...] = ()
        self._heard_s: dict[str, float] = {}

    def on_start(self, ctx: Context) -> None:
        self._before = self._preference[: self._preference.index(ctx.device)]
        # They may well be there: a start gives them their time.
        self._heard_s = dict.fromkeys(self._before, ctx.now)
        self.on_timer(ctx, _BEAT)

    def on_message(self, ctx: Context, sender: Address, message: Message) -> None:
        match message:
            case Beat():
                self._heard_s[device_of(sender)] = ctx.now
                self._decide(ctx)
            case Connected():
                self._sessions[message.broker].on_connected(ctx, message)
                self._subscriber.on_connected(ctx, message)
            case Disconnected():
                self._on_disconnected(ctx, message)
            case Received() | Subscribed() | Kept():
                self._subscriber.on_message(ctx, message)

    def on_timer(self, ctx: Context, timer: Timer) -> None:
        if timer == _BEAT:
            ctx.set_timer(_BEAT, self._config.beat_s)
            self._decide(ctx)
            if self.fit:
                name = ctx.address.partition("/")[2]
                for gateway in self._config.gateways:
                    if gateway != ctx.device:
                        ctx.send(address(gateway, name), Beat())
            return
        for session in self._sessions.values():
            if timer == session.retry:
                session.on_retry(ctx)

    @property
    def holds(self) -> bool:
        """Whether this gateway takes the shard in, or is trying to."""
        return any(session.state != "idle" for session in self._sessions.values())

    @property
    def fit(self) -> bool:
        """Not when it tries and there is no broker that it reaches: another gateway may."""
        return any(session.failures == 0 for session in self._sessions.values())

    def _on_disconnected(self, ctx: Context, message: Disconnected) -> None:
        session = self._sessions[message.broker]
        if session.state == "connecting":
            self._subscriber.on_attempt_failed(message.broker)
        session.on_disconnected(ctx, message)
        # Perhaps by the shard's next holder: whoever comes before us gets time to be heard.
        self._heard_s.update(dict.fromkeys(self._before, ctx.now))
        self._decide(ctx)

    def _decide(self, ctx: Context) -> None:
        silent_s = ctx.now - self._config.patience_s
        due = all(self._heard_s[gateway] <= silent_s for gateway in self._before)
        for session in self._sessions.values():
            if due:
                session.open(ctx)
            else:
                session.close(ctx)
