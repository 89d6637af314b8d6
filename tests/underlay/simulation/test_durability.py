"""The store: atomic batches, group commit, and the promise that no send overtakes the writes it follows."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.underlay.simulation.actors import Actor, Note, Thought, about, heard, heard_at, says
from underlay.faults import Crash, Pause, Restart, Resume
from underlay.node import Context, Node
from underlay.simulation import Simulation, World, plan_of

TRIP_S = (28 + 4) * 8e-6 + 0.010
"""A note of one letter over the wire."""


def writer(
    *steps: tuple[float, Callable[[Context], object]],
    faults: tuple[tuple[float, object], ...] = (),
    seed: int = 1,
) -> World:
    """A node on a does the steps; a sync takes 100 ms; b listens."""
    plan = plan_of(
        {"a": {"x": lambda: Actor(dict(steps))}, "b": {"x": Actor}},
        [("a", "b")],
        faults=faults,  # type: ignore[arg-type]
        disk_sync_ms=100.0,
        seed=seed,
    )
    world = Simulation.from_plan(plan)
    world.run_until(20.0)
    return world


def put(key: bytes, value: bytes = b"v") -> Callable[[Context], object]:
    return lambda ctx: ctx.store.put(key, value)


def test_a_send_before_the_write_leaves_at_once_and_one_after_it_waits() -> None:
    def step(ctx: Context) -> None:
        ctx.send("b/x", Note("1"))
        ctx.store.put(b"k", b"v")
        ctx.send("b/x", Note("2"))

    world = writer((1.0, step))
    assert heard(world, "b/x") == ["1", "2"]
    assert heard_at(world, "b/x") == [about(1.0 + TRIP_S), about(1.1 + TRIP_S)]


def test_a_later_handler_sends_nothing_before_the_earlier_write_is_durable() -> None:
    world = writer((1.0, put(b"k")), (1.05, says("b/x", Note("1"))), (1.5, says("b/x", Note("2"))))
    assert heard_at(world, "b/x") == [about(1.1 + TRIP_S), about(1.5 + TRIP_S)]


def test_writes_during_a_sync_share_the_next_one() -> None:
    def write_and_tell(key: bytes) -> Callable[[Context], object]:
        def step(ctx: Context) -> None:
            ctx.store.put(key, b"v")
            ctx.send("b/x", Note(key.decode()))

        return step

    world = writer((1.0, write_and_tell(b"1")), (1.02, write_and_tell(b"2")), (1.07, write_and_tell(b"3")))
    assert heard(world, "b/x") == ["1", "2", "3"]
    times = [about(1.1 + TRIP_S), about(1.2 + TRIP_S), about(1.2 + TRIP_S + 32 * 8e-6)]
    assert heard_at(world, "b/x") == times


def test_when_durable_tells_the_node_itself() -> None:
    def step(ctx: Context) -> None:
        ctx.store.put(b"k", b"v")
        ctx.when_durable(Thought("durable"))

    world = writer((1.0, step), (2.0, lambda ctx: ctx.when_durable(Thought("nothing to wait for"))))
    assert heard_at(world, "a/x") == [about(1.1), 2.0]


@pytest.mark.sweep(20)
def test_a_crash_in_a_sync_leaves_it_whole_or_not_at_all_and_nobody_is_told(seed: int) -> None:
    def step(ctx: Context) -> None:
        ctx.store.put(b"one", b"v")
        ctx.store.put(b"two", b"v")
        ctx.send("b/x", Note("never"))
        ctx.when_durable(Thought("never"))

    steps = (1.0, put(b"kept")), (2.0, step), (2.04, put(b"waits for the next sync"))
    world = writer(*steps, faults=((2.05, Crash("a")), (2.06, Restart("a"))), seed=seed)
    written = {b"one": b"v", b"two": b"v"}
    assert world.durable("a/x") in ({b"kept": b"v"}, {b"kept": b"v", **written})
    assert heard(world, "b/x") == heard(world, "a/x") == []


def test_what_was_durable_is_in_the_store_at_the_restart() -> None:
    found: list[list[tuple[bytes, bytes]]] = []

    class Reader(Node):
        def on_start(self, ctx: Context) -> None:
            found.append(list(ctx.store.scan()))
            ctx.store.put(b"%d" % len(found), b"v")

    plan = plan_of({"a": {"x": Reader}}, faults=[(1.0, Crash("a")), (2.0, Restart("a"))])
    Simulation.from_plan(plan).run_until(3.0)
    assert found == [[], [(b"1", b"v")]]


def test_a_sync_that_ends_during_a_pause_lets_go_after_it() -> None:
    def step(ctx: Context) -> None:
        ctx.store.put(b"k", b"v")
        ctx.send("b/x", Note("1"))

    world = writer((1.0, step), faults=((1.05, Pause("a")), (5.0, Resume("a"))))
    assert heard_at(world, "b/x") == [about(5.0 + TRIP_S)]
    assert world.durable("a/x") == {b"k": b"v"}


def test_nodes_of_a_device_share_a_sync_but_not_a_store() -> None:
    plan = plan_of(
        {"a": {"x": lambda: Actor({1.0: put(b"k", b"x")}), "y": lambda: Actor({1.0: put(b"k", b"y")})}},
        disk_sync_ms=100.0,
        faults=[(1.11, Crash("a"))],
    )
    world = Simulation.from_plan(plan)
    world.run_until(2.0)
    assert (world.durable("a/x"), world.durable("a/y")) == ({b"k": b"x"}, {b"k": b"y"})


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 9)), min_size=1, max_size=30), st.integers(0, 300)
)
def test_a_peer_never_knows_of_a_write_that_a_crash_undid(
    steps: list[tuple[int, int]], crash_ms: int
) -> None:
    """Each step writes a counter and tells b; whatever b heard must have survived the crash."""
    script: dict[float, Callable[[Context], object]] = {}
    for number, (pause, _) in enumerate(steps):
        t_s = 1.0 + sum(waited for waited, _ in steps[:number]) * 0.01 + number * 1e-4 + pause * 0.01

        def step(ctx: Context, number: int = number) -> None:
            ctx.store.put(b"n", b"%d" % number)
            ctx.send("b/x", Note(str(number)))

        script[t_s] = step
    plan = plan_of(
        {"a": {"x": lambda: Actor(script)}, "b": {"x": Actor}},
        [("a", "b")],
        faults=[(1.0 + crash_ms * 1e-3, Crash("a"))],
        disk_sync_ms=17.0,
    )
    world = Simulation.from_plan(plan)
    world.run_until(5.0)
    durable = int(world.durable("a/x").get(b"n", b"-1"))
    assert [int(text) for text in heard(world, "b/x")] == list(range(len(heard(world, "b/x"))))
    assert len(heard(world, "b/x")) - 1 <= durable
