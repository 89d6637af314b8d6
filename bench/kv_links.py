"""The storage tier on slow links: what a write and a read cost in round trips, and what more clients bring.

Three hosts, every two of them 20 ms apart (one way), and a client 15 ms from each. A write should take the
client's round trip and one between replicas; a read under a lease the client's alone. Then more and more
writes are under way at once. The same plan runs in the simulation, where processors cost nothing, and on
Mininet, where all hosts share this machine's.

    `python -m bench.kv_links [--simulation]`
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from statistics import median

import msgspec

from bench.kv_clusters import HOSTS, VALUE_BYTES
from kv.client import Client, Reply
from kv.messages import CLIENT_MESSAGES
from kv.operations import Command
from kv.tiers import Tier, tier
from underlay.emulation.fabric import Emulation
from underlay.link import LinkSpec
from underlay.messages import Message, Protocol
from underlay.network import Device, Link, Network
from underlay.node import Address, Context, Node, Timer
from underlay.plan import DevicePlan, NodePlan, Plan
from underlay.simulation.fabric import Simulation
from underlay.trace import Event, read_trace

HUB = "hub"
HOST_ONE_WAY_MS, CLIENT_ONE_WAY_MS = 10.0, 5.0
"""To the hub."""
PEER_RTT_MS = 4 * HOST_ONE_WAY_MS
CLIENT_RTT_MS = 2 * (HOST_ONE_WAY_MS + CLIENT_ONE_WAY_MS)
RATE_KBPS = 100_000.0
ALLOWED = 1.15
BEGIN_S = 4.0
"""By then the tier has a leader."""
PHASE_S = 3.0
WARM_UP_S = 0.5
"""Of each phase: what begins in it is not counted."""
CLIENT, PORT = "client", 7050


class Phase(msgspec.Struct, frozen=True):
    """So many commands under way at once."""

    clients: int
    writes: bool = True


PHASES = (Phase(1), Phase(1, writes=False), Phase(4), Phase(16), Phase(64), Phase(256))


class PhaseEnded(Event, frozen=True, tag="phase-ended"):
    """What the client saw of one phase."""

    number: int
    done: int
    failed: int
    p50_ms: float


class Loader(Node):
    """A client that goes through the phases, and says in the trace how each went."""

    protocol = Protocol("loader", *CLIENT_MESSAGES)

    def __init__(self, storage: Tier) -> None:
        lanes = max(phase.clients for phase in PHASES)
        self._client: Client[Context] = Client(storage.directory(), lanes=lanes)
        self._number = -1
        self._counted_from_s = 0.0
        self._times_ms: list[float] = []
        self._failed = 0

    def on_start(self, ctx: Context) -> None:
        ctx.set_timer("phase", BEGIN_S)

    def on_message(self, ctx: Context, sender: Address, message: Message) -> None:
        self._client.on_message(ctx, sender, message)

    def on_peer_down(self, ctx: Context, peer: Address) -> None:
        self._client.on_peer_down(ctx, peer)

    def on_timer(self, ctx: Context, timer: Timer) -> None:
        if self._client.on_timer(ctx, timer):
            return
        if self._number >= 0:
            done = len(self._times_ms)
            p50_ms = median(self._times_ms) if done else 0.0
            ctx.emit(PhaseEnded(self._number, done, self._failed, p50_ms))
        self._number += 1
        if self._number < len(PHASES):
            self._counted_from_s = ctx.now + WARM_UP_S
            self._times_ms, self._failed = [], 0
            for _ in range(PHASES[self._number].clients):
                self._ask(ctx, self._number)
            ctx.set_timer("phase", PHASE_S)

    def _ask(self, ctx: Context, number: int) -> None:
        command: Command = (b"GET", b"key")
        if PHASES[number].writes:
            command = (b"SET", b"key", b"x" * VALUE_BYTES)
        self._client.call(ctx, command, partial(self._answered, number, ctx.now))

    def _answered(self, number: int, asked_s: float, ctx: Context, reply: Reply) -> None:
        if number != self._number:
            return  # of a phase that is over
        self._failed += reply.outcome is None or bool(reply.outcome.failure)
        if asked_s >= self._counted_from_s:
            self._times_ms.append((ctx.now - asked_s) * 1e3)
        self._ask(ctx, number)


def the_plan() -> Plan:
    """The run."""
    storage = tier("paxos", HOSTS)
    devices = {host: DevicePlan(nodes) for host, nodes in storage.nodes().items()}
    devices[CLIENT] = DevicePlan((NodePlan("loader", partial(Loader, storage), PORT),))
    network = Network(tuple(map(Device, (HUB, *devices))), tuple(_links()))
    return Plan(seed=1, duration_s=BEGIN_S + PHASE_S * len(PHASES) + 1.0, network=network, devices=devices)


def _links() -> Iterator[Link]:
    for device, one_way_ms in ((CLIENT, CLIENT_ONE_WAY_MS), *((host, HOST_ONE_WAY_MS) for host in HOSTS)):
        wire = LinkSpec(rate_kbps=RATE_KBPS, delay_ms=one_way_ms)
        yield Link(HUB, device, wire, wire)


def run(fabric: Callable[[Plan, Path], None]) -> list[PhaseEnded]:
    """All phases on that fabric."""
    with tempfile.TemporaryDirectory(prefix="bench-kv-") as scratch:
        folder = Path(scratch) / "run"
        folder.mkdir()
        fabric(the_plan(), folder)
        ended = (record for record in read_trace(folder / "trace.jsonl") if record["event"] == "phase-ended")
        return [msgspec.convert(record, PhaseEnded) for record in ended]


def show(name: str, phases: list[PhaseEnded]) -> None:
    """Print what came of a run."""
    write, read = phases[0], phases[1]
    write_ms, read_ms = CLIENT_RTT_MS + PEER_RTT_MS, CLIENT_RTT_MS
    print(f"{name}:")
    print(
        f"  one write {write.p50_ms:.1f} ms, {write.p50_ms / write_ms:.2f} times the client's round trip "
        f"and one between replicas (at most {ALLOWED:g}: {_met(write.p50_ms <= ALLOWED * write_ms)})"
    )
    print(
        f"  one read {read.p50_ms:.1f} ms, the client's round trip is {read_ms:g} ms "
        f"(no other: {_met(read.p50_ms < read_ms + PEER_RTT_MS / 2)})"
    )
    for phase in phases:
        if PHASES[phase.number].writes:
            per_s = phase.done / (PHASE_S - WARM_UP_S)
            clients = PHASES[phase.number].clients
            print(f"  {clients:4} clients: {per_s:7,.0f} writes a second, p50 {phase.p50_ms:6.1f} ms")
    failed = sum(phase.failed for phase in phases)
    print(f"  failed: {failed}")


def _met(well: bool) -> str:
    return "met" if well else "missed"


def main() -> None:
    """Print both runs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--simulation", action="store_true", help="nothing on Mininet")
    arguments = parser.parse_args()
    show("simulation", run(Simulation().run))
    if not arguments.simulation:
        print(f"({os.cpu_count()} cores for all hosts)")
        show("Mininet", run(Emulation().run))


if __name__ == "__main__":
    main()
