"""Streams: latency of the handshake, order, throughput, loss repair, resets, and what they cost."""

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.underlay.simulation.actors import (
    Actor,
    Letter,
    Note,
    Packet,
    Thought,
    about,
    actor,
    heard_at,
    says,
    usage,
)
from underlay.faults import Crash, Heal, LinkDown, OneWayCut, Pause, Restart, Resume
from underlay.link import LinkSpec
from underlay.messages import Message
from underlay.node import Address, Context
from underlay.simulation import Simulation, World, plan_of
from underlay.simulation.streams import FRAME_BYTES, HANDSHAKE_BYTES, HEADER_BYTES

HELLO_BYTES = FRAME_BYTES + len(msgspec.msgpack.encode(("a/x", 1)))

WIRE = LinkSpec(rate_kbps=1000.0, delay_ms=10.0)


def letters(count: int, size_bytes: int = 10) -> Actor:
    """Sends `count` letters to b at second 1, all at once."""

    def step(ctx: Context) -> None:
        for number in range(count):
            ctx.send("b/x", Letter(number, bytes(size_bytes)))

    return Actor({1.0: step})


def letters_world(count: int, size_bytes: int, spec: LinkSpec = WIRE, seed: int = 0) -> World:
    plan = plan_of(
        {"a": {"x": lambda: letters(count, size_bytes)}, "b": {"x": Actor}},
        [("a", "b", spec)],
        seed=seed,
        duration_s=300.0,
    )
    return Simulation.from_plan(plan, check_codec=True)


def numbers(world: World, address: Address) -> list[int]:
    return [message.number for _, _, message in actor(world, address).heard if isinstance(message, Letter)]


def test_the_first_message_arrives_after_a_handshake() -> None:
    world = letters_world(1, 10)
    world.run_until(2.0)
    world.finish()
    framed = HELLO_BYTES + Actor.protocol.size(Letter(0, bytes(10))) + FRAME_BYTES
    handshake_s = 2 * (HANDSHAKE_BYTES * 8e-6 + 0.010)
    acknowledgement_s = HEADER_BYTES * 8e-6  # the handshake's last, which the data follows
    data_s = (HEADER_BYTES + framed) * 8e-6 + 0.010
    assert heard_at(world, "b/x") == [about(1.0 + handshake_s + acknowledgement_s + data_s)]
    assert usage(world, "a", "b", "bytes_on_air") == HANDSHAKE_BYTES + 2 * HEADER_BYTES + framed
    assert usage(world, "a", "b", "data_bytes") == HEADER_BYTES + framed
    assert usage(world, "b", "a", "bytes_on_air") == HANDSHAKE_BYTES + HEADER_BYTES


def test_the_second_message_needs_no_handshake() -> None:
    script = {1.0: says("b/x", Letter(0)), 2.0: says("b/x", Letter(1))}
    world = Simulation.from_plan(
        plan_of({"a": {"x": lambda: Actor(script)}, "b": {"x": Actor}}, [("a", "b", WIRE)])
    )
    world.run_until(3.0)
    size_bytes = HEADER_BYTES + FRAME_BYTES + Actor.protocol.size(Letter(1))
    assert heard_at(world, "b/x")[1] == about(2.0 + size_bytes * 8e-6 + 0.010)


def test_packets_of_another_protocol_have_no_framing_of_ours() -> None:
    script = {1.0: says("b/x", Packet(100))}
    world = Simulation.from_plan(
        plan_of({"a": {"x": lambda: Actor(script)}, "b": {"x": Actor}}, [("a", "b", WIRE)])
    )
    world.run_until(2.0)
    world.finish()
    assert usage(world, "a", "b", "bytes_on_air") == HANDSHAKE_BYTES + 2 * HEADER_BYTES + 100


def test_the_answer_uses_the_same_stream_and_carries_the_acknowledgement() -> None:
    def answer(ctx: Context, sender: Address, message: Message) -> None:
        ctx.send(sender, Packet(4))

    script = {t_s: says("b/x", Packet(50)) for t_s in (1.0, 2.0, 3.0)}
    plan = plan_of(
        {"a": {"x": lambda: Actor(script)}, "b": {"x": lambda: Actor(answers=answer)}}, [("a", "b", WIRE)]
    )
    world = Simulation.from_plan(plan)
    world.run_until(4.0)
    world.finish()
    assert len(actor(world, "a/x").heard) == 3
    # The first answer follows an immediate acknowledgement; the later ones carry it.
    assert usage(world, "b", "a", "frames") == 1 + (1 + 1) + 1 + 1


