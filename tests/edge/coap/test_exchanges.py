"""The message layer against a peer that is slow, deaf or forgetful: RFC 7252 §4.2 to §4.8, step by step."""

from __future__ import annotations

from functools import partial
from itertools import pairwise

import pytest

from edge.coap.messages import CONTENT, Acknowledged, Asked, Get, Representation, Respond, Tuning
from edge.coap.model import EMPTY_ACK_DELAY_S, ModelEndpoint
from edge.coap.packets import COAP, ContentPacket, EmptyPacket, Packet, RequestPacket, response_packet
from tests.edge.caching.asking import Ask, Client, endpoint, of
from underlay.link import LinkSpec
from underlay.messages import Message, Protocol
from underlay.node import Address, Context, Node
from underlay.plan import BindingPlan
from underlay.simulation.scenario import plan_of
from underlay.simulation.world import World
from underlay.trace import Event

TUNING = Tuning(ack_timeout_s=1.0, max_retransmit=3)
INSTANT = LinkSpec(rate_kbps=1e6, delay_ms=1.0)


class Heard(Event, frozen=True, tag="test-heard"):
    """A packet reached the scripted peer."""

    kind: str
    mtype: str
    mid: int
    token: int


class Tell(Message, frozen=True, array_like=True, tag=91):
    """Tells the scripted peer to send."""

    transport = "local"
    packet: ContentPacket | EmptyPacket | RequestPacket


class Peer(Node):
    """An endpoint without a mind: it says what it is told to say."""

    protocol = COAP

    def on_message(self, ctx: Context, sender: Address, message: Message) -> None:
        match message:
            case Packet():
                ctx.emit(Heard(type(message).__name__, message.mtype, message.mid, message.token))
            case Tell(packet):
                ctx.send("here/@coap", packet)


class Slow(Node):
    """A server that answers after a while, or never."""

    protocol = Protocol("slow")

    def __init__(self, delay_s: float | None) -> None:
        self._delay_s = delay_s

    def on_message(self, ctx: Context, sender: Address, message: Message) -> None:
        if isinstance(message, Asked) and self._delay_s is not None:
            ctx.set_timer(message.exchange, self._delay_s)

    def on_timer(self, ctx: Context, timer: object) -> None:
        assert isinstance(timer, int)
        ctx.send("@coap", Respond(timer, Representation(CONTENT, b"slow"), tuning=TUNING))


def world_of(server: Node | None = None) -> World:
    """`here` has a model endpoint, `peer` a scripted one."""
    peer = BindingPlan("@coap", Peer, endpoint().engine, 5683)
    plan = plan_of(
        {"here": {"client": Client, "slow": partial(_same, server or Slow(None))}, "peer": {"idle": Node}},
        [("here", "peer", INSTANT)],
        bindings={
            "here": [BindingPlan("@coap", partial(ModelEndpoint, "slow"), endpoint().engine, 5683)],
            "peer": [peer],
        },
        duration_s=100.0,
    )
    return World(plan)


def ask(world: World, token: int, observe: bool = False) -> None:
    world.inject("here/client", Ask(Get(token, "peer", ("x",), None, observe, TUNING)))


def tell(world: World, packet: ContentPacket | EmptyPacket | RequestPacket) -> None:
    world.inject("peer/@coap", Tell(packet))


def content(mtype: str, mid: int, token: int, observe: int | None = None) -> ContentPacket:
    packet = response_packet(mtype, mid, token, Representation(CONTENT, b"x"), observe)  # type: ignore[arg-type]
    assert isinstance(packet, ContentPacket)
    return packet


def test_a_message_that_nobody_acknowledges_is_repeated_at_doubling_intervals_and_given_up() -> None:
    world = world_of()
    ask(world, 1)
    world.run_until(60.0)
    sent_s = [record["t"] for record in of(world, "test-heard")]
    assert len(sent_s) == 1 + TUNING.max_retransmit
    gaps_s = [later - earlier for earlier, later in pairwise(sent_s)]
    assert TUNING.ack_timeout_s <= gaps_s[0] <= TUNING.ack_timeout_s * TUNING.ack_random_factor
    assert gaps_s[1:] == pytest.approx([2 * gaps_s[0], 4 * gaps_s[0]], abs=1e-5)
    assert [(r["token"], r["reason"]) for r in of(world, "test-failed")] == [(1, "timeout")]
    assert of(world, "test-failed")[0]["t"] == pytest.approx(15 * gaps_s[0], abs=0.01)


def test_the_next_message_waits_for_the_acknowledgement_of_the_one_before() -> None:
    """NSTART = 1."""
    world = world_of()
    ask(world, 1)
    ask(world, 2)
    world.run_until(0.5)
    (first,) = of(world, "test-heard")
    tell(world, EmptyPacket("ACK", first["mid"]))
    world.run_until(0.9)
    assert len({record["mid"] for record in of(world, "test-heard")}) == 2


