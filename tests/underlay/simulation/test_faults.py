"""Faults: crash and restart, pause, cuts, partitions, degraded links, and the routes that follow them."""

import pytest

from tests.underlay.simulation.actors import Actor, Note, about, events, heard, heard_at, says, usage
from underlay.errors import InputError
from underlay.faults import (
    AnyFault,
    Crash,
    Degrade,
    Heal,
    LinkDown,
    LinkUp,
    OneWayCut,
    Partition,
    Pause,
    Restart,
    Resume,
)
from underlay.link import LinkSpec
from underlay.simulation import Simulation, World, plan_of

SQUARE = [("a", "b"), ("b", "c"), ("c", "d"), ("d", "a")]


def talkers(
    *faults: tuple[float, AnyFault], duration_s: float = 10.0, route_convergence_s: float | None = 5.0
) -> World:
    """On a ring a-b-c-d, a tells b and c each half second what time it is, and b tells a."""
    to_others = {t / 2: says("c/x", Note(f"{t / 2}")) for t in range(1, 40)}
    to_b = {t / 2 + 0.1: says("b/x", Note(f"{t / 2}")) for t in range(1, 40)}
    to_a = {t / 2: says("a/x", Note(f"{t / 2}")) for t in range(1, 40)}
    plan = plan_of(
        {
            "a": {"x": lambda: Actor({**to_others, **to_b})},
            "b": {"x": lambda: Actor(to_a)},
            "c": {"x": Actor},
            "d": {},
        },
        SQUARE,
        faults=faults,
        route_convergence_s=route_convergence_s,
    )
    world = Simulation.from_plan(plan)
    world.run_until(duration_s)
    return world


def gaps(world: World, address: str) -> list[float]:
    """The seconds at which what was said did not arrive."""
    told = {float(text) for text in heard(world, address)}
    return [t / 2 for t in range(1, int(world.now * 2)) if t / 2 not in told]


def test_a_crashed_device_is_silent_deaf_and_does_not_forward() -> None:
    """Routes a-c by way of b until they follow the crash, 1 s later."""
    world = talkers((2.9, Crash("b")), route_convergence_s=1.0)
    assert gaps(world, "c/x") == [3.0, 3.5]
    assert gaps(world, "a/x") == [t / 2 for t in range(6, 20)]
    with pytest.raises(KeyError, match="is down"):
        world.node("b/x")


def test_a_restart_is_a_new_incarnation_with_fresh_memory() -> None:
    world = talkers((2.9, Crash("b")), (4.9, Restart("b")), route_convergence_s=1.0)
    assert [t_s > 4.9 for t_s in heard_at(world, "b/x")].count(False) == 0
    started = [
        (record["t"], record["incarnation"])
        for record in events(world, "node-started")
        if record["device"] == "b"
    ]
    assert started == [(0.0, 1), (4.9, 2)]
    assert gaps(world, "a/x") == [3.0, 3.5, 4.0, 4.5, 5.0, 5.5], "routes to b are back at 5.9"


def test_incarnations_have_random_streams_of_their_own() -> None:
    world = talkers(duration_s=0.0)
    first = world.endpoints["b/x"].live
    assert first is not None
    before = [first.rng.random() for _ in range(3)]
    world.apply(Crash("b"))
    world.apply(Restart("b"))
    second = world.endpoints["b/x"].live
    assert second is not None
    assert before != [second.rng.random() for _ in range(3)]


def test_without_convergence_routes_never_follow() -> None:
    assert gaps(talkers((2.9, Crash("b")), route_convergence_s=None), "c/x") == [t / 2 for t in range(6, 20)]


def test_routes_follow_a_change_after_the_convergence_time_and_say_so() -> None:
    world = talkers((2.9, LinkDown("a", "b")), route_convergence_s=2.0)
    assert gaps(world, "b/x") == [3.0, 3.5, 4.0, 4.5]
    assert [record["t"] for record in events(world, "routes-changed")] == [4.9]
    world.apply(LinkUp("a", "b"))
    world.run_until(13.0)
    before = usage(world, "a", "d", "frames")
    world.run_until(15.0)
    world.finish()
    assert usage(world, "a", "d", "frames") == before


def test_faults_of_one_moment_share_one_recomputation() -> None:
    world = talkers((2.9, Crash("b")), (2.9, Crash("d")), route_convergence_s=1.0)
    assert [record["t"] for record in events(world, "routes-changed")] == [3.9]


def test_a_one_way_cut_leaves_the_other_way() -> None:
    world = talkers((2.9, OneWayCut("a", "b")), (4.9, LinkUp("a", "b")), route_convergence_s=None)
    assert gaps(world, "b/x") == [3.0, 3.5, 4.0, 4.5]
    assert gaps(world, "a/x") == []
    assert usage(world, "a", "b", "cut") == 8  # those to b, and those that b would have forwarded to c


