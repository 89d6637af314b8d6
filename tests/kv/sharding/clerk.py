"""A client of the sharded service for its tests: finds its way, tries again, and keeps what it saw.

Small on purpose, and not the product's client: what it does on each answer can be read in one place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from random import Random

from kv.checking.history import Call
from kv.messages import CLIENT_MESSAGES, Answered, NotHere, Submit
from kv.operations import Command, Operation, Outcome
from kv.sharding.config import Configuration
from kv.slots import slot_of
from underlay.messages import Message, Protocol
from underlay.node import Address, Context, Node, Timer

Script = Callable[[Random], Iterator[Command]]
"""What a clerk does, one command after the other."""


class Go(Message, frozen=True, array_like=True, tag=901):
    """A test's order to a clerk: do this too."""

    transport = "local"
    commands: tuple[Command, ...]


class Clerk(Node):
    """Executes a script with a session, one command at a time, each until it has an outcome. Commands that
    begin with `BH.` go to the controller.

    Args:
        controller: the replicas of the shard controller.
        script: what to do; more can be ordered with `Go`.
        pause_s: between an outcome and the next command, on average.
        first_s: when to begin.
    """

    protocol = Protocol("clerk", *CLIENT_MESSAGES)
    retry_s = 0.25

    def __init__(
        self,
        controller: Sequence[Address],
        script: Script | None = None,
        *,
        pause_s: float = 0.005,
        first_s: float = 2.0,
    ) -> None:
        self.calls: list[Call] = []
        self.answers: list[Answered] = []
        """Of the commands in `calls`."""
        self.redirections: dict[str, int] = {}
        self._controller = controller
        self._script = script
        self._pause_s = pause_s
        self._first_s = first_s
        self._configuration = Configuration()
        self._owners = self._configuration.table()
        self._leaders: dict[str, Address] = {}
        self._ordered: list[Command] = []
        self._commands: Iterator[Command] = iter(())
        self._session = self._sequence = self._number = self._turn = 0
        self._command: Command | None = None
        self._invoked_s = 0.0
        self._elsewhere: Address = ""
        self._asking = False

    @property
    def idle(self) -> bool:
        """Whether everything ordered has an outcome."""
        return self._command is None and not self._ordered

    @property
    def pending(self) -> Call | None:
        """The call under way, as one that never returned."""
        if self._command is None:
            return None
        return Call(f"session {self._session}", self._command, self._invoked_s)

    def on_start(self, ctx: Context) -> None:
        self._session = ctx.rng.getrandbits(63) + 1
        if self._script is not None:
            self._commands = self._script(ctx.rng)
        ctx.set_timer("next", self._first_s)

    def on_message(self, ctx: Context, sender: Address, message: Message) -> None:
        if isinstance(message, Go):
            self._ordered += message.commands
            if self._command is None:
                self._next(ctx)
        elif isinstance(message, Answered) and message.number == 0:
            self._learn(ctx, message.outcomes[0])
        elif isinstance(message, Answered | NotHere) and message.number == self._number:
            self._on_answer(ctx, message)

    def on_timer(self, ctx: Context, timer: Timer) -> None:
        if timer == "next":
            self._next(ctx)
        else:
            self._leaders.clear()
            self._ask_controller(ctx)
            self._try(ctx)

    # ------------------------------------------------------------------------------------------------ helpers

    def _next(self, ctx: Context) -> None:
        if self._command is not None:
            return
        self._command = self._ordered.pop(0) if self._ordered else next(self._commands, None)
        if self._command is not None:
            self._sequence += 1
            self._invoked_s = ctx.now
            self._elsewhere, self._asking = "", False
            self._try(ctx)

    def _try(self, ctx: Context) -> None:
        """Ask whoever should know, and have the timer ask another one."""
        assert self._command is not None
        self._number += 1
        ctx.set_timer("retry", self.retry_s)
        if self._command[0].startswith(b"BH."):
            replica = self._elsewhere or self._controller[self._number % len(self._controller)]
        else:
            replica = self._elsewhere or self._replica(slot_of(self._command[1]))
        asking, self._elsewhere, self._asking = self._asking, "", False
        if not replica:
            self._ask_controller(ctx)
            return
        operation = Operation(self._command, self._session, self._sequence)
        ctx.send(replica, Submit(self._number, (operation,), asking=asking))

    def _replica(self, slot: int) -> Address:
        group = self._owners[slot]
        replicas = self._configuration.groups.get(group, ("",))
        self._turn += 1
        return self._leaders.get(group) or replicas[self._turn % len(replicas)]

    def _on_answer(self, ctx: Context, answer: Answered | NotHere) -> None:
        if isinstance(answer, NotHere):
            self._elsewhere = answer.leader
            if answer.leader:
                self._leaders[answer.leader.partition("/")[2]] = answer.leader
                self._try(ctx)
            return
        (outcome,) = answer.outcomes
        if outcome.executed:
            assert self._command is not None
            ctx.cancel_timer("retry")
            name = f"session {self._session}"
            self.calls.append(Call(name, self._command, self._invoked_s, ctx.now, outcome))
            self.answers.append(answer)
            self._command = None
            self._number += 1
            ctx.set_timer("next", ctx.rng.expovariate(1.0) * self._pause_s)
            return
        code, *rest = outcome.failure.split(" ")
        self.redirections[code] = self.redirections.get(code, 0) + 1
        if code in ("MOVED", "ASK"):
            group = rest[1].partition("/")[2]
            self._elsewhere, self._asking = self._leaders.get(group, rest[1]), code == "ASK"
            if code == "MOVED":
                self._ask_controller(ctx)
            self._try(ctx)

    def _ask_controller(self, ctx: Context) -> None:
        self._turn += 1
        replica = self._controller[self._turn % len(self._controller)]
        ctx.send(replica, Submit(0, (Operation((b"BH.QUERY",)),), stale=True))

    def _learn(self, ctx: Context, outcome: Outcome) -> None:
        if not isinstance(outcome.value, bytes):
            return
        configuration = Configuration.decode(outcome.value)
        if configuration.number > self._configuration.number:
            first = self._configuration.number == 0
            self._configuration, self._owners = configuration, configuration.table()
            if first and self._command is not None:
                self._try(ctx)
