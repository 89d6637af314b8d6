"""The router: from the commands of Redis clients to the replicas on this host, and back.

Owns one batch of commands of every client at a time: which group each command is for, whether it is answered
here or elsewhere, the order of the replies, and how long a client waits before it is told that nobody serves
it. Decides nothing about data: a reply about a key is a replica's answer, a redirection, or an error.

A command whose outcome is not known (its leader lost its office, no majority answered in time) is an error
for the client, never an OK, and is tried again only where it is known not to have been executed.

Source: the Redis Cluster specification, "Redirection and resharding".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from kv.messages import CLIENT_MESSAGES, Answered, AskStatus, NotHere, Status
from kv.operations import ELSEWHERE, Command, Operation, Outcome
from kv.redis import resp, topology
from kv.redis.client import Client
from kv.redis.commands import KEYED, SHAPES, Shape
from kv.redis.connection import (
    ANSWERS,
    Host,
    Refused,
    information,
    unknown_command,
    unknown_subcommand,
    wrong_number,
)
from kv.redis.directory import Directory
from kv.redis.dispatch import Alarm, Dispatch
from kv.redis.jobs import Gathering, Job, Piece
from kv.redis.messages import Asked, Closed, Opened, Replied
from kv.sharding.config import GROUPS_MAX
from kv.slots import SLOTS, slot_of
from underlay.messages import Message, Protocol
from underlay.node import Address, Context, Node, Timer

NODE = "redis"
BINDING: Address = "@redis"

PATIENCE_S = 5.0
"""A command that has no answer after so long fails with CLUSTERDOWN."""
LOOK_S = 0.25
"""How long CLUSTER and INFO wait for the replicas here to say how they are."""
REFRESH_S = 1.0
"""How often the directory asks for news while there are clients."""

_CURSORS = GROUPS_MAX + 1
"""A cursor of SCAN is a group's own cursor times this, plus the place of the group."""


class Route(msgspec.Struct, frozen=True):
    """What the router has to know of a command."""

    name: bytes
    shape: Shape
    keyed: bool
    """It is about keys, and goes to their group."""
    one_key: bool
    """Its first argument is its only key."""
    reads: bool


class Look(msgspec.Struct):
    """A command that waits for the replicas here to say how they are."""

    job: Job
    place: int
    deadline_s: float
    answer: Callable[[Mapping[str, Status]], Any]
    missing: set[str]
    statuses: dict[str, Status] = msgspec.field(default_factory=dict)


