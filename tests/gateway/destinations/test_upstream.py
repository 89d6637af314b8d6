"""A gateway that hands on to another: written when that has it, each device's in order, whatever fails."""

from __future__ import annotations

from collections import defaultdict
from functools import partial
from random import Random

import pytest

from gateway.credibility import Limits
from gateway.destinations.dispatch import bindings
from gateway.gateway import Gateway, GatewayConfig
from gateway.messages import NODE, DestinationStates, HandOn
from gateway.routing.routes import Route
from gateway.routing.routing import Routing
from gateway.routing.targets import Lines, Nested
from gateway.spool import Bounds
from kv.tiers import tier
from tests.gateway.test_gateway import HOSTS, Scene, client_of, ids, made, seen
from underlay.faults import Crash, Heal, LinkDown, LinkUp, Partition, Restart
from underlay.plan import DevicePlan, NodePlan

ONWARD = Routing(destination={"onward": Nested("far")}, unmatched="onward")
ARCHIVE = Routing(destination={"archive": Lines("all.jsonl")}, unmatched="archive")


class Chain(Scene):
    """The sink hands everything on to a gateway on another device, which archives it."""

    def __init__(self, far: GatewayConfig | None = None, near: Routing = ONWARD) -> None:
        far = far or GatewayConfig(routing=ARCHIVE)
        make = partial(Gateway, partial(client_of, tier("paxos", HOSTS)), far)
        plan = DevicePlan((NodePlan(NODE, make, 7000),), bindings(far.routing.destination))
        super().__init__(config=GatewayConfig(routing=near), more={"far": plan})

    def had(self, destination: str) -> list[str]:
        """What a destination had, in order, each once."""
        told = (
            record["id"] for record in self.told("destination-has") if record["destination"] == destination
        )
        return list(dict.fromkeys(told))


def test_what_is_handed_on_is_written_once_the_other_has_it() -> None:
    scene = Chain()
    some = [made("cam1", 1, "motion"), made("cam2", 1, "photograph"), made("cam1", 2, "motion")]
    assert scene.offer(*some, for_s=2.0) == ["kept"] * 3
    assert sorted(scene.had("onward")) == sorted(scene.had("archive")) == sorted(ids(some))
    assert scene.world.durable("sink/gateway") == scene.world.durable("far/gateway") == {}


def test_what_the_other_buries_is_written_and_is_a_dead_letter_there() -> None:
    strict = GatewayConfig(limits=Limits(past_s_max=1.0), routing=ARCHIVE)
    scene = Chain(strict)
    scene.run(5.0)
    assert scene.offer(*seen(1, 2), for_s=2.0) == ["kept"] * 2
    assert scene.had("onward") == ids(seen(1, 2))
    assert [(record["device"], record["id"]) for record in scene.told("dead-lettered")] == [
        ("far", "cam1:1"),
        ("far", "cam1:2"),
    ]


def test_what_has_come_too_far_goes_no_further() -> None:
    scene = Chain()
    scene.world.inject("sink/gateway", HandOn(5, 9, tuple(seen(1))), "caller:1")
    scene.run(1.0)
    assert "their routes form a loop" in scene.told("dead-lettered")[0]["reason"]
    assert scene.had("onward") == []


def test_gateways_that_lead_to_each_other_stop_by_the_ids() -> None:
    scene = Chain(GatewayConfig(routing=Routing(destination={"back": Nested("sink")}, unmatched="back")))
    assert scene.offer(*seen(1, 2, 3), for_s=5.0) == ["kept"] * 3
    assert scene.had("onward") == scene.had("back") == ids(seen(1, 2, 3))
    assert scene.world.durable("sink/gateway") == scene.world.durable("far/gateway") == {}


def test_how_far_an_observation_has_come_is_remembered_on_its_way() -> None:
    """Also by a gateway that crashed in between: the next one is told."""
    scene = Chain(GatewayConfig(routing=Routing(destination={"next": Nested("sink")}, unmatched="next")))
    scene.world.apply(LinkDown("sink", "far"))
    scene.world.inject("far/gateway", HandOn(5, 8, tuple(seen(1))), "caller:1")
    scene.run(1.0)
    scene.world.apply(Crash("far"))
    scene.world.apply(Restart("far"))
    scene.world.apply(LinkUp("sink", "far"))
    scene.run(30.0)
    (letter,) = scene.told("dead-lettered")
    assert letter["reason"].startswith("it has come through 9 gateways")


def test_one_that_is_away_is_said_and_waited_for() -> None:
    scene = Chain()
    scene.world.apply(Crash("far"))
    some = seen(*range(40))
    assert scene.offer(*some, for_s=40.0) == ["kept"] * 40
    (_, state) = scene.ask(DestinationStates())
    assert (state.name, state.type, state.waiting) == ("onward", "gateway", 40)
    assert "far/gateway" in state.trouble
    scene.world.apply(Restart("far"))
    scene.run(20.0)
    assert scene.had("archive") == ids(some)
    (_, state) = scene.ask(DestinationStates())
    assert (state.delivered, state.trouble) == (40, "")


def test_one_that_is_busy_is_asked_again_from_where_it_stopped() -> None:
    pushed = Route(to="archive", rate_limit_per_s=4.0, overflow="block")
    routing = Routing((pushed,), {"archive": Lines("all.jsonl")})
    scene = Chain(GatewayConfig(routing=routing))
    some = seen(*range(12))
    assert scene.offer(*some, for_s=1.1) == ["kept"] * 12
    assert len(scene.had("archive")) == 8
    scene.run(2.0)
    assert scene.had("archive") == ids(some)


@pytest.mark.sweep(6)
def test_nothing_that_was_acknowledged_is_missing_or_out_of_order(seed: int) -> None:
    """Both gateways crash, the link between them fails, and the other has little room."""
    rng = Random(seed)
    scene = Chain(GatewayConfig(bounds=Bounds(bytes_max=1500, batch_max=4), routing=ARCHIVE))
    offered: dict[str, list[str]] = defaultdict(list)
    for n in range(30):
        match rng.randrange(6):
            case 0 | 1:
                device = rng.choice(("sink", "far"))
                scene.world.apply(Crash(device))
                scene.run(rng.uniform(0.0, 0.3))
                scene.world.apply(Restart(device))
                scene.run(0.1)
            case 2:
                scene.world.apply(Partition((("far",),)))
            case 3:
                scene.world.apply(Heal())
        device = rng.choice(("cam1", "cam2", "cam3"))
        some = [made(device, 10 * n + k, "motion") for k in range(rng.randrange(1, 6))]
        assert set(scene.offer(*some, for_s=rng.uniform(0.02, 1.0))) == {"kept"}
        offered[device] += ids(some)
    scene.world.apply(Heal())
    scene.run(120.0)
    archived: dict[str, list[str]] = defaultdict(list)
    for id_ in scene.had("archive"):
        archived[id_.partition(":")[0]].append(id_)
    assert archived == offered
    assert scene.world.durable("sink/gateway") == scene.world.durable("far/gateway") == {}
