"""A gateway as a process of this machine, to be killed under load: it is handed observations one after
another, and what it said it `Kept` is written down."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from time import monotonic, sleep

from edge.observation import Observation, ObservationId, Observed
from edge.sink import Kept
from gateway.gateway import Gateway, GatewayConfig
from gateway.messages import NODE
from gateway.routing.routing import Routing
from kv.tiers import tier
from tests.gateway.test_gateway import client_of
from underlay.messages import Message, Protocol
from underlay.node import Address, Context, Node, Timer, address
from underlay.plan import BindingPlan, DevicePlan, NodePlan

MADE = 150
DEVICES = ("cam1", "cam2", "cam3")


class Rapid(Node):
    """A dissemination that hands over an observation of each device every 20 ms, and again what was not
    kept."""

    protocol = Protocol("rapid")

    def on_start(self, ctx: Context) -> None:
        self._next = sum(1 for _ in ctx.store.scan(b"kept:")) // len(DEVICES)
        ctx.set_timer("next", 0.1)

    def on_message(self, ctx: Context, sender: Address, message: Message) -> None:
        if isinstance(message, Kept):
            ctx.store.put(b"kept:" + message.id.encode(), b"")

    def on_timer(self, ctx: Context, timer: Timer) -> None:
        for device in DEVICES:
            observation = Observation(ObservationId(device, self._next), "motion", 60.0, ctx.now, b"x")
            ctx.send(address(ctx.device, NODE), Observed(observation))
        self._next += 1
        if self._next < MADE:
            ctx.set_timer("next", 0.02)


def rapid_gateway(routing: Routing, bindings: tuple[BindingPlan, ...]) -> DevicePlan:
    """Its store is nowhere: everything has to go somewhere else."""
    nowhere = tier("paxos", ("store1",), replicas=1)
    make = partial(Gateway, partial(client_of, nowhere), GatewayConfig(routing=routing))
    return DevicePlan((NodePlan(NODE, make, 7000), NodePlan("rapid", Rapid, 7001)), bindings)


def until(condition: Callable[[], bool]) -> None:
    """Wait for something real to happen."""
    deadline_s = monotonic() + 30.0
    while not condition():
        assert monotonic() < deadline_s
        sleep(0.05)