class Router(Node):
    """The node `redis` of a storage host.

    Args:
        directory: who has which slot; the router's own.
        patience_s: see `PATIENCE_S`.
    """

    protocol = Protocol("redis", *CLIENT_MESSAGES)

    def __init__(self, directory: Directory, patience_s: float = PATIENCE_S) -> None:
        self.directory = directory
        self.clients: dict[int, Client] = {}
        self._patience_s = patience_s
        self._started_s = 0.0
        self._opened = self._processed = 0
        self._dispatch = Dispatch(directory, self._settled)
        self._looks: dict[int, Look] = {}
        self._looks_begun = 0
        self._replied: list[tuple[int, bytes]] = []
        self._refresh = Alarm("refresh", REFRESH_S)
        self._look_over = Alarm("look", LOOK_S)

    # --------------------------------------------------------------------------------------------- as a node

    def on_start(self, ctx: Context) -> None:
        self._started_s = ctx.now

    def on_message(self, ctx: Context, sender: Address, message: Message) -> None:
        match message:
            case Asked(batches):
                for number, commands, size_bytes in batches:
                    client = self.clients.get(number)
                    if client is not None:
                        self._processed += len(commands)
                        self._advance(ctx, Job(client, commands, size_bytes))
            case Answered(number=0):
                self.directory.answered(message)
            case Answered():
                self._dispatch.on_answered(ctx, message)
            case NotHere():
                self._dispatch.on_not_here(ctx, message)
            case Status():
                self._on_status(ctx, message)
            case Opened():
                self._opened += 1
                self.clients[message.connection] = Client(message, ctx.now)
                if self._refresh.set(ctx):
                    self.directory.ask(ctx)
            case Closed(number):
                client = self.clients.pop(number, None)
                if client is not None:
                    client.ending = True
        self._flush(ctx)

    def on_timer(self, ctx: Context, timer: Timer) -> None:
        if self._refresh.rings(timer):
            if self.clients:
                self.directory.ask(ctx)
                self._refresh.set(ctx)
        elif self._look_over.rings(timer):
            for number in [number for number, look in self._looks.items() if look.deadline_s <= ctx.now]:
                self._looked(ctx, self._looks.pop(number))
            if self._looks:
                self._look_over.set(ctx)
        else:
            self._dispatch.on_timer(ctx, timer)
        self._flush(ctx)

    # ------------------------------------------------------------------------------------------- from clients

    def _advance(self, ctx: Context, job: Job) -> None:
        """Answer a job's commands or hand them on; all replies there, they go to the client."""
        client = job.client
        while not job.missing:
            if job.position == len(job.commands) or client.ending:
                self._replied.append((client.number, b"".join(job.replies)))
                return
            self._take(ctx, job)

    def _take(self, ctx: Context, job: Job) -> None:
        """Take commands up to the first that has to wait for the replies to the earlier ones."""
        client, commands = job.client, job.commands
        directory, only = self.directory, self.directory.only
        pieces: dict[tuple[str, bool, bool], Piece] = {}
        while job.position < len(commands) and not client.ending:
            command = commands[job.position]
            route = _ROUTES.get(command[0]) or _ROUTES.get(command[0].upper())
            if route is None:
                job.reply(resp.error(unknown_command(command)))
            elif not route.shape.accepts(len(command)):
                job.reply(resp.error(wrong_number(route.name)))
            elif route.keyed:
                slot: int | None = 0
                if not route.one_key:
                    slot = _common_slot(route.shape.keys(command))
                elif only is None:
                    slot = slot_of(command[1])
                if slot is None or not (group := only or directory.group_of(slot)):
                    job.reply(_CROSSSLOT if slot is None else _UNASSIGNED)
                else:
                    apart = only is None and directory.on_its_way(slot)
                    piece = pieces.get((group, apart, client.asking))
                    if piece is None:
                        piece = Piece(job, asking=client.asking, apart=apart)
                        pieces[group, apart, client.asking] = piece
                    if command[0] != route.name:
                        command = (route.name, *command[1:])
                    piece.operations.append(Operation(command))
                    piece.places.append(job.reserve())
                    piece.reads = piece.reads and route.reads
                client.asking = False
            elif job.missing:
                break  # it may change what replies look like
            else:
                self._answer(ctx, job, route, command)
            job.position += 1
        for (group, *_), piece in pieces.items():
            self._dispatch.send(ctx, group, piece, ctx.now + self._patience_s)

    def _answer(self, ctx: Context, job: Job, route: Route, command: Command) -> None:
        """Answer a command that is not about keys."""
        answer = ANSWERS.get(route.name)
        try:
            if answer is not None:
                reply = resp.encode(answer(self._host(ctx), job.client, command), job.client.version)
                job.reply(reply)
            elif route.name == b"CLUSTER":
                self._cluster(ctx, job, command)
            elif route.name == b"INFO":
                self._look(ctx, job, lambda statuses: self._information(ctx, statuses, command[1:]))
            elif route.name == b"DBSIZE":
                self._gather(ctx, job, (route.name,), list(self._groups_here(ctx)), _total)
            elif route.name == b"KEYS":
                self._gather(ctx, job, (route.name, *command[1:]), list(self._groups_here(ctx)), _together)
            else:
                self._scan(ctx, job, command)
        except Refused as refused:
            job.reply(resp.error(str(refused)))

    def _cluster(self, ctx: Context, job: Job, command: Command) -> None:
        directory, advertised, device = self.directory, job.client.advertised, ctx.device
        match (command[1].upper(), *command[2:]):
            case (b"KEYSLOT", key):
                job.reply(resp.integer(slot_of(key)))
            case (b"MYID",):
                job.reply(resp.bulk(topology.node_id(device).encode()))
            case (b"SLOTS",):
                self._look(ctx, job, lambda _: topology.slots(directory, advertised))
            case (b"SHARDS",):
                self._look(ctx, job, lambda _: topology.shards(directory, advertised))
            case (b"NODES",):
                self._look(ctx, job, lambda _: resp.Verbatim(topology.nodes(directory, advertised, device)))
            case (b"INFO",):
                self._look(ctx, job, lambda _: resp.Verbatim(topology.info(directory, advertised)))
            case (b"COUNTKEYSINSLOT", number):
                if not number.isdigit() or not int(number) < SLOTS:
                    raise Refused("ERR Invalid slot")
                group = directory.group_of(int(number))
                groups = [group] if group in self._groups_here(ctx) else []
                self._gather(ctx, job, (b"BH.COUNT", number), groups, _total)
            case _:
                raise Refused(unknown_subcommand(command))

    def _scan(self, ctx: Context, job: Job, command: Command) -> None:
        """One page of one group: the cursor says which. A group that is not led here has no page."""
        if not command[1].isdigit():
            raise Refused("ERR invalid cursor")
        cursor, place = divmod(int(command[1]), _CURSORS)
        here = self._groups_here(ctx)
        groups = list(self.directory.configuration.groups)
        while place < len(groups) and groups[place] not in here:
            place += 1
        later = place + 1 if place + 1 < len(groups) else 0

        def page(outcomes: list[Outcome]) -> Any:
            if not outcomes or outcomes[0].failure.partition(" ")[0] in ELSEWHERE:
                return [b"%d" % later, []]
            if outcomes[0].failure:
                return outcomes[0]
            following, keys = outcomes[0].value
            return [b"%d" % (int(following) * _CURSORS + place if int(following) else later), keys]

        asked = (b"SCAN", b"%d" % cursor, *command[2:])
        self._gather(ctx, job, asked, groups[place : place + 1], page)

    def _gather(
        self,
        ctx: Context,
        job: Job,
        command: Command,
        groups: list[str],
        combine: Callable[[list[Outcome]], Any],
    ) -> None:
        """Ask these groups, and reply with what `combine` makes of their outcomes."""
        if not groups:
            job.reply(resp.encode(combine([]), job.client.version))
            return
        gathering = Gathering(job, len(groups), combine)
        for place, group in enumerate(groups):
            piece = Piece(job, gathering, apart=True)
            piece.operations.append(Operation(command))
            piece.places.append(place)
            self._dispatch.send(ctx, group, piece, ctx.now + self._patience_s)

    # --------------------------------------------------------------------------------------- how replicas are

    def _look(self, ctx: Context, job: Job, answer: Callable[[Mapping[str, Status]], Any]) -> None:
        """Reply with `answer` of how the replicas here are, once they said so and all leaders are known."""
        here = self._groups_here(ctx)
        led_by_nobody = {
            group
            for group in self.directory.configuration.groups
            if group not in here and self.directory.leader_of(group) is None
        }
        self._looks_begun += 1
        look = Look(job, job.reserve(), ctx.now + LOOK_S, answer, led_by_nobody.union(here))
        self._looks[self._looks_begun] = look
        self._look_over.set(ctx)
        for replica in here.values():
            ctx.send(replica, AskStatus(self._looks_begun))
        if led_by_nobody:
            self.directory.ask(ctx)

    def _on_status(self, ctx: Context, status: Status) -> None:
        self.directory.heard(status)
        for number, look in list(self._looks.items()):
            if status.number == number:
                look.statuses[status.group] = status
            elif status.number or not status.leader:
                continue
            look.missing.discard(status.group)
            if not look.missing:
                del self._looks[number]
                self._looked(ctx, look)

    def _looked(self, ctx: Context, look: Look) -> None:
        look.job.settle(look.place, Outcome(look.answer(look.statuses)))
        self._settled(ctx, look.job)

    def _information(self, ctx: Context, statuses: Mapping[str, Status], sections: Command) -> Any:
        groups = {name: _group_fields(status) for name, status in sorted(statuses.items())}
        keys = sum(status.keys for status in statuses.values() if status.role in ("leader", "primary"))
        return information(self._host(ctx), groups, keys, sections)

    # ------------------------------------------------------------------------------------------------ helpers

    def _flush(self, ctx: Context) -> None:
        """Send what the handler collected."""
        self._dispatch.flush(ctx)
        if self._replied:
            replied, self._replied = self._replied, []
            ending = tuple(
                number for number, _ in replied if number in self.clients and self.clients[number].ending
            )
            ctx.send(BINDING, Replied(tuple(replied), ending))

    def _groups_here(self, ctx: Context) -> Mapping[str, Address]:
        return self.directory.here(ctx.device)

    def _settled(self, ctx: Context, job: Job) -> None:
        if not job.missing:
            self._advance(ctx, job)

    def _host(self, ctx: Context) -> Host:
        return Host(ctx.device, ctx.now, self._started_s, self.clients, SHAPES, self._processed, self._opened)


