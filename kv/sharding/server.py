"""A replica of a group that has some of the slots, and the controller's replica that says which.

Owns the duties of a group's leader beside answering: asking the controller for the next configuration, taking
the group there through its log, and having slots moved (`kv.sharding.moves`); and what becomes of a question
about a slot that is on its way. Nothing here decides what is served: the machine does, in the log.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import ClassVar

import msgspec

from kv.messages import Answered, NotHere, Status, Submit
from kv.operations import Operation, Outcome
from kv.server import WAITING_MAX, Replicate, Server
from kv.sharding.config import Configuration, compact
from kv.sharding.controller import ControllerMachine
from kv.sharding.machine import SERVED, ShardMachine, SlotState
from kv.sharding.messages import MOVING_MESSAGES, AskTaken, Chunk, Pull, Taken
from kv.sharding.moves import Receiver, Source, Timings, taken_of
from underlay.messages import Message
from underlay.node import Address, Context, Timer

_POLL: Timer = ("shards", "poll")
_MOVE: Timer = ("shards", "move")


class ControllerServer(Server):
    """A replica of the shard controller.

    Args:
        replicate: makes the replication.
        initial: configuration 1, which the first leader ever puts into the log; without it there are no
            groups until somebody joins one.
        group: the controller's own name.
    """

    def __init__(
        self, replicate: Replicate, initial: Configuration | None = None, *, group: str = "ctl"
    ) -> None:
        self.controller = ControllerMachine()
        super().__init__(group, replicate, self.controller)
        self._initial = initial

    def took_office(self, ctx: Context) -> None:
        super().took_office(ctx)
        if self._initial is not None and self.controller.latest.number == 0:
            self.order(ctx, (b"@found", self._initial.encode()))


class Held(msgspec.Struct, frozen=True):
    """A question that waits for a slot."""

    until_s: float
    sender: Address
    submit: Submit


class ShardServer(Server):
    """A replica of a group.

    Args:
        group: its name.
        replicate: makes the replication.
        machine: the group's machine.
        controller: the replicas of the shard controller.
        timings: the knobs of its moves.
    """

    messages: ClassVar[tuple[type[Message], ...]] = MOVING_MESSAGES

    # What only a leader has; see `_stand_down`.
    _source: Source | None
    _receivers: dict[str, Receiver]
    _held: list[Held]
    _asked_next: int
    _asked_settled: tuple[int, int]
    """Number of the question, and the configuration that it reported."""
    _reported: int
    """The configuration that the controller is known to know as settled."""
    _secured: int
    """The configuration with which came no object that a majority of the group does not have."""
    _securing: int
    """The one of which that is being found out."""
    _adopting: bool
    """Whether the next configuration is on its way through the log."""

    def __init__(
        self,
        group: str,
        replicate: Replicate,
        machine: ShardMachine,
        controller: Sequence[Address],
        timings: Timings = Timings(),  # noqa: B008 - immutable
    ) -> None:
        super().__init__(group, replicate, machine)
        self.shards = machine
        self.timings = timings
        self._controllers = Contacts(controller)
        self._contacts: dict[str, Contacts] = {}
        self._questions = 0
        self._stand_down()

    # --------------------------------------------------------------------------------------------- as a node

    def on_message(self, ctx: Context, sender: Address, message: Message) -> None:
        match message:
            case Pull():
                self._on_pull(ctx, sender, message)
            case Chunk():
                for receiver in self._receivers.values():
                    receiver.on_chunk(ctx, sender, message)
            case Taken():
                if self._source is not None:
                    self._source.on_taken(ctx, sender, message)
            case AskTaken():
                self._on_ask_taken(ctx, sender, message)
            case Answered():
                self._on_answered(ctx, message)
            case NotHere():
                self._on_not_here(ctx, message)
            case _:
                super().on_message(ctx, sender, message)

    def on_timer(self, ctx: Context, timer: Timer) -> None:
        if timer == _POLL:
            self._poll(ctx)
        elif timer == _MOVE:
            self._move(ctx)
        else:
            super().on_timer(ctx, timer)

    # ---------------------------------------------------------------------------------------------- questions

    def take(self, ctx: Context, sender: Address, submit: Submit) -> None:
        if self.shards.settled or not self.replication.leading or not self._on_their_way(submit):
            super().take(ctx, sender, submit)
        elif len(self._held) >= WAITING_MAX:
            ctx.send(sender, NotHere(submit.number, ctx.address, "busy"))
        else:
            self._held.append(Held(ctx.now + self.timings.hold_s, sender, submit))

    def refuse(self, ctx: Context, submit: Submit, operation: Operation) -> Outcome | None:
        return super().refuse(ctx, submit, operation) or self.shards.elsewhere(operation.command)

    def slots(self) -> tuple[tuple[int, int], ...]:
        return compact(self.shards.slots_in(*SERVED))

    def holders(self) -> Sequence[Address]:
        """A slot's objects may still be with the group that it comes from."""
        shards = self.shards
        known = [*shards.before.groups.values(), *shards.configuration.groups.values()]
        return tuple(dict.fromkeys([*super().holders(), *(a for replicas in known for a in replicas)]))

    def status(self, number: int) -> Status:
        counts = {
            state.name.lower(): count
            for state in SlotState
            if state is not SlotState.ABSENT and (count := len(self.shards.slots_in(state)))
        }
        details = {
            "configuration": self.shards.configuration.number,
            "slots": counts,
            "held": len(self._held),
        }
        return msgspec.structs.replace(super().status(number), details=details)

    # ------------------------------------------------------------------------------------------ what it leads

    def took_office(self, ctx: Context) -> None:
        super().took_office(ctx)
        source = self._source = Source(self)
        source.drop(ctx)
        self._begin_moves(ctx)
        self._poll(ctx)

    def left_office(self, ctx: Context) -> None:
        super().left_office(ctx)
        for held in self._held:
            ctx.send(held.sender, NotHere(held.submit.number, self.replication.leader or "", "left office"))
        self._stand_down()
        ctx.cancel_timer(_POLL)
        ctx.cancel_timer(_MOVE)

    # --------------------------------------------------------------------------- what the moves need (`Seat`)

    def question(self) -> int:
        self._questions += 1
        return self._questions

    def contact(self, group: str) -> Address:
        return self._contacts_of(group).present

    def anybody(self, group: str) -> Address:
        return self._contacts_of(group).next()

    def lost_contact(self, group: str, leader: Address = "") -> None:
        self._contacts_of(group).lost(leader)

    def arrived(self, ctx: Context) -> None:
        held, self._held = self._held, []
        for each in held:
            self.take(ctx, each.sender, each.submit)

    def secure(self, ctx: Context, then: Callable[[Context], None]) -> None:
        self.objects.secure(ctx, then)

    def moved(self, ctx: Context) -> None:
        if self.shards.settled and self.replication.leading:
            self._receivers = {}
            self._poll(ctx)

    # ---------------------------------------------------------------------------------------- configurations

    def _poll(self, ctx: Context) -> None:
        """Say what is settled, and ask for what is next. Any of the controller's replicas may answer: what it
        knows is settled for good, and what it does not know yet it is asked again."""
        ctx.set_timer(_POLL, self.timings.poll_s)
        if not self.shards.settled or self._adopting:
            return
        number = self.shards.configuration.number
        if self._secured != number:
            if self._securing != number:
                self._securing = number
                self.secure(ctx, partial(self._is_secured, number))
            return
        name, settled = self.group.encode(), b"%d" % number
        self._asked_next = self.question()
        ask_next = Operation((b"BH.NEXT", name, settled))
        ctx.send(self._controllers.next(), Submit(self._asked_next, (ask_next,), stale=True))
        if self._reported < number:
            self._asked_settled = (self.question(), number)
            report = Operation((b"BH.SETTLED", name, settled))
            ctx.send(self._controllers.present, Submit(self._asked_settled[0], (report,)))

    def _is_secured(self, number: int, ctx: Context) -> None:
        """A majority of this group has all objects that came with slots of that configuration. Before, it is
        not settled for anybody else: the former groups may be asked for them still."""
        self._secured = number
        self._poll(ctx)

    def _on_answered(self, ctx: Context, answer: Answered) -> None:
        if len(answer.outcomes) != 1:
            return
        (outcome,) = answer.outcomes
        if answer.number == self._asked_next and isinstance(outcome.value, bytes):
            self._asked_next = 0
            self._adopting = True
            self.order(ctx, (b"@config", outcome.value), then=self._adopted)
        elif answer.number == self._asked_settled[0] and outcome.executed:
            self._reported = self._asked_settled[1]

    def _adopted(self, ctx: Context, outcomes: Sequence[Outcome]) -> None:
        self._adopting = False
        self._begin_moves(ctx)
        self.moved(ctx)

    def _on_not_here(self, ctx: Context, answer: NotHere) -> None:
        if answer.number == self._asked_settled[0]:
            self._controllers.lost(answer.leader)
        for receiver in self._receivers.values():
            if receiver.on_not_here(ctx, answer):
                break

    # -------------------------------------------------------------------------------------------------- moves

    def _begin_moves(self, ctx: Context) -> None:
        if self.shards.settled:
            return
        arriving = self.shards.slots_in(SlotState.ARRIVING)
        sources = dict.fromkeys(self.shards.source_of(slot) for slot in arriving)
        self._receivers = {source: Receiver(self, source) for source in sources}
        for receiver in self._receivers.values():
            receiver.pull(ctx)
        ctx.set_timer(_MOVE, self.timings.retry_s)

    def _move(self, ctx: Context) -> None:
        """Try again what was not answered."""
        overdue = [held for held in self._held if held.until_s <= ctx.now]
        self._held = [held for held in self._held if held.until_s > ctx.now]
        for held in overdue:
            later = (Outcome(failure="TRYAGAIN the slot is on its way"),) * len(held.submit.operations)
            ctx.send(held.sender, Answered(held.submit.number, later, self.shards.revision))
        if self._source is None or self.shards.settled:
            return
        for receiver in self._receivers.values():
            receiver.retry(ctx)
        self._source.ask_taken(ctx)
        ctx.set_timer(_MOVE, self.timings.retry_s)

    def _on_ask_taken(self, ctx: Context, sender: Address, asked: AskTaken) -> None:
        """A later configuration says it all, because the one asked about had to be settled before. Of the
        present one only the leader can tell, which knows of the objects."""
        answer = taken_of(self.shards, asked)
        if answer is None:
            return
        if asked.configuration < self.shards.configuration.number:
            ctx.send(sender, answer)
        elif self.replication.leading:
            self.secure(ctx, lambda ctx: ctx.send(sender, answer))

    def _on_pull(self, ctx: Context, sender: Address, pull: Pull) -> None:
        if self._source is None:
            leader = self.replication.leader or ""
            ctx.send(sender, NotHere(pull.number, "" if leader == ctx.address else leader))
        elif pull.configuration > self.shards.configuration.number:
            self._poll(ctx)
        else:
            self._source.on_pull(ctx, sender, pull)

    # ------------------------------------------------------------------------------------------------ helpers

    def _stand_down(self) -> None:
        self._source, self._receivers, self._held = None, {}, []
        self._asked_next, self._asked_settled, self._reported = 0, (0, 0), 0
        self._secured = self._securing = -1
        self._adopting = False

    def _on_their_way(self, submit: Submit) -> bool:
        """Whether a question is about a slot that the source has stopped serving, and that is not here yet:
        the client was sent by the source, or a part of the slot has come."""
        for operation in submit.operations:
            slot = self.shards.inner.slot_of(operation.command)
            if slot is not None and self.shards.state(slot) is SlotState.ARRIVING:
                receiver = self._receivers.get(self.shards.source_of(slot))
                if submit.asking or (receiver is not None and receiver.expects(slot)):
                    return True
        return False

    def _contacts_of(self, group: str) -> Contacts:
        replicas = self.shards.replicas_of(group)
        contacts = self._contacts.get(group)
        if contacts is None or contacts.replicas != replicas:
            contacts = self._contacts[group] = Contacts(replicas)
        return contacts


class Contacts:
    """Whom to ask in a group: one after the other, until somebody says who leads."""

    def __init__(self, replicas: Sequence[Address]) -> None:
        self.replicas = tuple(replicas)
        self._place = 0
        self._leader: Address = ""

    @property
    def present(self) -> Address:
        """The leader, as far as is known, or the one whose turn it is."""
        return self._leader or self.replicas[self._place % len(self.replicas)]

    def next(self) -> Address:
        """Somebody else each time."""
        self._place += 1
        return self.replicas[self._place % len(self.replicas)]

    def lost(self, leader: Address = "") -> None:
        """That one did not answer as a leader; `leader` does, or else it is the next one's turn."""
        self._leader = leader
        if not leader:
            self._place += 1
