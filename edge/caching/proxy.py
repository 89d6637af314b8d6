"""A cache between those who ask and the birdhouses: it asks once, however many ask it.

Owns requests under way and observations kept up towards parents: joining of concurrent requests, validation,
which parent is asked and when another one is, what is served when nobody answers. What is stored and for how
long is `cache`'s. The same is the client of a device that serves nobody but itself.

Parents of a birdhouse's resources are tried in order: caches nearer to it, and the birdhouse last. A parent
that stays silent is avoided for a while, by everything that was under way with it; one that answers 5.xx is
alive, and only passed over for this resource. An observation is renewed when the last notification is no
longer fresh (RFC 7641 §3.3.1, §4.3.1), which is also how a parent's silence is noticed.

Source: RFC 7252 §5.6 to §5.9 and §8.2.2 (caching proxies), RFC 7641 §5 (intermediaries).
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from edge.caching.cache import Cache, Stored
from edge.coap.messages import (
    CONTENT,
    ENDPOINT,
    GATEWAY_TIMEOUT,
    VALID,
    Acknowledged,
    Answered,
    Cancel,
    Failed,
    Get,
    Path,
    Representation,
    Respond,
    Tuning,
    is_success,
)
from edge.events import Served, SessionChanged
from underlay.messages import Message
from underlay.node import Context

LOCAL = 0
"""The client that is this device itself. Others are exchanges of the endpoint, which count from 1."""


class Reply(Message, frozen=True, array_like=True, tag=1):
    """From the proxy to its own node: an answer for this device itself."""

    transport = "local"
    path: Path
    representation: Representation
    observed: bool
    """Notifications follow."""


class ProxyConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How a device asks for others' resources."""

    parents: Mapping[str, tuple[str, ...]]
    """By birdhouse: whom to ask for its resources, in order. No two devices may be each other's parent for
    the same birdhouse, over any number of steps."""
    serves: bool = True
    """Whether others may ask it."""
    budget_bytes: int = 2_000_000
    stale_on_error: bool = True
    """Serve what is no longer fresh, with Max-Age 0, where no parent answers."""
    tuning: Tuning = Tuning()
    """Its acknowledgement timeout should be just above the round trip to a parent."""
    probe_s: float = 1.5
    """A parent that has not even acknowledged for so long is avoided, where there is another."""
    avoid_s: float = 5.0
    return_s: float = 10.0
    """An observation over another parent than the first goes back after this."""
    retry_s: float = 1.0
    """After no parent answered, how long the next who ask are told so at once."""
    grace_s: float = 0.5
    """How long after the end of freshness an observation is renewed, at most."""
    patience_s: float = 10.0
    """For the answer of a parent that has acknowledged, and between blocks."""


class Waiting(msgspec.Struct, frozen=True):
    """A client who has not been answered yet."""

    client: int
    etags: tuple[bytes, ...]
    joined: bool
    """Another client's request was under way."""


class Pursuit:
    """One resource that is being asked for, or observed."""

    __slots__ = ("observers", "parent", "path", "pending", "token", "tried", "waiting")

    def __init__(self, path: Path) -> None:
        self.path = path
        self.waiting: list[Waiting] = []
        self.observers: dict[int, None] = {}
        self.tried: list[str] = []
        """Parents asked since the last answer."""
        self.parent = ""
        self.token = 0
        """Of the request or observation at the parent; 0 is none."""
        self.pending = False
        """The request is not answered yet."""


