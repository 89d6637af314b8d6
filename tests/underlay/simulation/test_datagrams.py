"""Datagrams: latency, fragments, routes, broadcast, and what the trace counts of them."""

import pytest

from tests.underlay.simulation.actors import (
    Actor,
    Note,
    Photo,
    about,
    actor,
    events,
    heard,
    heard_at,
    says,
    usage,
)
from underlay.link import LinkSpec
from underlay.messages import MalformedMessage, Protocol
from underlay.network import Channel
from underlay.simulation import Simulation, every_pair, plan_of

LINE = [("a", "b"), ("b", "c")]


def scripted(message: Note | Photo, peer: str = "b/x") -> Actor:
    return Actor({1.0: says(peer, message)})


def test_latency_is_serialization_plus_delay() -> None:
    world = Simulation.from_plan(
        plan_of({"a": {"x": lambda: scripted(Note("12345"))}, "b": {"x": Actor}}, [("a", "b")])
    )
    world.run_until(2.0)
    packet_bytes = 28 + 8
    assert heard_at(world, "b/x") == [about(1.0 + packet_bytes * 8e-6 + 0.010)]


def test_each_hop_adds_its_own_latency_and_is_counted() -> None:
    slow = LinkSpec(rate_kbps=100.0, delay_ms=50.0)
    plan = plan_of(
        {"a": {"x": lambda: scripted(Photo(bytes(10)), "c/x")}, "b": {}, "c": {"x": Actor}},
        [("a", "b"), ("b", "c", slow)],
    )
    world = Simulation.from_plan(plan)
    world.run_until(2.0)
    world.finish()
    packet_bytes = 28 + Actor.protocol.size(Photo(bytes(10)))
    assert heard_at(world, "c/x") == [about(1.0 + packet_bytes * 8 * (1e-6 + 1e-5) + 0.060)]
    for source, target in LINE:
        assert (
            usage(world, source, target, "bytes_on_air")
            == usage(world, source, target, "data_bytes")
            == packet_bytes
        )
    (sent,) = events(world, "messages-sent")
    assert (sent["message"], sent["count"], sent["hops"], sent["payload"]) == ("Photo", 1, 2, True)


def test_a_large_datagram_travels_in_ip_fragments() -> None:
    plan = plan_of({"a": {"x": lambda: scripted(Photo(bytes(4000)))}, "b": {"x": Actor}}, [("a", "b")])
    world = Simulation.from_plan(plan)
    world.run_until(2.0)
    world.finish()
    assert len(heard_at(world, "b/x")) == 1
    assert usage(world, "a", "b", "frames") == 3
    assert usage(world, "a", "b", "bytes_on_air") == 8 + Actor.protocol.size(Photo(bytes(4000))) + 3 * 20


def test_a_fragment_lost_on_a_later_hop_loses_the_datagram() -> None:
    deaf = LinkSpec(delay_ms=10.0, loss_ratio=1.0)
    plan = plan_of(
        {"a": {"x": lambda: scripted(Photo(bytes(4000)), "c/x")}, "b": {}, "c": {"x": Actor}},
        [("a", "b"), ("b", "c", deaf)],
    )
    world = Simulation.from_plan(plan)
    world.run_until(2.0)
    world.finish()
    assert heard_at(world, "c/x") == []
    assert usage(world, "b", "c", "lost") == usage(world, "b", "c", "frames") == 3


def test_a_broadcast_over_links_is_one_transmission_a_neighbour() -> None:
    plan = plan_of(
        {
            "a": {"x": lambda: scripted(Note("hi"), "*/x")},
            "b": {"x": Actor},
            "c": {"x": Actor},
            "d": {"y": Actor},
        },
        [("a", "b"), ("a", "c"), ("a", "d")],
    )
    world = Simulation.from_plan(plan)
    world.run_until(2.0)
    world.finish()
    assert [heard(world, address) for address in ("a/x", "b/x", "c/x", "d/y")] == [[], ["hi"], ["hi"], []]
    assert [usage(world, "a", target, "frames") for target in "bcd"] == [1, 1, 1]
    (sent,) = events(world, "messages-sent")
    assert (sent["count"], sent["hops"], sent["bytes"]) == (3, 3, 3 * Actor.protocol.size(Note("hi")))


