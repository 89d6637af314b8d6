"""Keys expire by the log's time: at the beginning of an operation, and not because a reader has a clock."""

from __future__ import annotations

from kv.machine import KeyValueMachine
from kv.operations import Operation, Outcome

TICK = Operation((b"@tick",))


def wakes_at_s(machine: KeyValueMachine) -> float | None:
    """When it wants a tick. (A function, so that mypy does not take it for constant.)"""
    return machine.wakes_at_s


def test_the_machine_says_when_it_wants_a_tick_and_the_tick_deletes() -> None:
    machine = KeyValueMachine()
    machine.execute(Operation((b"SET", b"k", b"1", b"PX", b"1001")), 0.0004)
    assert wakes_at_s(machine) == 1.001
    machine.execute(TICK, 1.0)
    assert machine.query((b"GET", b"k")) == Outcome(b"1")
    revision = machine.revision
    assert machine.execute(TICK, 1.001) == Outcome("OK")
    assert machine.query((b"GET", b"k")) == Outcome()
    assert (wakes_at_s(machine), machine.revision) == (None, revision + 1)


def test_any_operation_lets_time_pass() -> None:
    machine = KeyValueMachine()
    machine.execute(Operation((b"SET", b"k", b"1", b"EX", b"1")), 1.0)
    assert machine.execute(Operation((b"SET", b"k", b"2", b"NX")), 2.0) == Outcome("OK")
    assert machine.execute(Operation((b"GET", b"k")), 1.0) == Outcome(b"2")


def test_a_restored_machine_finds_the_same_moment() -> None:
    """Log times between two milliseconds: whether a key has expired must not depend on what else was due."""
    machine, restored = KeyValueMachine(), KeyValueMachine()
    machine.execute(Operation((b"SET", b"k", b"1", b"PX", b"1")), 1.0)
    machine.execute(Operation((b"SET", b"k", b"1", b"PX", b"1")), 1.0004)
    restored.restore(machine.freeze())
    for replica in (machine, restored):
        replica.execute(TICK, 1.0008)
    assert list(machine.freeze()) == list(restored.freeze())
    assert machine.query((b"EXISTS", b"k")) == Outcome(0)


def test_a_deadline_that_was_replaced_does_not_count() -> None:
    machine = KeyValueMachine()
    machine.execute(Operation((b"SET", b"k", b"1", b"EX", b"1")), 0.0)
    machine.execute(Operation((b"SET", b"k", b"1", b"EX", b"5")), 0.0)
    assert wakes_at_s(machine) == 5.0
    machine.execute(TICK, 4.9)
    assert machine.query((b"EXISTS", b"k")) == Outcome(1)
    machine.execute(Operation((b"PERSIST", b"k")), 4.9)
    assert wakes_at_s(machine) is None
    machine.execute(TICK, 9.0)
    assert machine.query((b"EXISTS", b"k")) == Outcome(1)


def test_what_remains_is_told_as_of_the_last_operation() -> None:
    machine = KeyValueMachine()
    machine.execute(Operation((b"SET", b"k", b"1", b"EX", b"10")), 0.0)
    assert machine.query((b"PTTL", b"k")) == Outcome(10_000)
    machine.execute(TICK, 2.5)
    assert machine.query((b"PTTL", b"k")) == Outcome(7_500)


def test_a_crowd_expires_a_bounded_number_at_a_time() -> None:
    machine = KeyValueMachine()
    for number in range(1200):
        machine.execute(Operation((b"SET", b"%d" % number, b"", b"EX", b"1")), 0.0)
    left = []
    while wakes_at_s(machine) is not None:
        machine.execute(TICK, 1.0)
        left.append(machine.query((b"DBSIZE",)).value)
    assert left == [700, 200, 0]


def test_deadlines_that_are_replaced_again_and_again_take_no_memory() -> None:
    machine = KeyValueMachine()
    for number in range(10_000):
        machine.execute(Operation((b"SET", b"%d" % (number % 7), b"", b"EX", b"1000")), 0.0)
    assert len(machine._space._expiring) <= 1024


def test_an_expired_value_can_be_read_as_of_when_it_was_there() -> None:
    machine = KeyValueMachine()
    machine.execute(Operation((b"SET", b"k", b"1", b"EX", b"1")), 0.0)
    machine.execute(TICK, 1.0)
    assert machine.query((b"BH.GETAT", b"k", b"1")) == Outcome(b"1")
    assert machine.query((b"BH.GETAT", b"k", b"2")) == Outcome()
