"""A node that does what a test's script says and remembers what it heard."""

from collections.abc import Callable, Mapping
from math import fsum
from typing import ClassVar, cast

import pytest

from underlay.link import LinkSpec
from underlay.messages import Message, Protocol
from underlay.node import Address, Context, Node, Timer
from underlay.simulation import World

Script = Mapping[float, Callable[[Context], object]]


class Note(Message, frozen=True, array_like=True, tag=1):
    """A datagram of 3 bytes and its text."""

    text: str = ""


class Photo(Message, frozen=True, array_like=True, tag=2):
    """A datagram that carries an observation."""

    carries_payload = True
    pixels: bytes = b""


class Letter(Message, frozen=True, array_like=True, tag=3):
    """Goes over a stream."""

    transport = "stream"
    carries_payload = True
    number: int = 0
    body: bytes = b""


class Thought(Message, frozen=True, array_like=True, tag=4):
    """Stays on its device."""

    transport = "local"
    text: str = ""


class Packet(Message, frozen=True, array_like=True, tag=5):
    """Stands for another protocol's packet of `size_bytes`."""

    transport = "stream"
    size_bytes: int = 0

    def wire_size(self) -> int:
        return self.size_bytes


class Actor(Node):
    """Runs `script` at its times (of the device's clock), then `answers` to each message."""

    protocol: ClassVar[Protocol] = Protocol("actor", Note, Photo, Letter, Packet)

    def __init__(
        self,
        script: Script | None = None,
        answers: Callable[[Context, Address, Message], object] | None = None,
    ) -> None:
        self._script = script or {}
        self._answers = answers
        self.heard: list[tuple[float, Address, Message]] = []
        self.down: list[tuple[float, Address]] = []

    def on_start(self, ctx: Context) -> None:
        for t_s in self._script:
            if t_s >= ctx.now:
                ctx.set_timer(t_s, t_s - ctx.now)

    def on_timer(self, ctx: Context, timer: Timer) -> None:
        self._script[cast("float", timer)](ctx)

    def on_message(self, ctx: Context, sender: Address, message: Message) -> None:
        self.heard.append((ctx.now, sender, message))
        if self._answers is not None:
            self._answers(ctx, sender, message)

    def on_peer_down(self, ctx: Context, peer: Address) -> None:
        self.down.append((ctx.now, peer))


def says(peer: Address, message: Message, times: int = 1) -> Callable[[Context], None]:
    """A step of a script: send `message` to `peer`."""

    def step(ctx: Context) -> None:
        for _ in range(times):
            ctx.send(peer, message)

    return step


def actor(world: World, address: Address) -> Actor:
    """The running actor at `address`."""
    node = world.node(address)
    assert isinstance(node, Actor)
    return node


def heard(world: World, address: Address) -> list[str]:
    """The texts an actor heard, in order."""
    return [
        message.text for _, _, message in actor(world, address).heard if isinstance(message, Note | Thought)
    ]


def heard_at(world: World, address: Address) -> list[float]:
    """When it heard them, by its own clock."""
    return [t_s for t_s, _, _ in actor(world, address).heard]


def usage(world: World, source: str, target: str, field: str) -> float:
    """Total of a field of the link records of one direction."""
    return fsum(
        record[field]
        for record in world.records()
        if record["event"] == "link-usage" and (record["source"], record["target"]) == (source, target)
    )


def events(world: World, name: str) -> list[dict[str, object]]:
    """The trace's records of that event."""
    return [record for record in world.records() if record["event"] == name]


def about(seconds: float) -> object:
    """Equal but for rounding."""
    return pytest.approx(seconds, abs=1e-9)


LOSSY = LinkSpec(rate_kbps=1000.0, delay_ms=10.0, loss_ratio=0.1)
"""One packet in ten is lost."""