def test_the_second_short_message_without_an_answer_is_acknowledged_at_once() -> None:
    def answer_the_first(ctx: Context, sender: Address, message: Message) -> None:
        if message == Packet(50):
            ctx.send(sender, Packet(4))

    script = {1.0: says("b/x", Packet(50)), 2.0: says("b/x", Packet(60)), 2.005: says("b/x", Packet(70))}
    plan = plan_of(
        {"a": {"x": lambda: Actor(script)}, "b": {"x": lambda: Actor(answers=answer_the_first)}},
        [("a", "b", WIRE)],
    )
    world = Simulation.from_plan(plan)
    world.run_until(2.03)  # a delayed acknowledgement would leave at 2.051
    world.finish()
    assert usage(world, "b", "a", "frames") == 1 + (1 + 1) + 1


@pytest.mark.parametrize("rate_kbps", [200.0, 1000.0, 8000.0])
def test_throughput_comes_near_the_rate(rate_kbps: float) -> None:
    spec = LinkSpec(rate_kbps=rate_kbps, delay_ms=20.0)
    count = min(int(rate_kbps / 10), 400)
    world = letters_world(count, 10_000, spec)
    world.run_until(60.0)
    assert numbers(world, "b/x") == list(range(count))
    took_s = heard_at(world, "b/x")[-1] - 1.0
    assert 0.85 * rate_kbps < count * 10_000 * 8e-3 / took_s <= rate_kbps


@pytest.mark.sweep(10)
def test_everything_arrives_once_and_in_order_over_a_lossy_link(seed: int) -> None:
    world = letters_world(
        50, 2000, LinkSpec(rate_kbps=1000.0, delay_ms=20.0, jitter_ms=10.0, loss_ratio=0.05), seed
    )
    world.run_until(200.0)
    world.finish()
    assert numbers(world, "b/x") == list(range(50))
    assert usage(world, "a", "b", "frames") > usage(world, "a", "b", "lost") > 0
    assert usage(world, "a", "b", "bytes_on_air") > 50 * 2000 * 1.02


@given(
    st.lists(st.integers(0, 20_000), min_size=1, max_size=30), st.floats(0.0, 0.2), st.integers(0, 1 << 16)
)
@settings(max_examples=30)
def test_any_messages_over_any_loss_arrive_in_order_or_the_stream_is_reset(
    sizes: list[int], loss_ratio: float, seed: int
) -> None:
    def step(ctx: Context) -> None:
        for number, size_bytes in enumerate(sizes):
            ctx.send("b/x", Letter(number, bytes(size_bytes)))

    spec = LinkSpec(rate_kbps=2000.0, delay_ms=15.0, loss_ratio=loss_ratio, queue_bytes=20_000)
    plan = plan_of({"a": {"x": lambda: Actor({0.0: step})}, "b": {"x": Actor}}, [("a", "b", spec)], seed=seed)
    world = Simulation.from_plan(plan)
    world.run_until(400.0)
    got = numbers(world, "b/x")
    assert got == list(range(len(got)))
    assert len(got) == len(sizes) or actor(world, "a/x").down


def test_a_lost_message_holds_up_those_behind_it() -> None:
    """Cut the link for one message: the next arrives only once the lost one has been sent again."""
    script = {t_s: says("b/x", Letter(int(t_s * 10))) for t_s in (1.0, 2.0, 2.1)}
    plan = plan_of(
        {"a": {"x": lambda: Actor(script)}, "b": {"x": Actor}},
        [("a", "b", WIRE)],
        faults=[(1.95, LinkDown("a", "b")), (2.05, Heal())],
    )
    world = Simulation.from_plan(plan)
    world.run_until(4.0)
    first, lost, behind = heard_at(world, "b/x")
    assert first < 1.1
    assert lost > 2.11
    assert behind == lost
    assert numbers(world, "b/x") == [10, 20, 21]


