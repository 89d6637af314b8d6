"""From the router to the replicas on its host, and back: what is asked together, what is tried again.

Owns the questions under way. A question goes to the host's replica of a group, which executes it or says
who might, and a client is redirected accordingly. While slots can move, the map alone redirects nobody: a
group that gives a slot away serves it until the other one takes it, so the groups here are asked first, or
two hosts would send a client to each other.

What was not executed for sure (turned away by a replica that does not lead, or that does not have the slot)
is tried again where that can help, until its deadline. What may have been executed is in doubt, and that is
what its client is told: nothing is executed twice on behalf of one request.
"""

from __future__ import annotations

from collections.abc import Callable

from kv.messages import Answered, NotHere, Submit
from kv.operations import Outcome
from kv.redis.commands import slot_of_operation
from kv.redis.directory import Directory
from kv.redis.jobs import Job, Mode, Parcel, Piece
from underlay.node import Context, Timer, device_of

RETRY_S = 0.05
"""Pause before a command that was turned away, and so not executed, is tried again."""
CHECK_S = 0.25
"""How often it is looked whether something takes too long."""

IN_DOUBT = "CLUSTERDOWN no majority answered in time; it is not known whether this was executed"
NOT_SERVED = "CLUSTERDOWN no majority serves this slot; nothing was executed"


class Alarm:
    """A timer that is set at most once at a time."""

    def __init__(self, key: Timer, delay_s: float) -> None:
        self.key = key
        self._delay_s = delay_s
        self._set = False

    def set(self, ctx: Context) -> bool:
        """Have it ring, unless it will anyhow; returns whether it would not have."""
        if self._set:
            return False
        self._set = True
        ctx.set_timer(self.key, self._delay_s)
        return True

    def rings(self, timer: Timer) -> bool:
        """Whether this is the timer that is due; it can then be set again."""
        if timer != self.key:
            return False
        self._set = False
        return True


