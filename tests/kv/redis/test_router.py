"""The router between played clients and played replicas: who is asked what, and who gets which reply."""

from __future__ import annotations

from functools import partial

import pytest

from kv.operations import OK, Outcome
from kv.redis.binding import redis_port
from kv.redis.directory import Directory
from kv.redis.dispatch import RETRY_S
from kv.redis.router import LOOK_S, PATIENCE_S, Router
from kv.sharding.config import move
from kv.slots import slot_of
from tests.kv.redis.desk import Desk, commands_of, configuration_of
from underlay.simulation import World, plan_of

HERE = {"g1": ["s1", "s2", "s3"]}
"""One group, of which the router's host has a replica."""
HERE_AND_THERE = {"g1": ["s1", "s2"], "g2": ["s2", "s3"]}
"""Two groups, of which the router's host has a replica of one."""
TWO_HERE = {"g1": ["s1", "s2"], "g2": ["s1", "s3"]}

SET, GET = (b"SET", b"k", b"v"), (b"GET", b"k")


def key_of(desk: Desk, group: str) -> bytes:
    """A key in a slot of that group."""
    return next(b"%d" % n for n in range(1000) if desk.configuration.owner_of(slot_of(b"%d" % n)) == group)


def test_a_batch_is_one_question_and_its_replies_are_in_order() -> None:
    desk = Desk(HERE)
    desk.open(1)
    desk.ask([SET, (b"PING",), GET, (b"get", b"other")])
    (first,) = desk.submits()
    assert commands_of(first) == [SET], "what is not about keys waits for what came before"
    desk.answer(first)
    (second,) = desk.submits()
    assert commands_of(second) == [GET, (b"GET", b"other")]
    assert desk.replies() == []
    desk.answer(second, Outcome(b"v"), Outcome(None))
    assert desk.replies() == [(1, b"+OK\r\n+PONG\r\n$1\r\nv\r\n$-1\r\n")]


def test_writes_and_reads_of_a_batch_stay_together_and_reads_alone_go_apart() -> None:
    desk = Desk(HERE)
    desk.open(1, 2, 3)
    desk.ask([SET, GET], [GET], [GET])
    writes, reads = desk.submits()
    assert commands_of(writes) == [SET, GET]
    assert commands_of(reads) == [GET, GET]
    desk.answer(reads, Outcome(b"2"), Outcome(b"3"))
    assert desk.replies() == [(2, b"$1\r\n2\r\n"), (3, b"$1\r\n3\r\n")]
    desk.answer(writes, OK, Outcome(b"1"))
    assert desk.replies() == [(1, b"+OK\r\n$1\r\n1\r\n")]


def test_a_large_batch_does_not_share_a_question() -> None:
    desk = Desk(HERE)
    desk.open(1, 2)
    large = (b"SET", b"k", b"v" * 30_000)
    desk.ask([large], [large])
    assert [len(submit.operations) for submit in desk.submits()] == [1, 1]


def test_a_client_is_sent_to_the_leader_at_the_address_it_can_reach() -> None:
    desk = Desk(HERE)
    desk.open(1)
    desk.open(2, advertised={"s1": ("127.0.0.1", 7001), "s2": ("127.0.0.1", 7002)})
    desk.ask([GET], [SET])
    for submit in desk.submits():
        desk.turn_away(submit, "s2/g1")
    slot = slot_of(b"k")
    assert sorted(desk.replies()) == [
        (1, b"-MOVED %d 10.0.0.2:6379\r\n" % slot),
        (2, b"-MOVED %d 127.0.0.1:7002\r\n" % slot),
    ]


def test_a_slot_without_a_replica_here_is_redirected_without_asking() -> None:
    desk = Desk(HERE_AND_THERE, {"g2": "s3/g2"})
    desk.open(1)
    desk.run(0.1)
    there = key_of(desk, "g2")
    desk.ask([(b"GET", there)])
    assert desk.submits() == []
    assert desk.replies() == [(1, b"-MOVED %d 10.0.0.3:6379\r\n" % slot_of(there))]


def test_a_client_that_can_reach_nobody_who_leads_is_told_that_the_slot_is_not_served() -> None:
    desk = Desk(HERE)
    desk.open(1, advertised={"s1": ("127.0.0.1", 7001)})
    desk.ask([GET])
    desk.turn_away(desk.submits()[0], "s2/g1")
    (((_, reply)),) = desk.replies()
    assert reply.startswith(b"-MOVED"), "of those it can reach, one that may know better"
    desk.open(2, advertised={})
    desk.ask([], [GET])
    desk.turn_away(desk.submits()[0], "s2/g1")
    assert desk.replies() == [(2, b"-CLUSTERDOWN Hash slot not served\r\n")]


