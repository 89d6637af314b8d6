"""The client's core, alone: what it asks of whom, and what it says in the end."""

from __future__ import annotations

from random import Random

import pytest

from kv.client import Client, Patience, Reply, Sharded, Static
from kv.messages import Answered, AskStatus, NotHere, Status, Submit
from kv.operations import OK, Command, Outcome
from kv.sharding.config import Configuration, join
from kv.slots import slot_of
from underlay.messages import Message
from underlay.node import Address, Timer

GROUP = ["s1/g1", "s2/g1", "s3/g1"]
SET: Command = (b"SET", b"k", b"v")
GET: Command = (b"GET", b"k")


class World:
    """A clock, timers, and everything that was sent."""

    def __init__(self) -> None:
        self.now = 0.0
        self.rng = Random(1)
        self.sent: list[tuple[Address, Message]] = []
        self.given_up: list[Address] = []
        self.timers: dict[Timer, float] = {}
        self.replies: list[Reply] = []

    def send(self, peer: Address, message: Message) -> None:
        self.sent.append((peer, message))

    def give_up(self, peer: Address) -> None:
        self.given_up.append(peer)

    def set_timer(self, key: Timer, delay_s: float) -> None:
        self.timers[key] = self.now + delay_s

    def cancel_timer(self, key: Timer) -> None:
        self.timers.pop(key, None)


Tested = Client[World]


def call(client: Tested, world: World, command: Command, deadline_s: float | None = None) -> None:
    client.call(world, command, lambda ctx, reply: ctx.replies.append(reply), deadline_s=deadline_s)


def last(world: World) -> tuple[Address, Submit]:
    """The last question."""
    peer, message = world.sent[-1]
    assert isinstance(message, Submit)
    return peer, message


def answer(client: Tested, world: World, outcome: Outcome, question: int = -1) -> None:
    """The replica that got a question executes it."""
    peer, message = world.sent[question]
    assert isinstance(message, Submit)
    client.on_message(world, peer, Answered(message.number, (outcome,), revision=7))


def refuse(client: Tested, world: World, leader: Address = "", reason: str = "not leading") -> None:
    """The replica that got the last question does not do it."""
    peer, message = last(world)
    client.on_message(world, peer, NotHere(message.number, leader, reason))


def pass_time(client: Tested, world: World, until_s: float) -> None:
    """Let all timers fire that are due."""
    while world.timers and min(world.timers.values()) <= until_s:
        key = min(world.timers, key=lambda key: world.timers[key])
        world.now = world.timers.pop(key)
        client.on_timer(world, key)
    world.now = until_s


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def client() -> Tested:
    return Client(Static(GROUP))


def test_an_answer_is_the_reply(client: Tested, world: World) -> None:
    call(client, world, SET)
    answer(client, world, OK)
    assert world.replies == [Reply(OK, 7, world.sent[0][0])]
    assert not world.timers, "nothing is left behind"


def test_a_write_has_a_session_and_counts(client: Tested, world: World) -> None:
    for _ in range(2):
        call(client, world, SET)
        answer(client, world, OK)
    first, second = (message.operations[0] for _, message in world.sent if isinstance(message, Submit))
    assert first.session == second.session != 0
    assert (first.sequence, second.sequence) == (1, 2)


def test_a_lane_has_one_write_under_way(client: Tested, world: World) -> None:
    call(client, world, SET)
    call(client, world, (b"APPEND", b"k", b"w"))
    assert len(world.sent) == 1
    answer(client, world, OK)
    assert last(world)[1].operations[0].command[0] == b"APPEND"


def test_reads_wait_for_no_lane(client: Tested, world: World) -> None:
    call(client, world, SET)
    call(client, world, GET)
    assert last(world)[1].operations[0].command == GET
    assert last(world)[1].operations[0].session == 0


def test_it_goes_to_the_leader_and_remembers_it(client: Tested, world: World) -> None:
    call(client, world, SET)
    refuse(client, world, "s3/g1")
    assert last(world)[0] == "s3/g1"
    answer(client, world, OK)
    call(client, world, SET)
    assert last(world)[0] == "s3/g1"


def test_it_pauses_where_nobody_leads(client: Tested, world: World) -> None:
    call(client, world, SET)
    refuse(client, world)
    assert len(world.sent) == 1
    pass_time(client, world, 0.1)
    assert len(world.sent) == 2
    assert world.sent[0][0] != world.sent[1][0]


def test_a_silent_replica_is_given_up_and_the_same_operation_goes_elsewhere(
    client: Tested, world: World
) -> None:
    call(client, world, SET)
    pass_time(client, world, 1.1)
    (first, asked), (second, again) = world.sent
    assert isinstance(asked, Submit)
    assert isinstance(again, Submit)
    assert world.given_up == [first]
    assert first != second
    assert asked.operations == again.operations
    assert asked.number != again.number


def test_a_hint_to_a_silent_replica_is_not_followed_at_once(client: Tested, world: World) -> None:
    call(client, world, SET)
    silent = last(world)[0]
    pass_time(client, world, 1.1)
    sent = len(world.sent)
    refuse(client, world, silent)
    assert len(world.sent) == sent
    pass_time(client, world, 1.5)
    assert len(world.sent) > sent


def test_two_that_point_at_each_other_do_not_keep_it_busy(client: Tested, world: World) -> None:
    call(client, world, SET)
    for _ in range(20):
        peer, _ = last(world)
        refuse(client, world, "s2/g1" if peer != "s2/g1" else "s3/g1")
    assert len(world.sent) == 1 + Patience().hops_max