def test_who_is_given_up_loses_everything_that_was_under_way() -> None:
    world = world_of()
    for token in (1, 2, 3):
        ask(world, token)
    world.run_until(60.0)
    failed = of(world, "test-failed")
    assert [(r["token"], r["reason"]) for r in failed] == [(1, "timeout"), (2, "timeout"), (3, "timeout")]
    assert len({r["t"] for r in failed}) == 1
    assert len({r["mid"] for r in of(world, "test-heard")}) == 1, "what waited behind it never left"


def test_a_reset_fails_the_request() -> None:
    world = world_of()
    ask(world, 1)
    world.run_until(0.5)
    tell(world, EmptyPacket("RST", of(world, "test-heard")[0]["mid"]))
    world.run_until(1.0)
    assert [(r["token"], r["reason"]) for r in of(world, "test-failed")] == [(1, "reset")]


def test_a_separate_response_is_acknowledged_and_its_repetition_reset() -> None:
    world = world_of()
    ask(world, 1)
    world.run_until(0.1)
    (request,) = of(world, "test-heard")
    tell(world, EmptyPacket("ACK", request["mid"]))
    for t_s in (0.2, 0.3):
        world.run_until(t_s)
        tell(world, content("CON", 777, request["token"]))
    world.run_until(1.0)
    assert len(of(world, "test-saw")) == 1
    replies = [r["mtype"] for r in of(world, "test-heard") if r["mid"] == 777]
    assert replies == ["ACK", "RST"]


def test_notifications_are_delivered_once_and_in_order() -> None:
    world = world_of()
    ask(world, 1, observe=True)
    world.run_until(0.1)
    (request,) = of(world, "test-heard")
    tell(world, content("ACK", request["mid"], request["token"], 0))
    for n, (mid, sequence) in enumerate([(801, 1), (803, 3), (802, 2), (803, 3), (804, 4)]):
        world.run_until(0.2 + n * 0.1)
        tell(world, content("NON", mid, request["token"], sequence))
    world.run_until(1.0)
    assert len(of(world, "test-saw")) == 4, "0, 1, 3 and 4: what came late or twice is left out"


def test_an_unwanted_notification_is_reset_where_it_is_confirmable() -> None:
    world = world_of()
    tell(world, content("CON", 900, 55, 3))
    tell(world, content("NON", 901, 55, 4))
    world.run_until(1.0)
    assert [(r["mtype"], r["mid"]) for r in of(world, "test-heard")] == [("RST", 900)]


def test_a_ping_is_answered_with_reset() -> None:
    world = world_of()
    tell(world, EmptyPacket("CON", 5))
    world.run_until(1.0)
    assert [(r["mtype"], r["mid"]) for r in of(world, "test-heard")] == [("RST", 5)]


def test_a_quick_answer_travels_with_the_acknowledgement() -> None:
    world = world_of(Slow(EMPTY_ACK_DELAY_S / 2))
    tell(world, RequestPacket("CON", 5, 9, ("x",)))
    world.run_until(1.0)
    assert [(r["kind"], r["mtype"], r["mid"]) for r in of(world, "test-heard")] == [
        ("ContentPacket", "ACK", 5)
    ]


def test_a_slow_answer_comes_by_itself_after_an_empty_acknowledgement() -> None:
    world = world_of(Slow(EMPTY_ACK_DELAY_S * 5))
    tell(world, RequestPacket("CON", 5, 9, ("x",)))
    world.run_until(1.0)
    heard = [(r["kind"], r["mtype"]) for r in of(world, "test-heard")]
    assert heard == [("EmptyPacket", "ACK"), ("ContentPacket", "CON")]


def test_a_repeated_request_gets_the_old_answer_and_the_server_is_not_asked_again() -> None:
    world = world_of(Slow(0.01))
    for t_s in (0.0, 0.5, 1.0):
        world.run_until(t_s)
        tell(world, RequestPacket("CON", 5, 9, ("x",)))
    world.run_until(2.0)
    heard = of(world, "test-heard")
    assert [(r["mtype"], r["mid"], r["token"]) for r in heard] == [("ACK", 5, 9)] * 3


def test_an_acknowledged_node_is_told_that_more_will_come() -> None:
    """What the caching node relies on to tell a slow parent from a silent one."""
    told: list[Message] = []

    class Listening(Client):
        def on_message(self, ctx: Context, sender: Address, message: Message) -> None:
            told.append(message)
            super().on_message(ctx, sender, message)

    world = world_of(Listening())
    world.inject("here/slow", Ask(Get(1, "peer", ("x",), None, False, TUNING)))
    world.run_until(0.1)
    tell(world, EmptyPacket("ACK", of(world, "test-heard")[0]["mid"]))
    world.run_until(0.2)
    assert told[-1] == Acknowledged(1)


def _same(node: Node) -> Node:
    return node
