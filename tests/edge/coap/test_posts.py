"""POST between aiocoap endpoints and between their models: the same answers, and the same packets."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path

import msgspec
import pytest

from edge.coap.messages import (
    CHANGED,
    OCTET_STREAM,
    REQUEST_ENTITY_TOO_LARGE,
    TEXT,
    Asked,
    Post,
    Representation,
    Respond,
)
from edge.coap.model import ModelEndpoint
from edge.coap.uploads import POSTS_MAX, Bounds
from tests.edge.caching.asking import TUNING as QUICK
from tests.edge.caching.asking import Ask, Client, birdhouse, get, no_engine, of
from tests.edge.coap.street import Street, free_port
from underlay.faults import Partition
from underlay.link import LinkSpec
from underlay.messages import Message, Protocol
from underlay.node import Address, Context, Node, Timer
from underlay.plan import BindingPlan
from underlay.simulation.scenario import plan_of
from underlay.simulation.world import World
from underlay.trace import Event, Record

MIB = 1024 * 1024

TUNING = msgspec.structs.replace(QUICK, ack_timeout_s=4.0)
"""Longer than a busy machine stalls: a repetition would be counted beside the model, which makes none."""


class Posted(Event, frozen=True, tag="test-posted"):
    """Something was posted here."""

    path: str
    payload_bytes: int
    total: int
    """Of its bytes."""
    content_format: int | None
    client: str


class Clerk(Node):
    """Says how much it was given; what is posted to `slow` it answers after a while, to `never` not."""

    protocol = Protocol("clerk")

    def __init__(self) -> None:
        self._late: dict[int, Respond] = {}

    def on_message(self, ctx: Context, sender: Address, message: Message) -> None:
        if not isinstance(message, Asked):
            return
        path, payload = "/".join(message.path), message.payload
        ctx.emit(Posted(path, len(payload), sum(payload), message.content_format, message.client))
        shown = Representation(CHANGED, f"{message.method} {len(payload)}".encode(), content_format=TEXT)
        answer = Respond(message.exchange, shown, tuning=TUNING)
        if path.endswith("slow"):
            self._late[message.exchange] = answer
            ctx.set_timer(message.exchange, 0.4)
        elif not path.endswith("never"):
            ctx.send("@coap", answer)

    def on_timer(self, ctx: Context, timer: Timer) -> None:
        assert isinstance(timer, int)
        ctx.send("@coap", self._late.pop(timer))


RESOURCES = {"desk": "clerk"}
DEVICES: dict[str, dict[str, Callable[[], Node]]] = {
    "hub": {"caching": partial(birdhouse, 60), "clerk": Clerk},
    "phone": {"client": Client},
}
BODY = bytes(range(256)) * 20


def post(token: int, path: str, payload: bytes, content_format: int | None = OCTET_STREAM) -> Ask:
    return Ask(Post(token, "hub", tuple(path.split("/")), payload, content_format, TUNING))


STEPS = [
    post(1, "desk", b"21.5"),
    post(2, "desk/slow", b"", None),
    post(3, "desk", BODY),
    post(4, "desk/slow", BODY[:1025]),
    post(5, "desk", BODY[:1124]),
    post(6, "desk/slow", BODY[:1125]),
    post(7, "log", b"this is not to be posted to"),
    post(8, "desk", bytes(MIB)),
    post(9, "desk", bytes(MIB + 1)),
    Ask(get("hub", "desk/drawer", 10)),
    Ask(get("hub", "nothing", 11)),
]

Outcome = tuple[list[dict[str, object]], Counter[tuple[str, str]]]


def outcome(records: list[Record]) -> Outcome:
    packets: Counter[tuple[str, str]] = Counter()
    for record in records:
        if record["event"] == "messages-sent":
            packets[record["device"], record["message"]] += record["count"]
    events = ("test-posted", "test-saw", "test-failed")
    told = [record for event in events for record in records if record["event"] == event]
    return [{key: value for key, value in record.items() if key != "t"} for record in told], packets


def endpoint(device: str, bounds: Bounds | None = None) -> BindingPlan:
    server, resources = ("client", None) if device == "phone" else ("caching", RESOURCES)
    return BindingPlan("@coap", partial(ModelEndpoint, server, resources, bounds), no_engine, 5683)


def world(link: LinkSpec, bounds: Bounds | None = None) -> World:
    bindings = {device: [endpoint(device, bounds)] for device in DEVICES}
    return World(plan_of(DEVICES, [("hub", "phone", link)], bindings=bindings, duration_s=300.0))


def modelled() -> Outcome:
    w = world(LinkSpec(rate_kbps=1_000_000.0, delay_ms=0.1))
    for n, step in enumerate(STEPS):
        w.run_until(5.0 * n)
        w.inject("phone/client", step)
    w.run_until(60.0)
    w.finish()
    return outcome(w.records())


async def real(folder: Path) -> Outcome:
    async with Street(folder, DEVICES, free_port(), RESOURCES) as street:
        for n, step in enumerate(STEPS, 1):
            street.tell("phone", "client", step)
            await street.until(lambda count=n: len(street.records("test-saw")) >= count)  # type: ignore[misc]
            await asyncio.sleep(0.05)  # acknowledgements settle
        await asyncio.sleep(0.3)
        events = ("test-posted", "test-saw", "test-failed", "messages-sent")
        return outcome([record for event in events for record in street.records(event)])


def test_the_model_posts_as_aiocoap_does(tmp_path: Path) -> None:
    """In one piece and in blocks, answered at once and late, refused and too large."""
    real_told, real_packets = asyncio.run(real(tmp_path))
    model_told, model_packets = modelled()
    assert real_told == model_told
    assert real_packets == model_packets
    codes = [record["code"] for record in real_told if record["event"] == "test-saw"]
    assert codes == [CHANGED] * 6 + [0x85, CHANGED, REQUEST_ENTITY_TOO_LARGE, CHANGED, 0x84]


@pytest.mark.parametrize("seed", range(5))
def test_a_body_gets_through_a_bad_link_once(seed: int) -> None:
    """Requests and answers are lost; repeated ones are answered as before."""
    link = LinkSpec(rate_kbps=250.0, delay_ms=20.0, loss_ratio=0.2)
    bindings = {device: [endpoint(device)] for device in DEVICES}
    plan = plan_of(DEVICES, [("hub", "phone", link)], bindings=bindings, seed=seed, duration_s=300.0)
    w = World(plan)
    w.inject("phone/client", post(1, "desk", BODY))
    w.run_until(300.0)
    posted, saw = of(w, "test-posted"), of(w, "test-saw")
    assert [record["payload_bytes"] for record in posted] in ([len(BODY)], [])
    assert len(saw) == len(posted) or of(w, "test-failed")


def test_half_a_body_reaches_nobody() -> None:
    link = LinkSpec(rate_kbps=250.0, delay_ms=20.0)
    faults = [(0.3, Partition((("phone",), ("hub",))))]
    bindings = {device: [endpoint(device)] for device in DEVICES}
    w = World(plan_of(DEVICES, [("hub", "phone", link)], bindings=bindings, faults=faults, duration_s=400.0))
    w.inject("phone/client", post(1, "desk", bytes(100_000)))
    w.run_until(200.0)
    assert not of(w, "test-posted")
    assert [record["reason"] for record in of(w, "test-failed")] == ["timeout"]


def test_an_endpoint_with_too_much_on_its_hands_says_when_to_come_again() -> None:
    """The clerk does not answer, and there are no more than so many at a time."""
    w = world(LinkSpec(rate_kbps=1_000_000.0, delay_ms=0.1))
    for n in range(POSTS_MAX + 2):
        w.inject("phone/client", post(n, "desk/never", b"x"))
    w.run_until(300.0)
    refused = [(record["code"], record["max_age_s"]) for record in of(w, "test-saw")]
    assert refused == [(0xA3, 1)] * 2
