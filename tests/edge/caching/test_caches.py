"""Caches on the simulation: joining, validation, freshness, errors, and the textbook's numbers."""

from __future__ import annotations

from collections import Counter
from functools import partial
from typing import Any

import pytest

from edge.coap.messages import CONTENT, GATEWAY_TIMEOUT, NOT_FOUND, VALID
from edge.coap.model import ModelEndpoint
from tests.edge.caching.asking import (
    Ask,
    Client,
    birdhouse,
    cache,
    endpoint,
    get,
    observed,
    of,
    outcomes,
    saw,
)
from underlay.faults import Crash, Restart
from underlay.link import LinkSpec
from underlay.simulation.scenario import plan_of
from underlay.simulation.world import World

FAST = LinkSpec(rate_kbps=10_000.0, delay_ms=5.0)
CLIENTS = ("phone1", "phone2", "phone3")


def world_of(max_age_s: int = 10, rate_per_s: float = 0.0, seed: int = 0, **proxy: Any) -> World:
    """cam - hub - three phones; the hub caches."""
    asking = get("hub", "cam/temperature") if rate_per_s else None
    plan = plan_of(
        {
            "cam": {"caching": partial(birdhouse, max_age_s)},
            "hub": {"caching": partial(cache, {"cam": ("cam",)}, **proxy)},
            **{phone: {"client": partial(Client, asking, rate_per_s)} for phone in CLIENTS},
        },
        [("cam", "hub", FAST), *((phone, "hub", FAST) for phone in CLIENTS)],
        bindings={device: [endpoint()] for device in ("cam", "hub")}
        | {phone: [endpoint("client")] for phone in CLIENTS},
        seed=seed,
    )
    return World(plan, check_codec=True)


def ask(world: World, *phones: str, path: str = "cam/temperature", **more: object) -> None:
    for phone in phones:
        world.inject(f"{phone}/client", Ask(get("hub", path, **more)))  # type: ignore[arg-type]


def test_the_sensor_is_asked_once_however_many_ask_the_cache_at_the_same_time() -> None:
    world = world_of()
    world.inject("cam/caching", observed(0))
    world.run_until(1.0)
    ask(world, *CLIENTS)
    world.run_until(2.0)
    assert Counter(outcomes(world)) == {"miss": 1, "joined": 2}
    assert len(of(world, "origin-served")) == 1
    assert [answer["payload"] for answer in saw(world)] == [b"21.5".hex()] * 3


def test_a_replayed_answer_has_its_max_age_reduced_and_is_validated_when_it_is_over() -> None:
    world = world_of(max_age_s=10)
    world.inject("cam/caching", observed(0))
    for t_s in (1.0, 5.0, 12.0, 13.0):
        world.run_until(t_s)
        ask(world, "phone1")
    world.run_until(20.0)
    assert outcomes(world) == ["miss", "hit", "validated", "hit"]
    assert [answer["max_age_s"] for answer in saw(world)] == [10, 6, 10, 9]
    assert [record["code"] for record in of(world, "origin-served")] == ["2.05", "2.03"]


def test_a_client_that_has_the_content_hears_that_it_is_still_valid() -> None:
    world = world_of()
    world.inject("cam/caching", observed(0))
    world.run_until(1.0)
    ask(world, "phone1")
    world.run_until(2.0)
    etag = bytes.fromhex(saw(world)[0]["etag"])
    ask(world, "phone2", etag=etag)
    world.run_until(3.0)
    assert [(answer["code"], answer["payload"]) for answer in saw(world)] == [
        (CONTENT, b"21.5".hex()),
        (VALID, ""),
    ]


def test_what_changed_comes_whole() -> None:
    world = world_of(max_age_s=2)
    world.inject("cam/caching", observed(0, b"21.5"))
    world.run_until(1.0)
    ask(world, "phone1")
    world.run_until(2.0)
    world.inject("cam/caching", observed(1, b"22.0"))
    world.run_until(5.0)
    ask(world, "phone1")
    world.run_until(6.0)
    assert [bytes.fromhex(answer["payload"]) for answer in saw(world)] == [b"21.5", b"22.0"]
    assert outcomes(world) == ["miss", "miss"]


def test_an_error_is_passed_on_and_not_kept() -> None:
    world = world_of()
    world.run_until(1.0)
    ask(world, "phone1", path="cam/photograph")
    world.run_until(2.0)
    ask(world, "phone2", path="cam/photograph")
    world.run_until(3.0)
    assert [answer["code"] for answer in saw(world)] == [NOT_FOUND, NOT_FOUND]
    assert len(of(world, "origin-served")) == 2


