"""The shard controller's machine: numbers, history, sessions, records."""

import pytest

from kv.operations import Operation, Outcome
from kv.sharding import controller
from kv.sharding.config import Configuration, join
from kv.sharding.controller import SESSION_S, ControllerMachine


def told(machine: ControllerMachine, *command: bytes, session: int = 0, sequence: int = 0) -> Outcome:
    return machine.execute(Operation(command, session, sequence), 1.0)


def with_groups(count: int) -> ControllerMachine:
    machine = ControllerMachine()
    for number in range(1, count + 1):
        outcome = told(machine, b"BH.JOIN", b"g%d" % number, b"store%d/g%d" % (number, number))
        assert outcome == Outcome(number)
    return machine


def asked(machine: ControllerMachine, *command: bytes) -> Configuration | None:
    outcome = machine.query(command)
    assert not outcome.failure
    return None if outcome.value is None else Configuration.decode(outcome.value)


def test_joins_are_numbered_and_old_configurations_can_be_asked_for() -> None:
    machine = with_groups(3)
    for number in range(4):
        known = asked(machine, b"BH.QUERY", b"%d" % number)
        assert known is not None
        assert (known.number, len(known.groups)) == (number, number)
    latest = asked(machine, b"BH.QUERY")
    assert latest is not None
    assert (latest.number, sorted(latest.groups)) == (3, ["g1", "g2", "g3"])
    assert asked(machine, b"BH.QUERY", b"99") == latest


def test_joining_twice_with_the_same_replicas_makes_no_configuration() -> None:
    machine = with_groups(2)
    assert told(machine, b"BH.JOIN", b"g2", b"store2/g2") == Outcome(2)
    assert machine.latest.number == 2


def test_a_repeated_operation_of_a_session_is_executed_once() -> None:
    machine = with_groups(2)
    move = (b"BH.MOVE", b"0-9", b"g2")
    assert told(machine, *move, session=7, sequence=1) == Outcome(3)
    assert told(machine, *move, session=7, sequence=1) == Outcome(3)
    assert machine.latest.number == 3
    assert told(machine, *move, session=7, sequence=2) == Outcome(4)
    assert told(machine, *move, session=7, sequence=1).failure.startswith("ERR")


def test_a_session_is_forgotten_after_a_day() -> None:
    machine = with_groups(1)
    told(machine, b"BH.LEAVE", b"g1", session=7, sequence=1)
    assert machine.wakes_at_s == 1.0 + SESSION_S
    machine.execute(Operation((b"@tick",)), 1.0 + SESSION_S)
    assert machine.wakes_at_s is None


def test_the_first_configuration_is_founded_once() -> None:
    machine = ControllerMachine()
    first = join(Configuration(), "g1", ["store1/g1"])
    assert told(machine, b"@found", first.encode()) == Outcome(1)
    told(machine, b"BH.JOIN", b"g2", b"store2/g2")
    assert told(machine, b"@found", first.encode()) == Outcome(2)
    assert sorted(machine.latest.groups) == ["g1", "g2"]


def test_a_group_goes_one_configuration_at_a_time_while_it_has_slots() -> None:
    machine = with_groups(4)
    for settled in range(4):
        following = asked(machine, b"BH.NEXT", b"g1", b"%d" % settled)
        assert following is not None
        assert following.number == settled + 1
    assert asked(machine, b"BH.NEXT", b"g1", b"4") is None


def test_a_group_that_joins_late_begins_with_the_configuration_before_its_own() -> None:
    machine = with_groups(4)
    numbers = []
    settled = 0
    while following := asked(machine, b"BH.NEXT", b"g4", b"%d" % settled):
        numbers.append(settled := following.number)
    assert numbers == [3, 4]
    assert asked(machine, b"BH.NEXT", b"stranger", b"0") is None


def test_what_every_group_has_settled_is_forgotten() -> None:
    machine = with_groups(3)
    for group, oldest in ((b"g1", 1), (b"g2", 2), (b"g3", 3)):
        told(machine, b"BH.SETTLED", group, b"3")
        assert machine.oldest == oldest
    assert machine.query((b"BH.QUERY", b"1")).failure.startswith("COMPACTED")
    told(machine, b"BH.LEAVE", b"g3")
    told(machine, b"BH.SETTLED", b"g1", b"4")
    told(machine, b"BH.SETTLED", b"g2", b"4")
    assert machine.oldest == 3, "g3 has slots to give and is not done"
    assert asked(machine, b"BH.NEXT", b"g3", b"3") == machine.latest


def test_a_group_that_does_not_follow_stops_the_map_and_not_the_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(controller, "HISTORY_MAX", 6)
    machine = with_groups(2)
    outcome = Outcome(0)
    for number in range(10):
        told(machine, b"BH.SETTLED", b"g1", b"%d" % machine.latest.number)
        outcome = told(machine, b"BH.MOVE", b"%d" % number, b"g2")
    assert outcome.failure.startswith("ERR 6 configurations are not settled yet; g2")
    told(machine, b"BH.SETTLED", b"g2", b"%d" % machine.latest.number)
    assert not told(machine, b"BH.MOVE", b"0-5", b"g2").failure


def test_it_is_the_same_machine_after_its_records_went_to_another() -> None:
    machine = with_groups(3)
    told(machine, b"BH.MOVE", b"100-200", b"g3", session=9, sequence=4)
    told(machine, b"BH.SETTLED", b"g1", b"2")
    copy = ControllerMachine()
    copy.restore(machine.freeze())
    assert list(copy.freeze()) == list(machine.freeze())
    assert told(copy, b"BH.MOVE", b"100-200", b"g3", session=9, sequence=4) == Outcome(4)


def test_its_changes_add_up_to_its_records() -> None:
    machine = ControllerMachine()
    stored: dict[bytes, bytes] = {}

    def save() -> None:
        for key, value in machine.take_changes().items():
            if value is None:
                stored.pop(key, None)
            else:
                stored[key] = value

    save()
    for number in range(1, 4):
        told(machine, b"BH.JOIN", b"g%d" % number, b"s/g%d" % number, session=3, sequence=number)
        for group in range(1, number):
            told(machine, b"BH.SETTLED", b"g%d" % group, b"%d" % number)
        save()
    machine.execute(Operation((b"@tick",)), 2 * SESSION_S)
    save()
    copy = ControllerMachine()
    copy.restore(sorted(stored.items()))
    assert list(copy.freeze()) == list(machine.freeze())


@pytest.mark.parametrize(
    "command",
    [
        (),
        (b"SET", b"a", b"b"),
        (b"BH.JOIN",),
        (b"BH.JOIN", b"g1"),
        (b"BH.JOIN", b"\xff", b"a/b"),
        (b"BH.LEAVE", b"g1"),
        (b"BH.MOVE", b"1-", b"g1"),
        (b"BH.QUERY", b"\xff"),
        (b"BH.NEXT", b"g1", b"x"),
        (b"BH.SETTLED", b"g1", b"x"),
    ],
    ids=str,
)
def test_nonsense_is_an_error_and_changes_nothing(command: tuple[bytes, ...]) -> None:
    machine = ControllerMachine()
    assert told(machine, *command).failure.startswith("ERR")
    assert machine.latest == Configuration()
