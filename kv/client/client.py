"""The client's core, without a network of its own: what to ask whom, when to ask again, when to stop.

Exactly once. A write goes through a *lane*: a session with one operation under way. Every try of it carries
the session and the sequence number, so a replica that has executed it answers with the first outcome. When
the deadline passes, the client says whether it knows that nothing happened; else the outcome is unknown: it
may have taken effect, or may yet, though never after a later write of the same lane to the same slot. Reads
need no lane and are repeated freely.

Owns neither addresses (`directory`) nor sockets. A `Node` embeds it: it calls `call`, and hands on messages,
timers and peers that are down; `done` is called with the context of whatever handler brought the reply.
Source of the session scheme: Ongaro, "Consensus: Bridging Theory and Practice" (2014), §6.3.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

import msgspec

from kv.client.directory import Directory
from kv.client.patience import Patience
from kv.machine import COMMANDS, keys_of
from kv.messages import Answered, AskStatus, NotHere, Status, Submit
from kv.operations import Command, Operation, Outcome
from kv.slots import slot_of
from underlay.messages import Message
from underlay.node import Address, Timer

if TYPE_CHECKING:
    from random import Random

NOT_TAKEN = ("not leading", "busy")
"""Reasons of `NotHere` by which a replica says that it has not even begun."""

COMMAND_BYTES_MAX = 63 * 1024
"""Of a command's name and arguments together."""

INQUIRY_S = 0.25
"""Between two questions of the directory."""


class Surroundings(Protocol):
    """What the client needs of the world: a part of `underlay.node.Context`."""

    @property
    def now(self) -> float: ...

    @property
    def rng(self) -> Random: ...

    def send(self, peer: Address, message: Message) -> None: ...

    def give_up(self, peer: Address) -> None: ...

    def set_timer(self, key: Timer, delay_s: float) -> None: ...

    def cancel_timer(self, key: Timer) -> None: ...


Ctx = TypeVar("Ctx", bound=Surroundings)


class Reply(msgspec.Struct, frozen=True):
    """What became of a call."""

    outcome: Outcome | None
    """None: unknown. One that is not `executed` says that nothing happened, and will not."""
    revision: int = 0
    """Of the replica's state when it answered: what it says holds as of there."""
    replica: Address = ""
    """Who answered."""
    trouble: str = ""
    """The last thing that went wrong on the way, for people."""


Done = Callable[[Ctx, Reply], None]


