"""A group's machine: what is served in which state, and that no order of a move's commands breaks it."""

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from kv.machine import KeyValueMachine
from kv.operations import Command, Operation, Outcome
from kv.sharding.config import Configuration, join, move
from kv.sharding.machine import (
    DROPPED_RECORDS_MAX,
    ShardMachine,
    SlotState,
    config_command,
    drop_command,
    install_command,
    release_command,
)
from kv.sharding.messages import Part
from kv.slots import SLOTS, slot_of

KEY = b"a"
SLOT = slot_of(KEY)

ONE = join(Configuration(), "g1", ["s1/g1"])
TWO = msgspec.structs.replace(move(join(ONE, "g2", ["s2/g2"]), [(0, SLOTS - 1)], "g1"), number=2)
"""g2 is there and has nothing."""
GIVEN = move(TWO, [(SLOT, SLOT)], "g2")
"""Number 3: g2 gets the slot."""


def machine(group: str, *configurations: Configuration) -> ShardMachine:
    made = ShardMachine(group, KeyValueMachine())
    for configuration in configurations:
        told(made, *config_command(configuration))
    return made


def told(machine: ShardMachine, *command: bytes, session: int = 0, sequence: int = 0) -> Outcome:
    return machine.execute(Operation(command, session, sequence), 1.0)


def giver() -> ShardMachine:
    """g1, with a value, about to give the slot."""
    made = machine("g1", ONE)
    told(made, b"SET", KEY, b"1")
    told(made, b"APPEND", KEY, b"2", session=7, sequence=1)
    for configuration in (TWO, GIVEN):
        told(made, *config_command(configuration))
    return made


def taker() -> ShardMachine:
    """g2, waiting for the slot."""
    return machine("g2", ONE, TWO, GIVEN)


def parts_of(made: ShardMachine, size: int = 1000) -> list[Part]:
    """The slot's records in parts of so many records."""
    records = list(made.inner.slot_records(SLOT))
    parts = []
    for at in range(0, len(records), size):
        after = records[at - 1][0] if at else b""
        parts.append(Part(SLOT, after, tuple(records[at : at + size]), last=at + size >= len(records)))
    return parts


def test_a_leaving_slot_is_served_until_it_is_released() -> None:
    source = giver()
    assert source.state(SLOT) is SlotState.LEAVING
    assert told(source, b"GET", KEY) == Outcome(b"12")
    told(source, *release_command(3, [SLOT]))
    for command in [(b"GET", KEY), (b"SET", KEY, b"3")]:
        assert told(source, *command) == Outcome(failure=f"ASK {SLOT} s2/g2")
    assert source.query((b"GET", KEY)) == Outcome(failure=f"ASK {SLOT} s2/g2")
    told(source, *drop_command(3, [SLOT]))
    assert told(source, b"GET", KEY) == Outcome(failure=f"MOVED {SLOT} s2/g2")
    assert source.settled


def test_an_arriving_slot_is_served_with_its_last_record() -> None:
    source, target = giver(), taker()
    told(source, *release_command(3, [SLOT]))
    *first, last = parts_of(source, size=1)
    told(target, *install_command(3, source.revision, first))
    assert target.query((b"GET", KEY)) == Outcome(failure=f"MOVED {SLOT} s1/g1")
    told(target, *install_command(3, source.revision, [last]))
    assert target.query((b"GET", KEY)) == Outcome(b"12")
    assert target.settled


def test_sessions_move_with_their_slot() -> None:
    source, target = giver(), taker()
    told(source, *release_command(3, [SLOT]))
    told(target, *install_command(3, source.revision, parts_of(source)))
    again = told(target, b"APPEND", KEY, b"2", session=7, sequence=1)
    assert (again, target.query((b"GET", KEY))) == (Outcome(2), Outcome(b"12"))


def test_an_operation_that_was_sent_elsewhere_is_not_remembered_as_executed() -> None:
    source, target = giver(), taker()
    told(source, *release_command(3, [SLOT]))
    assert not told(source, b"APPEND", KEY, b"3", session=8, sequence=1).executed
    told(target, *install_command(3, source.revision, parts_of(source)))
    assert told(target, b"APPEND", KEY, b"3", session=8, sequence=1) == Outcome(3)


def test_the_revision_never_falls_on_a_move() -> None:
    source, target = giver(), taker()
    told(source, *release_command(3, [SLOT]))
    before = source.revision
    assert target.revision < before
    told(target, *install_command(3, source.revision, parts_of(source)))
    assert target.revision >= before
    told(target, b"SET", KEY, b"3")
    assert target.revision > before


