"""The simulation against SimPy on the same model, both in one run.

The model: devices in a random graph flood messages. Each passes the first copy of a message on to all its
neighbours; every copy crosses the same `LinkModel` (rate, delay, jitter, loss, queue). SimPy runs it in its
documented idiom: a process for each device, a Store as its inbox, a process for what is under way on a link
(SimPy's "Event Latency" example). Birdhouse runs it as nodes, with the trace on. Both count the copies that
arrive.

Usage: `python -m bench.simulation`.
"""

from __future__ import annotations

import gc
import statistics
import sys
import tempfile
from collections.abc import Generator
from pathlib import Path
from time import perf_counter
from typing import Any

import simpy

from underlay.link import LinkModel, LinkSpec
from underlay.messages import Message, Protocol
from underlay.network import seeded
from underlay.node import Address, Context, Node, Timer, in_range
from underlay.plan import Plan
from underlay.simulation import Simulation, plan_of

DEVICES = 200
NEIGHBOURS = 8
MESSAGES = 200
PERIOD_S = 0.1
LINK = LinkSpec(rate_kbps=1000.0, delay_ms=6.0, jitter_ms=2.0, loss_ratio=0.01)
BODY = bytes(32)
ROUNDS = 5


class Flooded(Message, frozen=True, array_like=True, tag=1):
    """One message, to be passed on once."""

    carries_payload = True
    number: int
    body: bytes


class Flooder(Node):
    """Passes each message on to all neighbours when it first arrives; the first device makes them."""

    protocol = Protocol("flood", Flooded)

    def __init__(self) -> None:
        self.seen: set[int] = set()
        self.arrived = 0

    def on_start(self, ctx: Context) -> None:
        if ctx.device == "d0":
            ctx.set_timer(0, PERIOD_S)

    def on_timer(self, ctx: Context, timer: Timer) -> None:
        assert isinstance(timer, int)
        self.seen.add(timer)
        ctx.send(in_range("flood"), Flooded(timer, BODY))
        if timer + 1 < MESSAGES:
            ctx.set_timer(timer + 1, PERIOD_S)

    def on_message(self, ctx: Context, sender: Address, message: Message) -> None:
        assert isinstance(message, Flooded)
        self.arrived += 1
        if message.number not in self.seen:
            self.seen.add(message.number)
            ctx.send("*/flood", message)


def edges() -> list[tuple[str, str]]:
    """A connected random graph: a ring and random chords, `NEIGHBOURS` a device on average."""
    rng = seeded(1, "bench")
    found = {(i, (i + 1) % DEVICES) for i in range(DEVICES)}
    while len(found) < DEVICES * NEIGHBOURS // 2:
        a, b = rng.sample(range(DEVICES), 2)
        if (b, a) not in found:
            found.add((a, b))
    return [(f"d{a}", f"d{b}") for a, b in sorted(found)]


def birdhouse() -> tuple[int, float]:
    """Deliveries, and the seconds they took."""
    plan = plan_of(
        {f"d{i}": {"flood": Flooder} for i in range(DEVICES)}, edges(), link=LINK, duration_s=duration_s()
    )
    return _run(plan)


def duration_s() -> float:
    """Long enough for the last message to spread."""
    return MESSAGES * PERIOD_S + 2.0


def simpy_processes() -> tuple[int, float]:
    """The same in SimPy: deliveries, and the seconds they took."""
    env = simpy.Environment()
    inboxes = {f"d{i}": simpy.Store(env) for i in range(DEVICES)}
    links: dict[str, list[tuple[LinkModel, simpy.Store]]] = {device: [] for device in inboxes}
    for a, b in edges():
        for source, target in ((a, b), (b, a)):
            links[source].append((LinkModel(LINK, seeded(0, source, target)), inboxes[target]))
    protocol = Flooder.protocol
    arrived = 0

    def under_way(delay_s: float, inbox: simpy.Store, message: Flooded) -> Generator[Any, Any, None]:
        yield env.timeout(delay_s)
        yield inbox.put(message)

    def pass_on(source: str, message: Flooded) -> None:
        size_bytes = protocol.size(message) + 28
        for link, inbox in links[source]:
            arrival_s = link.offer(env.now, size_bytes)
            if arrival_s >= 0.0:
                env.process(under_way(arrival_s - env.now, inbox, message))

    def device(name: str) -> Generator[Any, Any, None]:
        nonlocal arrived
        seen: set[int] = set()
        while True:
            message = yield inboxes[name].get()
            arrived += 1
            if message.number not in seen:
                seen.add(message.number)
                pass_on(name, message)

    def origin() -> Generator[Any, Any, None]:
        for number in range(MESSAGES):
            yield env.timeout(PERIOD_S)
            pass_on("d0", Flooded(number, BODY))

    for name in inboxes:
        env.process(device(name))
    env.process(origin())
    gc.collect()
    begin_s = perf_counter()
    env.run(until=duration_s())
    return arrived, perf_counter() - begin_s


def _run(plan: Plan) -> tuple[int, float]:
    gc.collect()
    with tempfile.TemporaryDirectory() as folder, (Path(folder) / "trace.jsonl").open("wb") as trace_file:
        world = Simulation.from_plan(plan, trace_file)
        begin_s = perf_counter()
        world.run_until(plan.duration_s)
        world.finish()
        took_s = perf_counter() - begin_s
    nodes = [world.node(f"{device.name}/flood") for device in plan.network.devices]
    return sum(node.arrived for node in nodes if isinstance(node, Flooder)), took_s


def measure() -> dict[str, float]:
    """Medians of `ROUNDS` alternating runs of each: deliveries a second, and their ratio."""
    ours, theirs = [], []
    for _ in range(ROUNDS):
        deliveries, took_s = birdhouse()
        ours.append(deliveries / took_s)
        deliveries, took_s = simpy_processes()
        theirs.append(deliveries / took_s)
    ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
    return {
        "simulation deliveries/s": statistics.median(ours),
        "SimPy deliveries/s": statistics.median(theirs),
        "ratio": statistics.median(ratios),
    }


if __name__ == "__main__":
    for name, value in measure().items():
        sys.stdout.write(f"{name:28} {value:14,.1f}\n")
