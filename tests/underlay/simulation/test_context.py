"""What a handler may touch: timers, clocks, local messages, bindings and programs, declared work, emit."""

import pytest

from tests.underlay.simulation.actors import (
    Actor,
    Note,
    Thought,
    about,
    actor,
    events,
    heard,
    heard_at,
    says,
    usage,
)
from underlay.clock import DeviceClock
from underlay.faults import Crash, Pause, Restart, Resume
from underlay.messages import Message, Protocol
from underlay.node import Address, Context, Node, Timer, Work, WorkFailed
from underlay.plan import Binding, BindingPlan, ProgramPlan
from underlay.simulation import Simulation, World, plan_of
from underlay.trace import Malformed


class Alarms(Node):
    """Sets the timers it is given at its start; remembers which rang when."""

    protocol = Protocol("alarms")

    def __init__(self) -> None:
        self.rang: list[tuple[Timer, float]] = []

    def on_start(self, ctx: Context) -> None:
        ctx.set_timer("moved", 1.0)
        ctx.set_timer("moved", 2.0)
        ctx.set_timer("cancelled", 1.0)
        ctx.set_timer(("any", "hashable"), 3.0)
        ctx.set_timer("past", -5.0)
        ctx.cancel_timer("cancelled")
        ctx.cancel_timer("unknown")

    def on_timer(self, ctx: Context, timer: Timer) -> None:
        self.rang.append((timer, ctx.now))


def test_a_timer_rings_once_may_be_moved_and_may_be_cancelled() -> None:
    world = Simulation.from_plan(plan_of({"a": {"x": Alarms}}))
    world.run_until(10.0)
    node = world.node("a/x")
    assert isinstance(node, Alarms)
    assert node.rang == [("past", 0.0), ("moved", 2.0), (("any", "hashable"), 3.0)]


def test_a_device_sees_its_own_clock_and_its_timers_follow_it() -> None:
    """A clock that runs 10 % fast and 100 s ahead: 11 of its seconds are 10 global ones."""
    script = {111.0: says("b/x", Note("hi"))}
    plan = plan_of(
        {"a": {"x": lambda: Actor(script)}, "b": {"x": Actor}},
        [("a", "b")],
        clocks={"a": DeviceClock(offset_s=100.0, drift_ppm=100_000.0)},
    )
    world = Simulation.from_plan(plan)
    world.run_until(20.0)
    assert heard_at(world, "b/x") == [about(10.0 + (28 + 5) * 8e-6 + 0.010)]


def test_a_local_message_arrives_after_the_handler_at_the_same_time_and_costs_nothing() -> None:
    order: list[str] = []

    def step(ctx: Context) -> None:
        ctx.send("a/y", Thought("hi"))
        order.append("handler over")

    def listen(ctx: Context, sender: Address, message: Message) -> None:
        order.append(f"{sender} at {ctx.now}")

    plan = plan_of({"a": {"x": lambda: Actor({1.0: step}), "y": lambda: Actor(answers=listen)}})
    world = Simulation.from_plan(plan)
    world.run_until(2.0)
    world.finish()
    assert order == ["handler over", "a/x at 1.0"]
    assert events(world, "messages-sent") == []


def never() -> Binding:
    raise AssertionError("the simulation runs models, not engines")


def answer(ctx: Context, sender: Address, message: Message) -> None:
    assert isinstance(message, Thought)
    ctx.send(sender, Thought(f"re: {message.text}"))


def test_a_binding_is_reached_by_its_name_and_answers_under_it() -> None:
    binding = BindingPlan("@mqtt", model=lambda: Actor(answers=answer), engine=never, port=1883)
    plan = plan_of(
        {"a": {"x": lambda: Actor({1.0: says("@mqtt", Thought("hi"))})}}, bindings={"a": [binding]}
    )
    world = Simulation.from_plan(plan)
    world.run_until(2.0)
    assert actor(world, "a/x").heard == [(1.0, "@mqtt", Thought("re: hi"))]
    assert [record["node"] for record in events(world, "node-started")] == ["x"]