@pytest.mark.parametrize("reason", ["not leading", "busy"])
def test_what_was_not_executed_is_tried_again_until_somebody_leads(reason: str) -> None:
    desk = Desk(HERE)
    desk.open(1)
    desk.ask([SET])
    for _ in range(3):
        (submit,) = desk.submits()
        desk.turn_away(submit, "s1/g1" if reason == "busy" else "", reason)
        desk.run(RETRY_S)
    (submit,) = desk.submits()
    desk.answer(submit)
    assert desk.replies() == [(1, b"+OK\r\n")]


def test_where_nobody_leads_the_client_is_told_in_the_end() -> None:
    desk = Desk(HERE)
    desk.open(1)
    desk.ask([SET])
    waited_s = 0.0
    while waited_s < PATIENCE_S + 1.0:
        for submit in desk.submits():
            desk.turn_away(submit)
        desk.run(RETRY_S)
        waited_s += RETRY_S
    ((_, reply),) = desk.replies()
    assert reply.startswith(b"-CLUSTERDOWN")
    assert b"nothing was executed" in reply


def test_a_write_whose_leader_lost_its_office_is_in_doubt_and_not_tried_again() -> None:
    desk = Desk(HERE)
    desk.open(1, 2)
    desk.ask([SET], [GET])
    write, read = desk.submits()
    desk.turn_away(write, "", "left office")
    desk.turn_away(read, "", "left office")
    ((number, reply),) = desk.replies()
    assert number == 1
    assert reply.startswith(b"-CLUSTERDOWN")
    assert b"not known" in reply
    desk.run(RETRY_S)
    assert [commands_of(submit) for submit in desk.submits()] == [[GET]], "a read can be tried again"


def test_no_answer_in_time_is_an_error_and_a_late_answer_is_nobodys() -> None:
    desk = Desk(HERE)
    desk.open(1)
    desk.ask([SET, GET])
    (late,) = desk.submits()
    desk.run(PATIENCE_S + LOOK_S)
    ((_, reply),) = desk.replies()
    assert reply.count(b"-CLUSTERDOWN") == 2
    desk.ask([GET])
    (submit,) = desk.submits()
    desk.answer(late, OK, Outcome(b"late"))
    assert desk.replies() == []
    desk.answer(submit, Outcome(b"v"))
    assert desk.replies() == [(1, b"$1\r\nv\r\n")]


def test_keys_in_different_slots() -> None:
    desk = Desk(HERE)
    desk.open(1)
    desk.ask([(b"MGET", b"a", b"b"), (b"MSET", b"{t}a", b"1", b"{t}b", b"2")])
    (submit,) = desk.submits()
    assert commands_of(submit) == [(b"MSET", b"{t}a", b"1", b"{t}b", b"2")]
    desk.answer(submit)
    assert desk.replies() == [(1, b"-CROSSSLOT Keys in request don't hash to the same slot\r\n+OK\r\n")]


@pytest.mark.parametrize(
    ("command", "reply"),
    [
        pytest.param(
            (b"NOSUCH", b"x"), b"-ERR unknown command 'NOSUCH', with args beginning with: 'x'", id="unknown"
        ),
        pytest.param((b"@tick",), b"-ERR unknown command '@tick'", id="the service's own"),
        pytest.param(
            (b"@SET", b"k", b"v"), b"-ERR unknown command '@SET'", id="the service's own, about a key"
        ),
        pytest.param((b"get",), b"-ERR wrong number of arguments for 'get' command", id="too few arguments"),
        pytest.param(
            (b"a\r\n+OK",), b"-ERR unknown command 'a\\r\\n+OK'", id="no line of the client's making"
        ),
        pytest.param((b"\xff\x00",), b"-ERR unknown command '\\xff\x00'", id="bytes that are no text"),
    ],
)
def test_what_no_group_is_asked(command: tuple[bytes, ...], reply: bytes) -> None:
    desk = Desk(HERE)
    desk.open(1)
    desk.ask([command])
    assert desk.submits() == []
    ((_, told),) = desk.replies()
    assert told.startswith(reply)
    assert told.count(b"\r\n") == 1


def test_stale_reads_are_asked_for_by_readonly_and_only_reads_are_stale() -> None:
    desk = Desk(HERE)
    desk.open(1)
    desk.ask([(b"READONLY",), GET])
    assert [submit.stale for submit in desk.submits()] == [True]
    desk.run(PATIENCE_S + LOOK_S)
    desk.ask([SET])
    assert [submit.stale for submit in desk.submits()] == [False]
    desk.run(PATIENCE_S + LOOK_S)
    desk.ask([(b"READWRITE",), GET])
    assert [submit.stale for submit in desk.submits()] == [False]


def test_asking_is_for_one_command() -> None:
    desk = Desk(HERE)
    desk.open(1)
    desk.ask([(b"ASKING",), SET, GET])
    assert sorted((submit.asking, commands_of(submit)) for submit in desk.submits()) == [
        (False, [GET]),
        (True, [SET]),
    ]


