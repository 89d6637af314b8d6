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

from kv.messages import CLIENT_MESSAGES, Answered, AskStatus, NotHere, Status, Submit
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
from kv.redis.jobs import Gathering, Job, Mode, Parcel, Piece
from kv.redis.messages import Asked, Closed, Opened, Replied
from kv.sharding.config import GROUPS_MAX
from kv.slots import SLOTS, slot_of
from underlay.messages import Message, Protocol
from underlay.node import Address, Context, Node, Timer, device_of

NODE = "redis"
BINDING: Address = "@redis"

PATIENCE_S = 5.0
"""A command that has no answer after so long fails with CLUSTERDOWN."""
RETRY_S = 0.05
"""Pause before a command that was turned away, and so not executed, is tried again."""
LOOK_S = 0.25
"""How long CLUSTER and INFO wait for the replicas here to say how they are."""
REFRESH_S = 1.0
"""How often the directory asks for news while there are clients."""

_CHECK, _RETRY, _REFRESH = "check", "retry", "refresh"
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
        self._number = 0
        self._collecting: dict[tuple[str, Mode], Parcel] = {}
        self._under_way: dict[int, Parcel] = {}
        self._turned_away: list[tuple[Piece, float]] = []
        """Pieces that wait for the next try, and their deadlines."""
        self._looks: dict[int, Look] = {}
        self._replied: list[tuple[int, bytes]] = []
        self._timers: set[str] = set()
        self._controller_asked_s = float("-inf")

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
            case Answered() if message.number:
                self._on_answered(ctx, message)
            case NotHere() if message.number:
                self._on_not_here(ctx, message)
            case Answered() | NotHere():
                self.directory.answered(message)
            case Status():
                self._on_status(ctx, message)
            case Opened():
                self._opened += 1
                self.clients[message.connection] = Client(message, ctx.now)
                if self._set_timer(ctx, _REFRESH, REFRESH_S):
                    self.directory.ask(ctx)
            case Closed(number):
                client = self.clients.pop(number, None)
                if client is not None:
                    client.ending = True
        self._flush(ctx)

    def on_timer(self, ctx: Context, timer: Timer) -> None:
        self._timers.discard(str(timer))
        match timer:
            case "check":
                self._on_check(ctx)
            case "retry":
                turned_away, self._turned_away = self._turned_away, []
                for piece, deadline_s in turned_away:
                    self._again(ctx, piece, deadline_s)
            case "refresh" if self.clients:
                self.directory.ask(ctx)
                self._set_timer(ctx, _REFRESH, REFRESH_S)
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
        only, group_of = self.directory.only, self.directory.group_of
        pieces: dict[tuple[str, bool], Piece] = {}
        while job.position < len(commands) and not client.ending:
            command = commands[job.position]
            route = _ROUTES.get(command[0]) or _ROUTES.get(command[0].upper())
            if route is None:
                job.reply(resp.error(unknown_command(command)))
            elif not route.shape.accepts(len(command)):
                job.reply(resp.error(wrong_number(route.name)))
            elif route.keyed:
                if route.one_key:
                    group: str | None = only or group_of(slot_of(command[1]))
                else:
                    group = self._group_of_all(route.shape.keys(command))
                asking, client.asking = client.asking, False
                if group:
                    piece = pieces.get((group, asking))
                    if piece is None:
                        piece = pieces[group, asking] = Piece(job, asking=asking)
                    if command[0] != route.name:
                        command = (route.name, *command[1:])
                    piece.operations.append(Operation(command))
                    piece.places.append(job.reserve())
                    piece.reads = piece.reads and route.reads
                else:
                    job.reply(_UNASSIGNED if group is not None else _CROSSSLOT)
            elif job.missing:
                break  # it may change what replies look like
            else:
                self._answer(ctx, job, route, command)
            job.position += 1
        for (group, _), piece in pieces.items():
            self._send(ctx, group, piece, ctx.now + self._patience_s)

    def _group_of_all(self, keys: Command) -> str | None:
        """The group of all these keys, None if they are in several slots."""
        slot = slot_of(keys[0])
        return self.directory.group_of(slot) if all(slot_of(key) == slot for key in keys) else None

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
            piece = Piece(job, gathering)
            piece.operations.append(Operation(command))
            piece.places.append(place)
            self._send(ctx, group, piece, ctx.now + self._patience_s)

    # ------------------------------------------------------------------------------------- to groups and back

    def _send(self, ctx: Context, group: str, piece: Piece, deadline_s: float) -> None:
        """Hand a piece to the group's replica here, or redirect it."""
        if group not in self._groups_here(ctx):
            code = "ASK" if piece.asking else "MOVED"
            for place, operation in zip(piece.places, piece.operations, strict=True):
                piece.owner.settle(place, self._redirection(code, group, operation, piece))
            return
        mode: Mode = "write"
        if piece.owner is not piece.job:
            mode = "apart"
        elif piece.asking:
            mode = "asking"
        elif piece.reads:
            mode = "stale" if piece.job.client.readonly else "read"
        parcel = self._collecting.get((group, mode))
        if parcel is not None and not (parcel.takes(piece) and mode != "apart"):
            self._submit(ctx, parcel)
            parcel = None
        if parcel is None:
            parcel = self._collecting[group, mode] = Parcel(group, mode, deadline_s)
        parcel.put(piece)
        parcel.deadline_s = min(parcel.deadline_s, deadline_s)

    def _submit(self, ctx: Context, parcel: Parcel) -> None:
        self._number += 1
        self._under_way[self._number] = parcel
        self._set_timer(ctx, _CHECK, LOOK_S)
        stale, asking = parcel.mode == "stale", parcel.mode == "asking"
        ctx.send(
            self._groups_here(ctx)[parcel.group],
            Submit(self._number, tuple(parcel.operations), stale=stale, asking=asking),
        )

    def _on_answered(self, ctx: Context, answered: Answered) -> None:
        parcel = self._under_way.pop(answered.number, None)
        if parcel is None:
            return
        outcomes = iter(answered.outcomes)
        for piece in parcel.pieces:
            settle = piece.owner.settle
            for place, operation in zip(piece.places, piece.operations, strict=True):
                outcome = next(outcomes)
                if outcome.failure and not outcome.executed and piece.owner is piece.job:
                    self._elsewhere(ctx, parcel, piece, place, operation, outcome)
                else:
                    settle(place, outcome)
            self._settled(ctx, piece.job)

    def _elsewhere(
        self, ctx: Context, parcel: Parcel, piece: Piece, place: int, operation: Operation, outcome: Outcome
    ) -> None:
        """A replica did not execute an operation; it said why."""
        code, _, _ = outcome.failure.partition(" ")
        if code not in ("MOVED", "ASK"):
            piece.owner.settle(place, outcome)
            return
        self._ask_controller(ctx)
        group = self.directory.group_of(_slot(operation))
        if group == parcel.group or group in self._groups_here(ctx):
            # Our map is older than the replica's, or the other group is here as well: a client who was sent
            # to where it came from would be none the wiser.
            single = Piece(piece.job, asking=code == "ASK")
            single.operations.append(operation)
            single.places.append(place)
            single.reads = parcel.mode in ("read", "stale")
            self._later(ctx, single, parcel.deadline_s)
        else:
            piece.owner.settle(place, self._redirection(code, group, operation, piece))

    def _on_not_here(self, ctx: Context, answer: NotHere) -> None:
        parcel = self._under_way.pop(answer.number, None)
        if parcel is None:
            return
        busy = answer.reason == "busy"
        if not busy:
            self.directory.leads(parcel.group, answer.leader)
        for piece in parcel.pieces:
            if piece.owner is not piece.job:
                self._fail(piece, "CLUSTERDOWN the group is not led here")
            elif answer.reason == "left office" and not piece.reads:
                self._fail(piece, _IN_DOUBT)
            elif busy or not answer.leader or device_of(answer.leader) == ctx.device:
                self._later(ctx, piece, parcel.deadline_s)
            else:
                for place, operation in zip(piece.places, piece.operations, strict=True):
                    piece.owner.settle(place, self._redirection("MOVED", parcel.group, operation, piece))
            self._settled(ctx, piece.job)

    def _later(self, ctx: Context, piece: Piece, deadline_s: float) -> None:
        """Try again what was not executed, after a pause."""
        self._turned_away.append((piece, deadline_s))
        self._set_timer(ctx, _RETRY, RETRY_S)

    def _again(self, ctx: Context, piece: Piece, deadline_s: float) -> None:
        if ctx.now >= deadline_s:
            self._fail(piece, _NOT_SERVED)
            self._settled(ctx, piece.job)
            return
        by_group: dict[str, Piece] = {}
        for place, operation in zip(piece.places, piece.operations, strict=True):
            group = self.directory.group_of(_slot(operation))
            part = by_group.get(group)
            if part is None:
                part = by_group[group] = Piece(piece.job, asking=piece.asking)
                part.reads = piece.reads
            part.operations.append(operation)
            part.places.append(place)
        for group, part in by_group.items():
            self._send(ctx, group, part, deadline_s)
        self._settled(ctx, piece.job)

    def _on_check(self, ctx: Context) -> None:
        """Give up what took too long."""
        for number in [n for n, parcel in self._under_way.items() if parcel.deadline_s <= ctx.now]:
            for piece in self._under_way.pop(number).pieces:
                self._fail(piece, _NOT_SERVED if piece.reads else _IN_DOUBT)
                self._settled(ctx, piece.job)
        for number in [n for n, look in self._looks.items() if look.deadline_s <= ctx.now]:
            self._looked(ctx, self._looks.pop(number))
        if self._under_way or self._looks:
            self._set_timer(ctx, _CHECK, LOOK_S)

    def _fail(self, piece: Piece, failure: str) -> None:
        for place in piece.places:
            piece.owner.settle(place, Outcome(failure=failure))

    def _settled(self, ctx: Context, job: Job) -> None:
        if not job.missing:
            self._advance(ctx, job)

    def _redirection(self, code: str, group: str, operation: Operation, piece: Piece) -> Outcome:
        """Where the client should ask instead: whoever leads, else any replica, which will know better."""
        advertised = piece.job.client.advertised
        devices = [device_of(replica) for replica in self.directory.replicas_of(group)]
        for device in (self.directory.leader_of(group) or "", *devices):
            if device in advertised:
                host, port = advertised[device]
                return Outcome(failure=f"{code} {_slot(operation)} {host}:{port}")
        return Outcome(failure="CLUSTERDOWN Hash slot not served")

    # --------------------------------------------------------------------------------------- how replicas are

    def _look(self, ctx: Context, job: Job, answer: Callable[[Mapping[str, Status]], Any]) -> None:
        """Reply with `answer` of how the replicas here are, once they said so and all leaders are known."""
        here = self._groups_here(ctx)
        led_by_nobody = {
            group
            for group in self.directory.configuration.groups
            if group not in here and self.directory.leader_of(group) is None
        }
        self._number += 1
        look = Look(job, job.reserve(), ctx.now + LOOK_S, answer, led_by_nobody.union(here))
        self._looks[self._number] = look
        self._set_timer(ctx, _CHECK, LOOK_S)
        for replica in here.values():
            ctx.send(replica, AskStatus(self._number))
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
        if self._collecting:
            collected, self._collecting = self._collecting, {}
            for parcel in collected.values():
                self._submit(ctx, parcel)
        if self._replied:
            replied, self._replied = self._replied, []
            ending = tuple(
                number for number, _ in replied if number in self.clients and self.clients[number].ending
            )
            ctx.send(BINDING, Replied(tuple(replied), ending))

    def _groups_here(self, ctx: Context) -> Mapping[str, Address]:
        return self.directory.here(ctx.device)

    def _ask_controller(self, ctx: Context) -> None:
        if ctx.now - self._controller_asked_s >= RETRY_S:
            self._controller_asked_s = ctx.now
            self.directory.ask_controller(ctx)

    def _set_timer(self, ctx: Context, timer: str, delay_s: float) -> bool:
        """Set a timer unless it is set; returns whether it was not."""
        if timer in self._timers:
            return False
        self._timers.add(timer)
        ctx.set_timer(timer, delay_s)
        return True

    def _host(self, ctx: Context) -> Host:
        return Host(ctx.device, ctx.now, self._started_s, self.clients, SHAPES, self._processed, self._opened)


_IN_DOUBT = "CLUSTERDOWN no majority answered in time; it is not known whether this was executed"
_NOT_SERVED = "CLUSTERDOWN no majority serves this slot; nothing was executed"

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


def _slot(operation: Operation) -> int:
    """Of an operation that is about keys."""
    return slot_of(operation.command[SHAPES[operation.command[0]].first_key])


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
