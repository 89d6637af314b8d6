"""The server between clients and a replication: what it refuses, reads, orders, and answers."""

from kv.messages import Answered, AskStatus, NotHere, Status, Submit
from kv.operations import OK, Operation, Outcome
from kv.server import VALUE_BYTES_MAX, Server
from tests.kv.small import Ask, Asker, SmallMachine, submit
from tests.kv.solo import Solo
from underlay.faults import Crash, Restart
from underlay.simulation import World, plan_of


def service() -> World:
    """A group of one on `s`, an asker on `c`."""
    plan = plan_of(
        {"s": {"g1": lambda: Server("g1", Solo, SmallMachine())}, "c": {"asker": Asker}}, [("s", "c")]
    )
    return World(plan, check_codec=True)


def ask(world: World, question: Submit | AskStatus, wait_s: float = 1.0) -> None:
    world.inject("c/asker", Ask("s/g1", question))
    world.run_until(world.now + wait_s)


def answer(world: World, number: int) -> Answered | NotHere | Status:
    node = world.node("c/asker")
    assert isinstance(node, Asker)
    (only,) = node.answers[number]
    return only


def outcomes(world: World, number: int) -> tuple[Outcome, ...]:
    answered = answer(world, number)
    assert isinstance(answered, Answered)
    return answered.outcomes


def test_a_question_that_mixes_writes_and_reads_is_executed_in_order() -> None:
    world = service()
    ask(world, submit(1, (b"SET", b"a", b"1"), (b"GET", b"a"), (b"APPEND", b"a", b"2"), (b"GET", b"a")))
    assert outcomes(world, 1) == (OK, Outcome(b"1"), Outcome(2), Outcome(b"12"))


def test_reads_alone_cost_no_entry() -> None:
    world = service()
    ask(world, submit(1, (b"SET", b"a", b"1")))
    ask(world, submit(2, (b"GET", b"a"), (b"GET", b"b")))
    ask(world, AskStatus(3))
    assert outcomes(world, 2) == (Outcome(b"1"), Outcome(None))
    status = answer(world, 3)
    assert isinstance(status, Status)
    assert (status.group, status.role, status.chosen, status.keys) == ("g1", "leader", 1, 1)


def test_the_service_s_own_commands_and_large_values_are_refused_and_the_others_executed() -> None:
    world = service()
    large = (b"SET", b"b", bytes(VALUE_BYTES_MAX + 1))
    ask(world, submit(1, (b"@tick",), (b"SET", b"a", b"1"), large, (b"GET", b"a")))
    assert [bool(outcome.failure) for outcome in outcomes(world, 1)] == [True, False, True, False]
    assert outcomes(world, 1)[3] == Outcome(b"1")
    ask(world, submit(2, (b"@tick",)))
    assert outcomes(world, 2)[0].failure == "ERR unknown command"


def test_an_answer_never_exceeds_a_message() -> None:
    world = service()
    ask(world, submit(1, (b"SET", b"a", bytes(VALUE_BYTES_MAX))))
    ask(world, submit(2, *[(b"GET", b"a")] * 3, (b"GET", b"b")), wait_s=3.0)
    assert [bool(outcome.failure) for outcome in outcomes(world, 2)] == [False, True, True, False]


def test_what_was_answered_survives_a_crash_and_a_repetition_is_not_executed_again() -> None:
    world = service()
    append = Submit(1, (Operation((b"APPEND", b"a", b"x"), session=7, sequence=1),))
    ask(world, append)
    world.apply(Crash("s"))
    world.apply(Restart("s"))
    ask(world, Submit(2, append.operations), wait_s=3.0)
    ask(world, submit(3, (b"GET", b"a")))
    assert outcomes(world, 1) == outcomes(world, 2) == (Outcome(1),)
    assert outcomes(world, 3) == (Outcome(b"x"),)


def test_the_leader_tells_the_machine_the_time_when_something_is_due() -> None:
    world = service()
    ask(world, submit(1, (b"WAKE", b"5.0")))
    world.run_until(4.9)
    ask(world, submit(2, (b"GET", b"woke")), wait_s=0.05)
    world.run_until(6.0)
    ask(world, submit(3, (b"GET", b"woke")))
    assert outcomes(world, 2) == (Outcome(None),)
    (woke,) = outcomes(world, 3)
    assert 5.0 <= float(woke.value) < 5.1
