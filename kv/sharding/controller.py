"""The shard controller's state machine: numbers the configurations and keeps their history.

Owns who may change the map and how long an old map is remembered. It is an ordinary `kv.replication.Machine`:
any replication makes it fault tolerant, and the course's name for it is the shard master.

Commands, besides `@tick`: `BH.JOIN group address...`, `BH.LEAVE group`, `BH.MOVE ranges group`, which answer
with the number of the configuration that is in force afterwards; `BH.QUERY [number]`, which answers with that
configuration, or the latest, encoded; `BH.NEXT group number`, what a group that has settled `number` goes on
to; `BH.SETTLED group number`, by which a group says so; and `@found configuration`, which makes the first
configuration unless there is one.

History. A configuration can be forgotten when no group needs it on its way to the latest one. A group goes
one configuration at a time while it has slots, so the oldest one kept is the one settled by the group that
lags most. If a group cannot follow for long (`HISTORY_MAX` configurations), the map stays as it is until it
does: forgetting what it needs would strand its slots.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Any

import msgspec

from kv.operations import OK, Command, Operation, Outcome
from kv.sharding.config import Configuration, join, leave, move, read_ranges
from underlay.errors import InputError
from underlay.store import Batch

HISTORY_MAX = 256
"""Configurations that are remembered at most."""

SESSION_S = 86_400.0
"""A session that was not used for so long is forgotten (a client's deadline is an hour at most)."""

_CONFIGURATION, _SETTLED, _SESSION, _REVISION = b"c", b"g", b"s", b"r"


class _Session(msgspec.Struct, frozen=True, array_like=True):
    sequence: int
    outcome: Outcome
    used_s: float


class ControllerMachine:
    """Implements `kv.replication.Machine`."""

    def __init__(self) -> None:
        self._history: dict[int, Configuration] = {}
        self._settled: dict[str, int] = {}
        """The last configuration that each group said to have settled."""
        self._sessions: dict[int, _Session] = {}
        self._revision = 0
        self._changed: Batch = {}
        self.restore(())

    @property
    def revision(self) -> int:
        return self._revision

    @property
    def latest(self) -> Configuration:
        """The configuration in force."""
        return self._history[max(self._history)]

    @property
    def oldest(self) -> int:
        """Number of the oldest configuration that is remembered."""
        return min(self._history)

    def execute(self, operation: Operation, time_s: float) -> Outcome:
        session = self._sessions.get(operation.session)
        if session is not None and operation.sequence <= session.sequence:
            if operation.sequence == session.sequence:
                return session.outcome
            return Outcome(failure="ERR this operation is older than the session's last")
        outcome = self._execute(operation.command, time_s)
        if operation.session:
            session = _Session(operation.sequence, outcome, time_s)
            self._sessions[operation.session] = session
            self._put(_SESSION + operation.session.to_bytes(8), session)
        return outcome

    def is_read(self, command: Command) -> bool:
        return command[:1] in ((b"BH.QUERY",), (b"BH.NEXT",), (b"PING",))

    def query(self, command: Command) -> Outcome:
        match command:
            case (b"BH.QUERY",):
                return Outcome(self.latest.encode())
            case (b"BH.QUERY", number):
                return self._guarded(self._numbered, number)
            case (b"BH.NEXT", group, number):
                return self._guarded(self._next, group, number)
            case (b"PING",):
                return Outcome("PONG")
        return _unknown(command)

    @property
    def wakes_at_s(self) -> float | None:
        oldest = min((session.used_s for session in self._sessions.values()), default=None)
        return None if oldest is None else oldest + SESSION_S

    def referenced(self) -> Collection[bytes]:
        return ()

    def take_changes(self) -> Batch:
        changed, self._changed = self._changed, {}
        return changed

    def freeze(self) -> Iterator[tuple[bytes, bytes]]:
        records = [
            *((_CONFIGURATION + n.to_bytes(8), known.encode()) for n, known in self._history.items()),
            *((_SETTLED + group.encode(), _encode(number)) for group, number in self._settled.items()),
            *((_SESSION + key.to_bytes(8), _encode(session)) for key, session in self._sessions.items()),
            (_REVISION, _encode(self._revision)),
        ]
        return iter(sorted(records))

    def restore(self, records: Iterable[tuple[bytes, bytes]]) -> None:
        self._history, self._settled, self._sessions, self._revision = {}, {}, {}, 0
        self._changed = {}
        for key, value in records:
            match key[:1]:
                case b"c":
                    self._history[int.from_bytes(key[1:])] = Configuration.decode(value)
                case b"g":
                    self._settled[key[1:].decode()] = msgspec.msgpack.decode(value, type=int)
                case b"s":
                    self._sessions[int.from_bytes(key[1:])] = msgspec.msgpack.decode(value, type=_Session)
                case b"r":
                    self._revision = msgspec.msgpack.decode(value, type=int)
        if not self._history:
            self._history[0] = Configuration()

    # ------------------------------------------------------------------------------------------------ helpers

    def _execute(self, command: Command, time_s: float) -> Outcome:
        match command:
            case (b"BH.JOIN", group, *replicas):
                return self._guarded(self._join, group, *replicas)
            case (b"BH.LEAVE", group):
                return self._guarded(lambda: self._follow(leave(self.latest, group.decode())))
            case (b"BH.MOVE", ranges, group):
                return self._guarded(
                    lambda: self._follow(move(self.latest, read_ranges(ranges.decode()), group.decode()))
                )
            case (b"BH.SETTLED", group, number):
                return self._guarded(self._settle, group, number)
            case (b"@found", configuration):
                if self.latest.number == 0:
                    self._follow(Configuration.decode(configuration))
                return Outcome(self.latest.number)
            case (b"@tick",):
                return self._forget_sessions(time_s)
        return self.query(command)

    def _guarded(self, call: Callable[..., Outcome], *args: bytes) -> Outcome:
        """What a client sends must not raise: every replica would fall over it."""
        try:
            return call(*args)
        except (InputError, ValueError) as error:
            return Outcome(failure=f"ERR {error}")

    def _join(self, group: bytes, *replicas: bytes) -> Outcome:
        name, addresses = group.decode(), tuple(replica.decode() for replica in replicas)
        if self.latest.groups.get(name) == addresses:
            return Outcome(self.latest.number)
        return self._follow(join(self.latest, name, addresses))

    def _follow(self, configuration: Configuration) -> Outcome:
        if len(self._history) >= HISTORY_MAX:
            return Outcome(
                failure=f"ERR {HISTORY_MAX} configurations are not settled yet; {self._lags_most()} lags most"
            )
        self._history[configuration.number] = configuration
        self._put(_CONFIGURATION + configuration.number.to_bytes(8), configuration)
        self._changed_once()
        self._trim()
        return Outcome(configuration.number)

    def _settle(self, group: bytes, number: bytes) -> Outcome:
        name, settled = group.decode(), min(int(number), self.latest.number)
        known = any(name in configuration.groups for configuration in self._history.values())
        if known and settled > self._settled.get(name, 0):
            self._settled[name] = settled
            self._put(_SETTLED + group, settled)
            self._changed_once()
            self._trim()
        return OK

    def _trim(self) -> None:
        """Forget what nobody needs any more: configurations, and groups that are in none of them."""
        needed = min((self._step(group, self._settled.get(group, 0)) for group in self._named()), default=0)
        for number in [n for n in self._history if n < min(needed - 1, self.latest.number)]:
            del self._history[number]
            self._changed[_CONFIGURATION + number.to_bytes(8)] = None
        named = self._named()
        for group in [group for group in self._settled if group not in named]:
            del self._settled[group]
            self._changed[_SETTLED + group.encode()] = None

    def _named(self) -> list[str]:
        return sorted({group for configuration in self._history.values() for group in configuration.groups})

    def _lags_most(self) -> str:
        return min(self._named(), key=lambda group: self._step(group, self._settled.get(group, 0)))

    def _step(self, group: str, settled: int) -> int:
        """The first configuration above `settled` that means anything to the group: it is in it, or was in
        the one before. One above the latest if there is none."""
        for number in range(max(settled + 1, self.oldest + 1), self.latest.number + 1):
            if group in self._history[number].groups or group in self._history[number - 1].groups:
                return number
        return self.latest.number + 1

    def _next(self, group: bytes, number: bytes) -> Outcome:
        """The configuration to go on to, or None. Before its first one with a meaning a group is given the
        one before that: it says from whom its slots come."""
        settled = int(number)
        step = self._step(group.decode(), settled)
        if step > self.latest.number:
            return Outcome(None)
        return Outcome(self._history[step if settled >= step - 1 else step - 1].encode())

    def _numbered(self, number: bytes) -> Outcome:
        wanted = int(number)
        if not 0 <= wanted <= self.latest.number:
            return Outcome(self.latest.encode())
        known = self._history.get(wanted)
        if known is None:
            return Outcome(
                failure=f"COMPACTED configuration {wanted} is forgotten; the oldest is {self.oldest}"
            )
        return Outcome(known.encode())

    def _forget_sessions(self, time_s: float) -> Outcome:
        for key in [key for key, session in self._sessions.items() if session.used_s + SESSION_S <= time_s]:
            del self._sessions[key]
            self._changed[_SESSION + key.to_bytes(8)] = None
        return OK

    def _put(self, key: bytes, value: object) -> None:
        self._changed[key] = _encode(value)

    def _changed_once(self) -> None:
        self._revision += 1
        self._put(_REVISION, self._revision)


_encode: Callable[[Any], bytes] = msgspec.msgpack.Encoder().encode


def _unknown(command: Command) -> Outcome:
    name = command[0].decode(errors="replace") if command else ""
    return Outcome(failure=f"ERR the shard controller does not know {name!r}")
