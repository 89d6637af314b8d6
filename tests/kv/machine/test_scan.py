"""SCAN's promise: what is there throughout is returned, whatever comes and goes between the pages."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from kv.machine import KeyValueMachine
from kv.machine.slot import SORTED_SCAN_KEYS
from kv.operations import Operation
from kv.slots import slot_of

names = st.sets(st.integers(0, 400), max_size=60).map(
    lambda numbers: [b"{%d}%d" % (n % 3, n) for n in sorted(numbers)]
)


def put(machine: KeyValueMachine, keys: list[bytes]) -> None:
    for key in keys:
        machine.execute(Operation((b"SET", key, b"")), 1.0)


def page(machine: KeyValueMachine, cursor: bytes, count: int) -> tuple[bytes, list[bytes]]:
    cursor, keys = machine.query((b"SCAN", cursor, b"COUNT", b"%d" % count)).value
    return cursor, keys


@given(names, names, names, st.integers(1, 9), st.data())
def test_what_is_there_throughout_is_returned_and_nothing_else(
    staying: list[bytes], going: list[bytes], coming: list[bytes], count: int, data: st.DataObject
) -> None:
    machine = KeyValueMachine(history=10)
    put(machine, staying + going)
    departures = [key for key in going if key not in staying]
    arrivals = list(coming)
    cursor, found = page(machine, b"0", count)
    while cursor != b"0":
        for key in departures[-3:]:
            machine.execute(Operation((b"DEL", key)), 1.0)
        put(machine, arrivals[-3:])
        del departures[-3:], arrivals[-3:]
        if data.draw(st.booleans()):
            restored = KeyValueMachine(history=10)
            restored.restore(machine.freeze())
            machine = restored
        cursor, keys = page(machine, cursor, count)
        assert len(keys) <= count, "no two of these keys share a CRC"
        found += keys
    assert set(staying) <= set(found) <= {*staying, *going, *coming}
    assert len([key for key in found if key in staying]) == len(set(staying)), "each once"


def test_a_large_slot_keeps_its_scan_order_through_writes() -> None:
    machine = KeyValueMachine(history=1)
    keys = [b"{a}%d" % number for number in range(2 * SORTED_SCAN_KEYS)]
    put(machine, keys)
    cursor, found = page(machine, b"0", 100)
    pages = 1
    while cursor != b"0":
        put(machine, [b"{a}new%d" % pages])
        machine.execute(Operation((b"DEL", b"{a}new%d" % (pages - 1))), 1.0)
        cursor, more = page(machine, cursor, 100)
        found += more
        pages += 1
    assert set(keys) <= set(found)
    assert pages >= 2 * SORTED_SCAN_KEYS / 100


def test_only_slots_that_are_served_are_told_of() -> None:
    machine = KeyValueMachine()
    put(machine, [b"{a}1", b"{b}1"])
    machine.show_slots(lambda slot: slot == slot_of(b"{a}"))
    assert page(machine, b"0", 10) == (b"0", [b"{a}1"])
    assert machine.query((b"DBSIZE",)).value == 1
    assert machine.query((b"KEYS", b"*")).value == [b"{a}1"]