class Dispatch:
    """Args:
    directory: who has which slot.
    settled: is told of each job for which something was settled.
    """

    def __init__(self, directory: Directory, settled: Callable[[Context, Job], None]) -> None:
        self._directory = directory
        self._tell = settled
        self._number = 0
        self._collecting: dict[tuple[str, Mode], Parcel] = {}
        self._under_way: dict[int, Parcel] = {}
        self._turned_away: list[tuple[str, Piece, float]] = []
        """What waits for the next try: group, commands, deadline."""
        self._check = Alarm(("dispatch", "check"), CHECK_S)
        self._retry = Alarm(("dispatch", "retry"), RETRY_S)

    def send(self, ctx: Context, group: str, piece: Piece, deadline_s: float) -> None:
        """Hand a piece to the group's replica here, or redirect it. It leaves with the next `flush`."""
        here = self._directory.here(ctx.device)
        if piece.untried is None and group not in here and self._directory.controller:
            piece.untried, piece.apart = list(here), True
        if piece.untried:
            group = piece.untried.pop(0)
        elif group not in here:
            self._redirect(piece, "ASK" if piece.asking else "MOVED", group)
            return
        mode: Mode = "write"
        if piece.apart:
            mode = "apart"
        elif piece.asking:
            mode = "asking"
        elif piece.reads:
            mode = "stale" if piece.job.client.readonly else "read"
        parcel = self._collecting.get((group, mode))
        if parcel is not None and (mode == "apart" or not parcel.takes(piece)):
            self._submit(ctx, parcel)
            parcel = None
        if parcel is None:
            parcel = self._collecting[group, mode] = Parcel(group, mode, deadline_s)
        parcel.put(piece)
        parcel.deadline_s = min(parcel.deadline_s, deadline_s)

    def flush(self, ctx: Context) -> None:
        """Send what was collected."""
        if self._collecting:
            collected, self._collecting = self._collecting, {}
            for parcel in collected.values():
                self._submit(ctx, parcel)

    def on_timer(self, ctx: Context, timer: Timer) -> None:
        """Maybe one of ours."""
        if self._retry.rings(timer):
            turned_away, self._turned_away = self._turned_away, []
            for group, piece, deadline_s in turned_away:
                if ctx.now < deadline_s:
                    self.send(ctx, group, piece, deadline_s)
                else:
                    _fail(piece, NOT_SERVED)
                self._settled(ctx, piece)
        elif self._check.rings(timer):
            for number in [n for n, parcel in self._under_way.items() if parcel.deadline_s <= ctx.now]:
                for piece in self._under_way.pop(number).pieces:
                    _fail(piece, NOT_SERVED if piece.reads else IN_DOUBT)
                    self._settled(ctx, piece)
            if self._under_way:
                self._check.set(ctx)

    def on_answered(self, ctx: Context, answered: Answered) -> None:
        """A replica answered; each outcome settles a command, or says where else it belongs."""
        parcel = self._under_way.pop(answered.number, None)
        if parcel is None:
            return
        outcomes = iter(answered.outcomes)
        for piece in parcel.pieces:
            settle, is_simple = piece.owner.settle, piece.owner is piece.job
            for place, operation in zip(piece.places, piece.operations, strict=True):
                outcome = next(outcomes)
                if outcome.failure and is_simple and outcome.failure.startswith(("MOVED ", "ASK ")):
                    self._moved(ctx, parcel, piece.part(place, operation), outcome.failure)
                else:
                    settle(place, outcome)
                    if is_simple and piece.apart and outcome.executed:
                        self._directory.served(slot_of_operation(operation))
            self._settled(ctx, piece)

    def on_not_here(self, ctx: Context, answer: NotHere) -> None:
        """A replica does not lead, or not any more, or is busy."""
        parcel = self._under_way.pop(answer.number, None)
        if parcel is None:
            return
        busy = answer.reason == "busy"
        if not busy:
            self._directory.leads(parcel.group, answer.leader)
        for piece in parcel.pieces:
            if piece.owner is not piece.job:
                _fail(piece, "CLUSTERDOWN the group is not led here")
            elif answer.reason == "left office" and not piece.reads:
                _fail(piece, IN_DOUBT)
            elif piece.untried is not None:
                owner = self._directory.group_of(slot_of_operation(piece.operations[0]))
                if piece.untried or owner not in self._directory.here(ctx.device):
                    self.send(ctx, owner, piece, parcel.deadline_s)
                else:
                    piece.untried = None
                    self._later(ctx, owner, piece, parcel.deadline_s)
            elif busy or not answer.leader or device_of(answer.leader) == ctx.device:
                self._later(ctx, parcel.group, piece, parcel.deadline_s)
            else:
                self._redirect(piece, "MOVED", parcel.group)
            self._settled(ctx, piece)

    # ------------------------------------------------------------------------------------------------ helpers

    def _submit(self, ctx: Context, parcel: Parcel) -> None:
        self._number += 1
        self._under_way[self._number] = parcel
        self._check.set(ctx)
        stale = parcel.mode == "stale"
        asking = any(piece.asking for piece in parcel.pieces)
        replica = self._directory.here(ctx.device)[parcel.group]
        ctx.send(replica, Submit(self._number, tuple(parcel.operations), stale=stale, asking=asking))

    def _moved(self, ctx: Context, parcel: Parcel, piece: Piece, failure: str) -> None:
        """A replica said that a command is another group's: `"MOVED 3999 store2/g2"`. If that group is here
        too it is asked next: a client who is sent to where it came from would be none the wiser."""
        code, slot, *where = failure.split(" ")
        replica = where[0] if where else ""
        self._directory.ask_controller(ctx)
        group = replica.partition("/")[2] or self._directory.group_of(int(slot))
        piece.asking = code == "ASK"
        if piece.untried and not piece.asking:
            self.send(ctx, group, piece, parcel.deadline_s)
        elif group in self._directory.here(ctx.device):
            piece.untried = None
            self._later(ctx, group, piece, parcel.deadline_s)
        else:
            self._redirect(piece, code, group, device_of(replica))

    def _later(self, ctx: Context, group: str, piece: Piece, deadline_s: float) -> None:
        self._turned_away.append((group, piece, deadline_s))
        self._retry.set(ctx)

    def _redirect(self, piece: Piece, code: str, group: str, device: str = "") -> None:
        """Name the host that leads, else one with a replica, which will know better."""
        directory, advertised = self._directory, piece.job.client.advertised
        replicas = [device_of(replica) for replica in directory.replicas_of(group)]
        known = [one for one in (directory.leader_of(group) or "", device, *replicas) if one in advertised]
        if not known:
            _fail(piece, "CLUSTERDOWN Hash slot not served")
            return
        host, port = advertised[known[0]]
        for place, operation in zip(piece.places, piece.operations, strict=True):
            failure = f"{code} {slot_of_operation(operation)} {host}:{port}"
            piece.owner.settle(place, Outcome(failure=failure))

    def _settled(self, ctx: Context, piece: Piece) -> None:
        self._tell(ctx, piece.job)


def _fail(piece: Piece, failure: str) -> None:
    for place in piece.places:
        piece.owner.settle(place, Outcome(failure=failure))
