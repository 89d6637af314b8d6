"""The store on a real network of Mininet: processes are killed, stand still and are cut off while clients on
other devices use it, and what these saw is linearizable.

Nothing here depends on how fast the machine is. Clients note a call in the trace before they send it and
after it was answered, all by one clock; what is judged is the order of these notes, and that a client was
answered after the last fault had ended. Calls without an answer count as unknown.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path

import msgspec
import pytest

from kv.checking.history import Call
from kv.checking.linearizability import find_violation
from kv.client import Client, Patience, Reply
from kv.messages import CLIENT_MESSAGES
from kv.operations import OK, Command, Outcome
from kv.slots import slot_of
from kv.tiers import Kind, Tier, tier
from tests.kv.cluster import HOT_KEYS, Draw, Mover, mixed, reads
from underlay.emulation.fabric import Emulation
from underlay.faults import AnyFault, Crash, Heal, LoseDisk, Partition, Pause, Restart, Resume, TimedFault
from underlay.link import LinkSpec
from underlay.messages import Message, Protocol
from underlay.network import Device, Link, Network
from underlay.node import Address, Context, Node, Timer
from underlay.plan import DevicePlan, NodePlan, Plan
from underlay.trace import Event, Record, read_trace

pytestmark = pytest.mark.emulation

WIRE = LinkSpec(rate_kbps=100_000.0, delay_ms=1.0)
BEGIN_S, CALM_S, END_S = 2.5, 14.5, 21.0
PAUSE_S = 0.03
PATIENCE = Patience(deadline_s=20.0, try_s=0.5)

SHOPPERS = ("c1", "c2", "c3", "c4", "c5")
"""They meet at a few hot keys; the first only reads."""
HOARDER = "c6"
"""It writes keys that are nobody else's, and reads them all at the end."""
TROUBLES: tuple[tuple[float, AnyFault], ...] = (
    (4.0, Crash("s1")),
    (6.0, Restart("s1")),
    (6.8, Pause("s2")),
    (8.3, Resume("s2")),
    (9.0, Partition((("s3", "c3"),))),
    (10.5, Heal()),
    (11.0, Crash("s2")),
    (12.2, Restart("s2")),
    (13.0, Crash("s3")),
    (14.0, Restart("s3")),
)
"""All three replicas of a group in turn, so that whoever leads is struck; one is cut off with a client."""
ALL_LOST: tuple[tuple[float, AnyFault], ...] = ((11.4, LoseDisk("s2")),)


class Asked(Event, frozen=True, tag="asked"):
    """A client is about to call."""

    number: int
    command: bytes
    """As msgpack."""


class Told(Event, frozen=True, tag="told"):
    """It was answered."""

    number: int
    outcome: bytes
    """As msgpack."""


class Customer(Node):
    """A client that notes what it does in the trace."""

    protocol = Protocol("customer", *CLIENT_MESSAGES)

    def __init__(self, store: Tier) -> None:
        self._client: Client[Context] = Client(store.directory(), PATIENCE)
        self._number = 0

    def on_start(self, ctx: Context) -> None:
        ctx.set_timer("next", BEGIN_S)

    def on_message(self, ctx: Context, sender: Address, message: Message) -> None:
        self._client.on_message(ctx, sender, message)

    def on_timer(self, ctx: Context, timer: Timer) -> None:
        if not self._client.on_timer(ctx, timer):
            self.go_on(ctx)

    def on_peer_down(self, ctx: Context, peer: Address) -> None:
        self._client.on_peer_down(ctx, peer)

    def go_on(self, ctx: Context) -> None:
        """It is time for the next call."""
        raise AssertionError("a customer wants something")

    def call(self, ctx: Context, command: Command) -> None:
        """Have it done, and note it."""
        self._number += 1
        ctx.emit(Asked(self._number, msgspec.msgpack.encode(command)))
        self._client.call(ctx, command, partial(self._done, self._number))

    def _done(self, number: int, ctx: Context, reply: Reply) -> None:
        if reply.outcome is not None and reply.outcome.executed:
            ctx.emit(Told(number, msgspec.msgpack.encode(reply.outcome)))
        calm = ctx.now > CALM_S
        ctx.set_timer("next", ctx.rng.uniform(0.0, 2.0 * (10 * PAUSE_S if calm else PAUSE_S)))


class Shopper(Customer):
    """One random call after another, on hot keys."""

    def __init__(self, store: Tier, draw: Draw) -> None:
        super().__init__(store)
        self._draw = draw

    def go_on(self, ctx: Context) -> None:
        self.call(ctx, self._draw(ctx.rng, b"<%s-%d>" % (ctx.device.encode(), self._number)))


