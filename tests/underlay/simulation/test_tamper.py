"""Rules about messages above the transport: lost, doubled, delayed."""

from collections import Counter

import pytest

from tests.underlay.simulation.actors import Actor, Letter, Note, Thought, actor, heard, says
from underlay.messages import Message
from underlay.node import Address, Context
from underlay.simulation import Rule, Simulation, World, plan_of


def talk(*rules: Rule, seed: int = 1) -> World:
    """Over a stream a sends b 1000 letters, 10 a second; b answers each with one of its number + 1000."""

    def answer(ctx: Context, sender: Address, message: Message) -> None:
        assert isinstance(message, Letter)
        ctx.send(sender, Letter(message.number + 1000))

    script = {1.0 + n / 10: says("b/x", Letter(n)) for n in range(1000)}
    plan = plan_of(
        {"a": {"x": lambda: Actor(script)}, "b": {"x": lambda: Actor(answers=answer)}},
        [("a", "b")],
        seed=seed,
    )
    world = Simulation.from_plan(plan, tamper=rules)
    world.run_until(200.0)
    return world


def numbers(world: World, address: Address) -> list[int]:
    return [message.number for _, _, message in actor(world, address).heard if isinstance(message, Letter)]


@pytest.mark.sweep(3)
def test_requests_and_answers_of_a_stream_get_lost_by_their_own_rules(seed: int) -> None:
    rules = Rule(target="b/*", lost_ratio=0.1), Rule(source="b/*", lost_ratio=0.18)
    world = talk(*rules, seed=seed)
    executed, answered = numbers(world, "b/x"), numbers(world, "a/x")
    assert len(executed) == pytest.approx(900, abs=40)
    assert len(answered) == pytest.approx(0.82 * len(executed), abs=50)
    assert executed == sorted(executed)
    assert actor(world, "a/x").down == [], "the stream itself lives on"


def test_some_are_doubled_and_some_are_late_enough_to_be_overtaken() -> None:
    world = talk(Rule((Letter,), "a/x", "b/x", duplicated_ratio=0.2, delayed_ratio=0.1, delay_s=0.5))
    arrived = numbers(world, "b/x")
    times = Counter(arrived)
    assert set(times) == set(range(1000))
    assert list(times.values()).count(2) == pytest.approx(200, abs=50)
    assert arrived != sorted(arrived)
    assert len(numbers(world, "a/x")) == len(arrived), "answers are not the rule's"


def test_a_rule_holds_in_its_time_and_the_first_that_holds_counts() -> None:
    rules = (
        Rule((Letter,), target="b/x", lost_ratio=1.0, from_s=20.95, to_s=40.95),
        Rule((Letter,), target="b/x", lost_ratio=1.0, to_s=10.95),
        Rule((Note,), lost_ratio=1.0),
    )
    lost = sorted(set(range(1000)) - set(numbers(talk(*rules), "b/x")))
    assert lost == [*range(100), *range(200, 400)]


def test_the_same_seed_loses_the_same_messages() -> None:
    rule = Rule(lost_ratio=0.3, duplicated_ratio=0.3, delayed_ratio=0.3)
    first, again, other = (talk(rule, seed=seed) for seed in (1, 1, 2))
    assert first.records() == again.records()
    assert numbers(first, "b/x") == numbers(again, "b/x") != numbers(other, "b/x")


def test_what_stays_on_a_device_is_left_alone() -> None:
    script = {1.0: says("a/y", Thought("hi"))}
    plan = plan_of({"a": {"x": lambda: Actor(script), "y": Actor}})
    world = Simulation.from_plan(plan, tamper=[Rule(lost_ratio=1.0)])
    world.run_until(2.0)
    assert heard(world, "a/y") == ["hi"]