_CROSSSLOT = resp.error("CROSSSLOT Keys in request don't hash to the same slot")
_UNASSIGNED = resp.error("CLUSTERDOWN Hash slot not served")

_ROUTES = {
    name: Route(
        name,
        shape,
        keyed=name in KEYED,
        one_key=shape.first_key == shape.last_key == 1,
        reads="readonly" in shape.flags,
    )
    for name, shape in ({name: Shape(-1) for name in ANSWERS} | dict(SHAPES)).items()
}


def _common_slot(keys: Command) -> int | None:
    """The slot of all these keys, None if they are in several."""
    slot = slot_of(keys[0])
    return slot if all(slot_of(key) == slot for key in keys) else None


def _total(outcomes: list[Outcome]) -> int:
    """The sum of what the groups that are led here counted."""
    return sum(outcome.value for outcome in outcomes if not outcome.failure)


def _together(outcomes: list[Outcome]) -> Any:
    """The lists of the groups that are led here, as one; or what is wrong with the question."""
    for outcome in outcomes:
        if outcome.failure and outcome.executed:
            return outcome
    return [item for outcome in outcomes if not outcome.failure for item in outcome.value]


def _group_fields(status: Status) -> dict[str, object]:
    names = ("role", "leader", "ballot", "chosen", "applied", "stored_from", "revision", "keys")
    return {name: getattr(status, name) for name in names}
