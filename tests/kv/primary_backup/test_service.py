"""The service under the faults of the classic course exercise, and some that it does not have."""

from __future__ import annotations

import pytest

from kv.messages import NotHere
from kv.operations import Operation
from kv.primary_backup import Settings
from kv.primary_backup.journal import encode_entry
from kv.primary_backup.messages import Chunk, Confirm, Entry, Forward, Forwarded
from tests.kv.primary_backup.service import ready
from underlay.clock import DeviceClock
from underlay.faults import (
    Crash,
    Heal,
    LinkDown,
    LinkUp,
    LoseDisk,
    OneWayCut,
    Partition,
    Pause,
    Restart,
    Resume,
    RotDisk,
)
from underlay.simulation import Rule

SMALL = Settings(checkpoint_operations=5, message_bytes_max=256)
"""So that checkpoints and chunks are met often."""


def test_the_backup_takes_over_with_everything_that_was_answered() -> None:
    service = ready()
    assert service.do((b"SET", b"a", b"1"), (b"APPEND", b"a", b"2")) == ["OK", 2]
    service.apply(Crash("s1"))
    service.run(1.5)
    assert service.primary() == "s2"
    assert service.do((b"GET", b"a")) == [b"12"]


def test_the_state_is_transferred_to_a_new_backup_in_chunks_and_then_it_may_take_over() -> None:
    service = ready(settings=SMALL)
    keys = [b"key%d" % number for number in range(200)]
    for key in keys:
        service.send("s1", (b"SET", key, b"x" * 40))
    service.run(1.0)
    service.apply(Crash("s1"))
    service.run(2.0)
    assert service.roles() == ("s2", "s3")
    assert service.synced()
    service.apply(Crash("s2"))
    service.run(2.0)
    assert service.primary() == "s3"
    assert service.do(*[(b"GET", key) for key in keys]) == [b"x" * 40] * 200


def test_an_operation_sent_again_to_the_next_primary_is_not_executed_again() -> None:
    service = ready()
    first = service.send("s1", (b"APPEND", b"a", b"x"), session=9, sequence=1)
    service.run(0.5)
    service.apply(Crash("s1"))
    service.run(1.5)
    again = service.send("s2", (b"APPEND", b"a", b"x"), session=9, sequence=1)
    service.run(0.5)
    assert service.outcomes(first) == service.outcomes(again) is not None
    assert service.do((b"GET", b"a")) == [b"x"]


def test_appends_are_executed_once_though_one_request_in_three_is_lost_or_doubled() -> None:
    service = ready(tamper=[Rule(source="c/*", lost_ratio=0.3, duplicated_ratio=0.3, delayed_ratio=0.3)])
    for sequence in range(1, 41):
        atom = b"<%d>" % sequence
        for _ in range(30):
            number = service.send("s1", (b"APPEND", b"a", atom), session=9, sequence=sequence)
            service.run(0.15)
            if service.outcomes(number):
                break
    machine = service.replica("s1").journal.machine
    assert machine.query((b"GET", b"a")).value == b"".join(b"<%d>" % n for n in range(1, 41))


def test_servers_that_crash_again_and_again_lose_nothing() -> None:
    service = ready(settings=SMALL)
    expected = b""
    for turn in range(12):
        atom = b"<%d>" % turn
        assert service.do((b"APPEND", b"a", atom)) == [len(expected + atom)]
        expected += atom
        name = service.primary() if turn % 3 else service.roles()[1]
        service.apply(Crash(name))
        service.run(1.2)
        service.apply(Restart(name))
        service.run(1.0)
    assert service.do((b"GET", b"a")) == [expected]


def test_writes_of_many_clients_at_once_leave_primary_and_backup_alike() -> None:
    service = ready(settings=SMALL)
    numbers = [service.send("s1", (b"SET", b"k%d" % (n % 3), b"%d" % n)) for n in range(100)]
    service.run(1.0)
    assert all(service.outcomes(number) for number in numbers)
    assert service.records("s1") == service.records("s2") != []


def test_a_deposed_primary_answers_neither_writes_nor_reads() -> None:
    """Also not when it is not told: it is alone with a client."""
    service = ready()
    service.do((b"SET", b"a", b"old"))
    service.do((b"GET", b"a"), within_s=0.1)
    service.apply(Partition((("s1", "c"),)))
    read = service.send("s1", (b"GET", b"a"))
    service.run(0.05)
    assert service.outcomes(read), "the lease is still there"
    service.run(2.0)
    assert service.leading() == ["s1", "s2"]
    questions = [service.send("s1", (b"GET", b"a")), service.send("s1", (b"SET", b"a", b"lost"))]
    service.run(3.0)
    assert [service.outcomes(number) for number in questions] == [None, None]
    service.apply(Heal())
    service.run(2.0)
    assert [type(service.replies(number)[0]) for number in questions] == [NotHere, NotHere]
    assert service.do((b"GET", b"a")) == [b"old"]