class Hoarder(Customer):
    """Writes each key once while there are troubles, then reads them all."""

    _read = False

    def go_on(self, ctx: Context) -> None:
        if ctx.now < CALM_S:
            self.call(ctx, (b"SET", b"own-%d" % (self._number + 1), b"<%d>" % (self._number + 1)))
        elif not self._read:
            self._read = True
            for number in range(1, self._number + 1):
                self.call(ctx, (b"GET", b"own-%d" % number))


@pytest.mark.parametrize("kind", ["primary-backup", "paxos", "sharded"])
def test_what_clients_saw_is_linearizable_and_goes_on_after_the_troubles(kind: Kind, tmp_path: Path) -> None:
    store = tier(kind, [f"s{number}" for number in range(1, 4 if kind == "paxos" else 6)])
    # A primary whose backup is not ready cannot do without its disk; a group of three can do without one.
    troubles = TROUBLES if kind == "primary-backup" else (*TROUBLES, *ALL_LOST)
    Emulation().run(plan_of(store, troubles), tmp_path, verify=False)
    records = list(read_trace(tmp_path / "trace.jsonl"))
    history = list(calls(records))

    struck = sum(is_struck(call, spans(records)) for call in history)
    assert struck >= len(history) / 5, f"{struck} of {len(history)} operations overlap a fault"
    violation = find_violation(history)
    assert violation is None, str(violation)
    all_over_s = max(record["t"] for record in records if record["event"] == "fault-applied")
    for client in (*SHOPPERS, HOARDER):
        assert any(
            call.client == client and call.invoked_s > all_over_s and call.returned_s is not None
            for call in history
        ), f"{client} was not answered any more"
    written = {call.key for call in history if call.client == HOARDER and call.outcome == OK}
    found = {call.key for call in history if call.command[0] == b"GET" and call.outcome is not None}
    assert len(written) > 50
    assert written <= found  # and what was found there is right, or it would be a violation


# ---------------------------------------------------------------------------------------------------- helpers


def plan_of(store: Tier, troubles: Iterable[tuple[float, AnyFault]]) -> Plan:
    """The tier and its clients around a switch; some clients have a link of their own to a host as well, so
    that they are cut off together with it."""
    devices = store.devices()
    for client in SHOPPERS:
        does = reads if client == SHOPPERS[0] else mixed
        devices[client] = DevicePlan((NodePlan("customer", partial(Shopper, store, does), 7000),))
    devices[HOARDER] = DevicePlan((NodePlan("customer", partial(Hoarder, store), 7000),))
    if store.kind == "sharded":
        devices["m"] = DevicePlan((NodePlan("mover", partial(mover, store), 7001),))
    links = [("switch", device) for device in devices]
    links += [(f"s{number}", f"c{number}") for number in (1, 2, 3)]
    network = Network(
        tuple(Device(name) for name in ("switch", *devices)), tuple(Link(a, b, WIRE, WIRE) for a, b in links)
    )
    timeline = tuple(TimedFault(at_s, fault) for at_s, fault in troubles)
    return Plan(
        seed=1,
        duration_s=END_S,
        network=network,
        devices=devices,
        faults=tuple(sorted(timeline, key=lambda timed: timed.at_s)),
        route_convergence_s=0.3,
    )


def mover(store: Tier) -> Mover:
    """Moves slots, those of the hot keys too, until all is calm."""
    slots = [slot_of(key) for key in HOT_KEYS]
    return Mover(store.directory(), list(store.groups), slots, CALM_S - 1.0)


def calls(records: Sequence[Record]) -> Iterator[Call]:
    """What the clients noted."""
    told = {
        (record["device"], record["number"]): (record["t"], outcome_of(record["outcome"]))
        for record in records
        if record["event"] == "told"
    }
    for record in records:
        if record["event"] == "asked":
            command = tuple(msgspec.msgpack.decode(unpacked(record["command"]), type=list[bytes]))
            returned_s, outcome = told.get((record["device"], record["number"]), (None, None))
            yield Call(record["device"], command, record["t"], returned_s, outcome)


def outcome_of(text: str) -> Outcome:
    """Of a record; bytes are base64 in JSON."""
    return msgspec.msgpack.decode(unpacked(text), type=Outcome)


def unpacked(text: str) -> bytes:
    """As the client wrote it."""
    return msgspec.convert(text, bytes)


def spans(records: Sequence[Record]) -> list[tuple[float, float]]:
    """From when until when something was broken: here faults begin and end in turn."""
    at_s = [
        record["t"]
        for record in records
        if record["event"] == "fault-applied" and record["fault"]["fault"] != "lose-disk"
    ]
    return list(zip(at_s[::2], at_s[1::2], strict=True))


def is_struck(call: Call, spans: Iterable[tuple[float, float]]) -> bool:
    """Whether something was broken meanwhile."""
    returned_s = END_S if call.returned_s is None else call.returned_s
    return any(begin_s <= returned_s and call.invoked_s <= end_s for begin_s, end_s in spans)
