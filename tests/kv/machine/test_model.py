"""The machine against a model of a dozen lines: a dict, and a copy of it for each revision."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from kv.machine import KeyValueMachine
from kv.operations import Command, Outcome
from tests.kv.machine.generated import KEYS, Step, histories, keys, reads, writes

HISTORY = 8


class Model:
    """What Redis would do, told simply. Values are (bytes, deadline in ms or 0)."""

    def __init__(self) -> None:
        self.data: dict[bytes, tuple[bytes, int]] = {}
        self.past: list[dict[bytes, tuple[bytes, int]]] = [{}]
        self.sessions: dict[tuple[int, bytes], tuple[int, Outcome, int]] = {}
        self.now_ms = 0

    def execute(self, step: Step) -> Outcome:
        operation, time_s = step
        self.now_ms = round(time_s * 1000)
        self._change({key: v for key, v in self.data.items() if not v[1] or v[1] > self.now_ms})
        command = operation.command
        writes = command[0] not in (b"GET", b"STRLEN", b"PTTL", b"MGET", b"EXISTS", b"DBSIZE")
        who = (operation.session, command[1][:3] if len(command) > 1 else b"")
        sequence, outcome, last_ms = self.sessions.get(who, (0, Outcome(), -(10**9)))
        if (
            operation.session
            and writes
            and self.now_ms < last_ms + 86_400_000
            and operation.sequence <= sequence
        ):
            return outcome if operation.sequence == sequence else Outcome(failure="STALE")
        data = dict(self.data)
        try:
            outcome = Outcome(self.do(data, *command))
        except ValueError:
            outcome = Outcome(failure="ERR")
        else:
            self._change(data)
        if operation.session and writes:
            self.sessions[who] = (operation.sequence, outcome, self.now_ms)
        return outcome

    def _change(self, data: dict[bytes, tuple[bytes, int]]) -> None:
        """A write of the same value is a change too, so contents alone do not tell: `do` makes new tuples."""
        if any(data.get(key) is not self.data.get(key) for key in KEYS):
            self.data = data
            self.past.append(data)

    def do(self, data: dict[bytes, tuple[bytes, int]], *command: bytes) -> Any:
        name, *arguments = command
        key = arguments[0] if arguments else b""
        value, expires_ms = data.get(key, (None, 0))
        match name, arguments:
            case b"SET", [_, new, *options]:
                return self.set(data, key, new, [option.upper() for option in options])
            case b"APPEND", [_, more]:
                data[key] = ((value or b"") + more, expires_ms)
                return len(data[key][0])
            case ((b"INCRBY" | b"DECR"), [_, *increment]):
                number = int(value or b"0") if value != b"" else int("x")
                number += int(increment[0]) if increment else -1
                data[key] = (b"%d" % number, expires_ms)
                return number
            case b"GETDEL", _:
                data.pop(key, None)
                return value
            case b"DEL", _:
                return sum(data.pop(k, None) is not None for k in arguments)
            case b"MSET", _:
                data.update(zip(arguments[::2], ((v, 0) for v in arguments[1::2]), strict=True))
                return "OK"
            case ((b"EXPIRE" | b"PEXPIREAT"), [_, time]):
                if value is None:
                    return 0
                deadline_ms = self.now_ms + int(time) * 1000 if name == b"EXPIRE" else int(time)
                data[key] = (value, deadline_ms)
                if deadline_ms <= self.now_ms:
                    del data[key]
                return 1
            case b"PERSIST", _:
                if value is not None and expires_ms:
                    data[key] = (value, 0)
                return int(expires_ms > 0)
            case b"GET", _:
                return value
            case b"STRLEN", _:
                return len(value or b"")
            case b"PTTL", _:
                return -2 if value is None else expires_ms - self.now_ms if expires_ms else -1
            case b"MGET", _:
                return [data[k][0] if k in data else None for k in arguments]
            case b"EXISTS", _:
                return sum(k in data for k in arguments)
            case b"DBSIZE", _:
                return len(data)
        raise AssertionError(name)

    def set(
        self, data: dict[bytes, tuple[bytes, int]], key: bytes, value: bytes, options: list[bytes]
    ) -> bytes | str | None:
        before, expires_ms = data.get(key, (None, 0))
        stays = (b"NX" in options and before is not None) or (b"XX" in options and before is None)
        if not stays:
            unit_ms = {b"EX": 1000, b"PX": 1}.get(options[0] if options else b"", 0)
            deadline_ms = self.now_ms + unit_ms * int(options[1]) if unit_ms else 0
            data[key] = (value, expires_ms if b"KEEPTTL" in options else deadline_ms)
        if b"GET" in options:
            return before
        return None if stays else "OK"


def comparable(outcome: Outcome) -> tuple[Any, str]:
    """The model knows the code of a failure, not its text."""
    return outcome.value, outcome.failure.partition(" ")[0]


@given(histories(st.one_of(writes, writes, reads), steps_max=60))
def test_every_outcome_and_every_past_is_that_of_the_model(steps: list[Step]) -> None:
    machine, model = KeyValueMachine(HISTORY), Model()
    for step in steps:
        assert comparable(machine.execute(*step)) == comparable(model.execute(step)), step
        assert machine.revision == len(model.past) - 1
        for revision, past in list(enumerate(model.past))[-HISTORY - 1 :]:
            for key in KEYS:
                asked: Command = (b"BH.GETAT", key, b"%d" % revision)
                assert machine.query(asked) == Outcome(past.get(key, (None, 0))[0]), asked
        if len(model.past) > HISTORY + 1:
            compacted = machine.query((b"BH.GETAT", KEYS[0], b"%d" % (len(model.past) - HISTORY - 2)))
            assert compacted.failure.startswith("COMPACTED")


@given(histories(writes), keys, keys, st.integers(1, 3), st.data())
def test_a_paged_range_is_one_revision_whatever_is_written_meanwhile(
    steps: list[Step], start: bytes, end: bytes, limit: int, data: st.DataObject
) -> None:
    machine = KeyValueMachine()
    cut = data.draw(st.integers(0, len(steps)))
    for step in steps[:cut]:
        machine.execute(*step)
    tag = start[:3]
    expected = {
        k: machine.query((b"GET", k)).value for k in sorted(KEYS) if start <= k < end and k[:3] == tag
    }
    revision, later = b"%d" % machine.revision, iter(steps[cut:])
    found: dict[bytes, bytes] = {}
    more = 1
    while more:
        page: Command = (b"BH.RANGE", start, end, b"%d" % limit, revision)
        _, page_keys, page_values, more = machine.query(page).value
        found.update(zip(page_keys, page_values, strict=True))
        start = page_keys[-1] + b"\x00" if more else start
        for step in [step for step in [next(later, None)] if step is not None]:
            machine.execute(*step)
    assert list(found.items()) == [(key, value) for key, value in expected.items() if value is not None]
