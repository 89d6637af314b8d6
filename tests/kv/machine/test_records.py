"""The state as records: what is frozen, taken and moved is the state, all of it and nothing else."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kv.machine import KeyValueMachine
from kv.operations import OK, Operation, Outcome
from kv.slots import slot_of
from tests.kv.machine.generated import Step, execute, histories, objects, reads, writes

everything = histories(st.one_of(writes, writes, reads, objects), steps_max=60)
SHORT = 5
"""Revisions of history, so that compaction happens in short tests."""


def machine_after(steps: list[Step], history: int = SHORT) -> KeyValueMachine:
    machine = KeyValueMachine(history)
    execute(machine, steps)
    return machine


def restored(machine: KeyValueMachine, history: int = SHORT) -> KeyValueMachine:
    other = KeyValueMachine(history)
    other.restore(machine.freeze())
    return other


@given(everything, everything)
def test_a_restored_machine_is_the_same_now_and_ever_after(before: list[Step], after: list[Step]) -> None:
    machine = machine_after(before)
    other = restored(machine)
    machine.take_changes()
    assert list(other.freeze()) == list(machine.freeze())
    assert other.take_changes() == {}
    assert execute(other, after) == execute(machine, after)
    assert other.wakes_at_s == machine.wakes_at_s
    assert list(other.freeze()) == list(machine.freeze())
    assert other.take_changes() == machine.take_changes()


@given(st.lists(everything, max_size=5))
def test_changes_applied_to_a_map_give_what_is_frozen(parts: list[list[Step]]) -> None:
    machine = KeyValueMachine(SHORT)
    stored: dict[bytes, bytes] = {}
    for part in parts:
        execute(machine, part)
        for key, value in machine.take_changes().items():
            if value is None:
                stored.pop(key, None)
            else:
                stored[key] = value
        assert sorted(stored.items()) == [*machine.freeze()] or (not stored and machine.revision == 0)
        assert machine.take_changes() == {}


@given(everything, everything, everything)
def test_a_frozen_copy_does_not_change_while_operations_are_executed(
    before: list[Step], meanwhile: list[Step], later: list[Step]
) -> None:
    machine = machine_after(before)
    expected = list(machine.freeze())
    frozen = machine.freeze()
    begun = [next(frozen)]
    execute(machine, meanwhile)
    second = list(machine.freeze())
    again = machine.freeze()
    execute(machine, later)
    assert begun + list(frozen) == expected
    assert list(again) == second


def test_records_of_another_format_are_refused() -> None:
    with pytest.raises(ValueError, match="has format"):
        KeyValueMachine().restore([(b"m", b"\x02...")])


# ------------------------------------------------------------------------------------------ slots that move


def move(source: KeyValueMachine, target: KeyValueMachine, slot: int, part_records: int) -> None:
    """Give a slot away in parts, and drop it."""
    after = b""
    while part := list(source.slot_records(slot, after))[:part_records]:
        target.install(part, source.revision)
        after = part[-1][0]
    target.install((), source.revision)
    while source.drop(slot, part_records) >= part_records:
        pass


@given(everything, everything, everything, st.integers(1, 5))
def test_a_moved_slot_has_its_values_history_and_sessions(
    before: list[Step], elsewhere: list[Step], after: list[Step], part_records: int
) -> None:
    """Nobody can tell whether a slot has moved, but by numbers of revisions and how long they last."""
    slot = slot_of(b"{a}")
    here, stayed = machine_after(before), machine_after(before)
    others = [(operation, 1.0) for operation, _ in elsewhere if concerns(operation) != slot]
    there = machine_after(others, history=1000)
    revision = here.revision
    past = [
        stayed.query((b"BH.GETAT", b"{a}1", b"%d" % r)) for r in range(max(0, revision - SHORT), revision + 1)
    ]
    move(here, there, slot, part_records)
    assert there.revision >= revision
    for r, outcome in zip(range(max(0, revision - SHORT), revision + 1), past, strict=True):
        assert there.query((b"BH.GETAT", b"{a}1", b"%d" % r)) == outcome
    assert not list(here.slot_records(slot))
    since_s = before[-1][1] if before else 0.0
    mine = [(operation, since_s + time_s) for operation, time_s in after if concerns(operation) == slot]
    assert execute(there, mine) == execute(stayed, mine)


@given(everything, st.integers(1, 5))
def test_moving_and_dropping_leave_exact_records_behind(steps: list[Step], part_records: int) -> None:
    here, there = machine_after(steps), KeyValueMachine(SHORT)
    stored = dict(here.freeze())
    here.take_changes()
    arrived: dict[bytes, bytes] = {}
    after = b""
    while part := list(here.slot_records(slot_of(b"{a}"), after))[:part_records]:
        there.install(part, here.revision)
        after = part[-1][0]
        update(arrived, there)
        assert sorted(arrived.items()) == list(there.freeze())
        assert list(restored(there).freeze()) == list(there.freeze())
    while here.drop(slot_of(b"{a}"), part_records) >= part_records:
        update(stored, here)
        assert sorted(stored.items()) == list(here.freeze())
    update(stored, here)
    assert sorted(stored.items()) == list(here.freeze())


def concerns(operation: Operation) -> int | None:
    """The slot that an operation is about."""
    return KeyValueMachine().slot_of(operation.command)


def update(stored: dict[bytes, bytes], machine: KeyValueMachine) -> None:
    for key, value in machine.take_changes().items():
        if value is None:
            stored.pop(key, None)
        else:
            stored[key] = value


def test_a_key_that_expires_while_its_slot_arrives_keeps_its_history_in_order() -> None:
    here, there = KeyValueMachine(), KeyValueMachine()
    for number in range(3):
        here.execute(Operation((b"SET", b"k", b"%d" % number, b"EX", b"10")), 1.0)
    first, *rest = here.slot_records(slot_of(b"k"))
    there.install([first], here.revision)
    there.execute(Operation((b"@tick",)), 20.0)
    there.install(rest, here.revision)
    assert [there.query((b"BH.GETAT", b"k", b"%d" % r)).value for r in range(5)] == [
        None,
        b"0",
        b"1",
        b"2",
        None,
    ]
    assert list(restored(there, 1000).freeze()) == list(there.freeze())


def test_a_session_goes_with_its_slot() -> None:
    here, there = KeyValueMachine(), KeyValueMachine()
    append = Operation((b"APPEND", b"k", b"x"), session=7, sequence=3)
    assert here.execute(append, 1.0) == Outcome(1)
    move(here, there, slot_of(b"k"), 10)
    assert there.execute(append, 2.0) == Outcome(1)
    assert there.query((b"GET", b"k")) == Outcome(b"x")


# ---------------------------------------------------------------------------------------------- determinism

_DIGEST = """
import hashlib, random
from kv.machine import KeyValueMachine
from kv.operations import Operation
rng, machine, told = random.Random(7), KeyValueMachine(50), hashlib.sha256()
for number in range(3000):
    key = b"{%d}%d" % (rng.randrange(5), rng.randrange(20))
    command = rng.choice([
        (b"SET", key, b"%d" % number), (b"SET", key, b"%d" % number, b"PX", b"%d" % rng.randrange(1, 3000)),
        (b"APPEND", key, b"x"), (b"DEL", key), (b"@SET", key, bytes([rng.randrange(9)]) * 40, b"GET"),
        (b"SCAN", b"0", b"COUNT", b"50"), (b"BH.RANGE", key, b"", b"9"),
    ])
    operation = Operation(command, rng.randrange(4), number)
    told.update(repr(machine.execute(operation, number * 0.1 if number < 2000 else number * 100.0)).encode())
    if number % 100 == 0:
        told.update(repr(machine.take_changes()).encode())
        told.update(repr(machine.take_unreferenced()).encode())
told.update(repr(list(machine.freeze())).encode())
print(told.hexdigest())
"""


def test_every_process_gets_the_same_bytes_whatever_its_hash_seed() -> None:
    digests = [
        subprocess.run(
            [sys.executable, "-c", _DIGEST],
            env=os.environ | {"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("0", "1", "4711")
    ]
    assert len(digests[0].strip()) == hashlib.sha256().digest_size * 2
    assert digests[0] == digests[1] == digests[2]


def test_a_large_machine_is_taken_in_small_changes() -> None:
    """Only what was touched is told: not the slot, nor the sessions beside it."""
    machine = KeyValueMachine()
    for number in range(1000):
        machine.execute(Operation((b"SET", b"{a}%d" % number, b"x"), session=number + 1, sequence=1), 1.0)
    machine.take_changes()
    assert machine.execute(Operation((b"SET", b"{a}7", b"y"), session=8, sequence=2), 2.0) == OK
    changes = machine.take_changes()
    assert len(changes) == 4, "machine, newest version, older version, session"
