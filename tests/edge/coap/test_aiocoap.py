"""aiocoap and standard clients: the model does as aiocoap does, and libcoap's client can ask anybody."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest

from edge.caching.log import Entry
from edge.coap.messages import Cancel
from edge.sink import Sink
from tests.edge.caching.asking import (
    TUNING,
    Ask,
    Client,
    birdhouse,
    cache,
    endpoint,
    get,
    observed,
    subscriber,
)
from tests.edge.coap.street import Street, coap_client, free_port
from underlay.link import LinkSpec
from underlay.messages import Message
from underlay.node import Node
from underlay.simulation.scenario import plan_of
from underlay.simulation.world import World
from underlay.trace import Record

needs_coap_client = pytest.mark.needs("coap-client-notls")
PHOTOGRAPH = bytes(range(256)) * 20
Devices = dict[str, dict[str, Callable[[], Node]]]


def devices(confirm_interval_s: float) -> Devices:
    tuning = msgspec.structs.replace(TUNING, confirm_interval_s=confirm_interval_s)
    return {
        "cam": {"caching": partial(birdhouse, 60, tuning)},
        "hub": {"caching": partial(cache, {"cam": ("cam",)}, tuning)},
        "phone": {"client": Client},
    }


DEVICES = devices(0.0)

Step = tuple[str, str, Message, int]
"""A device's node gets a message, and then so many answers have reached the phone."""


def steps() -> Iterator[Step]:
    yield "cam", "caching", observed(0, b"21.5"), 0
    yield "phone", "client", Ask(get("hub", "cam/temperature", 1)), 1
    yield "phone", "client", Ask(get("hub", "cam/temperature", 2)), 2
    yield "phone", "client", Ask(get("cam", "temperature", 3, etag=b"\x01")), 3
    yield "phone", "client", Ask(get("hub", "cam/nothing", 4)), 4
    yield "phone", "client", Ask(get("hub", "cam/log", 5, observe=True)), 5
    yield "cam", "caching", observed(1, b"22.0"), 6
    yield "cam", "caching", observed(2, b"22.5"), 7
    yield "phone", "client", Cancel(5), 7
    yield "cam", "caching", observed(3, PHOTOGRAPH, "photograph"), 7
    yield "phone", "client", Ask(get("hub", "cam/photograph", 6)), 8
    yield "phone", "client", Ask(get("hub", "cam/photograph", 7)), 9
    yield "phone", "client", Ask(get("hub", "nobody/log", 8)), 10


def told(records: list[Record]) -> list[dict[str, Any]]:
    """What happened, without when; positions are the same, as every log begins anew."""
    without = {"t", "age_s", "max_age_s"}
    return [{key: value for key, value in record.items() if key not in without} for record in records]


Outcome = tuple[dict[str, list[dict[str, Any]]], Counter[tuple[str, str]]]
"""Events by their names, and how many packets of each kind each device sent."""

EVENTS = ("test-saw", "test-failed", "served", "origin-served")


def modelled(street: Devices) -> Outcome:
    fast = LinkSpec(rate_kbps=100_000.0, delay_ms=0.1)
    bindings = {device: [endpoint("client" if device == "phone" else "caching")] for device in street}
    world = World(plan_of(street, [("cam", "hub", fast), ("phone", "hub", fast)], bindings=bindings))
    for n, (device, node, message, _) in enumerate(steps()):
        world.run_until(float(n))
        world.inject(f"{device}/{node}", message)
    world.run_until(20.0)
    world.finish()
    records = world.records()
    return _by_event(records), _packets(records)


async def real(folder: Path, devices: Devices) -> Outcome:
    async with Street(folder, devices, free_port()) as street:
        for device, node, message, answers in steps():
            street.tell(device, node, message)
            await street.until(lambda count=answers: len(street.records("test-saw")) >= count)  # type: ignore[misc]
            await asyncio.sleep(0.05)  # acknowledgements settle
        await asyncio.sleep(0.3)
        records = [r for event in (*EVENTS, "messages-sent") for r in street.records(event)]
    return _by_event(records), _packets(records)


@pytest.mark.parametrize(
    "confirm_interval_s",
    [
        pytest.param(0.0, id="every notification confirmed"),
        pytest.param(300.0, id="only the first notification confirmed"),
    ],
)
def test_the_model_does_what_aiocoap_does(tmp_path: Path, confirm_interval_s: float) -> None:
    """Misses, hits, validation, an error, an observation that is cancelled, blocks: the same answers, the
    same events at cache and origin, and the same number of packets of each kind from each device."""
    real_events, real_packets = asyncio.run(real(tmp_path, devices(confirm_interval_s)))
    model_events, model_packets = modelled(devices(confirm_interval_s))
    assert real_events == model_events
    assert real_packets == model_packets


