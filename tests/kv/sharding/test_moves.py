"""Slots on the move between groups of one replica: what is served meanwhile, and what is left behind."""

import pytest

from kv.messages import Answered
from kv.operations import Command
from kv.sharding.machine import SlotState
from kv.sharding.messages import AskTaken, Chunk, Pull, Taken
from kv.sharding.moves import Timings
from kv.sharding.server import ShardServer
from kv.slots import SLOTS, slot_of
from tests.kv.sharding.service import WIRE, Service, appends, keys_in
from underlay.faults import Crash, Heal, Partition, Restart
from underlay.simulation import Rule

EVERYWHERE = keys_in(0, SLOTS - 1, 200)
JOIN_G3 = (b"BH.JOIN", b"g3", b"s3/g3")


def write(service: Service, keys: list[bytes]) -> None:
    """Each key its own name as its value."""
    service.do(*((b"SET", key, key) for key in keys), wait_s=60)


def check_values(service: Service, keys: list[bytes]) -> None:
    assert service.do(*((b"GET", key) for key in keys), wait_s=60) == keys


def until_some_have_come(service: Service, receiver: ShardServer, keys: list[bytes]) -> None:
    """Let time pass until the receiver serves the first of these keys."""
    while not any(receiver.shards.state(slot_of(key)) is SlotState.OWNED for key in keys):
        service.run(0.002)
    assert receiver.shards.slots_in(SlotState.ARRIVING)


def test_a_fresh_tier_becomes_ready_by_itself() -> None:
    service = Service()
    service.settle(1)
    service.check_slots()
    assert service.do((b"SET", b"a", b"1"), (b"GET", b"a")) == ["OK", b"1"]


def test_a_group_that_joins_gets_its_share_with_what_is_in_it() -> None:
    service = Service(joined=["g1", "g2"])
    write(service, EVERYWHERE)
    assert service.do(JOIN_G3) == [2]
    service.settle(2)
    service.check_slots()
    assert sum(service.shards("g3").state(slot_of(key)) is SlotState.OWNED for key in EVERYWHERE) > 20
    check_values(service, EVERYWHERE)


def test_a_group_that_leaves_gives_everything_and_keeps_nothing() -> None:
    service = Service()
    write(service, EVERYWHERE)
    before = len(service.world.durable("s2/g2"))
    assert service.do((b"BH.LEAVE", b"g2")) == [2]
    service.settle(2)
    service.check_slots()
    assert service.replica("s2/g2").status(0).keys == 0
    assert len(service.world.durable("s2/g2")) < before - 50, "its disk is freed too"
    check_values(service, EVERYWHERE)


def test_a_group_that_left_can_come_back() -> None:
    service = Service()
    write(service, EVERYWHERE)
    for number, command in enumerate([(b"BH.LEAVE", b"g2"), (b"BH.JOIN", b"g2", b"s2/g2")] * 2, 2):
        assert service.do(command) == [number]
    service.settle(5)
    service.check_slots()
    check_values(service, EVERYWHERE)


def test_a_move_moves_what_it_says() -> None:
    service = Service()
    keys = keys_in(0, 99, 20)
    write(service, keys)
    assert service.do((b"BH.MOVE", b"0-99", b"g3")) == [2]
    service.settle(2)
    assert service.leader("g3").slots()[0] == (0, 99)  # type: ignore[union-attr]
    check_values(service, keys)


def test_configurations_are_gone_through_one_at_a_time() -> None:
    service = Service()
    write(service, EVERYWHERE)
    moves = [(b"BH.MOVE", b"%d-%d" % (n, n + 4000), b"g%d" % (n % 3 + 1)) for n in range(0, 12_000, 1000)]
    service.order(*moves)
    service.settle(13)
    service.check_slots()
    check_values(service, EVERYWHERE)


def test_appends_meanwhile_happen_once_and_none_fails() -> None:
    keys = keys_in(0, SLOTS - 1, 12)
    service = Service(*[appends(keys, 400)] * 5, joined=["g1"])
    service.settle(1)
    service.run(2.5)
    script: list[Command] = [
        (b"BH.JOIN", b"g2", b"s2/g2"),
        JOIN_G3,
        (b"BH.LEAVE", b"g1"),
        (b"BH.JOIN", b"g1", b"s1/g1"),
        (b"BH.LEAVE", b"g2"),
    ]
    for command in script:
        service.do(command)
        service.run(0.3)
    service.settle(6)
    calls = service.check()
    service.check_slots()
    moved = [call for call in calls if call.returned_s and 2.5 < call.invoked_s < service.world.now]
    assert len(moved) > 500
    assert not [call for call in calls if call.outcome is not None and call.outcome.failure]


def test_slots_that_stay_are_served_as_if_nothing_moved() -> None:
    stays, moves = keys_in(0, 2000, 5), keys_in(4000, 8000, 400)
    service = Service(appends(stays, 10_000), joined=["g1", "g2"])
    write(service, moves)
    service.run(1.0)
    began_s = service.world.now
    service.do((b"BH.MOVE", b"4000-8000", b"g2"))
    service.settle(2)
    slowest_s = max(call.returned_s - call.invoked_s for call in service.clerk(1).calls if call.returned_s)
    times = [call.returned_s for call in service.clerk(1).calls if call.returned_s]
    assert sum(began_s < time_s for time_s in times) > 50
    assert slowest_s < 0.02
    assert not service.clerk(1).redirections


