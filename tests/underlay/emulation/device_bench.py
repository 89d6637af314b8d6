"""A device's driver on real sockets of the loopback interface, and nodes that do what a test says.

Needs no root, no namespace, no other device.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Any

import msgspec

from underlay.clock import DeviceClock
from underlay.emulation.driver import Driver, Incarnation
from underlay.messages import Message, Protocol
from underlay.node import Context, Node, Timer
from underlay.plan import DevicePlan, NodePlan
from underlay.trace import read_trace

HERE, THERE = "127.0.0.1", "127.0.0.2"


class Word(Message, frozen=True, array_like=True, tag=1):
    text: str


class Sentence(Message, frozen=True, array_like=True, tag=2):
    transport = "stream"
    text: str


class Thought(Message, frozen=True, array_like=True, tag=3):
    transport = "local"
    text: str


class Scripted(Node):
    """Does what the test says, and remembers what happened."""

    protocol = Protocol("scripted", Word, Sentence, Thought)

    def __init__(self, **handlers: Callable[..., None]) -> None:
        self.handlers = handlers
        self.happened: list[tuple[Any, ...]] = []

    def on_start(self, ctx: Context) -> None:
        self._do("start", ctx)

    def on_message(self, ctx: Context, sender: str, message: Message) -> None:
        self.happened.append((sender, message))
        self._do("message", ctx, sender, message)

    def on_timer(self, ctx: Context, timer: Timer) -> None:
        self.happened.append(("timer", timer))
        self._do("timer", ctx, timer)

    def on_peer_down(self, ctx: Context, peer: str) -> None:
        self.happened.append(("down", peer))

    def _do(self, what: str, *arguments: Any) -> None:
        if what in self.handlers:
            self.handlers[what](*arguments)


class Bench:
    """One device on 127.0.0.1 with the given nodes; 127.0.0.2 is the device `far`, played by the test."""

    def __init__(self, folder: Path, nodes: dict[str, Node], **changes: Any) -> None:
        self.loop = asyncio.new_event_loop()
        self.ports = {name: _free_port() for name in (*nodes, "peer")}
        made = tuple(NodePlan(name, partial(_same, node), self.ports[name]) for name, node in nodes.items())
        plan = DevicePlan(nodes=made, bindings=changes.pop("bindings", ()))
        self.trace = folder / "trace.jsonl"
        life = Incarnation(
            device="here",
            number=1,
            seed=1,
            plan=plan,
            addresses={"here": HERE, "far": THERE},
            ports=self.ports,
            hops={"far": 2},
            clock=DeviceClock(),
            duration_s=60.0,
            usage_interval_s=0.05,
            store=folder / "store",
            trace=self.trace,
            log=folder / "log",
        )
        self.life = msgspec.structs.replace(life, **changes)
        self._file = self.trace.open("ab")
        self.driver = Driver(self.life, self.loop, self._file)
        self.far = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.far.bind((THERE, self.ports["peer"]))
        self.far.setblocking(False)

    def run(self, until: Callable[[], object], patience_s: float = 10.0) -> None:
        """Let the device live until `until()`; fails the test if that never comes."""
        self.loop.run_until_complete(self._run(until, patience_s))

    async def _run(self, until: Callable[[], object], patience_s: float) -> None:
        if self.driver.t() == 0.0:
            await self.driver.open()
            self.driver.start(monotonic())
        end_s = monotonic() + patience_s
        while not until():
            if self.driver.failure.done():
                self.driver.failure.result()
            assert monotonic() < end_s, "it never happened"
            await asyncio.sleep(0.002)

    def heard(self) -> list[bytes]:
        """Datagrams that arrived at `far`."""
        found = []
        with suppress(BlockingIOError):
            while True:
                found.append(self.far.recv(65_536))
        return found

    def records(self) -> list[dict[str, Any]]:
        """The trace so far."""
        return list(read_trace(self.trace))

    def close(self) -> None:
        self.loop.run_until_complete(self.driver.close())
        self.loop.run_until_complete(asyncio.sleep(0))
        self.loop.close()
        self._file.close()
        self.far.close()


def _same(node: Node) -> Node:
    return node


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HERE, 0))
        port: int = probe.getsockname()[1]
        return port