def _by_event(records: list[Record]) -> dict[str, list[dict[str, Any]]]:
    return {event: told([r for r in records if r["event"] == event]) for event in EVENTS}


def _packets(records: list[Record]) -> Counter[tuple[str, str]]:
    found: Counter[tuple[str, str]] = Counter()
    for record in records:
        if record["event"] == "messages-sent":
            found[record["device"], record["message"]] += record["count"]
    return found


@needs_coap_client
def test_coap_client_asks_birdhouse_and_cache(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with Street(tmp_path, DEVICES, free_port()) as street:
            street.tell("cam", "caching", observed(0, b"21.5"))
            street.tell("cam", "caching", observed(1, PHOTOGRAPH, "photograph"))
            cam, hub = (f"coap://{street.addresses[name]}:{street.port}" for name in ("cam", "hub"))
            for uri in (f"{cam}/temperature", f"{cam}/cam/temperature", f"{hub}/cam/temperature"):
                assert (await coap_client(uri))[0].strip() == b"21.5", uri
            for uri in (f"{cam}/photograph", f"{hub}/cam/photograph", f"{hub}/cam/photograph"):
                file = tmp_path / "photograph.jpg"
                await coap_client("-o", str(file), uri)
                assert file.read_bytes() == PHOTOGRAPH, uri
            assert b"</cam/log>;obs" in (await coap_client(f"{hub}/.well-known/core"))[0]
            assert b"4.04" in (await coap_client(f"{hub}/cam/nothing"))[1]
            assert b"4.05" in (await coap_client("-m", "delete", f"{cam}/temperature"))[1]
            outcomes = [record["outcome"] for record in street.records("served")]
            assert outcomes == ["miss", "miss", "hit", "miss"]

    asyncio.run(scenario())


@needs_coap_client
@pytest.mark.parametrize("asked", ["cam", "hub"])
def test_coap_client_observes(tmp_path: Path, asked: str) -> None:
    async def scenario() -> None:
        async with Street(tmp_path, DEVICES, free_port()) as street:
            street.tell("cam", "caching", observed(0, b"first;"))
            uri = f"coap://{street.addresses[asked]}:{street.port}/cam/temperature"
            client = asyncio.create_task(coap_client("-s", "4", uri))
            await street.until(lambda: street.records("origin-served"))
            for n in range(3):
                await asyncio.sleep(0.2)
                street.tell("cam", "caching", observed(n + 1, b"then %d;" % n))
            heard, _ = await client
            for expected in (b"first;", b"then 0;", b"then 1;", b"then 2;"):
                assert expected in heard

    asyncio.run(scenario())


def test_a_sink_gets_everything_over_aiocoap(tmp_path: Path) -> None:
    street_of_three: Devices = {
        "cam": {"caching": partial(birdhouse, 60)},
        "hub": {"caching": partial(cache, {"cam": ("cam",)})},
        "sink": {"caching": partial(subscriber, {"cam": ("hub", "cam")}, deliver_to="sink"), "sink": Sink},
    }

    async def scenario() -> None:
        async with Street(tmp_path, street_of_three, free_port()) as street:
            for sequence in range(10):
                kind, payload = ("photograph", PHOTOGRAPH) if sequence % 5 == 4 else ("temperature", b"21.5")
                street.tell("cam", "caching", observed(sequence, payload, kind))
            await street.until(lambda: len(street.records("stored")) == 10)
            assert {record["id"] for record in street.records("stored")} == {f"cam:{n}" for n in range(10)}

    asyncio.run(scenario())


def test_an_entry_asked_for_by_aiocoaps_own_client(tmp_path: Path) -> None:
    import aiocoap

    async def scenario() -> None:
        async with Street(tmp_path, DEVICES, free_port()) as street:
            street.tell("cam", "caching", observed(0, b"21.5"))
            street.tell("cam", "caching", observed(1, PHOTOGRAPH, "photograph"))
            client: Any = await aiocoap.Context.create_client_context()
            hub = f"coap://{street.addresses['hub']}:{street.port}/cam"
            head = await client.request(aiocoap.Message(code=aiocoap.GET, uri=f"{hub}/log")).response
            newest = Entry.decode(head.payload)
            assert newest.observation is None, "too large to be carried along"
            uri = f"{hub}/log/{newest.position}"
            whole = await client.request(aiocoap.Message(code=aiocoap.GET, uri=uri)).response
            entry = Entry.decode(whole.payload)
            assert entry.observation is not None
            assert entry.observation.payload == PHOTOGRAPH
            assert whole.opt.max_age > 60
            await client.shutdown()

    asyncio.run(scenario())