def test_a_partition_separates_the_groups_until_it_heals() -> None:
    world = talkers((2.9, Partition((("a", "b"),))), (4.9, Heal()), route_convergence_s=0.0)
    assert gaps(world, "c/x") == [3.0, 3.5, 4.0, 4.5]
    assert gaps(world, "a/x") == gaps(world, "b/x") == []


def test_what_is_under_way_when_a_link_is_cut_is_lost() -> None:
    slow = LinkSpec(delay_ms=500.0)
    plan = plan_of(
        {"a": {"x": lambda: Actor({1.0: says("b/x", Note())})}, "b": {"x": Actor}},
        [("a", "b", slow)],
        faults=[(1.2, LinkDown("a", "b")), (1.3, LinkUp("a", "b"))],
    )
    world = Simulation.from_plan(plan)
    world.run_until(3.0)
    world.finish()
    assert heard(world, "b/x") == []
    assert (usage(world, "a", "b", "frames"), usage(world, "a", "b", "cut")) == (1, 1)


def test_a_pause_delays_what_arrives_and_what_is_due() -> None:
    plan = plan_of(
        {
            "a": {"x": lambda: Actor({2.0: says("b/x", Note("2"))})},
            "b": {"x": lambda: Actor({3.0: says("a/x", Note("3"))})},
        },
        [("a", "b")],
        faults=[(1.0, Pause("b")), (5.0, Resume("b"))],
    )
    world = Simulation.from_plan(plan)
    world.run_until(6.0)
    assert heard_at(world, "b/x") == [5.0]
    assert heard_at(world, "a/x") == [about(5.0 + (28 + 4) * 8e-6 + 0.010)]


def test_a_paused_device_still_forwards() -> None:
    assert gaps(talkers((2.9, Pause("b"))), "c/x") == []


def test_a_paused_node_keeps_no_more_than_its_socket_buffer() -> None:
    plan = plan_of(
        {"a": {"x": lambda: Actor({2.0: says("b/x", Note(), times=300)})}, "b": {"x": Actor}},
        [("a", "b")],
        faults=[(1.0, Pause("b")), (9.0, Resume("b"))],
    )
    world = Simulation.from_plan(plan)
    world.run_until(10.0)
    assert len(heard(world, "b/x")) == 256


def test_degrading_changes_both_directions_and_restores() -> None:
    world = talkers(
        (2.9, Degrade("a", "b", {"delay_ms": 200.0})), (4.9, Degrade("a", "b", {})), route_convergence_s=None
    )
    delays = [round(t_s % 0.5 - 0.1, 3) for t_s in heard_at(world, "b/x")]
    assert sorted(set(delays)) == [0.01, 0.2]
    assert delays.count(0.2) == 4


def test_each_fault_is_in_the_trace_with_its_fields() -> None:
    world = talkers((1.0, OneWayCut("a", "b")), (2.0, Heal()))
    assert [(record["t"], record["fault"]) for record in events(world, "fault-applied")] == [
        (1.0, {"fault": "one-way-cut", "source": "a", "target": "b"}),
        (2.0, {"fault": "heal"}),
    ]


def test_crashing_what_is_down_and_restarting_what_is_up_change_nothing() -> None:
    world = talkers((1.0, Restart("b")), (2.9, Crash("b")), (3.0, Crash("b")), (4.9, Restart("b")))
    assert [record["incarnation"] for record in events(world, "node-started") if record["device"] == "b"] == [
        1,
        2,
    ]


@pytest.mark.parametrize(
    ("fault", "problem"),
    [
        (Crash("hubb"), "unknown device 'hubb'"),
        (LinkDown("a", "c"), "a-c, but they are no neighbours"),
        (Partition((("a", "z"),)), "unknown device 'z'"),
    ],
    ids=str,
)
def test_a_fault_that_names_what_is_not_there_is_an_input_error(fault: AnyFault, problem: str) -> None:
    with pytest.raises(InputError, match=problem):
        talkers(duration_s=0.0).apply(fault)


def test_a_device_that_crashes_loses_its_local_messages_and_timers() -> None:
    script = {1.0: says("a/y", Note("lost")), 2.0: says("a/y", Note("kept"))}
    world = Simulation.from_plan(plan_of({"a": {"x": lambda: Actor(script), "y": Actor}}))
    world.agenda.at(1.0, lambda *_: world.apply(Crash("a")))  # due after the timer, before what it sends
    world.agenda.at(1.0, lambda *_: world.apply(Restart("a")))
    world.run_until(3.0)
    assert heard(world, "a/y") == ["lost", "kept"], "the new incarnation's timer was due at once"