def test_a_primary_that_stood_still_while_it_was_deposed_answers_nothing_when_it_wakes_up() -> None:
    service = ready()
    service.do((b"SET", b"a", b"old"))
    service.apply(Pause("s1"))
    read = service.send("s1", (b"GET", b"a"))
    service.run(1.5)
    assert service.do_at("s2", (b"SET", b"a", b"new")) == ["OK"]
    service.apply(Resume("s1"))
    service.run(1.0)
    assert service.outcomes(read) is None
    assert service.primary() == "s2"


def test_what_a_former_primary_forwarded_comes_too_late() -> None:
    """Neither the new primary, nor a server that is backup of another, takes it."""
    service = ready()
    late = encode_entry(Entry(0.0, (Operation((b"SET", b"a", b"late")),)))
    service.do((b"SET", b"a", b"1"))
    view = service.view().number
    service.apply(Crash("s1"))
    service.run(2.0)
    assert service.roles() == ("s2", "s3")
    for name in ("s2", "s3"):
        last = service.replica(name).journal.last
        for number in (view, service.view().number):
            service.inject(name, Forward(number, last + 1, (late,), last + 1), "s1/g1")
            service.inject(name, Chunk(number, 0, (), True, b""), "s1/g1")
        service.run(0.2)
        assert service.replica(name).journal.last == last
    assert service.do((b"GET", b"a")) == [b"1"]


def test_what_a_former_backup_confirms_counts_for_nothing() -> None:
    service = ready()
    view = service.view().number
    service.apply(Crash("s2"))
    service.run(0.2)
    number = service.send("s1", (b"SET", b"a", b"1"))
    service.run(0.1)
    service.inject("s1", Forwarded(view - 1, 99), "s2/g1")
    service.inject("s1", Forwarded(view, 99), "s3/g1")
    service.run(0.05)
    assert service.outcomes(number) is None
    service.run(1.5)
    assert service.outcomes(number) is not None, "the next backup is s3"


def test_reads_under_the_lease_need_no_backup_and_without_it_they_wait() -> None:
    service = ready()
    service.do((b"SET", b"a", b"1"), (b"GET", b"a"))
    service.do((b"GET", b"a"), within_s=0.1)
    service.apply(LinkDown("s1", "s2"))
    inside = service.send("s1", (b"GET", b"a"))
    service.run(0.1)
    assert service.outcomes(inside)
    service.run(Settings().lease_s)
    outside = service.send("s1", (b"GET", b"a"))
    service.run(0.3)
    assert service.outcomes(outside) is None
    service.run(2.0)
    assert service.outcomes(outside), "the view service has replaced the backup"
    assert service.roles() == ("s1", "s3")


def test_a_backup_that_confirmed_its_primary_takes_no_office_before_that_is_over() -> None:
    """Its clock is fast, and the view service hears nothing of the primary."""
    service = ready(clocks={"s2": DeviceClock(drift_ppm=10_000.0)})
    service.apply(Crash("s1"))
    service.run(0.45)
    view = service.view().number
    service.inject("s2", Confirm(view, 1), "s1/g1")
    service.run(0.3)
    assert service.roles()[0] == "s2"
    assert service.leading() == []
    service.run(0.4)
    assert service.leading() == ["s2"]


def test_a_primary_without_a_backup_goes_on_alone() -> None:
    service = ready(2)
    service.apply(Crash("s2"))
    service.run(1.0)
    assert service.do((b"SET", b"a", b"1"), (b"GET", b"a")) == ["OK", b"1"]
    assert service.roles() == ("s1", "")


def test_both_servers_crash_and_come_back_with_everything_in_either_order() -> None:
    for order in (["s1", "s2"], ["s2", "s1"]):
        service = ready(2, settings=SMALL)
        for number in range(12):
            service.do((b"APPEND", b"a", b"%d" % number))
        expected = service.do((b"GET", b"a"))
        service.apply(Crash("s1"), Crash("s2"))
        service.run(1.0)
        for name in order:
            service.apply(Restart(name))
            service.run(2.0)
            assert service.primary() == order[0]
            assert service.do((b"GET", b"a")) == expected
        assert service.synced()


def test_a_server_that_lacks_what_was_answered_since_does_not_come_back_as_primary() -> None:
    service = ready(2)
    service.apply(Crash("s2"))
    service.run(1.0)
    service.do((b"SET", b"a", b"only s1 has it"))
    service.apply(Crash("s1"), Restart("s2"))
    service.run(3.0)
    assert service.leading() == []
    service.apply(Restart("s1"))
    service.run(2.0)
    assert service.primary() == "s1"
    assert service.do((b"GET", b"a")) == [b"only s1 has it"]


