"""Nodes in an asyncio loop with the real client and the real broker, on loopback addresses.

As much of a device as the star needs: no network emulation, no durable store. Devices have addresses of their
own in 127.0.0.0/8 so that several brokers can listen on one port.
"""

from __future__ import annotations

import asyncio
import socket
import subprocess
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random
from typing import TypeVar

import pytest

from edge.mqtt.model_broker import BrokerConfig
from edge.mqtt.mosquitto import mosquitto
from edge.mqtt.packets import MQTT_5
from edge.mqtt.paho_binding import PahoBinding
from underlay.messages import Message
from underlay.node import Address, Node, Timer, Work
from underlay.store import OrderedMap
from underlay.trace import Event

PATIENCE_S = 20.0

needs_mosquitto = pytest.mark.needs("mosquitto")

E = TypeVar("E", bound=Event)


class Broker:
    """A mosquitto process with its folder."""

    def __init__(self, folder: Path, ip: str, port: int, config: BrokerConfig) -> None:
        self._plan = mosquitto(config, port=port)
        self._places = {"dir": str(folder), "ip": ip}
        self._address = (ip, port)
        self._process: subprocess.Popen[bytes] | None = None
        folder.mkdir(exist_ok=True)
        for name, text in self._plan.files.items():
            (folder / name).write_text(text.format(**self._places))

    async def start(self) -> None:
        """Start it, and wait until it accepts connections."""
        argv = [part.format(**self._places) for part in self._plan.argv]
        self._process = subprocess.Popen(argv, stderr=subprocess.DEVNULL)
        await until(self._accepts)

    def kill(self) -> None:
        """kill -9: what it had not written is lost."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def signal(self, number: int) -> None:
        """Stop it, let it go on, ..."""
        assert self._process is not None
        self._process.send_signal(number)

    def _accepts(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, "mosquitto ended"
        with socket.socket() as probe:
            return probe.connect_ex(self._address) == 0


class Loopback:
    """Devices whose nodes run here."""

    def __init__(self, addresses: Mapping[str, str], port: int, version: int = MQTT_5) -> None:
        self.addresses = addresses
        self.local: dict[str, list[Message]] = {}
        self.events: list[tuple[str, Event]] = []
        self.sent: dict[str, int] = {}
        self._port = port
        self._version = version
        self._devices: dict[str, Device] = {}

    async def add(self, device: str, nodes: Mapping[str, Callable[[], Node]]) -> None:
        """Start a device."""
        self._devices[device] = Device(self, device, PahoBinding(self._version, self._port), nodes)
        await self._devices[device].start()

    def tell(self, at: Address, sender: Address, message: Message) -> None:
        """Deliver a message to a node from outside."""
        device, _, name = at.partition("/")
        self._devices[device].contexts[name].receive(sender, message)

    def events_of(self, kind: type[E]) -> list[E]:
        return [event for _, event in self.events if isinstance(event, kind)]

    async def close(self) -> None:
        for device in self._devices.values():
            await device.binding.close()


class Device:
    """One device; also what its binding is offered (`underlay.plan.BindingHost`)."""

    def __init__(
        self, world: Loopback, name: str, binding: PahoBinding, nodes: Mapping[str, Callable[[], Node]]
    ) -> None:
        self.world = world
        self.device = name
        self.ip = "127.0.0.1"
        self.run: str | None = None
        self.folder = Path()
        self.binding = binding
        self.contexts = {node: LoopbackContext(self, node, make()) for node, make in nodes.items()}

    async def start(self) -> None:
        await self.binding.start(self)
        for context in self.contexts.values():
            context.node.on_start(context)

    def ip_of(self, device: str) -> str:
        return self.world.addresses[device]

    def device_at(self, ip: str) -> str | None:
        return next((device for device, known in self.world.addresses.items() if known == ip), None)

    def now(self) -> float:
        return asyncio.get_running_loop().time()

    def deliver(self, node: str, message: Message) -> None:
        self.world.local.setdefault(self.device, []).append(message)
        self.contexts[node].receive("@mqtt", message)

    def sent(self, message: str, size_bytes: int, *, payload: bool, to: str) -> None:
        self.world.sent[message] = self.world.sent.get(message, 0) + 1

    def emit(self, event: Event) -> None:
        self.world.events.append((self.device, event))


class LoopbackContext:
    """`underlay.node.Context` in a running loop."""

    def __init__(self, host: Device, name: str, node: Node) -> None:
        self.address = f"{host.device}/{name}"
        self.device = host.device
        self.node = node
        self.store = OrderedMap()
        self.rng = Random(f"0 {self.address}")
        self._host = host
        self._timers: dict[Timer, asyncio.TimerHandle] = {}

    @property
    def now(self) -> float:
        return self._host.now()

    def receive(self, sender: Address, message: Message) -> None:
        self.node.on_message(self, sender, message)

    def send(self, peer: Address, message: Message) -> None:
        loop = asyncio.get_running_loop()
        name = self.address.partition("/")[2]
        if peer == "@mqtt":
            self._host.world.local.setdefault(self.device, []).append(message)
            loop.call_soon(self._host.binding.send, name, message)
        else:
            target = self._host.contexts[peer.partition("/")[2]]
            loop.call_soon(target.receive, self.address, message)

    def set_timer(self, key: Timer, delay_s: float) -> None:
        self.cancel_timer(key)
        self._timers[key] = asyncio.get_running_loop().call_later(delay_s, self._fire, key)

    def give_up(self, peer: Address) -> None:
        raise AssertionError("the star has no streams of its own")

    def cancel_timer(self, key: Timer) -> None:
        if key in self._timers:
            self._timers.pop(key).cancel()

    def when_durable(self, message: Message) -> None:
        asyncio.get_running_loop().call_soon(self.receive, self.address, message)

    def run(self, key: str, work: Work) -> None:
        raise AssertionError("the star runs no work")

    def cancel_run(self, key: str) -> None:
        raise AssertionError("the star runs no work")

    def emit(self, event: Event) -> None:
        self._host.emit(event)

    def _fire(self, key: Timer) -> None:
        del self._timers[key]
        self.node.on_timer(self, key)


@asynccontextmanager
async def brokers(
    folder: Path, port: int, *ips: str, config: BrokerConfig | None = None
) -> AsyncIterator[list[Broker]]:
    """Running brokers, one on each address."""
    started = [Broker(folder / ip, ip, port, config or BrokerConfig()) for ip in ips]
    try:
        for broker in started:
            await broker.start()
        yield started
    finally:
        for broker in started:
            broker.kill()


class Call:
    """A TCP connection that went through a relay: the bytes to the broker and from it."""

    def __init__(self) -> None:
        self.up = bytearray()
        self.down = bytearray()


@asynccontextmanager
async def relay(port: int, broker_port: int) -> AsyncIterator[list[Call]]:
    """Listen on `port`, pass everything on to a broker, and keep a copy; yields the calls in order of
    arrival."""
    calls: list[Call] = []
    tasks: list[asyncio.Task[None]] = []

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, kept: bytearray) -> None:
        while data := await reader.read(65_536):
            kept.extend(data)
            writer.write(data)
        writer.close()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        call = Call()
        calls.append(call)
        broker_reader, broker_writer = await asyncio.open_connection("127.0.0.1", broker_port)
        tasks.append(asyncio.create_task(copy(reader, broker_writer, call.up)))
        tasks.append(asyncio.create_task(copy(broker_reader, writer, call.down)))

    server = await asyncio.start_server(accept, "127.0.0.1", port)
    try:
        yield calls
    finally:
        server.close()
        await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), PATIENCE_S)


async def until(condition: Callable[[], bool]) -> None:
    """Wait for something real to happen."""
    async with asyncio.timeout(PATIENCE_S):
        while not condition():
            await asyncio.sleep(0.005)


def free_port() -> int:
    """A TCP port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
