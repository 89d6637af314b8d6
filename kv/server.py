"""The replica of a group: the `Node` between clients and a `Replication`.

Owns the conversation with clients: what is refused, what is read and what is ordered, who waits for which
answer, and how many may wait. Does not know how replicas agree (`kv.replication`), nor what a command means:
that an operation is executed once is the machine's doing, because only what is in the log survives a leader.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import Any, ClassVar

import msgspec

from kv.events import LeftOffice, TookOffice
from kv.machine import Reference
from kv.messages import CLIENT_MESSAGES, Answered, AskStatus, NotHere, Status, Submit
from kv.objects import OBJECT_BYTES_MAX, OBJECT_MESSAGES, Objects
from kv.operations import Command, Operation, Outcome
from kv.replication import Machine, Owner, Replication, Token
from kv.slots import SLOTS
from underlay.messages import Message, Protocol
from underlay.node import Address, Context, Node, Timer, device_of

VALUE_BYTES_MAX = 32 * 1024
"""Of one argument of a command; SET takes more, and keeps it apart (`kv.objects`)."""
OPERATION_BYTES_MAX = 40 * 1024
"""Of all of them: an operation travels in one entry of a log."""
ANSWER_BYTES_MAX = 62 * 1024
"""Of the outcomes that go to another device in one message."""
RESOLVE_S = 2.0
"""How long an answer waits for a large object that is not on this host yet."""
WAITING_MAX = 4096
"""Questions under way; further ones are turned away, so that a slow group makes its clients wait and not its
memory grow."""

Replicate = Callable[[Owner, Machine], Replication]
"""Makes the replication that tells the owner and executes on the machine."""
Then = Callable[[Context, Sequence[Outcome]], None]

_TICK: Timer = ("server", "tick")
_TICK_S_MIN = 0.001
"""A clock that rounds must not make the leader ask for the time again and again."""


class Waiting(msgspec.Struct, frozen=True):
    """A question under way."""

    sender: Address
    submit: Submit
    refused: dict[int, Outcome]
    """Outcomes of the operations that were not let in, by their place in the question."""


class Unresolved(msgspec.Struct, frozen=True):
    """An answer that waits for a large object."""

    until_s: float
    waiting: Waiting
    outcomes: Sequence[Outcome]


class Server(Node):
    """A replica of `group`.

    What a service adds is a subclass: its `messages` join the protocol, handlers are extended by overriding
    them, `refuse` keeps operations out, and `order` proposes what nobody asked for.

    Args:
        group: its name, which is the node's too.
        replicate: makes the replication.
        machine: on which operations are executed; its state comes from the replication.
    """

    messages: ClassVar[tuple[type[Message], ...]] = ()
    """What the service's replicas say beside `CLIENT_MESSAGES` and the replication's own."""

    def __init__(self, group: str, replicate: Replicate, machine: Machine) -> None:
        self.group = group
        self.machine = machine
        self.replication = replicate(self, machine)
        self.objects = Objects(machine, self._members, self.holders)
        types = (*CLIENT_MESSAGES, *OBJECT_MESSAGES, *self.messages, *self.replication.protocol)
        self.protocol = _protocol(types)  # type: ignore[misc]  # the class cannot know its replication's messages
        self._waiting: dict[Token, Waiting | Then] = {}
        self._tokens = 0
        self._tick_at_s: float | None = None
        self._unresolved: list[Unresolved] = []

    # --------------------------------------------------------------------------------------------- as a node

    def on_start(self, ctx: Context) -> None:
        self.replication.on_start(ctx)
        self.objects.on_start(ctx)

    def on_message(self, ctx: Context, sender: Address, message: Message) -> None:
        if isinstance(message, Submit):
            self.take(ctx, sender, message)
        elif isinstance(message, AskStatus):
            ctx.send(sender, self.status(message.number))
        elif self.objects.on_message(ctx, sender, message):
            self._answer_resolved(ctx)
        elif not isinstance(message, CLIENT_MESSAGES):
            self.replication.on_message(ctx, sender, message)

    def on_timer(self, ctx: Context, timer: Timer) -> None:
        if timer == _TICK:
            self._tick_at_s = None
            if self.replication.leading:
                self._tick_if_due(ctx)
        elif self.objects.on_timer(ctx, timer):
            self._answer_resolved(ctx)
        else:
            self.replication.on_timer(ctx, timer)

    def on_peer_down(self, ctx: Context, peer: Address) -> None:
        self.replication.on_peer_down(ctx, peer)

    # ---------------------------------------------------------------------------------------------- questions

    def take(self, ctx: Context, sender: Address, submit: Submit) -> None:
        """Answer a question, now or later, or turn it away."""
        machine, replication = self.machine, self.replication
        reads = all(machine.is_read(operation.command) for operation in submit.operations)
        if not (submit.stale and reads):
            if not replication.leading:
                leader = replication.leader or ""
                ctx.send(sender, NotHere(submit.number, "" if leader == ctx.address else leader))
                return
            if len(self._waiting) >= WAITING_MAX:
                ctx.send(sender, NotHere(submit.number, ctx.address, "busy"))
                return
        refused = {
            place: outcome
            for place, operation in enumerate(submit.operations)
            if (outcome := self.refuse(ctx, submit, operation)) is not None
        }
        waiting = Waiting(sender, submit, refused)
        if (submit.stale and reads) or len(refused) == len(submit.operations):
            self._answer_reads(ctx, waiting)
        elif reads:
            replication.read(ctx, self._remember(waiting))
        else:
            admitted = [
                operation for place, operation in enumerate(submit.operations) if place not in refused
            ]
            self._propose(ctx, admitted, self._remember(waiting))

    def refuse(self, ctx: Context, submit: Submit, operation: Operation) -> Outcome | None:
        """The outcome of an operation that is not let in, or None. What else a service refuses it says in the
        machine, where the log gives all replicas the same opinion."""
        command = operation.command
        if not command or command[0].startswith(b"@"):
            return Outcome(failure="ERR unknown command")
        size_bytes = sum(map(len, command))
        if size_bytes <= VALUE_BYTES_MAX:
            return None
        if max(map(len, command)) <= VALUE_BYTES_MAX and size_bytes <= OPERATION_BYTES_MAX:
            return None
        if _is_large(operation) and size_bytes <= OBJECT_BYTES_MAX:
            return None
        return Outcome(failure=f"ERR value larger than {VALUE_BYTES_MAX} bytes")

    def order(self, ctx: Context, *commands: Command, then: Then | None = None) -> None:
        """Propose commands of the service's own; only while leading. `then(ctx, outcomes)` follows, unless
        this replica leaves its office first."""
        operations = [Operation(command) for command in commands]
        self.replication.propose(ctx, operations, self._remember(then or _done))

    def status(self, number: int) -> Status:
        """How this replica is."""
        keys = self.machine.query((b"DBSIZE",)).value
        fields: dict[str, Any] = self.replication.describe()
        return Status(
            number=number,
            group=self.group,
            revision=self.machine.revision,
            keys=keys if isinstance(keys, int) else 0,
            slots=self.slots(),
            **fields,
        )

    def slots(self) -> tuple[tuple[int, int], ...]:
        """Ranges of slots that it serves, both ends included."""
        return ((0, SLOTS - 1),)

    def holders(self) -> Sequence[Address]:
        """Who may have a large object that is missing here."""
        return self._members()

    # ----------------------------------------------------------------------------- what the replication tells

    def applied(self, ctx: Context, token: Token, outcomes: Sequence[Outcome]) -> None:
        waiting = self._waiting.pop(token, None)
        if isinstance(waiting, Waiting):
            self._answer(ctx, waiting, outcomes)
        elif waiting is not None:
            waiting(ctx, outcomes)
        self._tick_if_due(ctx)

    def readable(self, ctx: Context, token: Token) -> None:
        waiting = self._waiting.pop(token, None)
        if isinstance(waiting, Waiting):
            self._answer_reads(ctx, waiting)

    def took_office(self, ctx: Context) -> None:
        ctx.emit(TookOffice(self.group, str(self.replication.describe()["ballot"])))
        self._tick_if_due(ctx)

    @property
    def complete(self) -> bool:
        return self.objects.complete

    def left_office(self, ctx: Context) -> None:
        ctx.emit(LeftOffice(self.group, len(self._waiting)))
        left, self._waiting = self._waiting, {}
        self.objects.left_office()
        self._tick_at_s = None
        for waiting in left.values():
            if isinstance(waiting, Waiting):
                leader = self.replication.leader or ""
                ctx.send(waiting.sender, NotHere(waiting.submit.number, leader, "left office"))

    # ------------------------------------------------------------------------------------------ large objects

    def _propose(self, ctx: Context, operations: list[Operation], token: Token) -> None:
        """Propose; where a value is large, once it is kept apart by a majority, and then its reference."""
        large = [place for place, operation in enumerate(operations) if _is_large(operation)]
        if not large:
            self.replication.propose(ctx, operations, token)
            return
        left = len(large)

        def kept(place: int, ctx: Context, reference: Reference | None) -> None:
            nonlocal left
            left -= 1
            if reference is not None:
                operation = operations[place]
                _, key, _, *options = operation.command
                command = (b"@SET", key, reference.encode(), *options)
                operations[place] = Operation(command, operation.session, operation.sequence)
            if left == 0 and token in self._waiting:
                self._propose_kept(ctx, operations, token)

        for place in large:
            content = operations[place].command[2]
            self.objects.keep(ctx, content, partial(kept, place))

    def _propose_kept(self, ctx: Context, operations: list[Operation], token: Token) -> None:
        if not any(_is_large(operation) for operation in operations):
            self.replication.propose(ctx, operations, token)
        else:
            waiting = self._waiting.pop(token)
            assert isinstance(waiting, Waiting)
            failed = Outcome(failure="TRYAGAIN no majority keeps the value")
            self._answer(ctx, waiting, [failed] * len(operations))

    def _answer_resolved(self, ctx: Context) -> None:
        """Answer what waited for an object that is here now, or has waited for too long."""
        unresolved, self._unresolved = self._unresolved, []
        for each in unresolved:
            if ctx.now < each.until_s:
                self._answer(ctx, each.waiting, each.outcomes, each.until_s)
            else:
                number = each.waiting.submit.number  # a write has taken place: only its answer is missing
                ctx.send(each.waiting.sender, NotHere(number, ctx.address, "a large value is not here yet"))

    # ------------------------------------------------------------------------------------------------ helpers

    def _members(self) -> tuple[Address, ...]:
        members = self.replication.describe()["members"]
        assert isinstance(members, tuple)
        return members

    def _remember(self, waiting: Waiting | Then) -> Token:
        self._tokens += 1
        self._waiting[self._tokens] = waiting
        return self._tokens

    def _answer_reads(self, ctx: Context, waiting: Waiting) -> None:
        query = self.machine.query
        operations = waiting.submit.operations
        if not waiting.refused:
            self._answer(ctx, waiting, [query(operation.command) for operation in operations])
            return
        admitted = [op for place, op in enumerate(operations) if place not in waiting.refused]
        self._answer(ctx, waiting, [query(operation.command) for operation in admitted])

    def _answer(
        self, ctx: Context, waiting: Waiting, outcomes: Sequence[Outcome], until_s: float | None = None
    ) -> None:
        resolved = self.objects.resolved(ctx, outcomes)
        if resolved is None:
            until_s = ctx.now + RESOLVE_S if until_s is None else until_s
            self._unresolved.append(Unresolved(until_s, waiting, outcomes))
            return
        outcomes = resolved
        if waiting.refused:
            admitted = iter(outcomes)
            places = range(len(waiting.submit.operations))
            outcomes = [waiting.refused.get(place) or next(admitted) for place in places]
        if device_of(waiting.sender) != ctx.device:
            outcomes = _that_fit(outcomes)
        ctx.send(waiting.sender, Answered(waiting.submit.number, tuple(outcomes), self.machine.revision))

    def _tick_if_due(self, ctx: Context) -> None:
        """Have the log tell the machine the time when something waits for it; keys expire by this alone."""
        due_s = self.machine.wakes_at_s
        if due_s is None or (self._tick_at_s is not None and self._tick_at_s <= due_s):
            return
        self._tick_at_s = due_s
        if due_s <= ctx.now:
            self.order(ctx, (b"@tick",), then=self._ticked)
        else:
            ctx.set_timer(_TICK, max(due_s - ctx.now, _TICK_S_MIN))

    def _ticked(self, ctx: Context, outcomes: Sequence[Outcome]) -> None:
        self._tick_at_s = None


@cache
def _protocol(types: tuple[type[Message], ...]) -> Protocol:
    return Protocol("kv", *types)


def _done(ctx: Context, outcomes: Sequence[Outcome]) -> None:
    """Nobody waits for this outcome."""


def _is_large(operation: Operation) -> bool:
    """Whether it is a SET whose value goes beside the log."""
    command = operation.command
    return len(command) >= 3 and command[0] == b"SET" and len(command[2]) > VALUE_BYTES_MAX


def _that_fit(outcomes: Sequence[Outcome]) -> Sequence[Outcome]:
    """As many whole outcomes as one message takes; in the place of the others stands a failure."""
    left = ANSWER_BYTES_MAX
    fitting = []
    for outcome in outcomes:
        size_bytes = _size_bytes(outcome.value) + len(outcome.failure) + 8
        if size_bytes > left:
            outcome = Outcome(failure="ERR answer too large: ask for less at a time")
            size_bytes = 64
        left -= size_bytes
        fitting.append(outcome)
    return fitting


def _size_bytes(value: Any) -> int:
    if isinstance(value, bytes | str):
        return len(value) + 5
    if isinstance(value, list | tuple):
        return 5 + sum(map(_size_bytes, value))
    return 9
