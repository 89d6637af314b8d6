"""What one key does under our commands: the sequential object that histories are compared with.

Own, independent words for GET, SET (NX, XX, GET), APPEND, DEL, EXISTS, STRLEN and INCRBY as Redis documents
them; `kv.machine` is judged by this and shares nothing with it.

Checking is quick where the values that a workload writes are *atoms*: `<` and `>` with neither, and no dot,
in between, each written once. An atom that is read tells that its write happened, and before when.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from math import inf

import msgspec

from kv.checking.history import Call
from kv.operations import OK, Command, Outcome

State = bytes | None
"""The key's value; None: there is none."""

_ATOM = re.compile(rb"<[^<>.]*>")
_BLANK = re.compile(rb"<\.*>")
"""In place of an atom that nobody saw."""
_INTEGER = re.compile(rb"0|-?[1-9][0-9]*")
_NOT_AN_INTEGER = Outcome(failure="ERR value is not an integer or out of range")
_NONE = Outcome(None)


class Register:
    """A model (`kv.checking.linearizability.Model`) of one key.

    Args:
        counts_down: whether any INCRBY is by less than 0. Where none is, a search ends sooner.
    """

    initial: State = None

    def __init__(self, *, counts_down: bool = False) -> None:
        self._counts_down = counts_down

    @classmethod
    def of(cls, calls: Iterable[Call]) -> Register:
        """A model that knows what these calls ask for."""
        return cls(counts_down=any(c.command[0] == b"INCRBY" and int(c.command[2]) < 0 for c in calls))

    def step(self, state: State, command: Command) -> tuple[State, Outcome]:
        """The state after `command`, and its outcome; raises ValueError for a command it does not know."""
        match command:
            case (b"GET", _):
                return state, Outcome(state)
            case (b"EXISTS", _):
                return state, Outcome(int(state is not None))
            case (b"STRLEN", _):
                return state, Outcome(len(state or b""))
            case (b"SET", _, value, *options):
                return _set(state, value, options)
            case (b"APPEND", _, value):
                longer = (state or b"") + value
                return longer, Outcome(len(longer))
            case (b"DEL", _):
                return None, Outcome(int(state is not None))
            case (b"INCRBY", _, amount):
                if state is not None and not _INTEGER.fullmatch(state):
                    return state, _NOT_AN_INTEGER
                total = int(state or b"0") + int(amount)
                return b"%d" % total, Outcome(total)
        raise ValueError(f"the model does not know {command!r}")

    def is_idle(self, command: Command, outcome: Outcome | None) -> bool:
        """Whether a command with that outcome has changed nothing, whatever the state was."""
        match command:
            case (b"GET" | b"EXISTS" | b"STRLEN", _):
                return True
            case (b"SET", _, _, *options) if outcome is not None and b"GET" not in options:
                return outcome.value is None
            case (b"DEL", _):
                return outcome is not None and outcome.value == 0
        return outcome is not None and bool(outcome.failure)

    def is_within_reach(self, state: State, command: Command, outcome: Outcome) -> bool:
        """Whether APPENDs and INCRBYs alone might bring `state` to where `command` has `outcome`."""
        if state is None:
            return True
        value = outcome.value
        match command:
            case (b"GET", _):
                return self._extends(state, value)
            case (b"SET", _, _, *options):
                if b"GET" in options:
                    return self._extends(state, value)
                return value is None or b"XX" in options
            case (b"DEL" | b"EXISTS", _):
                return bool(value != 0)
            case (b"STRLEN", _):
                return _INTEGER.fullmatch(state) is not None or len(state) <= int(value)
            case (b"APPEND", _, more):
                return isinstance(value, int) and len(state) + len(more) <= value
            case (b"INCRBY", _, amount):
                return isinstance(value, int) and self._extends(state, b"%d" % (value - int(amount)))
        return True

    def _extends(self, state: bytes, value: object) -> bool:
        if not isinstance(value, bytes):
            return False
        if _INTEGER.fullmatch(state) and _INTEGER.fullmatch(value):
            return self._counts_down or int(state) <= int(value)
        return value.startswith(state)

    def simplified(self, calls: Sequence[Call]) -> list[Call]:
        """The calls, where those that never returned end when somebody saw what they wrote, and all that
        nobody saw is alike.

        Changes nothing unless all values that are written are atoms, each of them written once.
        """
        if not _writes_atoms(calls):
            return list(calls)
        seen_s: dict[bytes, float] = {}
        for call in calls:
            value = call.outcome.value if call.outcome is not None else None
            if isinstance(value, bytes) and call.returned_s is not None:
                for atom in _ATOM.findall(value):
                    seen_s[atom] = min(seen_s.get(atom, inf), call.returned_s)
        return [_simplified(call, seen_s) for call in calls]

    def beginnings(self, calls: Sequence[Call]) -> dict[int, int]:
        """By the first atom of what was seen."""
        if not _writes_atoms(calls):
            return {}
        writers = {_written(call.command): index for index, call in enumerate(calls)}
        found = {}
        for index, call in enumerate(calls):
            value = call.outcome.value if call.outcome is not None else None
            atom = _ATOM.match(value) if isinstance(value, bytes) else None
            if atom is not None and atom.group() in writers:
                found[index] = writers[atom.group()]
        return found


def _set(state: State, value: bytes, options: Sequence[bytes]) -> tuple[State, Outcome]:
    allowed = not (b"NX" in options and state is not None) and not (b"XX" in options and state is None)
    answer = Outcome(state) if b"GET" in options else OK if allowed else _NONE
    return (value if allowed else state), answer


def _written(command: Command) -> bytes | None:
    return command[2] if command[0] in (b"SET", b"APPEND") else None


def _writes_atoms(calls: Sequence[Call]) -> bool:
    written = [value for call in calls if (value := _written(call.command)) is not None]
    atoms = [value for value in written if not _BLANK.fullmatch(value)]
    return len(set(atoms)) == len(atoms) and all(_ATOM.fullmatch(value) for value in atoms)


def _simplified(call: Call, seen_s: dict[bytes, float]) -> Call:
    value = _written(call.command)
    if value is None:
        return call
    if value not in seen_s:
        blank = b"<" + b"." * (len(value) - 2) + b">"
        return msgspec.structs.replace(call, command=(*call.command[:2], blank, *call.command[3:]))
    if call.returned_s is None:
        # Seen before it was asked for: no order can explain that, and this must not hide it.
        return msgspec.structs.replace(call, returned_s=max(seen_s[value], call.invoked_s))
    return call
