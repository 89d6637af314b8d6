"""The gateway's node: takes observations in from every side, keeps them, and sees them to their destinations.

Owns the acknowledgement. An observation is acknowledged to whoever brought it when it is durable here, in the
spool or among the dead letters, or when one of its id was before; it leaves the spool when the destination
says that it is durable there, however long that is away. Who cannot be taken in is told so and when to come
again (doors), or is not acknowledged and waits in a small lobby until there is room (disseminations, which
offer nothing twice while their session lasts).

What can be believed is decided in `credibility`, where it goes in `routing`, how much may wait in `spool`,
what is known of a device in `registry`; `inquiry` answers the doors' questions.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from zlib import crc32

import msgspec

from edge.events import Stored
from edge.observation import Observation, Observed
from edge.sink import Kept
from gateway.audit import Audit
from gateway.credibility import Limits, problem_of
from gateway.dead_letters import DeadLetters
from gateway.destinations.dispatch import LANES, Destinations, bounds_of, paced
from gateway.destinations.store import to_store
from gateway.destinations.upstream import HOPS_MAX
from gateway.events import DeadLettered, Delivered, GaveWay, RoutedElsewhere, SpoolFull
from gateway.inquiry import Inquiry
from gateway.lane import Entry
from gateway.lobby import Lobby
from gateway.messages import NODE, Ask, DeadLetter, HandedOn, HandOn, Judged, Offered, Unreadable, Verdict
from gateway.registry import Registry
from gateway.routing.routes import DEAD_LETTER, DROP, STORE, UNMATCHED, Route
from gateway.routing.routing import Routing
from gateway.routing.tally import Tally
from gateway.routing.targets import type_of
from gateway.spool import END, PREFIX, Bounds, Refusal, Spool
from gateway.writer import Write, Writer
from kv.client import Client
from kv.messages import CLIENT_MESSAGES
from underlay.messages import Message, Protocol
from underlay.node import Address, Context, Node, Timer

_LOBBY: Timer = "lobby"
_READ_BACK: Timer = "read-back"


class GatewayConfig(msgspec.Struct, frozen=True):
    """How a gateway behaves."""

    limits: Limits = Limits()
    bounds: Bounds = Bounds()
    """Of each destination's spool."""
    routing: Routing = Routing()
    read_back_at_s: float | None = None
    """When to read back all that was acknowledged, by the device's clock; None: never."""


class _Safe(Message, frozen=True, array_like=True, tag=900):
    """To the gateway itself, once durable: `reply` may go to `to`."""

    transport = "local"
    to: Address
    reply: Kept | Judged | HandedOn


