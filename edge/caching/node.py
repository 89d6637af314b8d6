"""The caching node of a device: birdhouse, cache and subscriber in any combination.

Owns only the meeting of the three (`origin`, `proxy`, `collector`) and which of them a request is for. Every
machine answers `/<device>/...`: a birdhouse for itself, a cache for all birdhouses it has a way to; and
`/.well-known/core` lists what there is (RFC 6690).
"""

from __future__ import annotations

import msgspec

from edge.caching.collector import Collector, CollectorConfig
from edge.caching.origin import LOG, Origin, OriginConfig
from edge.caching.proxy import Proxy, ProxyConfig, Reply
from edge.coap.messages import (
    CONTENT,
    ENDPOINT,
    LINK_FORMAT,
    NOT_FOUND,
    Acknowledged,
    Answered,
    Asked,
    Failed,
    Path,
    Representation,
    Respond,
    Withdrawn,
)
from edge.observation import Observed
from edge.sink import Kept
from underlay.messages import Message, Protocol
from underlay.node import Address, Context, Node, Timer

NAME = "caching"
"""The node's name on every device."""

DISCOVERY: Path = (".well-known", "core")


class CachingConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A device's part."""

    proxy: ProxyConfig
    origin: OriginConfig | None = None
    collector: CollectorConfig | None = None


class Caching(Node):
    """The node on every device that takes part."""

    protocol = Protocol(NAME)

    def __init__(self, config: CachingConfig) -> None:
        self._config = config
        self._proxy = Proxy(config.proxy)
        self._origin = Origin(config.origin) if config.origin else None
        self._collector = Collector(config.collector) if config.collector else None

    def on_start(self, ctx: Context) -> None:
        if self._origin:
            self._origin.on_start(ctx)
        if self._collector:
            self._collector.on_start(ctx, self._proxy)

    def on_message(self, ctx: Context, sender: Address, message: Message) -> None:
        match message:
            case Observed(observation) if self._origin:
                self._origin.on_observed(ctx, observation)
            case Asked():
                self._on_asked(ctx, message)
            case Withdrawn(exchange):
                if self._origin:
                    self._origin.withdraw(exchange)
                self._proxy.withdraw(ctx, exchange)
            case Answered() | Acknowledged() | Failed():
                self._proxy.on_message(ctx, message)
            case Reply() if self._collector:
                self._collector.on_reply(ctx, self._proxy, message)
            case Kept(id) if self._collector:
                self._collector.on_kept(ctx, id)

    def on_timer(self, ctx: Context, timer: Timer) -> None:
        match timer:
            case ("follow", str(source)) if self._collector:
                self._collector.on_follow_timer(ctx, self._proxy, source)
            case (what, key):
                self._proxy.on_timer(ctx, what, key)

    def _on_asked(self, ctx: Context, asked: Asked) -> None:
        path, origin = asked.path, self._origin
        own = path[1:] if path[:1] == (ctx.device,) else path
        if origin and origin.has(own):
            origin.ask(ctx, asked.exchange, own, asked.etags, asked.observe)
        elif path == DISCOVERY:
            links = Representation(CONTENT, self._links(ctx), content_format=LINK_FORMAT)
            ctx.send(ENDPOINT, Respond(asked.exchange, links))
        elif self._config.proxy.serves and len(path) > 1 and self._proxy.covers(path[0]):
            self._proxy.ask(ctx, asked.exchange, path, asked.etags, asked.observe)
        else:
            ctx.send(ENDPOINT, Respond(asked.exchange, Representation(NOT_FOUND)))

    def _links(self, ctx: Context) -> bytes:
        """What can be asked for here, in link format."""
        paths = [(ctx.device, *path) for path in self._origin.paths()] if self._origin else []
        if self._config.proxy.serves:
            paths += [(device, LOG) for device in self._config.proxy.parents]
        return ",".join(f"</{'/'.join(path)}>;obs" for path in paths).encode()