def test_a_slot_that_arrived_is_served_before_the_others_have() -> None:
    timings = Timings(chunk_bytes=400)
    service = Service(timings=timings, link=WIRE, groups={"g1": ["s1"], "g2": ["s2"]})
    keys = keys_in(0, 8191, 600)
    service.settle(1)
    write(service, keys)
    service.order((b"BH.MOVE", b"0-8191", b"g2"))
    receiver = service.replica("s2/g2")
    until_some_have_come(service, receiver, keys)
    served = receiver.shards.slots_in(SlotState.OWNED)
    source = service.replica("s1/g1")
    assert source.shards.slots_in(SlotState.LEAVING), "most are still at the source, and served there"
    here = next(key for key in keys if slot_of(key) in served)
    there = next(key for key in reversed(keys) if source.shards.state(slot_of(key)) is SlotState.LEAVING)
    assert service.do((b"SET", here, b"1"), (b"SET", there, b"2")) == ["OK", "OK"]
    assert not receiver.shards.settled
    service.settle(2)
    assert service.do((b"GET", here), (b"GET", there)) == [b"1", b"2"]


def test_a_large_slot_comes_in_several_chunks() -> None:
    keys = [b"{one}%d" % number for number in range(1500)]
    service = Service(joined=["g1", "g2"])
    service.settle(1)
    write(service, keys)
    slot = slot_of(b"one")
    target = "g2" if service.latest().owner_of(slot) == "g1" else "g1"
    service.do((b"BH.MOVE", b"%d" % slot, target.encode()))
    service.settle(2)
    service.check_slots()
    service.run(1.0)
    sent = [record for record in service.world.records() if record.get("message") == "Chunk"]
    assert sum(record["count"] for record in sent) >= 2
    check_values(service, keys[::50])


def test_a_repetition_after_the_move_gets_the_first_outcome() -> None:
    service = Service(joined=["g1", "g2"])
    service.settle(1)
    (key,) = keys_in(0, 0, 1)
    assert service.do((b"APPEND", key, b"once")) == [4]
    service.do((b"BH.MOVE", b"0", b"g2"))
    service.settle(2)
    clerk = service.clerk()
    clerk._sequence = 0  # as if the answer to its first command had been lost
    assert service.do((b"APPEND", key, b"once")) == [4]
    clerk._sequence = 2
    assert service.do((b"GET", key)) == [b"once"]


def test_a_key_s_revision_never_falls() -> None:
    service = Service(joined=["g1", "g2"])
    service.settle(1)
    (key,) = keys_in(0, 0, 1)
    write(service, keys_in(0, 100, 30))
    for number, group in enumerate([b"g2", b"g1", b"g2"], 2):
        service.do((b"APPEND", key, b"x"), (b"BH.MOVE", b"0", group))
        service.settle(number)
    service.do((b"APPEND", key, b"x"))
    clerk = service.clerk()
    revisions = [
        answer.revision
        for call, answer in zip(clerk.calls, clerk.answers, strict=True)
        if call.command[0] == b"APPEND"
    ]
    assert revisions == sorted(set(revisions))


def test_expiry_moves_with_a_key() -> None:
    service = Service(joined=["g1", "g2"])
    service.settle(1)
    (key,) = keys_in(0, 0, 1)
    service.do((b"SET", key, b"x", b"PX", b"4000"), (b"BH.MOVE", b"0", b"g2"))
    service.settle(2)
    assert service.do((b"GET", key)) == [b"x"]
    service.run(5.0)
    assert service.do((b"GET", key)) == [None]


# ------------------------------------------------------------------------------------------------ with faults


def test_a_source_that_dies_in_the_middle_goes_on_when_it_returns() -> None:
    service = Service(timings=Timings(chunk_bytes=400), groups={"g1": ["s1"], "g2": ["s2"]})
    keys = keys_in(0, 8191, 300)
    service.settle(1)
    write(service, keys)
    service.order((b"BH.MOVE", b"0-8191", b"g2"))
    receiver = service.replica("s2/g2")
    until_some_have_come(service, receiver, keys)
    service.world.apply(Crash("s1"))
    service.run(3.0)
    assert receiver.shards.slots_in(SlotState.ARRIVING)
    served = next(key for key in keys if receiver.shards.state(slot_of(key)) is SlotState.OWNED)
    assert service.do((b"GET", served)) == [served], "what arrived is served without the source"
    service.world.apply(Restart("s1"))
    service.settle(2)
    service.check_slots()
    check_values(service, keys)