@pytest.mark.parametrize("harm", [LoseDisk, RotDisk])
def test_a_server_whose_disk_is_lost_or_rots_begins_anew_as_backup(harm: type[LoseDisk | RotDisk]) -> None:
    service = ready(2)
    service.do((b"SET", b"a", b"1"))
    disk = service.replica("s2")._me.disk
    service.apply(Crash("s2"), harm("s2"), Restart("s2"))
    service.run(2.0)
    assert service.replica("s2")._me.disk != disk
    assert service.roles() == ("s1", "s2")
    assert service.synced()
    service.apply(Crash("s1"))
    service.run(2.0)
    assert service.do((b"GET", b"a")) == [b"1"]


def test_when_all_disks_are_lost_nobody_pretends_to_be_the_service() -> None:
    service = ready(2)
    for name in ("s1", "s2"):
        service.apply(Crash(name), LoseDisk(name), Restart(name))
    service.run(5.0)
    assert service.leading() == []


def test_a_backup_that_dies_during_the_transfer_is_replaced() -> None:
    service = ready(settings=SMALL)
    for number in range(300):
        service.send("s1", (b"SET", b"key%d" % number, b"x" * 40))
    service.run(1.0)
    service.apply(Crash("s2"))
    while service.roles() != ("s1", "s3"):
        service.run(0.01)
    service.run(0.05)
    assert not service.synced()
    service.apply(Crash("s3"), Restart("s2"))
    service.run(3.0)
    assert service.roles() == ("s1", "s2")
    assert service.synced()


def test_the_primary_answers_alone_while_the_state_is_transferred_and_no_answer_is_lost_then() -> None:
    service = ready(settings=SMALL)
    for number in range(300):
        service.send("s1", (b"SET", b"key%d" % number, b"x" * 40))
    service.run(1.0)
    service.apply(Crash("s2"))
    while service.roles() != ("s1", "s3"):
        service.run(0.01)
    during = service.do((b"SET", b"a", b"during"), within_s=0.05)
    assert (during, service.synced()) == (["OK"], False)
    while not service.synced():
        service.run(0.001)
    service.apply(Crash("s1"))
    service.run(2.0)
    assert service.primary() == "s3"
    assert service.do((b"GET", b"a")) == [b"during"]


def test_a_backup_that_cannot_hear_its_primary_is_replaced_and_the_service_goes_on() -> None:
    service = ready()
    service.apply(OneWayCut("s1", "s2"))
    number = service.send("s1", (b"SET", b"a", b"1"))
    service.run(3.0)
    assert service.outcomes(number)
    assert service.roles() == ("s1", "s3")


def test_a_pair_that_cannot_hear_each_other_goes_on_and_is_a_pair_again_later() -> None:
    service = ready(2)
    service.apply(LinkDown("s1", "s2"))
    number = service.send("s1", (b"SET", b"a", b"1"))
    service.run(3.0)
    assert service.outcomes(number)
    service.apply(LinkUp("s1", "s2"))
    service.run(4.0)
    assert service.roles() == ("s1", "s2")
    assert service.synced()


def test_without_the_view_service_the_pair_goes_on_and_nobody_takes_a_dead_one_s_place() -> None:
    service = ready()
    service.apply(Crash("v"))
    service.run(1.0)
    assert service.do((b"SET", b"a", b"1"), (b"GET", b"a")) == ["OK", b"1"]
    service.apply(Crash("s1"))
    service.run(2.0)
    assert service.leading() == []
    service.apply(Restart("v"))
    service.run(2.0)
    assert service.do((b"GET", b"a")) == [b"1"]


def test_what_nobody_can_have_answered_is_not_shown_to_those_who_read_stale_values() -> None:
    service = ready()
    service.do((b"SET", b"a", b"1"))
    service.run(0.5)
    service.apply(OneWayCut("s2", "s1"))
    service.send("s1", (b"SET", b"a", b"2"))
    service.run(0.1)
    assert service.replica("s2").journal.last == 2
    for name in ("s1", "s2"):
        stale = service.send(name, (b"GET", b"a"), stale=True)
        service.run(0.1)
        outcomes = service.outcomes(stale)
        assert outcomes is not None
        assert outcomes[0].value == b"1"


def test_disk_and_memory_stay_bounded() -> None:
    service = ready(settings=SMALL)
    for turn in range(40):
        for number in range(10):
            service.send("s1", (b"SET", b"k%d" % number, b"%d" % turn))
        service.run(0.05)
    service.run(1.0)
    for name in ("s1", "s2"):
        entries = [key for key in service.world.durable(f"{name}/g1") if key.startswith(b"l")]
        assert len(entries) <= SMALL.checkpoint_operations
        assert service.replica(name).journal.size_bytes == 0