@pytest.mark.parametrize(
    ("stale_on_error", "code", "outcome"),
    [
        pytest.param(True, CONTENT, "stale", id="stale content, where that is allowed"),
        pytest.param(False, GATEWAY_TIMEOUT, "error", id="an error, where it is not"),
    ],
)
def test_a_silent_sensor_is_answered_for_with(stale_on_error: bool, code: int, outcome: str) -> None:
    world = world_of(max_age_s=2, stale_on_error=stale_on_error)
    world.inject("cam/caching", observed(0))
    world.run_until(1.0)
    ask(world, "phone1")
    world.run_until(2.0)
    world.apply(Crash("cam"))
    world.run_until(5.0)
    ask(world, "phone1")
    world.run_until(40.0)
    assert outcomes(world) == ["miss", outcome]
    last = saw(world)[-1]
    assert (last["code"], last["observed"]) == (code, False)
    assert last["max_age_s"] == (0 if stale_on_error else 1)


def test_the_sensor_notifies_the_cache_once_however_many_observe_the_cache() -> None:
    world = world_of(max_age_s=5)
    world.inject("cam/caching", observed(0))
    world.run_until(1.0)
    ask(world, *CLIENTS, observe=True)
    for sequence in (1, 2, 3):
        world.run_until(1.0 + sequence)
        world.inject("cam/caching", observed(sequence, b"%d" % sequence))
    world.run_until(5.0)
    notified = Counter(bytes.fromhex(answer["payload"]) for answer in saw(world))
    assert notified == {b"21.5": 3, b"1": 3, b"2": 3, b"3": 3}
    sent = [r for r in of(world, "messages-sent") if r["device"] == "cam" and r["payload"]]
    assert sum(record["count"] for record in sent) == 4
    ask(world, "phone1", token=2)
    world.run_until(5.5)
    assert outcomes(world)[-1] == "hit"


def test_an_observation_outlives_a_restart_of_the_sensor() -> None:
    world = world_of(max_age_s=3)
    world.inject("cam/caching", observed(0))
    world.run_until(1.0)
    ask(world, "phone1", path="cam/log", observe=True)
    world.run_until(2.0)
    world.apply(Crash("cam"))
    world.run_until(3.0)
    world.apply(Restart("cam"))
    for t_s in range(4, 12):
        world.run_until(float(t_s))
        world.inject("cam/caching", observed(t_s, b"after"))
    heard = [answer for answer in saw(world) if b"after" in bytes.fromhex(answer["payload"])]
    assert heard, "nothing was heard of the sensor's second life"


def test_a_photograph_comes_in_blocks_and_whole() -> None:
    world = world_of()
    photograph = bytes(range(256)) * 100
    world.inject("cam/caching", observed(0, photograph, "photograph"))
    world.run_until(1.0)
    ask(world, "phone1", "phone2", path="cam/photograph")
    world.run_until(20.0)
    assert [bytes.fromhex(answer["payload"]) for answer in saw(world)] == [photograph] * 2
    assert Counter(outcomes(world)) == {"miss": 1, "joined": 1}
    blocks = [
        r for r in of(world, "messages-sent") if r["device"] == "cam" and r["message"] == "ContentPacket"
    ]
    assert sum(record["count"] for record in blocks) == 25


def test_endpoints_forget_what_is_over() -> None:
    world = world_of(max_age_s=2)
    world.inject("cam/caching", observed(0))
    world.run_until(1.0)
    ask(world, *CLIENTS)
    world.run_until(30.0)
    for device in ("cam", "hub", *CLIENTS):
        model = world.node(f"{device}/@coap")
        assert isinstance(model, ModelEndpoint)
        assert model.under_way == 0, device


LIFETIME_S, RATE_PER_S, RUN_S = 4, 0.5, 4000.0


@pytest.mark.sweep(2)
def test_hits_requests_and_ages_are_those_of_the_textbook(seed: int) -> None:
    """Poisson requests at rate L and lifetime T: hit ratio LT/(1+LT), origin rate L/(1+LT), mean age served
    h T/2. Three clients at L/3 each; the requests that join one under way are misses of no cost. About 2000
    requests: the hit ratio's standard error is 0.01, the bands are four of those."""
    world = world_of(LIFETIME_S, RATE_PER_S / len(CLIENTS), seed)
    for second in range(int(RUN_S) // 2):  # a new value every 2 s: the sensor never runs dry
        world.run_until(2.0 * second)
        world.inject("cam/caching", observed(second))
    world.run_until(RUN_S)
    served = of(world, "served")
    load = RATE_PER_S * LIFETIME_S
    hit_ratio = sum(record["outcome"] == "hit" for record in served) / len(served)
    assert hit_ratio == pytest.approx(load / (1 + load), abs=0.04)
    origin_rate = len(of(world, "origin-served")) / RUN_S
    assert origin_rate == pytest.approx(RATE_PER_S / (1 + load), rel=0.1)
    mean_age_s = sum(record["age_s"] for record in served) / len(served)
    assert mean_age_s == pytest.approx(load / (1 + load) * LIFETIME_S / 2, rel=0.1)
    assert all(record["age_s"] <= record["max_age_s"] for record in served)