def test_a_program_and_a_binding_talk_over_the_network_through_their_models() -> None:
    binding = BindingPlan(
        "@mqtt", model=lambda: Actor({1.0: says("hub/broker", Note("hi"))}), engine=never, port=1883
    )
    program = ProgramPlan("broker", ("mosquitto",), model=Actor)
    plan = plan_of(
        {"a": {}, "hub": {}}, [("a", "hub")], bindings={"a": [binding]}, programs={"hub": [program]}
    )
    world = Simulation.from_plan(plan)
    world.run_until(2.0)
    assert actor(world, "hub/broker").heard[0][1:] == ("a/@mqtt", Note("hi"))
    assert usage(world, "a", "hub", "frames") == 1


def echo(text: str) -> Message:
    """Work that succeeds."""
    return Thought(text)


def fail() -> Message:
    """Work that does not."""
    raise ValueError("no such image")


def working(
    *steps: tuple[float, str, Work | None],
    faults: tuple[tuple[float, Crash | Restart | Pause | Resume], ...] = (),
) -> World:
    """A node that starts (or, with None, cancels) work of that key at those times."""

    def step(key: str, work: Work | None) -> object:
        return lambda ctx: ctx.run(key, work) if work else ctx.cancel_run(key)

    script = {t_s: step(key, work) for t_s, key, work in steps}
    world = Simulation.from_plan(plan_of({"a": {"x": lambda: Actor(script)}}, faults=faults))  # type: ignore[arg-type]
    world.run_until(20.0)
    return world


def test_work_costs_what_it_declares_and_its_result_is_a_message() -> None:
    world = working((1.0, "k", Work(echo, ("done",), cost_s=2.5)))
    assert actor(world, "a/x").heard == [(3.5, "@run", Thought("done"))]


def test_a_device_does_one_piece_of_work_after_another() -> None:
    world = working((1.0, "k", Work(echo, ("1",), cost_s=2.0)), (1.5, "l", Work(echo, ("2",), cost_s=2.0)))
    assert heard_at(world, "a/x") == [3.0, 5.0]


def test_work_that_raises_is_reported() -> None:
    world = working((1.0, "k", Work(fail)))
    assert actor(world, "a/x").heard == [(1.0, "@run", WorkFailed("k", "ValueError: no such image"))]


def test_cancelled_replaced_and_crashed_work_has_no_result() -> None:
    slow = Work(echo, ("slow",), cost_s=2.0)
    assert heard(working((1.0, "k", slow), (2.0, "k", None)), "a/x") == []
    assert heard(working((1.0, "k", slow), (2.0, "k", Work(echo, ("new",)))), "a/x") == ["new"]
    assert heard(working((1.0, "k", slow), faults=((2.0, Crash("a")), (2.5, Restart("a")))), "a/x") == []


def test_work_that_ends_during_a_pause_is_delivered_after_it() -> None:
    world = working(
        (1.0, "k", Work(echo, cost_s=1.0, args=("done",))), faults=((1.5, Pause("a")), (7.0, Resume("a")))
    )
    assert heard_at(world, "a/x") == [7.0]


def test_what_a_node_emits_is_in_the_trace_under_its_name_at_global_time() -> None:
    script = {111.0: lambda ctx: ctx.emit(Malformed("b", "noise"))}
    plan = plan_of({"a": {"x": lambda: Actor(script)}}, clocks={"a": DeviceClock(offset_s=110.0)})
    world = Simulation.from_plan(plan)
    world.run_until(2.0)
    (record,) = events(world, "malformed")
    assert record == {
        "t": 1.0,
        "device": "a",
        "node": "x",
        "event": "malformed",
        "sender": "b",
        "reason": "noise",
    }


def test_what_a_handler_raises_comes_out_with_the_time_and_the_seed() -> None:
    def step(ctx: Context) -> None:
        raise ZeroDivisionError

    world = Simulation.from_plan(plan_of({"a": {"x": lambda: Actor({1.5: step})}}, seed=42))
    with pytest.raises(ZeroDivisionError) as raised:
        world.run_until(2.0)
    assert raised.value.__notes__ == ["at 1.500000 s of a simulation with seed 42"]


def test_an_injected_message_arrives_as_if_from_the_device_itself() -> None:
    world = Simulation.from_plan(plan_of({"a": {"x": Actor}}))
    world.run_until(2.0)
    world.inject("a/x", Thought("hello"))
    world.run_until(2.0)
    assert actor(world, "a/x").heard == [(2.0, "@test", Thought("hello"))]
