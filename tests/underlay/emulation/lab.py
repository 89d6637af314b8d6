"""Small nodes and networks for the tests of the Mininet fabric, and a way to ask a trace.

A busy machine may keep any process from running for `STALL_S`, so when a node noticed something proves
nothing. What a test may rely on is which numbers arrived, and when they were sent: `Records.sent`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from itertools import pairwise
from math import inf
from pathlib import Path
from typing import Any

from underlay.emulation.fabric import Emulation
from underlay.faults import AnyFault, TimedFault
from underlay.link import LinkSpec
from underlay.messages import Message, Protocol
from underlay.network import Channel, Device, Link, Network
from underlay.node import Context, Node, Timer, in_range
from underlay.plan import DevicePlan, NodePlan, Plan, ProgramPlan
from underlay.trace import Event, read_trace

PORT = 7000
STALL_S = 1.0
"""How long a process may not get to run. Phases of a run last longer."""
WIRE = LinkSpec(rate_kbps=10_000, delay_ms=5)


class Datagram(Message, frozen=True, array_like=True, tag=1):
    n: int


class Framed(Message, frozen=True, array_like=True, tag=2):
    transport = "stream"
    n: int


class Answer(Message, frozen=True, array_like=True, tag=3):
    n: int


class FramedAnswer(Message, frozen=True, array_like=True, tag=4):
    transport = "stream"
    n: int


class Noted(Event, frozen=True, tag="noted"):
    """What a node of this module saw."""

    what: str
    peer: str
    n: int = 0


class Echo(Node):
    """Answers everything, and counts it durably before it answers."""

    protocol = Protocol("echo", Datagram, Framed, Answer, FramedAnswer)

    def on_start(self, ctx: Context) -> None:
        ctx.emit(Noted("started with", "", int(ctx.store.get(b"heard") or b"0")))

    def on_message(self, ctx: Context, sender: str, message: Message) -> None:
        assert isinstance(message, Datagram | Framed | Answer | FramedAnswer)
        ctx.emit(Noted(type(message).__name__, sender, message.n))
        if isinstance(message, Datagram | Framed):
            ctx.store.put(b"heard", b"%d" % (int(ctx.store.get(b"heard") or b"0") + 1))
            answer = Answer(message.n) if isinstance(message, Datagram) else FramedAnswer(message.n)
            ctx.send(sender, answer)

    def on_peer_down(self, ctx: Context, peer: str) -> None:
        ctx.emit(Noted("down", peer))


class Caller(Echo):
    """Sends a numbered message to `peer` every `period_s`."""

    def __init__(
        self, peer: str, kind: type[Datagram] | type[Framed] = Datagram, period_s: float = 0.1
    ) -> None:
        self._peer = peer
        self._kind = kind
        self._period_s = period_s

    def on_start(self, ctx: Context) -> None:
        ctx.set_timer(1, self._period_s)

    def on_timer(self, ctx: Context, timer: Timer) -> None:
        assert isinstance(timer, int)
        ctx.emit(Noted("sent", self._peer, timer))
        ctx.send(self._peer, self._kind(timer))
        ctx.set_timer(timer + 1, self._period_s)


class Broken(Node):
    """Fails in its first handler."""

    protocol = Protocol("broken")

    def on_start(self, ctx: Context) -> None:
        raise ZeroDivisionError("this node is broken on purpose")


EVERYBODY = in_range("echo")


def line(names: str, spec: LinkSpec = WIRE) -> Network:
    """Devices in a row, one letter each."""
    links = tuple(Link(a, b, spec, spec) for a, b in pairwise(names))
    return Network(tuple(Device(name) for name in names), links)


def channel(names: str, spec: LinkSpec = WIRE) -> Network:
    """Devices that all hear each other on one channel, one letter each."""
    pairs = tuple((a, b) for i, a in enumerate(names) for b in names[i + 1 :])
    return Network(tuple(Device(name) for name in names), channels=(Channel("air", spec, pairs),))


def plan(
    network: Network,
    nodes: Mapping[str, Callable[[], Node]],
    duration_s: float,
    *,
    faults: tuple[tuple[float, AnyFault], ...] = (),
    programs: Mapping[str, tuple[ProgramPlan, ...]] | None = None,
    **options: Any,
) -> Plan:
    """A plan in which each device has a node `echo`: an `Echo`, or what `nodes` gives."""
    devices = {
        device.name: DevicePlan(
            nodes=(NodePlan("echo", nodes.get(device.name, Echo), PORT),),
            programs=(programs or {}).get(device.name, ()),
        )
        for device in network.devices
    }
    timeline = tuple(TimedFault(at_s, fault) for at_s, fault in faults)
    return Plan(seed=1, duration_s=duration_s, network=network, devices=devices, faults=timeline, **options)


class Records:
    """A trace to ask."""

    def __init__(self, folder: Path) -> None:
        self.all = list(read_trace(folder / "trace.jsonl"))

    def of(self, event: str, device: str | None = None) -> list[dict[str, Any]]:
        """Records of an event, in order."""
        return [r for r in self.all if r["event"] == event and device in (None, r.get("device"))]

    def noted(self, what: str, device: str | None = None) -> list[dict[str, Any]]:
        """What the nodes of this module saw, in order."""
        return [record for record in self.of("noted", device) if record["what"] == what]

    def numbers(self, what: str, device: str) -> list[int]:
        """The numbers in what a node of this module saw, in order."""
        return [record["n"] for record in self.noted(what, device)]

    def sent(self, device: str, start_s: float = 0.0, end_s: float = inf) -> list[int]:
        """What the device's `Caller` sent between two moments, for certain: it notes each number before it is
        sent, and the next one after it was."""
        noted = self.noted("sent", device)
        return [this["n"] for this, after in pairwise(noted) if start_s <= this["t"] and after["t"] <= end_s]

    def faults_s(self) -> list[float]:
        """When each fault was ordered, which is just before it acted."""
        return [record["t"] for record in self.of("fault-applied")]


def silenced(sent: Sequence[int], arrived: Collection[int]) -> bool:
    """Whether something cut in: from one number on, nothing that was sent has arrived."""
    lost = [n for n in sent if n not in arrived]
    return bool(lost) and lost == list(sent[-len(lost) :])


def run(given: Plan, folder: Path) -> Records:
    """Run on Mininet without probing the links, which would take longer than the run; the trace."""
    Emulation().run(given, folder, verify=False)
    return Records(folder)
