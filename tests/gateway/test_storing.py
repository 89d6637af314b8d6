"""From the sink's spool into the storage tier: once each, whatever fails, and nothing that was acknowledged
is forgotten."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import partial
from typing import Any

import pytest

from edge.observation import Observation, ObservationId, Observed
from edge.sink import Kept
from gateway import storing
from gateway.storing import Storing
from kv.client import Client, Reply
from kv.messages import CLIENT_MESSAGES
from kv.tiers import Kind, Tier, tier
from underlay.faults import Crash, Heal, Partition, Restart
from underlay.link import LinkSpec
from underlay.messages import Message, Protocol
from underlay.network import Device, Link, Network
from underlay.node import Address, Context, Node, Timer, address
from underlay.plan import DevicePlan, NodePlan, Plan
from underlay.simulation import World, every_pair

HOSTS = ("store1", "store2", "store3")
READY_S = 3.0
"""By then a tier has its first leaders."""
LONG_S = 90.0
"""Longer than the client's patience, three times over."""
WIRE = LinkSpec(rate_kbps=100_000.0, delay_ms=1.0)


class Feed(Message, frozen=True, array_like=True, tag=1):
    """Hand these over."""

    transport = "local"
    observations: tuple[Observation, ...]


class Feeder(Node):
    """A dissemination's last node: hands over what it is told to, and remembers what was kept."""

    protocol = Protocol("feeder", Feed)

    def __init__(self) -> None:
        self.kept: Counter[str] = Counter()

    def on_message(self, ctx: Context, sender: Address, message: Message) -> None:
        match message:
            case Feed(observations):
                for observation in observations:
                    ctx.send(address(ctx.device, "storing"), Observed(observation))
            case Kept(id):
                self.kept[id] += 1


class Order(Message, frozen=True, array_like=True, tag=900):
    """Have this executed."""

    transport = "local"
    command: tuple[bytes, ...]


class Stranger(Node):
    """Another client of the tier, which does behind the sink's back what it is told to."""

    protocol = Protocol("stranger", *CLIENT_MESSAGES)

    def __init__(self, store: Tier) -> None:
        self.replies: list[Reply] = []
        self._client: Client[Context] = Client(store.directory())

    def on_message(self, ctx: Context, sender: Address, message: Message) -> None:
        if isinstance(message, Order):
            self._client.call(ctx, message.command, lambda ctx, reply: self.replies.append(reply))
        else:
            self._client.on_message(ctx, sender, message)

    def on_timer(self, ctx: Context, timer: Timer) -> None:
        self._client.on_timer(ctx, timer)


class Scene:
    """A sink that stores into a tier of three hosts, all of them in range of each other."""

    def __init__(self, kind: Kind = "paxos", *, read_back_at_s: float | None = None) -> None:
        store = tier(kind, HOSTS)
        nodes = store.nodes()
        connect = partial(_client, store)
        nodes["sink"] = (
            NodePlan("storing", partial(Storing, connect, read_back_at_s), 7000),
            NodePlan("feeder", Feeder, 7001),
        )
        nodes["stranger"] = (NodePlan("stranger", partial(Stranger, store), 7002),)
        links = tuple(Link(a, b, WIRE, WIRE) for a, b in every_pair(nodes))
        network = Network(tuple(Device(name) for name in nodes), links)
        devices = {name: DevicePlan(plans) for name, plans in nodes.items()}
        self.world = World(Plan(seed=1, duration_s=600.0, network=network, devices=devices))
        self.run(READY_S)

    def run(self, for_s: float) -> None:
        self.world.run_until(self.world.now + for_s)

    def feed(self, *observations: Observation) -> None:
        self.world.inject("sink/feeder", Feed(observations))

    @property
    def kept(self) -> Counter[str]:
        """How often each was acknowledged to whoever handed it over, since the sink's last start."""
        node = self.world.node("sink/feeder")
        assert isinstance(node, Feeder)
        return node.kept

    def told(self, event: str) -> list[dict[str, Any]]:
        return [record for record in self.world.records() if record["event"] == event]

    @property
    def stored(self) -> list[str]:
        """What the tier acknowledged, in order."""
        return [record["id"] for record in self.told("stored")]

    def do(self, *command: bytes) -> Any:
        """Have the stranger do it; what came of it."""
        self.world.inject("stranger/stranger", Order(command))
        self.run(5.0)
        node = self.world.node("stranger/stranger")
        assert isinstance(node, Stranger)
        outcome = node.replies.pop().outcome
        assert outcome is not None
        return outcome.value

    def has(self, observation: Observation) -> bool:
        """Whether the tier has it as it was made."""
        return bool(self.do(b"GET", observation.key()) == observation.encode())


def _client(store: Tier, lanes: int) -> Client[Context]:
    return Client(store.directory(), lanes=lanes)


