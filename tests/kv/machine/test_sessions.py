"""At most once: what a session repeats is not executed again, and is answered as the first time."""

from __future__ import annotations

from kv.machine import KeyValueMachine
from kv.operations import OK, Operation, Outcome

DAY_S = 86_400.0


def append(sequence: int, session: int = 7, key: bytes = b"k") -> Operation:
    return Operation((b"APPEND", key, b"%d" % sequence), session, sequence)


def test_a_repetition_gets_the_first_outcome_and_changes_nothing() -> None:
    machine = KeyValueMachine()
    assert machine.execute(append(1), 1.0) == Outcome(1)
    assert machine.execute(append(1), 2.0) == Outcome(1)
    assert machine.execute(append(2), 3.0) == Outcome(2)
    assert machine.execute(append(2), 3.0) == Outcome(2)
    assert machine.query((b"GET", b"k")) == Outcome(b"12")
    assert machine.revision == 2


def test_an_operation_that_comes_after_a_later_one_is_stale() -> None:
    machine = KeyValueMachine()
    machine.execute(append(2), 1.0)
    assert machine.execute(append(1), 1.0).failure == "STALE operation 1: the session is at 2"
    assert machine.query((b"GET", b"k")) == Outcome(b"2")


def test_a_failure_is_remembered_too() -> None:
    machine = KeyValueMachine()
    machine.execute(Operation((b"SET", b"k", b"x")), 1.0)
    increment = Operation((b"INCR", b"k"), 7, 1)
    failed = machine.execute(increment, 1.0)
    machine.execute(Operation((b"SET", b"k", b"1")), 1.0)
    assert machine.execute(increment, 1.0) == failed != Outcome(2)


def test_what_set_get_replaced_is_told_again() -> None:
    machine = KeyValueMachine()
    machine.execute(Operation((b"SET", b"k", b"old")), 1.0)
    swap = Operation((b"SET", b"k", b"new", b"GET"), 7, 1)
    assert machine.execute(swap, 1.0) == machine.execute(swap, 1.0) == Outcome(b"old")


def test_sessions_do_not_know_each_other_nor_do_slots() -> None:
    machine = KeyValueMachine()
    for session in (1, 2):
        for key in (b"{a}", b"{b}"):
            machine.execute(append(1, session, key), 1.0)
    assert machine.query((b"GET", b"{a}")) == machine.query((b"GET", b"{b}")) == Outcome(b"11")


def test_operations_without_a_session_are_executed_as_often_as_they_come() -> None:
    machine = KeyValueMachine()
    for _ in range(3):
        machine.execute(append(1, session=0), 1.0)
    assert machine.query((b"GET", b"k")) == Outcome(b"111")


def test_reads_through_the_log_are_not_remembered() -> None:
    machine = KeyValueMachine()
    read = Operation((b"GET", b"k"), 7, 1)
    assert machine.execute(read, 1.0) == Outcome()
    machine.execute(append(1, session=8), 1.0)
    assert machine.execute(read, 1.0) == Outcome(b"1")


def test_numbers_beyond_64_bits_of_a_hostile_client_do_no_harm() -> None:
    machine = KeyValueMachine()
    outcomes = [machine.execute(append(1, session), 1.0) for session in (-1, -(1 << 63), (1 << 64) - 1)]
    assert outcomes == [Outcome(1), Outcome(2), Outcome(1)], "-1 and 2^64 - 1 are the same 64 bits"
    restored = KeyValueMachine()
    restored.restore(machine.freeze())
    assert list(restored.freeze()) == list(machine.freeze())


def test_a_session_is_forgotten_a_day_after_its_last_use() -> None:
    machine = KeyValueMachine()
    machine.execute(append(1), 0.0)
    machine.execute(append(2), 1000.0)
    assert machine.execute(append(1), DAY_S + 999.0).failure.startswith("STALE")
    records = len(list(machine.freeze()))
    machine.execute(Operation((b"@tick",)), DAY_S + 1000.0)
    assert len(list(machine.freeze())) == records - 1
    assert machine.execute(append(1), DAY_S + 1000.0) == Outcome(3)


def test_many_sessions_are_forgotten_a_bounded_number_at_a_time() -> None:
    machine = KeyValueMachine()
    for session in range(1, 1201):
        assert machine.execute(Operation((b"SET", b"k", b""), session, 1), 0.0) == OK
    machine.take_changes()
    forgotten = []
    for _ in range(4):
        machine.execute(Operation((b"@tick",)), DAY_S)
        forgotten.append(sum(value is None for value in machine.take_changes().values()))
    assert forgotten == [500, 500, 200, 0]