@pytest.mark.parametrize("code", ["MOVED", "ASK"])
def test_a_slot_that_its_group_disowns_is_redirected_to_whom_it_names(code: str) -> None:
    desk = Desk(HERE_AND_THERE, {"g2": "s3/g2"})
    desk.open(1)
    desk.run(0.1)
    key = key_of(desk, "g1")
    desk.ask([(b"GET", key)])
    desk.answer(desk.submits()[0], Outcome(failure=f"{code} {slot_of(key)} s2/g2"))
    assert desk.replies() == [(1, b"-%b %d 10.0.0.3:6379\r\n" % (code.encode(), slot_of(key)))], "its leader"


def test_a_slot_that_moved_to_another_group_here_is_asked_there() -> None:
    desk = Desk(TWO_HERE)
    desk.open(1)
    key = key_of(desk, "g2")
    desk.ask([(b"GET", key)])
    (submit,) = desk.submits("s1/g2")
    desk.answer(submit, Outcome(failure=f"ASK {slot_of(key)} s2/g1"), replica="s1/g2")
    desk.run(RETRY_S)
    (submit,) = desk.submits("s1/g1")
    assert submit.asking
    desk.answer(submit, Outcome(b"v"))
    assert desk.replies() == [(1, b"$1\r\nv\r\n")]


def test_a_slot_that_moves_away_is_asked_for_here_until_its_old_group_says_that_it_is_gone() -> None:
    desk = Desk({"g1": ["s1"], "g2": ["s2"]}, {"g2": "s2/g2"}, controller=["s3/ctl"])
    desk.open(1)
    desk.run(0.1)
    key = key_of(desk, "g1")
    slot = slot_of(key)
    newer = move(desk.configuration, [(slot, slot)], "g2")
    (query,) = desk.submits("s3/ctl")
    desk.answer(query, Outcome(newer.encode()), replica="s3/ctl")
    desk.ask([(b"GET", key)])
    desk.answer(desk.submits()[0], Outcome(b"v"))
    desk.ask([(b"GET", key)])
    desk.answer(desk.submits()[0], Outcome(failure=f"MOVED {slot} s2/g2"))
    moved = b"-MOVED %d 10.0.0.2:6379\r\n" % slot
    assert desk.replies() == [(1, b"$1\r\nv\r\n"), (1, moved)]


def test_a_slot_that_is_arriving_makes_nobody_else_wait() -> None:
    desk = Desk({"g1": ["s1"], "g2": ["s2"]}, controller=["s3/ctl"])
    desk.open(1, 2)
    desk.run(0.1)
    arriving, stays = key_of(desk, "g2"), key_of(desk, "g1")
    newer = move(desk.configuration, [(slot_of(arriving),) * 2], "g1")
    (query,) = desk.submits("s3/ctl")
    desk.answer(query, Outcome(newer.encode()), replica="s3/ctl")
    desk.ask([(b"GET", arriving)], [(b"GET", stays)])
    late, quick = sorted(desk.submits(), key=lambda submit: commands_of(submit) != [(b"GET", arriving)])
    desk.answer(quick, Outcome(b"here"))
    assert desk.replies() == [(2, b"$4\r\nhere\r\n")]
    desk.answer(late, Outcome(b"v"))
    desk.replies()
    desk.ask([(b"GET", arriving)], [(b"GET", stays)])
    assert [len(submit.operations) for submit in desk.submits()] == [2], "once it has come, they share"


def test_a_change_of_the_protocol_changes_only_later_replies() -> None:
    desk = Desk(HERE)
    desk.open(1)
    desk.ask([GET, (b"HELLO", b"3"), GET])
    desk.answer(desk.submits()[0], Outcome(None))
    desk.answer(desk.submits()[0], Outcome(None))
    ((_, reply),) = desk.replies()
    assert reply.startswith(b"$-1\r\n%7\r\n")
    assert reply.endswith(b"_\r\n")


def test_after_quit_nothing_is_executed() -> None:
    desk = Desk(HERE)
    desk.open(1)
    desk.ask([(b"QUIT",), SET])
    assert desk.submits() == []
    assert desk.replies() == [(1, b"+OK\r\n")]


def test_a_request_of_a_browser_ends_the_connection_without_a_word() -> None:
    desk = Desk(HERE)
    desk.open(1)
    desk.ask([(b"POST", b"/", b"HTTP/1.1"), SET])
    assert desk.submits() == []
    assert desk.replies() == [(1, b"")]


def test_nothing_more_is_executed_for_a_client_that_went() -> None:
    desk = Desk(HERE)
    desk.open(1)
    desk.ask([GET, (b"PING",), SET])
    (submit,) = desk.submits()
    desk.close(1)
    desk.answer(submit, Outcome(None))
    assert desk.submits() == []


