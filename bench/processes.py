"""Starting one process for each of 200 devices, with its real binding, and the memory that is its own.

A star of devices around a hub, each in its namespace, each with a node and a protocol engine: none (UDP
echo), aiocoap serving a resource, or paho-mqtt connected to mosquitto on the hub. "start" is everything from
the plan to the run's clock: network, ether, processes, sockets bound; "serving" adds the time until the last
device is connected (MQTT). Memory is the unique set size (what the process alone has in memory), of the
nodes' processes, taken while they serve.

    python -m bench.processes [--devices N] [--runs N]
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median

import msgspec

from underlay.emulation.fabric import Emulation
from underlay.link import LinkSpec
from underlay.messages import Message, Protocol
from underlay.network import Device, Link, Network
from underlay.node import Address, Context, Node
from underlay.plan import Binding, BindingHost, BindingPlan, DevicePlan, NodePlan, Plan
from underlay.trace import Event, read_trace

DURATION_S = 6.0
HUB = "hub"
LINK = LinkSpec(rate_kbps=10_000, delay_ms=5)


class Ping(Message, frozen=True, array_like=True, tag=1):
    """To the hub, once a second."""

    n: int


class Serving(Event, frozen=True, tag="serving"):
    """The node's binding is up."""


class Pinger(Node):
    """Sends to the hub, which answers."""

    protocol = Protocol("ping", Ping)

    def on_start(self, ctx: Context) -> None:
        ctx.emit(Serving())
        ctx.set_timer(0, 1.0)

    def on_message(self, ctx: Context, sender: Address, message: Message) -> None:
        if ctx.device == HUB:
            ctx.send(sender, message)

    def on_timer(self, ctx: Context, timer: object) -> None:
        if ctx.device != HUB:
            ctx.send(f"{HUB}/node", Ping(0))
        ctx.set_timer(0, 1.0)


class MqttNode(Node):
    """Keeps a session with the broker on the hub."""

    protocol = Protocol("mqtt")

    def on_start(self, ctx: Context) -> None:
        from edge.mqtt.messages import Connect

        ctx.send("@mqtt", Connect(HUB, ctx.device, True, 30, 0, 20.0))

    def on_message(self, ctx: Context, sender: Address, message: Message) -> None:
        if type(message).__name__ == "Connected":
            ctx.emit(Serving())


class CoapServer:
    """aiocoap with one resource. What it imports late is imported with the engine, before the processes are
    forked.
    """

    def __init__(self) -> None:
        import aiocoap.resource
        import aiocoap.transports.simple6
        import aiocoap.transports.udp6  # noqa: F401

    async def start(self, host: BindingHost) -> None:
        import aiocoap
        from aiocoap import resource

        site = resource.Site()
        site.add_resource([".well-known", "core"], resource.WKCResource(site.get_resources_as_linkheader))
        self._context = await aiocoap.Context.create_server_context(
            site, bind=(host.ip, 5683), transports=["simple6"]
        )

    def send(self, node: str, message: Message) -> None:
        """Nobody sends."""

    async def close(self) -> None:
        await self._context.shutdown()


def plan_udp(count: int) -> Plan:
    """No binding."""
    return _plan(count, lambda _: DevicePlan(nodes=(NodePlan("node", Pinger, 7000),)))


def plan_coap(count: int) -> Plan:
    """aiocoap serves on every device."""
    binding = BindingPlan("@coap", Pinger, CoapServer, 5683)
    return _plan(count, lambda _: DevicePlan(nodes=(NodePlan("node", Pinger, 7000),), bindings=(binding,)))


def plan_mqtt(count: int) -> Plan:
    """Every device is connected to mosquitto on the hub."""
    from edge.mqtt.model_broker import BrokerConfig
    from edge.mqtt.mosquitto import mosquitto
    from edge.mqtt.paho_binding import PahoBinding

    engine: Callable[[], Binding] = PahoBinding
    binding = BindingPlan("@mqtt", Pinger, engine, 1883)

    def on(device: str) -> DevicePlan:
        if device == HUB:
            return DevicePlan(programs=(mosquitto(BrokerConfig()),))
        return DevicePlan(nodes=(NodePlan("node", MqttNode, 7000),), bindings=(binding,))

    return _plan(count, on)