class Gateway(Node):
    """One gateway, on a device of its own or the sink's.

    Args:
        connect: makes the client of the storage tier, with so many lanes.
        config: how to behave.
    """

    protocol = Protocol("gateway", HandOn, HandedOn, *CLIENT_MESSAGES)

    def __init__(
        self, connect: Callable[[int], Client[Context]], config: GatewayConfig | None = None
    ) -> None:
        self._config = config or GatewayConfig()
        self._client = connect(LANES)
        self._table = self._config.routing.table
        self._tally = Tally([route.name for route in self._table.all], UNMATCHED)
        self._destinations = Destinations()
        bounds = self._config.bounds
        spool = Spool(bounds, STORE, self._table.leading_to(STORE))
        self._writers = {STORE: self._writer(STORE, STORE, to_store(self._client), spool, LANES)}
        for name, destination in self._config.routing.destination.items():
            write = self._destinations.write_to(name, destination, partial(self._on_failed, name))
            its, lanes = bounds_of(destination, bounds)
            spool = Spool(its, name, [paced(each, destination) for each in self._table.leading_to(name)])
            self._writers[name] = self._writer(name, type_of(destination), write, spool, lanes)
        self._paces = {writer.pace: writer for writer in self._writers.values()}
        self._registry = Registry()
        self._dead = DeadLetters()
        self._inquiry = Inquiry(
            self._client, self._registry, self._writers, self._dead, self._table, self._tally
        )
        self._lobby = Lobby()
        self._stored: dict[bytes, tuple[str, int]] = {}
        """For the audit, if there is to be one: by key, id and checksum of what the tier has acknowledged."""

    def on_start(self, ctx: Context) -> None:
        self._dead.load(ctx.store)
        for writer in self._writers.values():
            writer.spool.load(ctx.store, ctx.now)
        self._adopt(ctx)
        self._destinations.on_start(ctx)
        self._go_on(ctx)
        at_s = self._config.read_back_at_s
        if at_s is not None and ctx.now < at_s:
            ctx.set_timer(_READ_BACK, at_s - ctx.now)

    def on_message(self, ctx: Context, sender: Address, message: Message) -> None:
        match message:
            case Observed(observation):
                self._on_observed(ctx, sender, observation)
            case _Safe(to, reply):
                ctx.send(to, reply)
            case Offered(token, door, observations):
                verdicts = tuple(self._take(ctx, door, observation) for observation in observations)
                ctx.when_durable(_Safe(sender, Judged(token, verdicts)))
                self._go_on(ctx)
            case HandOn():
                self._on_handed_on(ctx, sender, message)
            case Unreadable(door, _, reason, sample):
                self._bury(ctx, DeadLetter(ctx.now, door, "", reason, sample))
            case Ask(token, question):
                self._inquiry.ask(ctx, sender, token, question)
            case _:
                if not self._destinations.on_message(ctx, sender, message):
                    self._client.on_message(ctx, sender, message)

    def on_timer(self, ctx: Context, timer: Timer) -> None:
        if timer == _READ_BACK:
            Audit(self._client, self._stored, LANES).go_on(ctx)
        elif timer == _LOBBY:
            self._call_in(ctx)
        elif timer in self._paces:
            self._paces[timer].go_on(ctx)
        elif not self._destinations.on_timer(ctx, timer):
            self._client.on_timer(ctx, timer)

    def on_peer_down(self, ctx: Context, peer: Address) -> None:
        if not self._destinations.on_peer_down(ctx, peer):
            self._client.on_peer_down(ctx, peer)

    # --------------------------------------------------------------------------------------------- taking in

    def _on_observed(self, ctx: Context, sender: Address, observation: Observation) -> None:
        """A dissemination hands one over: it hears `Kept`, now or when there is room, or nothing."""
        id_ = str(observation.id)
        if self._lobby.has(observation.id.device):  # what came before it is before it
            verdict = Verdict(id_, "busy")
        else:
            verdict = self._take(ctx, sender.rpartition("/")[2], observation)
        if verdict.outcome != "busy":
            ctx.when_durable(_Safe(sender, Kept(id_)))
            self._go_on(ctx)
            return
        ctx.emit(SpoolFull(id_, sum(each.spool.size_bytes for each in self._writers.values())))
        if not len(self._lobby):
            ctx.set_timer(_LOBBY, verdict.retry_after_s)
        self._lobby.enter(sender, observation)

    def _on_handed_on(self, ctx: Context, sender: Address, message: HandOn) -> None:
        """Another gateway offers; after the first that there is no room for, nothing may overtake it."""
        verdicts: list[Verdict] = []
        for observation in message.observations:
            busy = bool(verdicts) and verdicts[-1].outcome == "busy"
            verdicts.append(
                msgspec.structs.replace(verdicts[-1], id=str(observation.id))
                if busy
                else self._take(ctx, NODE, observation, message.hops)
            )
        ctx.when_durable(_Safe(sender, HandedOn(message.token, tuple(verdicts))))
        self._go_on(ctx)

    def _take(self, ctx: Context, door: str, observation: Observation, hops: int = 0) -> Verdict:
        """Judge one, and write down what follows.

        Args:
            hops: gateways that it came through.
        """
        id_, device, data = str(observation.id), observation.id.device, observation.encode()
        problem = problem_of(observation, len(data), ctx.now, self._config.limits)
        if not problem and hops > HOPS_MAX:
            problem = f"it has come through {hops} gateways: their routes form a loop"
        if problem:
            self._registry.refused(device, ctx.now)
            self._bury(ctx, DeadLetter(ctx.now, door, id_, problem, data))
            return Verdict(id_, "dead-letter", problem)
        key = observation.key()
        if self._registry.has(observation) or any(key in each.spool for each in self._writers.values()):
            self._registry.repeated(device, ctx.now)
            return Verdict(id_, "duplicate")
        routes = self._routes(ctx, observation, len(data))
        refused = self._refusal(ctx, routes, device, len(data))
        if refused:
            name, refusal = refused
            self._tally.of(name).refused += 1
            return Verdict(id_, "busy", refusal.reason, refusal.retry_after_s)
        for route in routes:
            self._tally.of(route.name).matched += 1
            if route.to != DROP:
                self._spool(ctx, route, observation, data, hops)
        if not hops and all(route.to != STORE for route in routes):
            ctx.emit(RoutedElsewhere(id_, tuple(route.to for route in routes)))
        self._registry.kept(observation, len(data), ctx.now)
        return Verdict(id_, "kept")

    def _routes(self, ctx: Context, observation: Observation, size_bytes: int) -> tuple[Route, ...]:
        return self._table.match(observation, size_bytes, ctx.now - observation.t_gen)

    def _refusal(
        self, ctx: Context, routes: tuple[Route, ...], device: str, size_bytes: int
    ) -> tuple[str, Refusal] | None:
        """The first route by which there is no room, and why; it has to have room by all of them."""
        for route in routes:
            if route.to != DROP:
                refusal = self._writers[route.to].spool.refusal(device, size_bytes, ctx.now, route.name)
                if refusal:
                    return route.name, refusal
        return None

    def _spool(
        self, ctx: Context, route: Route, observation: Observation, data: bytes, hops: int = 0
    ) -> None:
        spool = self._writers[route.to].spool
        for entry in spool.add(ctx.store, observation, data, ctx.now, route.name, hops):
            self._tally.of(entry.route).dropped += 1
            ctx.emit(GaveWay(entry.id, entry.route, route.to))

    def _go_on(self, ctx: Context) -> None:
        for writer in self._writers.values():
            writer.go_on(ctx)

    def _bury(self, ctx: Context, letter: DeadLetter) -> None:
        """Where the user wants it, or where there is no room for it there, into the table."""
        ctx.emit(DeadLettered(letter.id, letter.reason))
        route = self._table.dead_letter
        counts = self._tally.of(route.name)
        counts.matched += 1
        if route.to in self._writers:
            spool = self._writers[route.to].spool
            found = self._dead.as_observation(ctx.store, ctx.device, letter)
            data = found.encode()
            if not spool.refusal(ctx.device, len(data), ctx.now, route.name):
                self._spool(ctx, route, found, data)
                self._writers[route.to].go_on(ctx)
                return
        if route.to != DROP:
            self._dead.add(ctx.store, letter)
            counts.written += 1

    # ------------------------------------------------------------------------------------- what writing tells

    def _writer(self, name: str, kind: str, write: Write, spool: Spool, lanes: int) -> Writer:
        def written(ctx: Context, entry: Entry, data: bytes) -> None:
            self._tally.of(entry.route).written += 1
            if name == STORE:
                self._on_stored(ctx, entry, data)
            else:
                ctx.emit(Delivered(entry.id, name))

        def given_up(ctx: Context, entry: Entry, data: bytes, reason: str) -> None:
            self._tally.of(entry.route).dead_lettered += 1
            letter = DeadLetter(ctx.now, name, entry.id, reason, data)
            if entry.route == DEAD_LETTER:  # it would not be better the next time
                self._dead.add(ctx.store, letter)
            else:
                self._registry.refused(entry.device, ctx.now)
                self._bury(ctx, letter)

        return Writer(name, kind, spool, lanes, write, written, given_up, self._call_in)

    def _on_failed(self, name: str, trouble: str) -> None:
        self._writers[name].failed(trouble)

    def _on_stored(self, ctx: Context, entry: Entry, data: bytes) -> None:
        if self._config.read_back_at_s is not None:
            self._stored[entry.key] = entry.id, crc32(data)
        ctx.emit(Stored(entry.id))

    def _adopt(self, ctx: Context) -> None:
        """What waits for a destination that there is no more goes to the store."""
        store = self._writers[STORE].spool
        for spool_key, data in list(ctx.store.scan(PREFIX, END)):
            name = spool_key[len(PREFIX) :].partition(b":")[0].decode()
            if name not in self._writers:
                ctx.store.delete(spool_key)
                store.add(ctx.store, Observation.decode(data), data, ctx.now)

    def _call_in(self, ctx: Context) -> None:
        """There may be room again: those who wait for it come, as far as it goes."""
        waits = []
        for sender, observation in self._lobby.round():
            device, size_bytes = observation.id.device, len(observation.encode())
            routes = self._routes(ctx, observation, size_bytes)
            found = self._refusal(ctx, routes, device, size_bytes)
            if found:
                waits.append(found[1].retry_after_s)
            else:
                self._lobby.leave(device)
                verdict = self._take(ctx, sender.rpartition("/")[2], observation)
                ctx.when_durable(_Safe(sender, Kept(verdict.id)))
        if waits:
            ctx.set_timer(_LOBBY, min(waits))
        self._go_on(ctx)