@pytest.mark.parametrize("victim", ["s1", "s2"])
@pytest.mark.parametrize("after_s", [0.0, 0.011, 0.023, 0.05])
def test_a_group_that_restarts_in_the_middle_loses_nothing(victim: str, after_s: float) -> None:
    service = Service(timings=Timings(chunk_bytes=400), groups={"g1": ["s1"], "g2": ["s2"]})
    keys = keys_in(0, 8191, 200)
    service.settle(1)
    write(service, keys)
    service.order((b"BH.MOVE", b"0-8191", b"g2"))
    receiver = service.replica("s2/g2")
    until_some_have_come(service, receiver, keys)
    service.run(after_s)
    service.world.apply(Crash(victim))
    service.run(0.1)
    service.world.apply(Restart(victim))
    service.settle(2)
    service.check_slots()
    check_values(service, keys)


def test_a_partition_between_the_groups_stops_the_move_and_nothing_else() -> None:
    service = Service(timings=Timings(chunk_bytes=400), groups={"g1": ["s1"], "g2": ["s2"]})
    keys = keys_in(0, 8191, 300)
    service.settle(1)
    write(service, keys)
    service.order((b"BH.MOVE", b"0-8191", b"g2"))
    source, receiver = service.replica("s1/g1"), service.replica("s2/g2")
    until_some_have_come(service, receiver, keys)
    cut = {frozenset(("s1", "s2"))}
    for link in service.world.plan.network.links:
        if frozenset((link.a, link.b)) in cut:
            service.world.carrier.cut([(link.a, link.b), (link.b, link.a)])
    service.run(2.0)
    leaving, owned = source.shards.slots_in(SlotState.LEAVING), receiver.shards.slots_in(SlotState.OWNED)
    at_source = next(key for key in keys if slot_of(key) in leaving)
    at_receiver = next(key for key in keys if slot_of(key) in owned)
    assert service.do((b"GET", at_source), (b"GET", at_receiver)) == [at_source, at_receiver]
    service.world.apply(Heal())
    service.settle(2)
    service.check_slots()
    check_values(service, keys)


def test_groups_serve_while_the_controller_is_away() -> None:
    service = Service()
    service.settle(1)
    write(service, EVERYWHERE[:20])
    service.world.apply(Partition((("c1",),)))
    service.run(2.0)
    check_values(service, EVERYWHERE[:20])
    service.world.apply(Heal())
    assert service.do((b"BH.LEAVE", b"g3")) == [2]
    service.settle(2)
    service.check_slots()


@pytest.mark.parametrize("kind", [Pull, Chunk, Taken, AskTaken, Answered])
def test_messages_of_a_move_may_be_lost_doubled_and_late(kind: type) -> None:
    rule = Rule((kind,), target="s*", lost_ratio=0.3, duplicated_ratio=0.3, delayed_ratio=0.3, delay_s=0.5)
    service = Service(
        *[appends(keys_in(0, SLOTS - 1, 8, b"hot"), 300)] * 3,
        tamper=[rule],
        timings=Timings(chunk_bytes=600),
        joined=["g1", "g2"],
        pause_s=0.02,
    )
    service.settle(1)
    write(service, EVERYWHERE)
    for number, command in enumerate([JOIN_G3, (b"BH.LEAVE", b"g1"), (b"BH.JOIN", b"g1", b"s1/g1")], 2):
        assert service.do(command) == [number]
    service.settle(4, wait_s=120.0)
    service.check_slots()
    service.check()
    check_values(service, EVERYWHERE)


def test_a_question_for_a_slot_that_does_not_come_is_told_to_try_again() -> None:
    (key,) = keys_in(0, 0, 1)
    lost = Rule((Chunk,), lost_ratio=1.0)
    service = Service(
        timings=Timings(hold_s=0.05, retry_s=0.1), groups={"g1": ["s1"], "g2": ["s2"]}, tamper=[lost]
    )
    service.settle(1)
    write(service, [key])
    service.do((b"BH.MOVE", b"0", b"g2"))
    service.run(1.0)
    service.order((b"GET", key))
    service.run(3.0)
    assert service.clerk().pending is not None, "no false answer"
    assert service.clerk().redirections["TRYAGAIN"] >= 1


def test_nobody_but_the_receiver_can_have_a_slot_deleted() -> None:
    service = Service(groups={"g1": ["s1"], "g2": ["s2"]}, tamper=[Rule((Chunk,), lost_ratio=1.0)])
    service.settle(1)
    (key,) = keys_in(0, 0, 1)
    write(service, [key])
    service.do((b"BH.MOVE", b"0", b"g2"))
    service.run(1.0)
    source = service.replica("s1/g1")
    assert source.shards.state(0) is SlotState.FROZEN
    for stranger in ("s1/g1", "s3/g3", "clerk0/clerk", "somebody outside"):
        service.world.inject("s1/g1", Taken(2, ((0, SLOTS - 1),)), stranger)
        service.world.inject("s1/g1", Answered(1, ()), stranger)
    service.run(1.0)
    assert source.shards.state(0) is SlotState.FROZEN
    service.world.inject("s1/g1", Taken(2, ((0, 0),)), "s2/g2")
    service.run(0.1)
    assert source.shards.state(0) is SlotState.ABSENT
