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

from collections import deque
from collections.abc import Callable
from zlib import crc32

import msgspec

from edge.events import Stored
from edge.observation import Observation, Observed
from edge.sink import Kept
from gateway.audit import Audit
from gateway.credibility import Limits, problem_of
from gateway.dead_letters import DeadLetters
from gateway.destinations.files import Files, FilesWritten
from gateway.destinations.store import to_store
from gateway.events import DeadLettered, Delivered, RoutedElsewhere, SpoolFull
from gateway.inquiry import Inquiry
from gateway.messages import Ask, DeadLetter, Judged, Offered, Unreadable, Verdict
from gateway.registry import Registry
from gateway.routing.routes import DROP, STORE
from gateway.routing.routing import Routing
from gateway.spool import END, PREFIX, Bounds, Entry, Spool
from gateway.writer import Write, Writer
from kv.client import Client
from kv.messages import CLIENT_MESSAGES
from underlay.messages import Message, Protocol
from underlay.node import Address, Context, Node, Timer

LANES = 32
"""Writes under way at a time."""
LOBBY_MAX = 256
"""Observations that were turned away and are taken when there is room."""
RETRY_AFTER_S = 1.0
"""What a door is told to tell its clients while the spool is full."""
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
    reply: Kept | Judged


class Gateway(Node):
    """One gateway, on a device of its own or the sink's.

    Args:
        connect: makes the client of the storage tier, with so many lanes.
        config: how to behave.
    """

    protocol = Protocol("gateway", *CLIENT_MESSAGES)

    def __init__(
        self, connect: Callable[[int], Client[Context]], config: GatewayConfig | None = None
    ) -> None:
        self._config = config or GatewayConfig()
        self._client = connect(LANES)
        self._table = self._config.routing.table
        self._files = Files()
        self._writers = {STORE: self._writer(STORE, to_store(self._client))}
        for name in self._config.routing.destination:
            self._writers[name] = self._writer(name, self._files.write_to(name))
        self._files.writers = self._writers
        self._registry = Registry()
        self._dead = DeadLetters()
        self._inquiry = Inquiry(self._client, self._registry, self._writers, self._dead)
        self._lobby: deque[tuple[Address, Observation]] = deque()
        self._stored: dict[bytes, tuple[str, int]] = {}
        """For the audit, if there is to be one: by key, id and checksum of what the tier has acknowledged."""

    def on_start(self, ctx: Context) -> None:
        self._dead.load(ctx.store)
        for writer in self._writers.values():
            writer.spool.load(ctx.store, ctx.now)
        self._adopt(ctx)
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
            case FilesWritten():
                self._files.on_written(ctx, message)
            case Unreadable(door, _, reason, sample):
                self._bury(ctx, DeadLetter(ctx.now, door, "", reason, sample))
            case Ask(token, question):
                self._inquiry.ask(ctx, sender, token, question)
            case _:
                self._client.on_message(ctx, sender, message)

    def on_timer(self, ctx: Context, timer: Timer) -> None:
        if timer == _READ_BACK:
            Audit(self._client, self._stored, LANES).go_on(ctx)
        elif not self._files.on_timer(ctx, timer):
            self._client.on_timer(ctx, timer)

    def on_peer_down(self, ctx: Context, peer: Address) -> None:
        self._client.on_peer_down(ctx, peer)

    # --------------------------------------------------------------------------------------------- taking in

    def _on_observed(self, ctx: Context, sender: Address, observation: Observation) -> None:
        """A dissemination hands one over: it hears `Kept`, now or when there is room, or nothing."""
        verdict = self._take(ctx, sender.rpartition("/")[2], observation)
        if verdict.outcome == "busy":
            ctx.emit(SpoolFull(verdict.id, sum(each.spool.size_bytes for each in self._writers.values())))
            if len(self._lobby) < LOBBY_MAX:
                self._lobby.append((sender, observation))
            return
        ctx.when_durable(_Safe(sender, Kept(verdict.id)))
        self._go_on(ctx)

    def _take(self, ctx: Context, door: str, observation: Observation) -> Verdict:
        """Judge one, and write down what follows."""
        id_, device, data = str(observation.id), observation.id.device, observation.encode()
        problem = problem_of(observation, len(data), ctx.now, self._config.limits)
        if problem:
            self._registry.refused(device, ctx.now)
            self._bury(ctx, DeadLetter(ctx.now, door, id_, problem, data))
            return Verdict(id_, "dead-letter", problem)
        key = observation.key()
        if self._registry.has(observation) or any(key in each.spool for each in self._writers.values()):
            self._registry.repeated(device, ctx.now)
            return Verdict(id_, "duplicate")
        names = self._destinations(ctx, observation, len(data))
        writers = [self._writers[name] for name in names if name != DROP]
        for writer in writers:
            refusal = writer.spool.refusal(device, len(data))
            if refusal:
                return Verdict(id_, "busy", refusal, RETRY_AFTER_S)
        for writer in writers:
            writer.spool.add(ctx.store, observation, data, ctx.now)
        if STORE not in names:
            ctx.emit(RoutedElsewhere(id_, names))
        self._registry.kept(observation, len(data), ctx.now)
        return Verdict(id_, "kept")

    def _destinations(self, ctx: Context, observation: Observation, size_bytes: int) -> tuple[str, ...]:
        return self._table.match(observation, size_bytes, ctx.now - observation.t_gen)

    def _go_on(self, ctx: Context) -> None:
        for writer in self._writers.values():
            writer.go_on(ctx)

    def _bury(self, ctx: Context, letter: DeadLetter) -> None:
        self._dead.add(ctx.store, letter)
        ctx.emit(DeadLettered(letter.id, letter.reason))

    # ------------------------------------------------------------------------------------- what writing tells

    def _writer(self, name: str, write: Write) -> Writer:
        def written(ctx: Context, entry: Entry, data: bytes) -> None:
            if name == STORE:
                self._on_stored(ctx, entry, data)
            else:
                ctx.emit(Delivered(entry.id, name))
            self._call_in(ctx)

        def given_up(ctx: Context, entry: Entry, data: bytes, reason: str) -> None:
            self._registry.refused(entry.device, ctx.now)
            self._bury(ctx, DeadLetter(ctx.now, name, entry.id, reason, data))
            self._call_in(ctx)

        return Writer(Spool(self._config.bounds, name), LANES, write, written, given_up)

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
        """There is room again: those who wait for it come in their order, as far as it goes."""
        for _ in range(len(self._lobby)):
            sender, observation = self._lobby[0]
            size_bytes = len(observation.encode())
            names = self._destinations(ctx, observation, size_bytes)
            spools = [self._writers[name].spool for name in names if name != DROP]
            if any(spool.refusal(observation.id.device, size_bytes) for spool in spools):
                return
            self._lobby.popleft()
            self._on_observed(ctx, sender, observation)