def test_dbsize_and_keys_are_of_the_groups_that_are_led_here() -> None:
    desk = Desk({"g1": ["s1"], "g2": ["s1"], "g3": ["s1", "s2"]})
    desk.open(1)
    desk.ask([(b"DBSIZE",), (b"keys", b"*")])
    for group, answer in (("g1", 3), ("g2", 4)):
        (submit,) = desk.submits(f"s1/{group}")
        desk.answer(submit, Outcome(answer), replica=f"s1/{group}")
    desk.turn_away(desk.submits("s1/g3")[0], "s2/g3", replica="s1/g3")
    for group in ("g1", "g2"):
        (submit,) = desk.submits(f"s1/{group}")
        assert commands_of(submit) == [(b"KEYS", b"*")]
        desk.answer(submit, Outcome([group.encode()]), replica=f"s1/{group}")
    desk.turn_away(desk.submits("s1/g3")[0], "s2/g3", replica="s1/g3")
    assert desk.replies() == [(1, b":7\r\n*2\r\n$2\r\ng1\r\n$2\r\ng2\r\n")]


def test_scan_goes_from_group_to_group() -> None:
    desk = Desk({"g1": ["s1"], "g2": ["s2"], "g3": ["s1", "s2"], "g4": ["s1"]})
    desk.open(1)
    pages = [("g1", 77, b"a"), ("g1", 0, b"b"), ("g3", None, b""), ("g4", 0, b"c")]
    cursor, found = b"0", []
    for group, following, key in pages:
        desk.ask([(b"SCAN", cursor, b"MATCH", b"*")])
        (submit,) = desk.submits(f"s1/{group}")
        assert commands_of(submit)[0][2:] == (b"MATCH", b"*")
        if following is None:
            desk.turn_away(submit, "s2/g3", replica="s1/g3")
        else:
            desk.answer(submit, Outcome([b"%d" % following, [key]]), replica=f"s1/{group}")
        ((_, reply),) = desk.replies()
        words = reply.split(b"\r\n")
        cursor, keys = words[2], words[5:-1]
        found += keys
    assert cursor == b"0"
    assert found == [b"a", b"b", b"c"]


def test_a_group_is_asked_for_the_cursor_it_gave() -> None:
    desk = Desk({"g1": ["s2"], "g2": ["s1"]})
    desk.open(1)
    desk.ask([(b"SCAN", b"0")])
    desk.answer(desk.submits("s1/g2")[0], Outcome([b"12345678901", []]), replica="s1/g2")
    ((_, reply),) = desk.replies()
    desk.ask([(b"SCAN", reply.split(b"\r\n")[2])])
    assert commands_of(desk.submits("s1/g2")[0]) == [(b"SCAN", b"12345678901")]


def test_cluster_slots_waits_for_leaders_that_it_does_not_know() -> None:
    desk = Desk(HERE_AND_THERE, {"g1": "s1/g1", "g2": "s3/g2"})
    desk.open(1)
    desk.ask([(b"CLUSTER", b"SLOTS"), (b"CLUSTER", b"INFO")])
    desk.run(0.1)
    ((_, reply),) = desk.replies()
    assert b"10.0.0.1" in reply
    assert b"10.0.0.3" in reply
    assert b"cluster_state:ok" in reply


def test_slots_whose_leader_nobody_knows_are_left_out_after_a_while() -> None:
    desk = Desk(HERE_AND_THERE, {"g1": "s1/g1"})
    desk.open(1)
    desk.ask([(b"CLUSTER", b"SLOTS"), (b"CLUSTER", b"INFO")])
    desk.run(0.1)
    assert desk.replies() == []
    desk.run(4 * LOOK_S)
    ((_, reply),) = desk.replies()
    assert reply.startswith(b"*1\r\n*4\r\n:0\r\n:8191\r\n*4\r\n$8\r\n10.0.0.1\r\n")
    assert b"cluster_state:fail" in reply


def test_a_host_without_clients_asks_nobody() -> None:
    desk = Desk(HERE_AND_THERE, controller=["s2/ctl"])
    desk.run(10.0)
    assert desk.submits("s2/ctl") == []
    desk.open(1)
    desk.run(3.0)
    assert desk.submits("s2/ctl")
    desk.close(1)
    desk.run(3.0)
    desk.submits("s2/ctl")
    desk.run(10.0)
    assert desk.submits("s2/ctl") == []


def test_a_host_with_a_redis_port_can_be_simulated() -> None:
    """Nobody connects there, but the plan is the same one."""
    router = partial(Router, Directory(configuration_of(HERE)))
    plan = plan_of({"s1": {"redis": router}}, bindings={"s1": [redis_port(["s1"])]})
    world = World(plan)
    world.run_until(5.0)
    assert isinstance(world.node("s1/redis"), Router)