def test_a_part_that_does_not_continue_what_is_here_is_ignored() -> None:
    source, target = giver(), taker()
    told(source, *release_command(3, [SLOT]))
    first, *rest = parts_of(source, size=1)
    told(target, *install_command(3, source.revision, rest))
    assert (target.state(SLOT), target.cursor(SLOT)) == (SlotState.ARRIVING, b"")
    told(target, *install_command(3, source.revision, [first]))
    assert target.cursor(SLOT) == first.through
    told(target, *install_command(3, source.revision, rest))
    assert target.query((b"GET", KEY)) == Outcome(b"12")


def test_a_part_that_comes_again_does_not_undo_what_was_written_since() -> None:
    source, target = giver(), taker()
    told(source, *release_command(3, [SLOT]))
    install = install_command(3, source.revision, parts_of(source))
    told(target, *install)
    told(target, b"SET", KEY, b"new")
    told(target, *install)
    assert target.query((b"GET", KEY)) == Outcome(b"new")


def test_commands_of_another_configuration_do_nothing() -> None:
    source, target = giver(), taker()
    for number in (2, 4):
        told(source, *release_command(number, [SLOT]))
        told(source, *drop_command(number, [SLOT]))
        told(target, *install_command(number, 9, [Part(SLOT, b"", (), last=True)]))
    assert told(source, b"GET", KEY) == Outcome(b"12")
    assert target.state(SLOT) is SlotState.ARRIVING
    told(source, *drop_command(3, [SLOT]))
    assert told(source, b"GET", KEY) == Outcome(b"12"), "what was not released is not dropped"


def test_it_does_not_go_on_while_something_is_unsettled() -> None:
    target = taker()
    after = join(GIVEN, "g3", ["s3/g3"])
    assert told(target, *config_command(after)) == Outcome(3)
    source = giver()
    told(source, *release_command(3, [SLOT]))
    told(target, *install_command(3, source.revision, parts_of(source)))
    assert told(target, *config_command(after)) == Outcome(4)


def test_it_skips_no_configuration_that_concerns_it() -> None:
    made = machine("g1", ONE)
    assert told(made, *config_command(GIVEN)) == Outcome(1)
    stranger = machine("g9")
    assert told(stranger, *config_command(GIVEN)) == Outcome(3)
    assert told(stranger, *config_command(ONE)) == Outcome(3), "and never goes back"


def test_a_large_slot_is_deleted_in_several_operations() -> None:
    source = giver()
    for number in range(DROPPED_RECORDS_MAX + 50):
        told(source, b"SET", b"{a}%d" % number, b"x")
    told(source, *release_command(3, [SLOT]))
    told(source, *drop_command(3, [SLOT]))
    assert source.state(SLOT) is SlotState.DROPPING
    while source.state(SLOT) is SlotState.DROPPING:
        told(source, *drop_command(3, [SLOT]))
    assert not list(source.inner.slot_records(SLOT))
    assert source.state(SLOT) is SlotState.ABSENT


def test_without_a_group_a_slot_is_down() -> None:
    assert told(machine("g1"), b"GET", KEY).failure.startswith("CLUSTERDOWN")


def test_a_command_without_keys_needs_no_slot() -> None:
    assert told(machine("g1"), b"PING").executed


COMMANDS: list[Command] = [
    (b"SET", KEY, b"1"),
    (b"APPEND", KEY, b"2"),
    (b"SET", b"b", b"3"),
    (b"DEL", KEY),
    (b"@tick",),
    config_command(ONE),
    config_command(TWO),
    config_command(GIVEN),
    *(release_command(number, range(SLOTS)) for number in (2, 3)),
    *(drop_command(number, range(SLOTS)) for number in (2, 3)),
    *(install_command(n, 50, [Part(slot, b"", (), last=True) for slot in range(SLOTS)]) for n in (2, 3)),
]


@given(st.lists(st.sampled_from(COMMANDS), max_size=25), st.integers(0, 25), st.sampled_from(["g1", "g2"]))
def test_its_records_are_its_state(commands: list[Command], cut: int, group: str) -> None:
    """Saved by changes, by a frozen copy, or not at all: it is the same machine afterwards."""
    made = machine(group)
    stored: dict[bytes, bytes] = {}
    for place, command in enumerate(commands):
        if place == cut:
            made_again = ShardMachine(group, KeyValueMachine())
            made_again.restore(made.freeze())
            assert list(made_again.freeze()) == list(made.freeze())
            made.take_changes()
            stored = dict(made_again.freeze())
            made = made_again
        told(made, *command, session=5, sequence=place + 1)
        for key, value in made.take_changes().items():
            if value is None:
                stored.pop(key, None)
            else:
                stored[key] = value
    copy = ShardMachine(group, KeyValueMachine())
    copy.restore(sorted(stored.items()))
    keys = [key for key, _ in made.freeze()]
    assert keys == sorted(keys)
    fresh = dict(machine(group).freeze())
    assert fresh | dict(copy.freeze()) == fresh | dict(made.freeze())
