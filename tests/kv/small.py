"""A small machine and a client, for tests of what is around them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator

import msgspec

from kv.messages import CLIENT_MESSAGES, Answered, AskStatus, NotHere, Status, Submit
from kv.operations import OK, Command, Operation, Outcome
from underlay.messages import Message, Protocol
from underlay.node import Address, Context, Node
from underlay.store import Batch

_SESSIONS = b"s"
_KEYS = b"k"
_DUE = b"d"


class SmallMachine:
    """SET, GET, APPEND, DBSIZE, and `WAKE t`: at log time `t` a `@tick` writes the time to the key `woke`."""

    def __init__(self) -> None:
        self.records: dict[bytes, bytes] = {}
        self.revision = 0
        self.wakes_at_s: float | None = None
        self._changes: Batch = {}

    def execute(self, operation: Operation, time_s: float) -> Outcome:
        if not operation.session:
            return self._do(operation.command, time_s)
        key = _SESSIONS + operation.session.to_bytes(8, "big")
        known = self.records.get(key)
        if known is not None:
            sequence, outcome = msgspec.msgpack.decode(known, type=tuple[int, Outcome])
            if sequence >= operation.sequence:
                return outcome
        outcome = self._do(operation.command, time_s)
        self._put(key, msgspec.msgpack.encode((operation.sequence, outcome)))
        return outcome

    def is_read(self, command: Command) -> bool:
        return command[:1] in ((b"GET",), (b"DBSIZE",))

    def query(self, command: Command) -> Outcome:
        if command[0] == b"DBSIZE":
            return Outcome(sum(key.startswith(_KEYS) for key in self.records))
        return Outcome(self.records.get(_KEYS + command[1]))

    def referenced(self) -> Collection[bytes]:
        return ()

    def take_changes(self) -> Batch:
        changes, self._changes = self._changes, {}
        return changes

    def freeze(self) -> Iterator[tuple[bytes, bytes]]:
        return iter(sorted(self.records.items()))

    def restore(self, records: Iterable[tuple[bytes, bytes]]) -> None:
        self.records = dict(records)
        self._changes = {}
        self.revision = int.from_bytes(self.records.get(b"r", b""), "big")
        due = self.records.get(_DUE)
        self.wakes_at_s = float(due) if due else None

    def _do(self, command: Command, time_s: float) -> Outcome:
        match command:
            case (b"GET" | b"DBSIZE", *_):
                return self.query(command)
            case (b"SET", key, value):
                self._put(_KEYS + key, value)
                return OK
            case (b"APPEND", key, value):
                value = self.records.get(_KEYS + key, b"") + value
                self._put(_KEYS + key, value)
                return Outcome(len(value))
            case (b"WAKE", due):
                self.wakes_at_s = float(due)
                self._put(_DUE, due)
                return OK
            case (b"@tick",):
                if self.wakes_at_s is not None and self.wakes_at_s <= time_s:
                    self.wakes_at_s = None
                    self._put(_DUE, b"")
                    self._put(_KEYS + b"woke", b"%f" % time_s)
                return OK
            case _:
                return Outcome(failure="ERR unknown command")

    def _put(self, key: bytes, value: bytes) -> None:
        self.revision += 1
        self._record(key, value)
        self._record(b"r", self.revision.to_bytes(8, "big"))

    def _record(self, key: bytes, value: bytes) -> None:
        self.records[key] = self._changes[key] = value


class Asker(Node):
    """Sends what a test injects as `Ask`, again if the connection is reset, and keeps what comes back."""

    protocol = Protocol("asker", *CLIENT_MESSAGES)

    def __init__(self) -> None:
        self.answers: dict[int, list[Answered | NotHere | Status]] = {}
        self._asked: dict[int, Ask] = {}

    def on_message(self, ctx: Context, sender: Address, message: Message) -> None:
        if isinstance(message, Ask):
            self._asked[message.question.number] = message
            ctx.send(message.replica, message.question)
        elif isinstance(message, Answered | NotHere | Status):
            self._asked.pop(message.number, None)
            self.answers.setdefault(message.number, []).append(message)

    def on_peer_down(self, ctx: Context, peer: Address) -> None:
        for ask in self._asked.values():
            if ask.replica == peer:
                ctx.send(peer, ask.question)


class Ask(Message, frozen=True, array_like=True, tag=900):
    """A test's order to an `Asker`."""

    transport = "local"
    replica: Address
    question: Submit | AskStatus


def submit(number: int, *commands: Command, session: int = 0, sequence: int = 0) -> Submit:
    """A question with these commands."""
    return Submit(number, tuple(Operation(command, session, sequence) for command in commands))