def test_a_late_answer_to_an_earlier_try_counts(client: Tested, world: World) -> None:
    call(client, world, SET)
    pass_time(client, world, 1.1)
    answer(client, world, OK, question=0)
    assert world.replies[0].outcome == OK


def test_a_peer_that_went_down_is_not_waited_for(client: Tested, world: World) -> None:
    call(client, world, SET)
    client.on_peer_down(world, last(world)[0])
    pass_time(client, world, 0.1)
    assert len(world.sent) == 2


def test_what_may_have_happened_is_unknown_at_the_deadline(client: Tested, world: World) -> None:
    call(client, world, SET, deadline_s=3.0)
    pass_time(client, world, 3.0)
    assert world.replies[0].outcome is None
    assert "silent" in world.replies[0].trouble
    assert not world.timers


@pytest.mark.parametrize(("reason", "known"), [("not leading", True), ("busy", True), ("left office", False)])
def test_what_was_turned_away_is_known_not_to_have_happened(
    client: Tested, world: World, reason: str, known: bool
) -> None:
    call(client, world, SET, deadline_s=0.015)
    refuse(client, world, "", reason)
    world.timers = {key: at for key, at in world.timers.items() if "again" not in key}  # type: ignore[operator]
    pass_time(client, world, 0.015)
    (reply,) = world.replies
    assert (reply.outcome is not None) == known
    if reply.outcome is not None:
        assert not reply.outcome.executed


def test_a_read_that_nobody_answered_did_not_happen(client: Tested, world: World) -> None:
    call(client, world, GET, deadline_s=3.0)
    pass_time(client, world, 3.0)
    outcome = world.replies[0].outcome
    assert outcome is not None
    assert not outcome.executed


def test_after_an_unknown_outcome_the_session_goes_on(client: Tested, world: World) -> None:
    call(client, world, SET, deadline_s=0.5)
    pass_time(client, world, 0.5)
    call(client, world, SET)
    assert last(world)[1].operations[0].sequence == 2


def test_stale_reads_are_spread_over_all_replicas(client: Tested, world: World) -> None:
    for _ in range(3):
        client.call(world, GET, lambda ctx, reply: None, stale=True)
        assert last(world)[1].stale
        answer(client, world, Outcome(b"v"))
    assert {peer for peer, _ in world.sent} == set(GROUP)


def test_pauses_double_are_spread_and_end_at_a_limit() -> None:
    patience = Patience(pause_s=0.1, pause_s_max=1.0)
    for failures, longest_s in [(1, 0.1), (2, 0.2), (4, 0.8), (5, 1.0), (1000, 1.0)]:
        pauses = [patience.pause(failures, Random(seed)) for seed in range(50)]
        assert longest_s / 2 <= min(pauses) < max(pauses) <= longest_s


def test_a_deadline_beyond_the_memory_of_sessions_is_refused() -> None:
    with pytest.raises(ValueError, match="deadline_s"):
        Patience(deadline_s=4000.0)


def test_a_status_is_handed_on_and_a_silent_replica_has_none(client: Tested, world: World) -> None:
    heard: list[Status | None] = []
    for replica in GROUP[:2]:
        client.status(world, replica, lambda ctx, status: heard.append(status))
    peer, question = world.sent[0]
    assert isinstance(question, AskStatus)
    told = Status(question.number, "g1", "leader", peer, "1", tuple(GROUP), 1, 1, 1, 1, 1, ())
    client.on_message(world, peer, told)
    pass_time(client, world, 2.0)
    assert heard == [told, None]


# --------------------------------------------------------------------------------------------------- sharded


@pytest.fixture
def sharded(world: World) -> Tested:
    """A client that has asked the controller, and been told."""
    client: Tested = Client(Sharded(["s1/ctl"]))
    call(client, world, GET)
    peer, question = last(world)
    assert (peer, question.operations[0].command) == ("s1/ctl", (b"BH.QUERY",))
    configuration = join(join(Configuration(), "g1", ["s1/g1"]), "g2", ["s2/g2", "s3/g2"])
    answer(client, world, Outcome(configuration.encode()))
    pass_time(client, world, 0.1)
    return client


def owner(client: Tested) -> str:
    return client.directory.group_of(slot_of(b"k"))


def test_it_learns_where_a_key_is(sharded: Tested, world: World) -> None:
    assert last(world)[0].endswith("/" + owner(sharded))


def test_moved_is_followed_and_the_controller_asked(sharded: Tested, world: World) -> None:
    pass_time(sharded, world, 0.5)
    other = "s2/g2" if owner(sharded) == "g1" else "s1/g1"
    sent = len(world.sent)
    answer(sharded, world, Outcome(failure=f"MOVED {slot_of(b'k')} {other}"))
    following = [(peer, message.operations[0].command[0]) for peer, message in world.sent[sent:]]  # type: ignore[attr-defined]
    assert following == [("s1/ctl", b"BH.QUERY"), (other, b"GET")]
    assert owner(sharded) == other.partition("/")[2]


def test_ask_is_followed_once_and_changes_no_map(sharded: Tested, world: World) -> None:
    before = owner(sharded)
    other = "s2/g2" if before == "g1" else "s1/g1"
    answer(sharded, world, Outcome(failure=f"ASK {slot_of(b'k')} {other}"))
    peer, question = last(world)
    assert (peer, question.asking) == (other, True)
    assert owner(sharded) == before


def test_try_again_is_tried_again(sharded: Tested, world: World) -> None:
    sent = len(world.sent)
    answer(sharded, world, Outcome(failure="TRYAGAIN the slot is on its way"))
    assert len(world.sent) == sent
    pass_time(sharded, world, world.now + 0.2)
    assert len(world.sent) == sent + 1