def test_a_silent_peer_is_given_up_after_the_user_timeout() -> None:
    script = {1.0: says("b/x", Letter(1)), 3.0: says("b/x", Letter(2))}
    plan = plan_of(
        {"a": {"x": lambda: Actor(script)}, "b": {"x": Actor}}, [("a", "b", WIRE)], faults=[(2.0, Crash("b"))]
    )
    world = Simulation.from_plan(plan)
    world.run_until(60.0)
    assert actor(world, "a/x").down == [(about(33.0), "b/x")]


def test_a_handshake_with_a_silent_peer_is_given_up_too() -> None:
    plan = plan_of(
        {"a": {"x": lambda: Actor({1.0: says("b/x", Letter())})}, "b": {"x": Actor}},
        [("a", "b", WIRE)],
        faults=[(0.5, Crash("b"))],
        route_convergence_s=None,
    )
    world = Simulation.from_plan(plan)
    world.run_until(60.0)
    assert actor(world, "a/x").down == [(about(31.0), "b/x")]


def test_without_a_route_a_stream_fails_at_once() -> None:
    plan = plan_of({"a": {"x": lambda: Actor({1.0: says("b/x", Letter())})}, "b": {"x": Actor}})
    world = Simulation.from_plan(plan)
    world.run_until(2.0)
    assert actor(world, "a/x").down == [(1.0, "b/x")]


def test_a_device_without_such_a_node_refuses() -> None:
    plan = plan_of(
        {"a": {"x": lambda: Actor({1.0: says("b/y", Letter())})}, "b": {"x": Actor}}, [("a", "b", WIRE)]
    )
    world = Simulation.from_plan(plan)
    world.run_until(2.0)
    assert actor(world, "a/x").down == [(about(1.0 + (60 + 40) * 8e-6 + 0.020), "b/y")]


def test_a_restarted_peer_answers_with_a_reset_and_then_a_new_stream_works() -> None:
    script = {1.0: says("b/x", Letter(1)), 4.0: says("b/x", Letter(2)), 5.0: says("b/x", Letter(3))}
    plan = plan_of(
        {"a": {"x": lambda: Actor(script)}, "b": {"x": Actor}},
        [("a", "b", WIRE)],
        faults=[(2.0, Crash("b")), (3.0, Restart("b"))],
    )
    world = Simulation.from_plan(plan)
    world.run_until(6.0)
    ((down_s, peer),) = actor(world, "a/x").down
    assert peer == "b/x"
    assert 4.0 < down_s < 4.1
    assert numbers(world, "b/x") == [3]


def test_a_pause_delays_messages_but_breaks_no_stream() -> None:
    script = {1.0: says("b/x", Letter(1)), 3.0: says("b/x", Letter(2))}
    plan = plan_of(
        {"a": {"x": lambda: Actor(script)}, "b": {"x": Actor}},
        [("a", "b", WIRE)],
        faults=[(2.0, Pause("b")), (50.0, Resume("b"))],
    )
    world = Simulation.from_plan(plan)
    world.run_until(60.0)
    assert heard_at(world, "b/x")[1] == 50.0
    assert actor(world, "a/x").down == []


def test_a_single_lost_message_is_repaired_by_the_tail_probe_without_waiting_long() -> None:
    script = {t_s: says("b/x", Letter(int(t_s))) for t_s in (1.0, 2.0)}
    plan = plan_of(
        {"a": {"x": lambda: Actor(script)}, "b": {"x": Actor}},
        [("a", "b", WIRE)],
        faults=[(1.9, LinkDown("a", "b")), (2.05, Heal())],
    )
    world = Simulation.from_plan(plan)
    world.run_until(4.0)
    # RFC 8985, RFC 6298; the round trip is 21 ms: 2 RTT + 200 ms at most, counted from the first sending.
    assert 2.2 < heard_at(world, "b/x")[1] < 2.3


def test_two_nodes_that_open_at_once_still_understand_each_other() -> None:
    plan = plan_of(
        {"a": {"x": lambda: Actor({1.0: says("b/x", Letter(1)), 2.0: says("b/x", Letter(2))})},
         "b": {"x": lambda: Actor({1.0: says("a/x", Letter(3)), 2.0: says("a/x", Letter(4))})}},
        [("a", "b", WIRE)],
    )  # fmt: skip
    world = Simulation.from_plan(plan)
    world.run_until(3.0)
    assert (numbers(world, "a/x"), numbers(world, "b/x")) == ([3, 4], [1, 2])


