"""Large objects: the machine holds references, and knows when the last one is gone."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from kv.machine import KeyValueMachine, Reference
from kv.operations import OK, Operation, Outcome
from tests.kv.machine.generated import DIGESTS, Step, histories, objects, writes

PHOTO = Reference(b"\x01" * 32, 60_000)


def tell(machine: KeyValueMachine, *command: bytes, session: int = 0, sequence: int = 0) -> Outcome:
    return machine.execute(Operation(command, session, sequence), 1.0)


def test_a_reference_stands_for_the_value() -> None:
    machine = KeyValueMachine()
    assert tell(machine, b"@SET", b"{a}", PHOTO.encode(), b"EX", b"9") == OK
    assert machine.query((b"GET", b"{a}")) == Outcome(PHOTO)
    assert machine.query((b"STRLEN", b"{a}")) == Outcome(60_000)
    assert machine.query((b"TTL", b"{a}")) == Outcome(9)
    assert machine.query((b"BH.RANGE", b"{a}", b"", b"9")).value[2] == [PHOTO]
    assert tell(machine, b"SET", b"{a}", b"small", b"GET") == Outcome(PHOTO)
    assert Reference.decode(PHOTO.encode()) == PHOTO


def test_what_needs_the_bytes_is_refused() -> None:
    machine = KeyValueMachine()
    tell(machine, b"@SET", b"k", PHOTO.encode())
    for command in ((b"APPEND", b"k", b"x"), (b"INCR", b"k"), (b"GETRANGE", b"k", b"0", b"1")):
        assert "large object" in tell(machine, *command).failure
    assert tell(machine, b"@SET", b"k", b"no reference").failure


def test_an_object_is_unreferenced_when_the_last_old_version_is_compacted() -> None:
    machine = KeyValueMachine(history=3)
    tell(machine, b"@SET", b"k", PHOTO.encode())
    tell(machine, b"@SET", b"l", PHOTO.encode())
    tell(machine, b"DEL", b"k")
    tell(machine, b"SET", b"l", b"x")
    for number in range(2):
        assert machine.is_referenced(PHOTO.digest)
        assert machine.take_unreferenced() == []
        tell(machine, b"SET", b"other", b"%d" % number)
    tell(machine, b"SET", b"other", b"2")
    assert machine.take_unreferenced() == [PHOTO.digest]
    assert not machine.is_referenced(PHOTO.digest)
    assert machine.take_unreferenced() == []


def test_a_remembered_outcome_holds_its_object() -> None:
    machine = KeyValueMachine(history=1)
    tell(machine, b"@SET", b"k", PHOTO.encode())
    assert tell(machine, b"GETDEL", b"k", session=7, sequence=1) == Outcome(PHOTO)
    for number in range(5):
        tell(machine, b"SET", b"other", b"%d" % number)
    assert tell(machine, b"GETDEL", b"k", session=7, sequence=1) == Outcome(PHOTO)
    assert machine.take_unreferenced() == []
    tell(machine, b"GETDEL", b"k", session=7, sequence=2)
    assert machine.take_unreferenced() == [PHOTO.digest]


@given(histories(st.one_of(objects, objects, writes), steps_max=60), st.booleans())
def test_exactly_what_the_records_name_is_referenced(steps: list[Step], dropped: bool) -> None:
    machine = KeyValueMachine(history=4)
    unreferenced: set[bytes] = set()
    for step in steps:
        machine.execute(*step)
        taken = machine.take_unreferenced()
        assert not [digest for digest in taken if machine.is_referenced(digest)]
        unreferenced = {d for d in unreferenced | set(taken) if not machine.is_referenced(d)}
    if dropped:
        slot = machine.slot_of((b"GET", b"{a}"))
        assert slot is not None
        machine.drop(slot, 10_000)
        unreferenced |= set(machine.take_unreferenced())
    stored = b"".join(value for _, value in machine.freeze())
    used = {arguments[2][:32] for operation, _ in steps if (arguments := operation.command)[0] == b"@SET"}
    for digest in DIGESTS:
        assert machine.is_referenced(digest) == (digest in stored)
        assert (digest in unreferenced) <= (digest in used and digest not in stored)