def test_a_broadcast_on_a_channel_is_one_transmission_heard_by_all_in_range() -> None:
    spec = LinkSpec(rate_kbps=250.0, delay_ms=2.0)
    plan = plan_of(
        {
            "a": {"x": lambda: scripted(Note("hi"), "*/x")},
            "b": {"x": Actor},
            "c": {"x": Actor},
            "d": {"x": Actor},
        },
        channels=[Channel("air", spec, (("a", "b"), ("a", "c"), ("c", "d")))],
    )
    world = Simulation.from_plan(plan)
    world.run_until(2.0)
    world.finish()
    assert [heard(world, f"{name}/x") for name in "abcd"] == [[], ["hi"], ["hi"], []]
    assert usage(world, "a", "*", "frames") == 1
    assert [usage(world, "a", target, "received_s") for target in "bc"] == [spec.airtime_s(28 + 5)] * 2
    (sent,) = events(world, "messages-sent")
    assert (sent["count"], sent["hops"]) == (1, 1)


def test_hearers_of_a_channel_lose_independently() -> None:
    spec = LinkSpec(rate_kbps=250.0, delay_ms=2.0, loss_ratio=0.5)
    script = {1.0 + i * 0.01: says("*/x", Note(str(i))) for i in range(200)}
    plan = plan_of(
        {"a": {"x": lambda: Actor(script)}, "b": {"x": Actor}, "c": {"x": Actor}},
        channels=[Channel("air", spec, (("a", "b"), ("a", "c")))],
    )
    world = Simulation.from_plan(plan)
    world.run_until(5.0)
    world.finish()
    b, c = set(heard(world, "b/x")), set(heard(world, "c/x"))
    assert usage(world, "a", "*", "frames") == 200
    assert 50 < len(b) < 150
    assert 50 < len(c) < 150
    assert b - c
    assert c - b


def test_a_datagram_over_two_hops_of_a_channel_is_two_transmissions() -> None:
    plan = plan_of(
        {"a": {"x": lambda: scripted(Note("hi"), "c/x")}, "b": {}, "c": {"x": Actor}},
        channels=[Channel("air", LinkSpec(rate_kbps=250.0), (("a", "b"), ("b", "c")))],
    )
    world = Simulation.from_plan(plan)
    world.run_until(2.0)
    world.finish()
    assert heard(world, "c/x") == ["hi"]
    assert usage(world, "a", "*", "frames") == usage(world, "b", "*", "frames") == 1


def test_a_lossy_direct_hop_is_avoided_for_a_clean_detour() -> None:
    bad = LinkSpec(rate_kbps=1000.0, delay_ms=10.0, loss_ratio=0.5)
    plan = plan_of(
        {"a": {"x": lambda: scripted(Note("hi"))}, "b": {"x": Actor}, "c": {}},
        [("a", "b", bad), ("a", "c"), ("c", "b")],
    )
    world = Simulation.from_plan(plan)
    world.run_until(2.0)
    world.finish()
    assert heard(world, "b/x") == ["hi"]
    assert usage(world, "a", "b", "frames") == 0


def test_a_datagram_for_a_node_that_is_not_there_crosses_the_network_and_vanishes() -> None:
    world = Simulation.from_plan(
        plan_of({"a": {"x": lambda: scripted(Note("hi"), "b/nobody")}, "b": {"x": Actor}}, [("a", "b")])
    )
    world.run_until(2.0)
    world.finish()
    assert heard(world, "b/x") == []
    assert usage(world, "a", "b", "frames") == 1


def test_an_unknown_device_is_a_bug_of_the_sender() -> None:
    world = Simulation.from_plan(plan_of({"a": {"x": lambda: scripted(Note("hi"), "zebra/x")}}))
    with pytest.raises(KeyError, match="zebra"):
        world.run_until(2.0)


def test_answers_go_back_to_the_sender() -> None:
    def answer(ctx, sender, message) -> None:  # type: ignore[no-untyped-def]
        ctx.send(sender, Note(f"re: {message.text}"))

    plan = plan_of(
        {"a": {"x": lambda: scripted(Note("hi"))}, "b": {"x": lambda: Actor(answers=answer)}}, [("a", "b")]
    )
    world = Simulation.from_plan(plan, check_codec=True)
    world.run_until(2.0)
    assert actor(world, "a/x").heard[0][1:] == ("b/x", Note("re: hi"))


def test_the_codec_check_finds_a_message_that_its_receiver_would_refuse() -> None:
    class Illiterate(Actor):
        protocol = Protocol("nothing", Photo)

    plan = plan_of({"a": {"x": lambda: scripted(Note("hi"))}, "b": {"x": Illiterate}}, [("a", "b")])
    with pytest.raises(MalformedMessage):
        Simulation.from_plan(plan, check_codec=True).run_until(2.0)


def test_everybody_hears_everybody_where_all_are_in_range() -> None:
    script = {1.0: says("*/x", Note("hi"))}
    names = [f"d{i}" for i in range(10)]
    world = Simulation.from_plan(
        plan_of({name: {"x": lambda: Actor(script)} for name in names}, every_pair(names))
    )
    world.run_until(2.0)
    assert [len(heard(world, f"{name}/x")) for name in names] == [9] * 10
