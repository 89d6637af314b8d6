"""Answers to what doors ask: from what the gateway knows, or from the storage tier.

Reads go to the tier as any client's do; whoever asks for a page gets it as of one revision of its slot, or a
sentence that says why not. Nothing here writes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import msgspec

from edge.observation import Observation
from gateway.dead_letters import DeadLetters
from gateway.messages import (
    Answer,
    AnyQuestion,
    DestinationState,
    DestinationStates,
    Devices,
    Fetch,
    GroupState,
    Page,
    RouteState,
    RouteStates,
    StorageState,
    Stretch,
)
from gateway.messages import (
    DeadLetters as AskDeadLetters,
)
from gateway.registry import Registry
from gateway.routing.routes import Table
from gateway.routing.tally import Tally
from gateway.writer import Writer
from kv.client import Client, Reply
from kv.messages import Status
from underlay.node import Address, Context

DEADLINE_S = 10.0
"""For what the tier is asked on behalf of a person who waits."""
PAGE_MAX = 1000
TOO_LARGE = "answer too large: ask for less at a time"
"""What the tier says where a page's large values together do not fit a message."""
LEADS = ("leader", "primary")

Tell = Callable[[Context, object, str], None]
"""The answer's body, and the problem."""


class Inquiry:
    """Answers questions; each once."""

    def __init__(
        self,
        client: Client[Context],
        registry: Registry,
        writers: Mapping[str, Writer],
        dead: DeadLetters,
        table: Table,
        tally: Tally,
    ) -> None:
        self._client = client
        self._registry = registry
        self._writers = writers
        self._dead = dead
        self._table = table
        self._tally = tally

    def ask(self, ctx: Context, door: Address, token: int, question: AnyQuestion) -> None:
        """`Answer` with that token goes to the door, now or later."""

        def tell(ctx: Context, body: object, problem: str = "") -> None:
            ctx.send(door, Answer(token, body, problem))

        match question:
            case Devices():
                tell(ctx, self._registry.states(ctx.now))
            case RouteStates():
                tell(ctx, self._routes())
            case DestinationStates():
                tell(ctx, tuple(_destination(writer, ctx.now) for writer in self._writers.values()))
            case AskDeadLetters(limit):
                tell(ctx, self._dead.newest(ctx.store, limit))
            case Fetch(key):
                self._fetch(ctx, key, tell)
            case Stretch():
                self._stretch(ctx, question, tell)
            case StorageState():
                self._storage(ctx, tell)

    # ------------------------------------------------------------------------------------------------ helpers

    def _routes(self) -> tuple[RouteState, ...]:
        states = []
        for route in self._table.all:
            counts = self._tally.of(route.name)
            states.append(
                RouteState(
                    name=route.name,
                    to=route.to,
                    matched=counts.matched,
                    written=counts.written,
                    waiting=sum(each.spool.waiting_of(route.name) for each in self._writers.values()),
                    dropped=counts.dropped,
                    dead_lettered=counts.dead_lettered,
                    refused=counts.refused,
                    priority=route.priority,
                    overflow=route.overflow,
                    rate_limit_per_s=route.rate_limit_per_s,
                )
            )
        return tuple(states)

    def _fetch(self, ctx: Context, key: bytes, tell: Tell) -> None:
        for writer in self._writers.values():
            waiting = writer.spool.find(ctx.store, key)
            if waiting is not None:  # what was acknowledged can be read, whether the tier is there or not
                tell(ctx, Observation.decode(waiting), "")
                return

        def done(ctx: Context, reply: Reply) -> None:
            problem = _problem(reply)
            value = None if problem or reply.outcome is None else reply.outcome.value
            observation = _observation(value)
            if value is not None and observation is None:
                problem = "what is stored there is no observation"
            tell(ctx, observation, problem)

        self._client.call(ctx, (b"GET", key), done, deadline_s=DEADLINE_S)

    def _stretch(self, ctx: Context, wanted: Stretch, tell: Tell) -> None:
        prefix = prefix_of(wanted.device, wanted.kind)
        start = wanted.after or prefix + f"{wanted.since_s:017.3f}".encode()
        end = prefix + f"{wanted.until_s:017.3f}".encode()
        if not start.startswith(prefix) or not 1 <= wanted.limit <= PAGE_MAX:
            tell(ctx, None, f"a page begins within its stretch and has 1 to {PAGE_MAX} observations")
            return

        def done(ctx: Context, reply: Reply) -> None:
            problem = _problem(reply)
            if problem.endswith(TOO_LARGE) and wanted.limit > 1:
                self._stretch(ctx, msgspec.structs.replace(wanted, limit=wanted.limit // 2), tell)
                return
            if problem or reply.outcome is None:
                tell(ctx, None, problem)
                return
            _, keys, values, more = msgspec.convert(
                reply.outcome.value, tuple[int, list[bytes], list[object], int]
            )
            found = tuple(each for value in values if (each := _observation(value)) is not None)
            tell(ctx, Page(found, keys[-1] + b"\0" if more and keys else b""), "")

        command = (b"BH.RANGE", start, end, b"%d" % wanted.limit)
        self._client.call(ctx, command, done, deadline_s=DEADLINE_S)

    def _storage(self, ctx: Context, tell: Tell) -> None:
        groups = self._client.directory.groups
        if not groups:
            self._learn(ctx, tell)
            return
        replicas = [replica for group in groups.values() for replica in group]
        said: dict[Address, Status | None] = {}

        def hear(replica: Address) -> Callable[[Context, Status | None], None]:
            def done(ctx: Context, status: Status | None) -> None:
                said[replica] = status
                if len(said) == len(replicas):
                    states = (_group(name, groups[name], said) for name in sorted(groups))
                    tell(ctx, tuple(states), "")

            return done

        for replica in replicas:
            self._client.status(ctx, replica, hear(replica))

    def _learn(self, ctx: Context, tell: Tell) -> None:
        """Nothing has been asked of the tier yet: a read of any key brings the groups along."""

        def done(ctx: Context, reply: Reply) -> None:
            problem = _problem(reply)
            if problem or not self._client.directory.groups:
                tell(ctx, None, problem or "the storage tier has not said yet who is in it")
            else:
                self._storage(ctx, tell)

        self._client.call(ctx, (b"EXISTS", b""), done, deadline_s=DEADLINE_S)


def prefix_of(device: str, kind: str) -> bytes:
    """What the keys of a stretch begin with (`Observation.key`); its `after` too."""
    return f"obs:{{{device}}}:{kind}:".encode()


def _destination(writer: Writer, now: float) -> DestinationState:
    spool = writer.spool
    oldest_s = spool.oldest_s()
    return DestinationState(
        name=writer.name,
        type=writer.type,
        taken=writer.delivered + len(spool),
        delivered=writer.delivered,
        failures=writer.failures,
        waiting=len(spool),
        waiting_bytes=spool.size_bytes,
        oldest_s=0.0 if oldest_s is None else now - oldest_s,
        trouble=writer.trouble,
    )


def _observation(value: object) -> Observation | None:
    if not isinstance(value, bytes):
        return None
    try:
        return Observation.decode(value)
    except msgspec.DecodeError:
        return None


def _problem(reply: Reply) -> str:
    if reply.outcome is None:
        return f"the storage tier does not answer: {reply.trouble or 'nobody is there'}"
    return reply.outcome.failure and f"the storage tier says {reply.outcome.failure}"


def _group(name: str, replicas: tuple[Address, ...], said: dict[Address, Status | None]) -> GroupState:
    present = [status for replica in replicas if (status := said[replica]) is not None]
    leading = [status for status in present if status.role in LEADS]
    leader = max(leading, key=lambda status: status.chosen, default=None)
    log_end = max((status.chosen for status in present), default=0)
    return GroupState(
        name=name,
        leader=leader.leader if leader else "",
        replicas={replica: said[replica] is not None for replica in replicas},
        slots=sum(last - first + 1 for first, last in leader.slots) if leader else 0,
        log_end=log_end,
        lag=log_end - min((status.applied for status in present), default=log_end),
    )
