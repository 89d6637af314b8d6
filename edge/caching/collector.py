"""A subscriber: it follows the logs of all birdhouses through the caches, and lacks nothing for long.

Owns what has arrived and what is known to be missing. Each log's head is observed, or polled as often as its
freshness says; every entry tells which older ones exist, and those that did not come are fetched by position,
newest last, a few at a time. Where nobody answers it asks again.
"""

from __future__ import annotations

import msgspec

from edge.caching.log import Entry
from edge.caching.origin import LOG
from edge.caching.proxy import LOCAL, Proxy, Reply
from edge.coap.messages import CONTENT, NOT_FOUND, VALID, Representation
from edge.events import Delivered, Discarded
from edge.intervals import Intervals
from edge.observation import Observation, Observed
from underlay.node import Context, address
from underlay.trace import Malformed

_HELD = b"held:"


class CollectorConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a subscriber follows, and how."""

    sources: tuple[str, ...]
    """Birdhouses whose observations it wants."""
    observe: bool = True
    """Observe their logs, or poll them."""
    deliver_to: str | None = None
    """A node on the device that keeps observations (`sink`). What it says it has `Kept` is not fetched again
    after a restart."""
    fetches_max: int = 4
    """Entries asked for at a time, of each birdhouse."""
    retry_s: float = 2.0
    poll_s_min: float = 0.5


class Following:
    """What is known of one birdhouse's log."""

    __slots__ = ("fetching", "held", "kept", "known")

    def __init__(self, kept: tuple[int, ...] = ()) -> None:
        self.held = Intervals(kept)
        """Positions that have arrived, or are gone."""
        self.kept = Intervals(kept)
        """Those of them that survive a restart."""
        self.known = (0, -1)
        """The oldest and the newest position that the log has, as far as is known."""
        self.fetching: set[int] = set()

    def missing(self) -> list[int]:
        """Positions to ask for, ascending."""
        there = Intervals(self.known)
        return [position for position in there.minus(self.held) if position not in self.fetching]


class Collector:
    """Follows logs. Timers are `("follow", device)`."""

    def __init__(self, config: CollectorConfig) -> None:
        self._config = config
        self._following: dict[str, Following] = {}
        self._unkept: dict[str, tuple[str, int]] = {}
        """Log and position of what was handed over, by observation id."""

    def on_start(self, ctx: Context, proxy: Proxy) -> None:
        for source in self._config.sources:
            kept = ctx.store.get(_HELD + source.encode()) if self._config.deliver_to else None
            bounds = msgspec.msgpack.decode(kept, type=tuple[int, ...]) if kept else ()
            self._following[source] = Following(bounds)
        for source in self._config.sources:
            self._follow(ctx, proxy, source)

    def on_follow_timer(self, ctx: Context, proxy: Proxy, source: str) -> None:
        """Time to ask for a log again, and for what is missing of it."""
        self._follow(ctx, proxy, source)
        self._fetch(ctx, proxy, source)

    def on_reply(self, ctx: Context, proxy: Proxy, reply: Reply) -> None:
        """The head of a log, or an entry, or that there is none."""
        source, *rest = reply.path
        representation = reply.representation
        following = self._following[source]
        if rest == [LOG]:
            self._on_head(ctx, source, representation, reply.observed)
        else:
            position = int(rest[1])
            following.fetching.discard(position)
            if representation.code == CONTENT:
                self._take(ctx, source, representation.payload)
            elif representation.code == NOT_FOUND:
                following.held.add(position)
                ctx.emit(Discarded(f"{source}/{LOG}/{position}", "gone"))
            else:
                ctx.set_timer(("follow", source), self._config.retry_s)
                return
        self._fetch(ctx, proxy, source)

    def on_kept(self, ctx: Context, id_text: str) -> None:
        """The observation is durable."""
        source, position = self._unkept.pop(id_text, ("", -1))
        if source:
            kept = self._following[source].kept
            kept.add(position)
            ctx.store.put(_HELD + source.encode(), msgspec.msgpack.encode(kept.bounds()))

    def _follow(self, ctx: Context, proxy: Proxy, source: str) -> None:
        proxy.ask(ctx, LOCAL, (source, LOG), observe=self._config.observe)

    def _on_head(self, ctx: Context, source: str, representation: Representation, observed: bool) -> None:
        answered = representation.code in (CONTENT, VALID)
        if not answered:
            ctx.set_timer(("follow", source), self._config.retry_s)
        elif not observed:
            fresh_s = float(representation.max_age_s or 0)
            ctx.set_timer(("follow", source), max(self._config.poll_s_min, fresh_s))
        if answered and representation.payload:
            self._take(ctx, source, representation.payload)

    def _take(self, ctx: Context, source: str, payload: bytes) -> None:
        try:
            entry = Entry.decode(payload)
        except msgspec.DecodeError as error:
            ctx.emit(Malformed(f"{source}/{LOG}", str(error)))
            return
        following = self._following[source]
        if entry.position > following.known[1]:
            following.known = (entry.oldest, entry.position)
        if entry.observation is not None and entry.position not in following.held:
            following.held.add(entry.position)
            self._deliver(ctx, source, entry.position, entry.observation)

    def _deliver(self, ctx: Context, source: str, position: int, observation: Observation) -> None:
        id_text = str(observation.id)
        ctx.emit(Delivered(id_text))
        if self._config.deliver_to:
            self._unkept[id_text] = (source, position)
            ctx.send(address(ctx.device, self._config.deliver_to), Observed(observation))

    def _fetch(self, ctx: Context, proxy: Proxy, source: str) -> None:
        following = self._following[source]
        free = self._config.fetches_max - len(following.fetching)
        for position in following.missing()[: max(0, free)]:
            following.fetching.add(position)
            proxy.ask(ctx, LOCAL, (source, LOG, str(position)))
