"""Devices with aiocoap in one event loop, each on a loopback address of its own, run by the real driver."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from time import monotonic

from edge.caching.node import NAME
from edge.coap.aiocoap_binding import AiocoapBinding
from edge.coap.messages import ENDPOINT
from edge.coap.model import ModelEndpoint
from underlay.clock import DeviceClock
from underlay.emulation.driver import Driver, Incarnation
from underlay.messages import Message
from underlay.node import Node
from underlay.plan import BindingPlan, DevicePlan, NodePlan
from underlay.trace import Record, read_trace

PATIENCE_S = 20.0

Devices = Mapping[str, Mapping[str, Callable[[], Node]]]


class Street:
    """A device after the other, `127.0.77.1` and up."""

    def __init__(
        self, folder: Path, devices: Devices, port: int, resources: Mapping[str, str] | None = None
    ) -> None:
        self.port = port
        self._resources = dict(resources or {})
        self.addresses = {device: f"127.0.77.{n}" for n, device in enumerate(devices, 1)}
        self._folder = folder
        self._devices = devices
        self._drivers: dict[str, Driver] = {}
        self._files = ExitStack()

    async def __aenter__(self) -> Street:
        for device, nodes in self._devices.items():
            life = self._life(device, nodes)
            trace = self._files.enter_context(self._trace(device).open("ab"))
            self._drivers[device] = Driver(life, asyncio.get_running_loop(), trace)
        started_s = monotonic()
        for driver in self._drivers.values():
            await driver.open()
            driver.start(started_s)
        return self

    async def __aexit__(self, *_: object) -> None:
        for driver in self._drivers.values():
            await driver.close()
        self._files.close()

    def tell(self, device: str, node: str, message: Message) -> None:
        """Deliver a message to a node as if from its own device."""
        self._drivers[device].nodes[node].deliver("@test", message)

    def records(self, event: str) -> list[Record]:
        """What the devices have traced so far, device by device."""
        found: list[Record] = []
        for device, driver in self._drivers.items():
            assert driver._trace is not None
            driver._trace.flush()
            found += [r for r in read_trace(self._trace(device)) if r["event"] == event]
        return found

    async def until(self, condition: Callable[[], object]) -> None:
        """Wait for something real to happen."""
        async with asyncio.timeout(PATIENCE_S):
            while not condition():
                for driver in self._drivers.values():
                    if driver.failure.done():
                        driver.failure.result()
                await asyncio.sleep(0.005)

    def _trace(self, device: str) -> Path:
        return self._folder / f"{device}.jsonl"

    def _life(self, device: str, nodes: Mapping[str, Callable[[], Node]]) -> Incarnation:
        server = NAME if NAME in nodes else next(iter(nodes))
        # Only where the node is: elsewhere the endpoint refuses to be posted to.
        resources = {first: node for first, node in self._resources.items() if node in nodes}
        binding = BindingPlan(
            ENDPOINT,
            partial(ModelEndpoint, server, resources),
            partial(AiocoapBinding, server, self.port, resources),
            self.port,
        )
        return Incarnation(
            device=device,
            number=1,
            seed=1,
            plan=DevicePlan(
                nodes=tuple(NodePlan(name, make, 9) for name, make in nodes.items()), bindings=(binding,)
            ),
            addresses=self.addresses,
            ports=dict.fromkeys(nodes, 9),
            hops=dict.fromkeys(self.addresses, 1),
            clock=DeviceClock(),
            duration_s=600.0,
            usage_interval_s=0.2,
            store=self._folder / f"{device}.store",
            trace=self._trace(device),
            log=self._folder / f"{device}.log",
        )


def free_port() -> int:
    """A UDP port that nobody has on the loopback."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


async def coap_client(*arguments: str) -> tuple[bytes, bytes]:
    """libcoap's client: what it wrote to stdout and stderr."""
    process = await asyncio.create_subprocess_exec(
        "coap-client-notls", *arguments, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    async with asyncio.timeout(PATIENCE_S):
        return await process.communicate()