class Client(Generic[Ctx]):
    """Calls the store.

    Args:
        directory: whom to ask.
        patience: how long to wait for what.
        lanes: writes under way at a time; those of different lanes are in no order.
        name: distinguishes the timers of several clients in one node.
    """

    def __init__(
        self, directory: Directory, patience: Patience | None = None, *, lanes: int = 1, name: str = "client"
    ) -> None:
        self.directory = directory
        self.patience = patience or Patience()
        self._name = name
        self._free = deque(_Lane() for _ in range(lanes))
        self._queue: deque[_Call[Ctx]] = deque()
        self._calls: dict[int, _Call[Ctx]] = {}
        self._asked: dict[int, _Call[Ctx]] = {}
        """By the number of a question: several of them for a call that was tried several times."""
        self._statuses: dict[int, Callable[[Ctx, Status | None], None]] = {}
        self._leaders: dict[str, Address] = {}
        self._heard_s: dict[Address, float] = {}
        self._inquiry = 0
        self._inquired_s: float | None = None
        self._turn = 0
        self._number = 0

    def call(
        self,
        ctx: Ctx,
        command: Command,
        done: Done[Ctx],
        *,
        deadline_s: float | None = None,
        stale: bool = False,
        group: str = "",
        to: Address = "",
    ) -> None:
        """Have a command executed; `done(ctx, reply)` follows by its deadline, never within this call.

        Args:
            deadline_s: from now; None: as `Patience` says.
            stale: a read that any replica may answer from the state it has.
            group: the group to ask, for a command without keys.
            to: the one replica to ask, whoever leads.
        """
        keys = keys_of(command) if command and command[0] in COMMANDS and len(command) > 1 else ()
        call = _Call(self._next(ctx), command, done, group, to, stale, slot_of(keys[0]) if keys else None)
        self._calls[call.number] = call
        deadline_s = self.patience.deadline_s if deadline_s is None else deadline_s
        if sum(map(len, command)) > COMMAND_BYTES_MAX:
            call.trouble = f"a command of over {COMMAND_BYTES_MAX} bytes does not fit a message"
            ctx.set_timer((self._name, "deadline", call.number), 0.0)
            return
        ctx.set_timer((self._name, "deadline", call.number), deadline_s)
        spec = COMMANDS.get(command[0])
        if spec is not None and not spec.writes:
            self._ask(ctx, call)
        else:
            self._queue.append(call)
            self._fill_lanes(ctx)

    def status(self, ctx: Ctx, replica: Address, done: Callable[[Ctx, Status | None], None]) -> None:
        """Ask a replica how it is; `done(ctx, None)` if it is silent for as long as one try."""
        number = self._next(ctx)
        self._statuses[number] = done
        ctx.send(replica, AskStatus(number))
        ctx.set_timer((self._name, "status", number), self.patience.try_s)

    def on_message(self, ctx: Ctx, sender: Address, message: Message) -> bool:
        """Take a message; False if it is none of the client's."""
        if not isinstance(message, Answered | NotHere | Status):
            return False
        self._heard_s[sender] = ctx.now
        number = message.number
        if isinstance(message, Status):
            waiting = self._statuses.pop(number, None)
            if waiting is not None:
                ctx.cancel_timer((self._name, "status", number))
                waiting(ctx, message)
        elif number == self._inquiry and isinstance(message, Answered):
            self.directory.learn(message.outcomes[0])
        elif (call := self._asked.get(number)) is not None:
            if isinstance(message, NotHere):
                self._on_not_here(ctx, sender, call, message)
            else:
                self._on_answered(ctx, sender, call, message)
        return True

    def on_timer(self, ctx: Ctx, timer: Timer) -> bool:
        """Take a timer; False if it is none of the client's."""
        if not (isinstance(timer, tuple) and timer[0] == self._name):
            return False
        _, kind, number = timer
        if kind == "status":
            self._statuses.pop(number)(ctx, None)
            return True
        call = self._calls[number]
        if kind == "deadline":
            self._give_up(ctx, call)
        elif kind == "again":
            call.hint, call.asking, call.hops = "", False, 0
            self._ask(ctx, call)
        else:
            self._on_silence(ctx, call)
        return True

    def on_peer_down(self, ctx: Ctx, peer: Address) -> None:
        """What was asked of this peer may or may not have arrived."""
        for call in [call for call in self._calls.values() if call.replica == peer]:
            self._distrust(call, peer)
            call.trouble = f"{peer} is down"
            self._ask_later(ctx, call)

    # -------------------------------------------------------------------------------------------- the answers

    def _on_answered(self, ctx: Ctx, sender: Address, call: _Call[Ctx], answer: Answered) -> None:
        (outcome,) = answer.outcomes
        if outcome.executed:
            self._finish(ctx, call, Reply(outcome, answer.revision, sender, call.trouble))
            return
        call.doubtful.discard(answer.number)
        if answer.number != call.asked:
            return
        call.trouble = outcome.failure
        code, *where = outcome.failure.split(" ")
        if code in ("MOVED", "ASK") and len(where) == 2:
            self._redirected(ctx, call, int(where[0]), where[1], asking=code == "ASK")
        else:
            self._ask_later(ctx, call)

    def _redirected(self, ctx: Ctx, call: _Call[Ctx], slot: int, replica: Address, *, asking: bool) -> None:
        group = replica.partition("/")[2]
        if not asking:
            self.directory.moved(slot, group)
            self._inquire(ctx)
        call.asking = asking
        self._ask_at(ctx, call, self._leaders.get(group, replica))

    def _on_not_here(self, ctx: Ctx, sender: Address, call: _Call[Ctx], message: NotHere) -> None:
        if message.reason in NOT_TAKEN:
            call.doubtful.discard(message.number)
        if message.number != call.asked:
            return
        call.trouble = f"{sender}: {message.reason}"
        leader = message.leader
        if not leader or leader in call.silent:
            self._distrust(call, sender)
            self._ask_later(ctx, call)
        elif leader == sender:
            self._ask_later(ctx, call)
        else:
            self._leaders[leader.partition("/")[2]] = leader
            self._ask_at(ctx, call, "" if call.to else leader)

    def _on_silence(self, ctx: Ctx, call: _Call[Ctx]) -> None:
        """A try took too long. A stream on which nothing came meanwhile may be waiting for a link that is
        long up again."""
        replica = call.replica
        call.trouble = f"{replica} is silent"
        if self._heard_s.get(replica, -1.0) < call.asked_s:
            ctx.give_up(replica)
            call.silent.add(replica)
            self._distrust(call, replica)
        self._ask_later(ctx, call)

    def _distrust(self, call: _Call[Ctx], replica: Address) -> None:
        group = replica.partition("/")[2]
        if self._leaders.get(group) == replica:
            del self._leaders[group]

    # -------------------------------------------------------------------------------------------------- tries

    def _fill_lanes(self, ctx: Ctx) -> None:
        while self._queue and self._free:
            lane, call = self._free.popleft(), self._queue.popleft()
            if not lane.session:
                lane.session = ctx.rng.getrandbits(63) + 1
            lane.sequence += 1
            call.lane, call.session, call.sequence = lane, lane.session, lane.sequence
            self._ask(ctx, call)

    def _ask(self, ctx: Ctx, call: _Call[Ctx]) -> None:
        replica = call.to or call.hint or self._replica(ctx, call)
        if not replica:
            call.trouble = "nobody is known who has it"
            self._inquire(ctx)
            self._ask_later(ctx, call)
            return
        number = self._next(ctx)
        call.asked, call.replica, call.asked_s = number, replica, ctx.now
        call.doubtful.add(number)
        call.numbers.append(number)
        self._asked[number] = call
        operation = Operation(call.command, call.session, call.sequence)
        ctx.cancel_timer((self._name, "again", call.number))
        ctx.set_timer((self._name, "try", call.number), self.patience.try_s)
        ctx.send(replica, Submit(number, (operation,), stale=call.stale, asking=call.asking))

    def _replica(self, ctx: Ctx, call: _Call[Ctx]) -> Address:
        """The leader of the group, if it is known and needed, or the next of its replicas."""
        group = call.group or (self.directory.group_of(call.slot or 0))
        replicas = self.directory.replicas(group)
        if not replicas:
            return ""
        if not call.stale and group in self._leaders:
            return self._leaders[group]
        self._turn += 1
        return replicas[self._turn % len(replicas)]

    def _ask_at(self, ctx: Ctx, call: _Call[Ctx], replica: Address) -> None:
        """Go on there at once, unless it has been round and round already."""
        call.hops += 1
        if call.hops > self.patience.hops_max:
            self._ask_later(ctx, call)
        else:
            call.hint = replica
            self._ask(ctx, call)

    def _ask_later(self, ctx: Ctx, call: _Call[Ctx]) -> None:
        call.failures += 1
        call.replica = ""
        ctx.cancel_timer((self._name, "try", call.number))
        ctx.set_timer((self._name, "again", call.number), self.patience.pause(call.failures, ctx.rng))

    def _inquire(self, ctx: Ctx) -> None:
        question = self.directory.question()
        if question is None or (self._inquired_s is not None and ctx.now - self._inquired_s < INQUIRY_S):
            return
        replicas, operation = question
        self._turn += 1
        self._inquiry, self._inquired_s = self._next(ctx), ctx.now
        ctx.send(replicas[self._turn % len(replicas)], Submit(self._inquiry, (operation,), stale=True))

    def _give_up(self, ctx: Ctx, call: _Call[Ctx]) -> None:
        if call.doubtful and not call.is_read:
            outcome = None
        else:
            outcome = Outcome(
                failure=f"TRYAGAIN nothing was done by the deadline ({call.trouble or 'queued'})"
            )
        self._finish(ctx, call, Reply(outcome, trouble=call.trouble))

    def _finish(self, ctx: Ctx, call: _Call[Ctx], reply: Reply) -> None:
        del self._calls[call.number]
        for number in call.numbers:
            del self._asked[number]
        for kind in ("deadline", "try", "again"):
            ctx.cancel_timer((self._name, kind, call.number))
        if reply.outcome is not None and reply.outcome.executed and not call.stale:
            self._leaders[reply.replica.partition("/")[2]] = reply.replica
        if call.lane is not None:
            self._free.append(call.lane)
            self._fill_lanes(ctx)
        elif call in self._queue:
            self._queue.remove(call)
        call.done(ctx, reply)

    def _next(self, ctx: Ctx) -> int:
        """Numbers of a client that was restarted do not meet those of its former life."""
        self._number = self._number + 1 if self._number else ctx.rng.getrandbits(62) + 1
        return self._number


# ---------------------------------------------------------------------------------------------------- helpers


@dataclass(slots=True)
class _Lane:
    session: int = 0
    sequence: int = 0


@dataclass(slots=True, eq=False)
class _Call(Generic[Ctx]):
    number: int
    command: Command
    done: Done[Ctx]
    group: str
    to: Address
    stale: bool
    slot: int | None
    lane: _Lane | None = None
    session: int = 0
    sequence: int = 0
    asked: int = 0
    """Number of the last try."""
    asked_s: float = 0.0
    replica: Address = ""
    """Who was asked last, while that may still be answered."""
    hint: Address = ""
    """Where a redirection pointed."""
    asking: bool = False
    hops: int = 0
    failures: int = 0
    trouble: str = ""
    numbers: list[int] = field(default_factory=list)
    doubtful: set[int] = field(default_factory=set)
    """Tries that may have been executed, or may yet be."""
    silent: set[Address] = field(default_factory=set)
    """Replicas that let a try of this call run out."""

    @property
    def is_read(self) -> bool:
        spec = COMMANDS.get(self.command[0])
        return spec is not None and not spec.writes