def test_a_stream_through_a_forwarder_survives_datagrams_beside_it() -> None:
    script = {1.0: says("c/x", Letter(1, bytes(30_000))), 1.01: says("c/x", Note("quick"))}
    plan = plan_of(
        {"a": {"x": lambda: Actor(script)}, "b": {}, "c": {"x": Actor}}, [("a", "b", WIRE), ("b", "c", WIRE)]
    )
    world = Simulation.from_plan(plan)
    world.run_until(3.0)
    assert [type(message) for _, _, message in actor(world, "c/x").heard] == [Note, Letter]


def test_a_greeting_from_a_new_incarnation_resets_what_the_earlier_one_left() -> None:
    """b keeps its end of the stream when a crashes, and learns of the crash when the new a says hello."""
    plan = plan_of(
        {"a": {"x": lambda: Actor({1.0: says("b/x", Letter(1)), 4.0: says("b/x", Letter(2))})},
         "b": {"x": lambda: Actor({5.0: says("a/x", Letter(3))})}},
        [("a", "b", WIRE)],
        faults=[(2.0, Crash("a")), (3.0, Restart("a"))],
    )  # fmt: skip
    world = Simulation.from_plan(plan)
    world.run_until(6.0)
    ((down_s, peer),) = actor(world, "b/x").down
    assert peer == "a/x"
    assert 4.0 < down_s < 4.1
    assert (numbers(world, "a/x"), numbers(world, "b/x")) == ([3], [1, 2])


def test_a_stream_in_which_too_much_waits_is_reset() -> None:
    world = letters_world(100, 50_000, LinkSpec(rate_kbps=10.0))
    world.run_until(3.0)
    assert actor(world, "a/x").down[0][1] == "b/x"


def test_a_local_message_cannot_leave_its_device() -> None:
    plan = plan_of(
        {"a": {"x": lambda: Actor({1.0: says("b/x", Thought())})}, "b": {"x": Actor}}, [("a", "b", WIRE)]
    )
    with pytest.raises(ValueError, match="is local and cannot leave a"):
        Simulation.from_plan(plan).run_until(2.0)


def test_a_caller_from_outside_is_answered_by_its_handle() -> None:
    def answer(ctx: Context, sender: Address, message: Message) -> None:
        ctx.send(sender, Letter(1, b"yes"))

    world = Simulation.from_plan(plan_of({"a": {"x": lambda: Actor(answers=answer)}}))
    world.inject("a/x", Letter(0, b"anybody?"), sender="caller:1")
    world.run_until(1.0)
    assert world.answers == {"caller:1": [Letter(1, b"yes")]}


def test_a_stream_that_is_given_up_opens_anew_and_waits_for_no_retransmission() -> None:
    def again(ctx: Context) -> None:
        ctx.give_up("b/x")
        ctx.send("b/x", Letter(2))

    script = {1.0: says("b/x", Letter(0)), 3.0: says("b/x", Letter(1)), 18.5: again}
    plan = plan_of(
        {"a": {"x": lambda: Actor(script)}, "b": {"x": Actor}},
        [("a", "b")],
        faults=[(2.0, LinkDown("a", "b")), (18.0, Heal())],
        route_convergence_s=None,
    )
    world = Simulation.from_plan(plan)
    world.run_until(19.0)
    assert numbers(world, "b/x") == [0, 2]
    assert actor(world, "a/x").down == []
    assert [peer for _, peer in actor(world, "b/x").down] == ["a/x"]


def test_a_handshake_begins_anew_where_the_other_side_has_given_it_up() -> None:
    """Its reset was lost, as the answers before it: the next SYN finds a listener like any other."""
    plan = plan_of(
        {
            "a": {"x": lambda: Actor({1.0: says("b/x", Letter(1))})},
            "b": {"x": lambda: Actor({1.1: lambda ctx: ctx.give_up("a/x")})},
        },
        [("a", "b")],
        faults=[(1.0, OneWayCut("b", "a")), (1.5, Heal())],
        route_convergence_s=None,
    )
    world = Simulation.from_plan(plan)
    world.run_until(2.5)
    assert numbers(world, "b/x") == [1]