def seen(*sequences: int, size_bytes: int = 40) -> list[Observation]:
    """Observations of one device."""
    return [
        Observation(ObservationId("cam1", n), "temperature", 60.0 * n, 0.5, b"x" * size_bytes)
        for n in sequences
    ]


def ids(observations: Sequence[Observation]) -> list[str]:
    return [str(observation.id) for observation in observations]


@pytest.mark.parametrize("kind", ["primary-backup", "paxos", "sharded"])
def test_what_the_sink_takes_is_in_the_tier_whichever_it_is(kind: Kind) -> None:
    scene = Scene(kind)
    some = seen(1, 2, 3)
    scene.feed(*some)
    scene.run(2.0)
    assert sorted(scene.stored) == ids(some)
    assert all(scene.has(observation) for observation in some)


def test_a_duplicate_is_acknowledged_again_and_stored_once() -> None:
    scene = Scene()
    (one,) = seen(1)
    scene.feed(one, one)
    scene.run(2.0)
    scene.feed(one)
    scene.run(2.0)
    assert scene.kept == {"cam1:1": 3}
    assert scene.stored == ["cam1:1"]


def test_what_was_acknowledged_outlives_a_crash_of_the_sink() -> None:
    """It is kept before the tier has it, and is written when the sink is back."""
    scene = Scene()
    scene.world.apply(Partition((HOSTS,)))
    some = seen(1, 2, 3)
    scene.feed(*some)
    scene.run(1.0)
    assert scene.kept == Counter(ids(some))
    scene.world.apply(Crash("sink"))
    scene.run(1.0)
    scene.world.apply(Heal())
    scene.run(1.0)
    assert scene.stored == []
    scene.world.apply(Restart("sink"))
    scene.run(10.0)
    assert sorted(scene.stored) == ids(some)
    assert all(scene.has(observation) for observation in some)


def test_the_spool_is_empty_when_the_tier_has_everything() -> None:
    scene = Scene()
    scene.world.apply(Partition((HOSTS,)))
    scene.feed(*seen(1, 2))
    scene.run(1.0)
    assert len(scene.world.durable("sink/storing")) == 2
    scene.world.apply(Heal())
    scene.run(10.0)
    assert scene.world.durable("sink/storing") == {}


@pytest.mark.parametrize("kind", ["primary-backup", "paxos", "sharded"])
def test_nothing_is_lost_however_long_the_tier_is_away(kind: Kind) -> None:
    """Every call's deadline passes again and again meanwhile."""
    scene = Scene(kind)
    for host in HOSTS:
        scene.world.apply(Crash(host))
    some = seen(*range(100))  # more than there are lanes
    scene.feed(*some)
    scene.run(LONG_S)
    assert scene.kept == Counter(ids(some))
    assert scene.stored == []
    for host in HOSTS:
        scene.world.apply(Restart(host))
    scene.run(LONG_S)
    assert sorted(scene.stored) == sorted(ids(some))
    assert scene.has(some[0])
    assert scene.has(some[-1])


def test_a_full_spool_turns_away_and_acknowledges_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """And takes again when there is room: whoever was not acknowledged hands over once more."""
    small, large = *seen(1), *seen(2, size_bytes=1000)
    monkeypatch.setattr(storing, "SPOOL_BYTES_MAX", len(large.encode()))
    scene = Scene()
    scene.world.apply(Partition((HOSTS,)))
    scene.feed(small, large)
    scene.run(1.0)
    assert scene.kept == {"cam1:1": 1}
    (full,) = scene.told("spool-full")
    assert (full["id"], full["spooled_bytes"]) == ("cam1:2", len(small.encode()))
    scene.world.apply(Heal())
    scene.run(10.0)
    scene.feed(large)
    scene.run(5.0)
    assert scene.kept == {"cam1:1": 1, "cam1:2": 1}
    assert scene.stored == ["cam1:1", "cam1:2"]


def test_reading_back_finds_what_is_missing_and_what_is_not_as_it_was_written() -> None:
    scene = Scene(read_back_at_s=20.0)
    gone, changed, well = seen(1, 2, 3)
    scene.feed(gone, changed, well)
    scene.run(2.0)
    assert scene.do(b"DEL", gone.key()) == 1
    scene.do(b"SET", changed.key(), b"something else")
    scene.world.run_until(25.0)
    (found,) = scene.told("read-back")
    assert found["checked"] == 3
    assert sorted(found["missing"]) == ids([gone, changed])


def test_reading_back_waits_for_a_tier_that_is_away() -> None:
    """No answer is no proof that anything is missing."""
    scene = Scene(read_back_at_s=10.0)
    scene.feed(*seen(1, 2))
    scene.run(2.0)
    scene.world.apply(Partition((HOSTS,)))
    scene.run(LONG_S)
    assert scene.told("read-back") == []
    scene.world.apply(Heal())
    scene.run(10.0)
    (found,) = scene.told("read-back")
    assert (found["checked"], found["missing"]) == (2, [])
