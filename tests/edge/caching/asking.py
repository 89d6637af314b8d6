"""A node that asks a device's resources over CoAP, and what plans of birdhouses and caches look like."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import msgspec

from edge.caching.collector import CollectorConfig
from edge.caching.node import NAME, Caching, CachingConfig
from edge.caching.origin import OriginConfig
from edge.caching.proxy import ProxyConfig
from edge.coap.messages import ENDPOINT, PORT, Answered, Cancel, Failed, Get, Post, Tuning
from edge.coap.model import ModelEndpoint
from edge.observation import Observation, ObservationId, Observed
from underlay.messages import Message, Protocol
from underlay.node import Address, Context, Node, Timer
from underlay.plan import Binding, BindingPlan
from underlay.simulation.world import World
from underlay.trace import Event, Record

TUNING = Tuning(ack_timeout_s=0.5)


class Saw(Event, frozen=True, tag="test-saw"):
    """An answer reached the asking node."""

    token: int
    code: int
    payload: str
    etag: str
    max_age_s: int | None
    observed: bool


class FailedAt(Event, frozen=True, tag="test-failed"):
    token: int
    reason: str


class Ask(Message, frozen=True, array_like=True, tag=90):
    """Tells the asking node to ask."""

    transport = "local"
    get: Get | Post


class Client(Node):
    """Asks what it is told to, and `rate_per_s` times a second at random what it is made with."""

    protocol = Protocol("client")

    def __init__(self, get: Get | None = None, rate_per_s: float = 0.0) -> None:
        self._get = get
        self._rate_per_s = rate_per_s
        self._asked = 1000

    def on_start(self, ctx: Context) -> None:
        if self._get is not None:
            ctx.set_timer("next", 1.0 + ctx.rng.expovariate(self._rate_per_s))

    def on_timer(self, ctx: Context, timer: Timer) -> None:
        assert self._get is not None
        self._asked += 1
        ctx.send(ENDPOINT, msgspec.structs.replace(self._get, token=self._asked))
        ctx.set_timer("next", ctx.rng.expovariate(self._rate_per_s))

    def on_message(self, ctx: Context, sender: Address, message: Message) -> None:
        match message:
            case Ask(get):
                ctx.send(ENDPOINT, get)
            case Cancel():
                ctx.send(ENDPOINT, message)
            case Answered(token, shown, observed):
                etag = (shown.etag or b"").hex()
                payload = shown.payload.hex()
                ctx.emit(Saw(token, shown.code, payload, etag, shown.max_age_s, observed))
            case Failed(token, reason):
                ctx.emit(FailedAt(token, reason))


def no_engine() -> Binding:
    raise AssertionError("these plans are simulated")


def endpoint(server: str = NAME) -> BindingPlan:
    return BindingPlan(ENDPOINT, partial(ModelEndpoint, server), no_engine, PORT)


def birdhouse(max_age_s: int = 10, tuning: Tuning = TUNING) -> Caching:
    """A birdhouse that serves what it observed to whoever asks."""
    config = OriginConfig({"temperature": max_age_s, "photograph": max_age_s}, tuning=tuning)
    return Caching(CachingConfig(ProxyConfig({}, serves=False), config))


def cache(parents: Mapping[str, tuple[str, ...]], tuning: Tuning = TUNING, **proxy: Any) -> Caching:
    """A cache between."""
    config = msgspec.convert({"parents": dict(parents), **proxy}, ProxyConfig)
    return Caching(CachingConfig(msgspec.structs.replace(config, tuning=tuning)))


def subscriber(parents: Mapping[str, tuple[str, ...]], **collector: object) -> Caching:
    """Somebody who wants everything."""
    proxy = ProxyConfig(dict(parents), serves=False, budget_bytes=50_000, tuning=TUNING, probe_s=2.0)
    config = msgspec.convert({"sources": tuple(parents), "retry_s": 1.0, **collector}, CollectorConfig)
    return Caching(CachingConfig(proxy, collector=config))


def observed(sequence: int, payload: bytes = b"21.5", kind: str = "temperature", by: str = "cam") -> Observed:
    return Observed(Observation(ObservationId(by, sequence), kind, 0.0, 0.0, payload))


def get(device: str, path: str, token: int = 1, etag: bytes | None = None, observe: bool = False) -> Get:
    return Get(token, device, tuple(path.split("/")), etag, observe, TUNING)


def saw(world: World) -> list[Record]:
    """The answers that reached clients."""
    return of(world, "test-saw")


def of(world: World, event: str) -> list[Record]:
    return [record for record in world.records() if record["event"] == event]


def outcomes(world: World) -> list[str]:
    """What the caches made of their requests."""
    return [record["outcome"] for record in of(world, "served")]