class Proxy:
    """All that a device asks of others. Timers are tuples `(what, token or path)`."""

    def __init__(self, config: ProxyConfig) -> None:
        self._config = config
        self._cache = Cache(config.budget_bytes)
        self._pursuits: dict[Path, Pursuit] = {}
        self._by_token: dict[int, Pursuit] = {}
        self._asked_for: dict[int, Path] = {}
        """What each client wants, as long as it does."""
        self._answering: dict[str, str] = {}
        """By birdhouse: the parent that last answered about it."""
        self._avoided_until_s: dict[str, float] = {}
        self._resting_until_s: dict[Path, float] = {}
        self._tokens = 0

    def covers(self, device: str) -> bool:
        """Whether there is a way to that birdhouse."""
        return device in self._config.parents

    # --------------------------------------------------------------------------------------- from the clients

    def ask(
        self, ctx: Context, client: int, path: Path, etags: tuple[bytes, ...] = (), observe: bool = False
    ) -> None:
        """A client asks for a resource of another device; `path` begins with the device."""
        if client != LOCAL:
            self._asked_for[client] = path
        now_s = ctx.now
        stored = self._cache.get(path)
        if stored is not None and stored.is_fresh(now_s):
            observe = observe and is_success(stored.representation.code)
            self._serve(ctx, now_s, client, path, stored, "hit", etags, observe)
            if observe:
                pursuit = self._pursuit(path)
                pursuit.observers[client] = None
                if not pursuit.token:
                    self._ask_next(ctx, pursuit)
            return
        if self._resting_until_s.get(path, now_s) > now_s:
            self._refuse(ctx, client, path, observe)
            return
        pursuit = self._pursuit(path)
        if observe:
            pursuit.observers[client] = None
        pursuit.waiting.append(Waiting(client, etags, joined=pursuit.pending))
        if not pursuit.pending:
            self._renew(ctx, pursuit)

    def withdraw(self, ctx: Context, client: int) -> None:
        """A client is gone, or wants no more notifications."""
        path = self._asked_for.pop(client, None)
        pursuit = self._pursuits.get(path) if path is not None else None
        if pursuit is not None:
            pursuit.observers.pop(client, None)
            pursuit.waiting = [waiting for waiting in pursuit.waiting if waiting.client != client]
            if not pursuit.observers and not pursuit.waiting:
                self._end(ctx, pursuit)

    # --------------------------------------------------------------------------------------- from the parents

    def on_message(self, ctx: Context, message: Answered | Acknowledged | Failed) -> None:
        """From the endpoint, about something that was asked of a parent."""
        pursuit = self._by_token.get(message.token)
        if pursuit is None:
            return  # cancelled in this very moment
        match message:
            case Acknowledged():
                ctx.cancel_timer(("probe", pursuit.token))
                ctx.set_timer(("patience", pursuit.token), self._config.patience_s)
            case Failed(_, reason):
                self._release(ctx, pursuit)
                if reason == "timeout":
                    self._avoid(ctx, pursuit.parent)
                self._ask_next(ctx, pursuit)
            case Answered(_, representation, observed):
                self._avoided_until_s.pop(pursuit.parent, None)
                if representation.code >> 5 == 5:
                    self._release(ctx, pursuit)
                    self._ask_next(ctx, pursuit)
                else:
                    self._on_answer(ctx, pursuit, representation, observed)

    def on_timer(self, ctx: Context, what: object, key: object) -> None:
        """One of the timers set here."""
        pursuit = self._by_token.get(key) if isinstance(key, int) else None
        if isinstance(key, tuple):
            pursuit = self._pursuits.get(key)
        if pursuit is None:
            return
        match what:
            case "probe":
                self._avoid(ctx, pursuit.parent)
            case "patience":
                self._release(ctx, pursuit, cancel=True)
                self._ask_next(ctx, pursuit)
            case "lapse":
                if not pursuit.pending:
                    self._renew(ctx, pursuit)
            case "return":
                first = self._parents(pursuit)[0]
                if not pursuit.pending and pursuit.parent != first and not self._is_avoided(first, ctx.now):
                    self._renew(ctx, pursuit)

    def _on_answer(self, ctx: Context, pursuit: Pursuit, response: Representation, observed: bool) -> None:
        path, now_s = pursuit.path, ctx.now
        stored = self._cache.take_in(path, response, now_s)
        self._answering[path[0]] = pursuit.parent
        pursuit.pending = False
        self._stop_timers(ctx, pursuit)
        if not observed:
            self._by_token.pop(pursuit.token, None)
            pursuit.token = 0
        if stored is None:  # valid, but thrown away meanwhile: whole, please
            self._renew(ctx, pursuit)
            return
        pursuit.tried.clear()
        goes_on = is_success(stored.representation.code)
        observers = list(pursuit.observers)
        if not goes_on:
            pursuit.observers.clear()
        first = "validated" if response.code == VALID else "miss"
        waiting, pursuit.waiting = pursuit.waiting, []
        for client in waiting:
            outcome = "joined" if client.joined else first
            observes = goes_on and client.client in pursuit.observers
            self._serve(ctx, now_s, client.client, path, stored, outcome, client.etags, observes)
        answered = {client.client for client in waiting}
        if response.code != VALID:
            for observer in observers:
                if observer not in answered:
                    self._reply(ctx, observer, path, stored.served(now_s), goes_on)
        if not pursuit.observers:
            self._end(ctx, pursuit)
            return
        late_s = ctx.rng.uniform(0.5, 1.0) * self._config.grace_s
        ctx.set_timer(("lapse", path), stored.lifetime_s + late_s)
        if pursuit.parent != self._parents(pursuit)[0]:
            ctx.set_timer(("return", path), self._config.return_s)

    # ------------------------------------------------------------------------------------------- whom to ask

    def _renew(self, ctx: Context, pursuit: Pursuit) -> None:
        """Ask again, the best parent first."""
        self._release(ctx, pursuit, cancel=True)
        pursuit.tried.clear()
        self._ask_next(ctx, pursuit)

    def _ask_next(self, ctx: Context, pursuit: Pursuit) -> None:
        """Ask the best parent that was not asked yet."""
        untried = self._untried(ctx, pursuit)
        if not untried:
            self._give_up(ctx, pursuit)
            return
        parent = pursuit.parent = untried[0]
        pursuit.tried.append(parent)
        pursuit.pending = True
        self._tokens += 1
        token = pursuit.token = self._tokens
        self._by_token[token] = pursuit
        stored = self._cache.get(pursuit.path)
        etag = stored.representation.etag if stored and stored.representation.code == CONTENT else None
        observe = bool(pursuit.observers)
        config = self._config
        ctx.send(ENDPOINT, Get(token, parent, pursuit.path, etag, observe, config.tuning))
        ctx.set_timer(("patience", token), config.patience_s)
        if len(untried) > 1:
            ctx.set_timer(("probe", token), config.probe_s)

    def _untried(self, ctx: Context, pursuit: Pursuit) -> list[str]:
        """Parents left: those that are avoided last, and for a single request first whoever answered last."""
        now_s, observe = ctx.now, bool(pursuit.observers)
        answering = self._answering.get(pursuit.path[0])
        left = [parent for parent in self._parents(pursuit) if parent not in pursuit.tried]
        return sorted(left, key=lambda p: (self._is_avoided(p, now_s), not observe and p != answering))

    def _parents(self, pursuit: Pursuit) -> tuple[str, ...]:
        return self._config.parents[pursuit.path[0]]

    def _is_avoided(self, parent: str, now_s: float) -> bool:
        return self._avoided_until_s.get(parent, now_s) > now_s

    def _avoid(self, ctx: Context, parent: str) -> None:
        """Leave a silent parent, with everything that has somewhere else to go."""
        if not self._is_avoided(parent, ctx.now):
            ctx.emit(SessionChanged("disconnected", parent))
        self._avoided_until_s[parent] = ctx.now + self._config.avoid_s
        for pursuit in [p for p in self._pursuits.values() if p.parent == parent and p.token]:
            others = self._untried(ctx, pursuit)
            if others and not self._is_avoided(others[0], ctx.now):
                self._release(ctx, pursuit, cancel=True)
                if parent not in pursuit.tried:
                    pursuit.tried.append(parent)
                self._ask_next(ctx, pursuit)

    def _give_up(self, ctx: Context, pursuit: Pursuit) -> None:
        """No parent answered."""
        path = pursuit.path
        self._resting_until_s[path] = ctx.now + self._config.retry_s
        waiting, observers = pursuit.waiting, pursuit.observers
        pursuit.waiting, pursuit.observers = [], {}
        self._end(ctx, pursuit)
        for client in waiting:
            if client.client not in observers:
                self._refuse(ctx, client.client, path, observe=False)
        for observer in observers:
            self._refuse(ctx, observer, path, observe=True)

    # ---------------------------------------------------------------------------------------------- answering

    def _serve(
        self,
        ctx: Context,
        now_s: float,
        client: int,
        path: Path,
        stored: Stored,
        outcome: str,
        etags: tuple[bytes, ...],
        observed: bool,
    ) -> None:
        """Answer a request with what is stored. `now_s` is the same for all that one handler does: a clock
        goes on meanwhile, and what has just come would be of some age."""
        shown = stored.served(now_s)
        self._count(ctx, path, outcome, stored.age_s(now_s), stored.lifetime_s)
        if shown.code == CONTENT and shown.etag in etags:
            shown = Representation(VALID, etag=shown.etag, max_age_s=shown.max_age_s)
        self._reply(ctx, client, path, shown, observed)

    def _refuse(self, ctx: Context, client: int, path: Path, observe: bool) -> None:
        """Nobody answered: what is stale, or an error. An observer gets no stale content, so that it looks
        for another parent itself."""
        stored = self._cache.get(path)
        if stored is not None and self._config.stale_on_error and not observe:
            self._count(ctx, path, "stale", stored.age_s(ctx.now), stored.lifetime_s)
            shown = msgspec.structs.replace(stored.representation, max_age_s=0)
        else:
            self._count(ctx, path, "error", 0.0, 0.0)
            shown = Representation(GATEWAY_TIMEOUT, max_age_s=int(self._config.retry_s))
        self._reply(ctx, client, path, shown, observed=False)

    def _reply(
        self, ctx: Context, client: int, path: Path, representation: Representation, observed: bool
    ) -> None:
        if client == LOCAL:
            ctx.send(ctx.address, Reply(path, representation, observed))
            return
        if not observed:
            self._asked_for.pop(client, None)
        ctx.send(ENDPOINT, Respond(client, representation, observed, self._config.tuning))

    def _count(self, ctx: Context, path: Path, outcome: str, age_s: float, lifetime_s: float) -> None:
        if self._config.serves:
            ctx.emit(Served("/".join(path), outcome, age_s, lifetime_s))

    # ------------------------------------------------------------------------------------------------ helpers

    def _pursuit(self, path: Path) -> Pursuit:
        pursuit = self._pursuits.get(path)
        if pursuit is None:
            pursuit = self._pursuits[path] = Pursuit(path)
        return pursuit

    def _end(self, ctx: Context, pursuit: Pursuit) -> None:
        """Nobody wants it any more."""
        self._release(ctx, pursuit, cancel=True)
        ctx.cancel_timer(("lapse", pursuit.path))
        ctx.cancel_timer(("return", pursuit.path))
        if self._pursuits.get(pursuit.path) is pursuit:
            del self._pursuits[pursuit.path]

    def _release(self, ctx: Context, pursuit: Pursuit, cancel: bool = False) -> None:
        """Let go of what was asked of the parent."""
        if pursuit.token:
            self._stop_timers(ctx, pursuit)
            self._by_token.pop(pursuit.token, None)
            if cancel:
                ctx.send(ENDPOINT, Cancel(pursuit.token))
            pursuit.token = 0
        pursuit.pending = False

    def _stop_timers(self, ctx: Context, pursuit: Pursuit) -> None:
        ctx.cancel_timer(("probe", pursuit.token))
        ctx.cancel_timer(("patience", pursuit.token))