class Result(msgspec.Struct, frozen=True):
    """One run."""

    start_s: float
    serving_s: float
    serving: int
    processes: int
    uss_median_mb: float
    uss_max_mb: float


def measure(plan: Plan) -> Result:
    """Run `plan`, look at its processes while they serve."""
    sizes: list[float] = []
    started_s: list[float] = []
    began_s = time.monotonic()

    def started() -> None:
        started_s.append(time.monotonic() - began_s)
        # The runner waits in this thread; the memory is looked at from another while the run goes on.
        threading.Timer(DURATION_S - 2.0, lambda: sizes.extend(_private_mb(os.getpid()))).start()

    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "run"
        Emulation().run(plan, folder, verify=False, on_start=started)
        serving = [
            record["t"] for record in read_trace(folder / "trace.jsonl") if record["event"] == "serving"
        ]
    return Result(
        start_s=round(started_s[0], 2),
        serving_s=round(started_s[0] + max(serving), 2),
        serving=len(serving),
        processes=len(sizes),
        uss_median_mb=round(median(sizes), 1),
        uss_max_mb=round(max(sizes), 1),
    )


def main() -> None:
    """Print one line for each kind."""
    arguments = argparse.ArgumentParser(prog="python -m bench.processes")
    arguments.add_argument("--devices", type=int, default=200)
    arguments.add_argument("--runs", type=int, default=3)
    asked = arguments.parse_args()
    print(f"{'binding':<8} {'devices':>7} {'start s':>8} {'serving s':>9} {'USS MB median':>14} {'max':>6}")
    for name, make in (("udp", plan_udp), ("aiocoap", plan_coap), ("paho", plan_mqtt)):
        results = [measure(make(asked.devices)) for _ in range(asked.runs)]
        for result in results:
            if result.serving < asked.devices or result.processes < asked.devices:
                sys.exit(f"{name}: only {result.serving} served, {result.processes} processes were seen")
        start_s, serving_s, uss_mb, uss_max_mb = (
            median(getattr(result, field) for result in results)
            for field in ("start_s", "serving_s", "uss_median_mb", "uss_max_mb")
        )
        print(
            f"{name:<8} {asked.devices:>7} {start_s:>8.2f} {serving_s:>9.2f} "
            f"{uss_mb:>14.1f} {uss_max_mb:>6.1f}"
        )


def _plan(count: int, on: Callable[[str], DevicePlan]) -> Plan:
    names = [HUB, *(f"cam{n}" for n in range(count))]
    network = Network(tuple(map(Device, names)), tuple(map(partial(_link), names[1:])))
    return Plan(seed=1, duration_s=DURATION_S, network=network, devices={name: on(name) for name in names})


def _link(name: str) -> Link:
    return Link(name, HUB, LINK, LINK)


def _private_mb(runner: int) -> list[float]:
    """USS of each nodes' process of the run that `runner` started."""
    own = os.readlink("/proc/self/ns/pid")
    children = Path(f"/proc/{runner}/task/{runner}/children").read_text().split()
    worlds = [world for pid in children if (world := _world(pid)) != own]
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if _world(process.name) in worlds and (process / "comm").read_text().startswith("bh-cam"):
                rollup = (process / "smaps_rollup").read_text()
                found.append(sum(map(int, re.findall(r"^Private_\w+:\s+(\d+) kB", rollup, re.M))) / 1024)
        except OSError:
            continue
    return found


def _world(pid: str) -> str:
    try:
        return os.readlink(f"/proc/{pid}/ns/pid")
    except OSError:
        return ""


if __name__ == "__main__":
    main()
