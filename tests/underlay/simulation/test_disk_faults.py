"""What can happen to a disk: slow, failing, lost, rotten; and the commit that a crash cuts short."""

from collections.abc import Callable

import pytest

from tests.underlay.simulation.actors import Actor, Letter, Note, about, events, heard, says
from underlay.faults import AnyFault, Crash, FailDisk, LoseDisk, Restart, RotDisk, SlowDisk
from underlay.node import Context, Node
from underlay.simulation import Simulation, World, plan_of

Step = tuple[float, Callable[[Context], object]]


class Reader(Actor):
    """Remembers what it found in its store when it started."""

    def __init__(self, found: list[dict[bytes, bytes]], *steps: Step) -> None:
        super().__init__(dict(steps))
        self._found = found

    def on_start(self, ctx: Context) -> None:
        self._found.append(dict(ctx.store.scan()))
        super().on_start(ctx)


def writer(
    *steps: Step, faults: tuple[tuple[float, AnyFault], ...] = (), seed: int = 1
) -> tuple[World, list[dict[bytes, bytes]]]:
    """A node on a does the steps; a sync takes 100 ms; b listens. What a found at each start."""
    found: list[dict[bytes, bytes]] = []
    plan = plan_of(
        {"a": {"x": lambda: Reader(found, *steps)}, "b": {"x": Actor}},
        [("a", "b")],
        faults=faults,
        disk_sync_ms=100.0,
        seed=seed,
    )
    world = Simulation.from_plan(plan)
    world.run_until(20.0)
    return world, found


def put(key: bytes, value: bytes = b"value") -> Callable[[Context], object]:
    def step(ctx: Context) -> None:
        ctx.store.put(key, value)
        ctx.send("b/x", Note(key.decode()))

    return step


def test_what_a_crash_does_to_the_commit_under_way_is_by_the_seed() -> None:
    """Whole, not at all, or torn: found at the next start, and said in the trace."""
    outcomes = set()
    for seed in range(30):
        cut = (2.05, Crash("a")), (3.0, Restart("a"))
        world, found = writer((1.0, put(b"old")), (2.0, put(b"new")), faults=cut, seed=seed)
        outcomes.add((b"new" in found[1], len(events(world, "torn-write"))))
        assert heard(world, "b/x") == ["old"]
    assert outcomes == {(True, 0), (False, 0), (False, 1)}


def test_a_slow_disk_keeps_waiting_what_must_be_durable_first() -> None:
    slow = (1.5, SlowDisk("a", 10.0)), (4.5, SlowDisk("a", 1.0))
    world, _ = writer((1.0, put(b"1")), (2.0, put(b"2")), (5.0, put(b"3")), faults=slow)
    times = [t_s for t_s, _, _ in world.node("b/x").heard]  # type: ignore[attr-defined]
    assert [round(t_s - 0.01, 1) for t_s in times] == [1.1, 3.0, 5.1]


def test_a_failing_disk_ends_the_nodes_until_the_restart() -> None:
    """The write that failed is there or not, but nobody was told."""
    bad = (1.5, FailDisk("a")), (4.0, Restart("a"))
    world, found = writer((1.0, put(b"1")), (2.0, put(b"2")), (3.0, put(b"3")), (5.0, put(b"5")), faults=bad)
    assert heard(world, "b/x") == ["1", "5"]
    assert found[1] in ({b"1": b"value"}, {b"1": b"value", b"2": b"value"})
    (ended,) = events(world, "process-ended")
    assert (ended["device"], ended["program"], ended["t"]) == ("a", "nodes", about(2.1))
    assert [record["incarnation"] for record in events(world, "node-started")][-1] == 2


def test_a_process_that_ends_is_noticed_by_its_peers_unlike_a_power_cut() -> None:
    def downs(*faults: tuple[float, AnyFault]) -> list[tuple[float, str]]:
        script = {0.5: says("a/x", Letter(0)), 1.0: lambda ctx: ctx.store.put(b"k", b"v")}
        plan = plan_of(
            {"a": {"x": lambda: Actor({1.0: script[1.0]})}, "b": {"x": lambda: Actor({0.5: script[0.5]})}},
            [("a", "b")],
            faults=faults,
            disk_sync_ms=100.0,
        )
        world = Simulation.from_plan(plan)
        world.run_until(5.0)
        down: list[tuple[float, str]] = world.node("b/x").down  # type: ignore[attr-defined]
        return down

    assert [(round(t_s, 1), peer) for t_s, peer in downs((0.9, FailDisk("a")))] == [(1.1, "a/x")]
    assert downs((1.1, Crash("a"))) == []


def test_a_device_whose_nodes_ended_still_forwards_and_can_lose_its_power() -> None:
    plan = plan_of(
        {
            "a": {"x": lambda: Actor({4.0: says("c/x", Note("through"))})},
            "b": {"x": lambda: Actor({1.0: lambda ctx: ctx.store.put(b"k", b"v")})},
            "c": {"x": Actor},
        },
        [("a", "b"), ("b", "c")],
        faults=[(0.5, FailDisk("b")), (6.0, Crash("b")), (7.0, Restart("b"))],
    )
    world = Simulation.from_plan(plan)
    world.run_until(5.0)
    assert heard(world, "c/x") == ["through"]
    with pytest.raises(KeyError, match="is down"):
        world.node("b/x")
    world.run_until(8.0)
    world.node("b/x")


@pytest.mark.parametrize("when_s", [1.5, 2.5], ids=["while it runs", "while it is down"])
def test_a_lost_disk_is_empty_at_the_next_start_only(when_s: float) -> None:
    faults = (when_s, LoseDisk("a")), (2.0, Crash("a")), (3.0, Restart("a")), (5.0, Crash("a"))
    world, found = writer((1.0, put(b"1")), (4.0, put(b"4")), faults=(*faults, (6.0, Restart("a"))))
    assert found == [{}, {}, {b"4": b"value"}]
    assert heard(world, "b/x") == ["1", "4"]


@pytest.mark.parametrize("when_s", [1.5, 2.5], ids=["while it runs", "while it is down"])
def test_rot_flips_one_bit_that_is_found_at_the_next_start(when_s: float) -> None:
    faults = (when_s, RotDisk("a")), (2.0, Crash("a")), (3.0, Restart("a"))
    _, found = writer((1.0, put(b"k", b"\0" * 8)), faults=faults)
    assert found[1][b"k"].count(0) == 7
    assert sum(found[1][b"k"]).bit_count() == 1


def test_rot_of_an_empty_disk_and_faults_of_devices_without_nodes_change_nothing() -> None:
    plan = plan_of({"a": {"x": Node}, "b": {}}, [("a", "b")])
    world = Simulation.from_plan(plan)
    for fault in (RotDisk("a"), RotDisk("b"), FailDisk("b"), LoseDisk("b"), SlowDisk("b", 2.0)):
        world.apply(fault)
    world.run_until(1.0)
    assert events(world, "routes-changed") == []


def test_a_restart_of_what_runs_lets_a_disk_work_that_would_have_failed() -> None:
    faults = (0.5, FailDisk("a")), (0.9, Restart("a"))
    world, found = writer((1.0, put(b"1")), faults=faults)
    assert heard(world, "b/x") == ["1"]
    assert len(found) == 1
