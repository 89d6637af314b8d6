"""The gateway's node in the simulation: what it takes is in the storage tier, once each and in order,
whatever fails; what it does not take is said; and it answers questions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import pairwise
from typing import Any

import pytest

from edge.observation import Observation, ObservationId, Observed
from edge.sink import Kept
from gateway.destinations.dispatch import bindings
from gateway.gateway import Gateway, GatewayConfig
from gateway.messages import (
    Answer,
    AnyQuestion,
    Ask,
    DeadLetters,
    DestinationStates,
    Devices,
    Fetch,
    Judged,
    Offered,
    Page,
    RouteState,
    RouteStates,
    StorageState,
    Stretch,
    Unreadable,
    Verdict,
)
from gateway.readings import meaning
from gateway.routing.routes import Route
from gateway.routing.routing import Routing
from gateway.routing.targets import Images, Lines
from gateway.spool import Bounds
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
                    ctx.send(address(ctx.device, "gateway"), Observed(observation))
            case Kept(id):
                self.kept[id] += 1


class Bring(Message, frozen=True, array_like=True, tag=2):
    """Say this to the gateway."""

    transport = "local"
    message: Offered | Ask | Unreadable


class Door(Node):
    """Brings the gateway what it is told to, and remembers the answers."""

    protocol = Protocol("door", Bring)

    def __init__(self) -> None:
        self.verdicts: dict[int, tuple[Verdict, ...]] = {}
        self.answers: list[Answer] = []

    def on_message(self, ctx: Context, sender: Address, message: Message) -> None:
        match message:
            case Bring(inner):
                ctx.send(address(ctx.device, "gateway"), inner)
            case Judged(token, verdicts):
                self.verdicts[token] = verdicts
            case Answer():
                self.answers.append(message)


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

    def __init__(
        self,
        kind: Kind = "paxos",
        config: GatewayConfig | None = None,
        more: Mapping[str, DevicePlan] | None = None,
    ) -> None:
        config = config or GatewayConfig()
        store = tier(kind, HOSTS)
        nodes = store.nodes()
        connect = partial(client_of, store)
        nodes["sink"] = (
            NodePlan("gateway", partial(Gateway, connect, config), 7000),
            NodePlan("feeder", Feeder, 7001),
            NodePlan("door", Door, 7003),
        )
        nodes["stranger"] = (NodePlan("stranger", partial(Stranger, store), 7002),)
        devices = {name: DevicePlan(plans) for name, plans in nodes.items()} | dict(more or {})
        devices["sink"] = DevicePlan(nodes["sink"], bindings(config.routing.destination))
        links = tuple(Link(a, b, WIRE, WIRE) for a, b in every_pair(devices))
        network = Network(tuple(Device(name) for name in devices), links)
        self.world = World(Plan(seed=1, duration_s=600.0, network=network, devices=devices))
        self._offers = 0
        self.run(READY_S)

    def run(self, for_s: float) -> None:
        self.world.run_until(self.world.now + for_s)

    def feed(self, *observations: Observation) -> None:
        self.world.inject("sink/feeder", Feed(observations))

    def offer(self, *observations: Observation, for_s: float = 1.0) -> list[str]:
        """What a door is told of each of them."""
        self._offers += 1
        self.world.inject("sink/door", Bring(Offered(self._offers, "http", observations)))
        self.run(for_s)
        return [verdict.outcome for verdict in self.verdicts]

    def ask(self, question: AnyQuestion, for_s: float = 12.0) -> Any:
        """The answer's body; its problem fails the test."""
        answer = self.answer(question, for_s)
        assert not answer.problem
        return answer.body

    def answer(self, question: AnyQuestion, for_s: float) -> Answer:
        self.world.inject("sink/door", Bring(Ask(7, question)))
        self.run(for_s)
        return self._door.answers.pop()

    @property
    def _door(self) -> Door:
        node = self.world.node("sink/door")
        assert isinstance(node, Door)
        return node

    @property
    def verdicts(self) -> tuple[Verdict, ...]:
        """Of the last offer."""
        return self._door.verdicts[self._offers]

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


def client_of(store: Tier, lanes: int) -> Client[Context]:
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
    assert scene.stored == ids(some)
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
    assert scene.stored == ids(some)
    assert all(scene.has(observation) for observation in some)


def test_the_spool_is_empty_when_the_tier_has_everything() -> None:
    scene = Scene()
    scene.world.apply(Partition((HOSTS,)))
    scene.feed(*seen(1, 2))
    scene.run(1.0)
    assert len(scene.world.durable("sink/gateway")) == 2
    scene.world.apply(Heal())
    scene.run(10.0)
    assert scene.world.durable("sink/gateway") == {}


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
    assert scene.stored == ids(some)
    assert scene.has(some[0])
    assert scene.has(some[-1])


def test_a_full_spool_acknowledges_nothing_more_until_there_is_room() -> None:
    """And then takes by itself what was turned away, since a session offers nothing twice."""
    small, large = *seen(1), *seen(2, size_bytes=1000)
    scene = Scene(config=GatewayConfig(bounds=Bounds(bytes_max=len(large.encode()))))
    scene.world.apply(Partition((HOSTS,)))
    scene.feed(small, large)
    scene.run(1.0)
    assert scene.kept == {"cam1:1": 1}
    (full,) = scene.told("spool-full")
    assert (full["id"], full["spooled_bytes"]) == ("cam1:2", len(small.encode()))
    scene.world.apply(Heal())
    scene.run(10.0)
    assert scene.kept == {"cam1:1": 1, "cam1:2": 1}
    assert scene.stored == ["cam1:1", "cam1:2"]


def test_reading_back_finds_what_is_missing_and_what_is_not_as_it_was_written() -> None:
    scene = Scene(config=GatewayConfig(read_back_at_s=20.0))
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
    scene = Scene(config=GatewayConfig(read_back_at_s=10.0))
    scene.feed(*seen(1, 2))
    scene.run(2.0)
    scene.world.apply(Partition((HOSTS,)))
    scene.run(LONG_S)
    assert scene.told("read-back") == []
    scene.world.apply(Heal())
    scene.run(10.0)
    (found,) = scene.told("read-back")
    assert (found["checked"], found["missing"]) == (2, [])


# ----------------------------------------------------------------------------------------------------- routes

ROUTING = Routing(
    route=(
        Route(to="archive", kind="temperature", goes_on=True),
        Route(to="store", kind="temperature"),
        Route(to="album", kind="photograph"),
        Route(to="drop", device="noisy*"),
    ),
    destination={"archive": Lines("all.jsonl"), "album": Images("album")},
)


def made(device: str, sequence: int, kind: str) -> Observation:
    return Observation(ObservationId(device, sequence), kind, 60.0 * sequence, 0.5, b"x" * 40)


def filed(scene: Scene) -> list[tuple[str, str]]:
    return [(record["destination"], record["id"]) for record in scene.told("destination-has")]


def test_each_goes_where_its_routes_say() -> None:
    scene = Scene(config=GatewayConfig(routing=ROUTING))
    some = [made("cam1", 1, "temperature"), made("cam1", 2, "photograph"), made("cam1", 3, "motion")]
    some += [made("noisy1", 1, "motion")]
    assert scene.offer(*some, for_s=3.0) == ["kept"] * 4
    assert filed(scene) == [("archive", "cam1:1"), ("album", "cam1:2")]
    assert sorted(scene.stored) == ["cam1:1", "cam1:3"]
    elsewhere = {record["id"]: record["to"] for record in scene.told("routed-elsewhere")}
    assert elsewhere == {"cam1:2": ["album"], "noisy1:1": ["drop"]}
    states = {state.name: (state.taken, state.delivered) for state in scene.ask(DestinationStates())}
    assert states == {"store": (2, 2), "archive": (1, 1), "album": (1, 1)}
    routes = [(each.name, each.to, each.matched, each.written) for each in scene.ask(RouteStates())]
    assert routes == [
        ("archive", "archive", 1, 1),
        ("store", "store", 1, 1),
        ("album", "album", 1, 1),
        ("drop", "drop", 1, 0),
        ("unmatched", "store", 1, 1),
        ("dead-letter", "table", 0, 0),
    ]
    assert scene.offer(*some) == ["duplicate"] * 4


def test_a_destination_that_is_away_holds_up_no_other_and_a_crash_loses_nothing() -> None:
    scene = Scene(config=GatewayConfig(routing=ROUTING))
    scene.world.apply(Partition((HOSTS,)))
    some = [made("cam1", n, "temperature") for n in range(5)]
    assert scene.offer(*some, for_s=3.0) == ["kept"] * 5
    assert filed(scene) == [("archive", id_) for id_ in ids(some)]
    assert scene.stored == []
    scene.world.apply(Crash("sink"))
    scene.world.apply(Heal())
    scene.world.apply(Restart("sink"))
    scene.run(10.0)
    assert scene.stored == ids(some)
    assert len(filed(scene)) == 5


def routed(*routes: Route, bounds: Bounds | None = None) -> Scene:
    routing = Routing(routes, {"archive": Lines("all.jsonl")})
    return Scene(config=GatewayConfig(bounds=bounds or Bounds(), routing=routing))


def counted(scene: Scene, name: str) -> RouteState:
    found = next(state for state in scene.ask(RouteStates()) if state.name == name)
    assert isinstance(found, RouteState)
    return found


def test_a_route_with_a_rate_takes_everything_and_lets_it_leave_slowly() -> None:
    scene = routed(Route(to="archive", rate_limit_per_s=2.0, rate_burst=1))
    some = seen(*range(6))
    assert scene.offer(*some) == ["kept"] * 6
    scene.run(5.0)
    assert filed(scene) == [("archive", id_) for id_ in ids(some)]
    times = [record["t"] for record in scene.told("destination-has")]
    assert [round(b - a, 2) for a, b in pairwise(times)] == [0.5] * 5


def test_a_route_that_blocks_holds_the_sender_back_to_its_rate() -> None:
    scene = routed(Route(to="archive", rate_limit_per_s=2.0, overflow="block"))
    some = seen(*range(6))
    assert scene.offer(*some) == ["kept", "kept", "busy", "busy", "busy", "busy"]
    assert scene.verdicts[-1].retry_after_s == 0.5
    assert scene.offer(*some[2:]) == ["kept", "kept", "busy", "busy"]
    state = counted(scene, "archive")
    assert (state.matched, state.written, state.refused) == (4, 4, 6)
    scene.feed(*some[4:], *seen(7, 8, 9))  # who offers nothing twice is taken in when the rate allows
    scene.run(3.0)
    assert list(scene.kept) == ids(seen(4, 5, 7, 8, 9))
    assert [id_ for _, id_ in filed(scene)] == ids([*some, *seen(7, 8, 9)])


def test_what_gives_way_is_counted_and_told() -> None:
    scene = routed(Route(to="store", name="lossy", overflow="drop-oldest", spool_max_observations=2))
    scene.world.apply(Partition((HOSTS,)))
    assert scene.offer(*seen(0)) == ["kept"]  # it is on its way, and cannot give way any more
    assert scene.offer(*seen(1, 2, 3)) == ["kept"] * 3
    scene.world.apply(Heal())
    scene.run(10.0)
    (gone,) = scene.told("gave-way")
    assert (gone["id"], gone["route"], gone["destination"]) == ("cam1:1", "lossy", "store")
    assert scene.stored == ["cam1:0", "cam1:2", "cam1:3"]
    assert counted(scene, "lossy").dropped == 1


def test_a_higher_priority_is_written_first() -> None:
    urgent = Route(to="store", name="urgent", kind="motion", priority=9)
    scene = routed(urgent)
    scene.world.apply(Partition((HOSTS,)))
    calm = [made(f"cam{n}", 1, "temperature") for n in range(100)]
    scene.offer(*calm, *(made(f"new{n}", 1, "motion") for n in range(3)))
    scene.world.apply(Crash("sink"))
    scene.world.apply(Heal())
    scene.world.apply(Restart("sink"))
    scene.run(10.0)
    assert sorted(scene.stored[:32])[-3:] == ["new0:1", "new1:1", "new2:1"]
    assert len(scene.stored) == 103


def test_who_waits_for_room_does_not_let_a_later_one_of_its_device_pass() -> None:
    small, large, other = *seen(1), *seen(2, size_bytes=1000), *seen(3)
    scene = Scene(config=GatewayConfig(bounds=Bounds(bytes_max=len(large.encode()))))
    scene.world.apply(Partition((HOSTS,)))
    scene.feed(small, large, other)
    scene.run(1.0)
    assert scene.kept == {"cam1:1": 1}
    scene.world.apply(Heal())
    scene.run(10.0)
    assert scene.stored == ["cam1:1", "cam1:2", "cam1:3"]


# ------------------------------------------------------------------------------------------------------ doors


def test_a_door_is_told_of_each_observation_what_became_of_it() -> None:
    scene = Scene()
    first, second = seen(1, 2)
    bad = Observation(ObservationId("cam{1}", 3), "temperature", 0.0, 0.5, b"")
    assert scene.offer(first, second, bad, first) == ["kept", "kept", "dead-letter", "duplicate"]
    assert scene.offer(first) == ["duplicate"]
    scene.run(2.0)
    assert scene.stored == ids([first, second])


def test_what_a_door_was_told_is_kept_outlives_a_crash() -> None:
    scene = Scene()
    scene.world.apply(Partition((HOSTS,)))
    some = seen(*range(50))
    assert scene.offer(*some) == ["kept"] * 50
    scene.world.apply(Crash("sink"))
    scene.world.apply(Heal())
    scene.world.apply(Restart("sink"))
    scene.run(10.0)
    assert scene.stored == ids(some)


def test_a_flood_from_one_device_leaves_room_for_the_others() -> None:
    size_bytes = len(seen(1)[0].encode())
    scene = Scene(config=GatewayConfig(bounds=Bounds(bytes_max=100 * size_bytes)))
    scene.world.apply(Partition((HOSTS,)))
    assert Counter(scene.offer(*seen(*range(200)))) == {"kept": 51, "busy": 149}
    other = Observation(ObservationId("cam2", 1), "temperature", 0.0, 0.5, b"x" * 40)
    assert scene.offer(other) == ["kept"]
    scene.world.apply(Heal())
    scene.run(10.0)
    assert scene.offer(*seen(60)) == ["kept"]


def test_dead_letters_have_their_reasons_and_outlive_a_crash() -> None:
    scene = Scene()
    late = Observation(ObservationId("cam1", 1), "temperature", 0.0, 1e9, b"")
    huge = Observation(ObservationId("cam1", 2), "photograph", 0.0, 0.5, b"x" * 70_000)
    scene.offer(late, huge)
    scene.world.inject("sink/door", Bring(Unreadable("coap", "10.0.0.1", "no msgpack", b"\xc1" * 5000)))
    scene.run(1.0)
    scene.world.apply(Crash("sink"))
    scene.world.apply(Restart("sink"))
    scene.run(1.0)
    letters = scene.ask(DeadLetters(10))
    assert [(letter.door, letter.id) for letter in letters] == [
        ("coap", ""),
        ("http", "cam1:2"),
        ("http", "cam1:1"),
    ]
    assert [len(letter.sample) for letter in letters[:2]] == [1024, 1024]
    assert "70" in letters[1].reason
    assert "s from now" in letters[2].reason
    assert scene.stored == []


def bad(*sequences: int) -> list[Observation]:
    """Nothing comes from so far in the future."""
    return [Observation(ObservationId("cam1", n), "temperature", 0.0, 1e9, b"?") for n in sequences]


def test_dead_letters_can_go_to_a_destination_and_outlive_a_crash_on_their_way() -> None:
    routing = Routing(destination={"letters": Lines("letters.jsonl")}, dead_letter="letters")
    scene = Scene(config=GatewayConfig(routing=routing))
    assert scene.offer(*bad(1, 2), *seen(7), for_s=0.01) == ["dead-letter", "dead-letter", "kept"]
    scene.world.apply(Crash("sink"))
    scene.world.apply(Restart("sink"))
    scene.run(3.0)
    scene.offer(*bad(3), for_s=3.0)
    assert list(dict.fromkeys(filed(scene))) == [("letters", f"sink:{n}") for n in (1, 2, 3)]
    keys = [key for key in scene.world.durable("sink/@files") if key.startswith(b"letters/")]
    letter = Observation.decode(scene.world.durable("sink/@files")[keys[0]])
    assert letter.kind == "dead-letter"
    said = meaning(letter.kind, letter.payload)
    assert (said["door"], said["id"], said["sample"]) == ("http", "cam1:1", bad(1)[0].encode())
    assert scene.ask(DeadLetters(10)) == ()
    state = counted(scene, "dead-letter")
    assert (state.to, state.matched, state.written) == ("letters", 1, 1)
    assert scene.stored == ["cam1:7"]


def test_dead_letters_for_which_there_is_no_room_go_into_the_table() -> None:
    routing = Routing(destination={"letters": Lines("letters.jsonl")}, dead_letter="letters")
    scene = Scene(config=GatewayConfig(bounds=Bounds(entries_max=2), routing=routing))
    scene.offer(*bad(1, 2, 3), for_s=3.0)
    assert filed(scene) == [("letters", "sink:1"), ("letters", "sink:2")]
    assert [letter.id for letter in scene.ask(DeadLetters(10))] == ["cam1:3"]


def test_dead_letters_can_be_dropped() -> None:
    scene = Scene(config=GatewayConfig(routing=Routing(dead_letter="drop")))
    assert scene.offer(*bad(1)) == ["dead-letter"]
    assert scene.ask(DeadLetters(10)) == ()
    assert counted(scene, "dead-letter").matched == 1
    assert [record["id"] for record in scene.told("dead-lettered")] == ["cam1:1"]
    assert scene.world.durable("sink/gateway") == {}


# -------------------------------------------------------------------------------------------------- questions


def test_a_stretch_is_read_page_by_page_with_large_observations_among_the_small() -> None:
    scene = Scene("sharded")
    some = [
        Observation(
            ObservationId("cam1", n), "photograph", 60.0 * n, 0.5, bytes([n]) * (40_000 if n % 3 else 9)
        )
        for n in range(10)
    ]
    scene.offer(*some, for_s=10.0)
    found: list[Observation] = []
    after = b""
    while True:
        page = scene.ask(Stretch("cam1", "photograph", 60.0, 540.0, 3, after))
        assert isinstance(page, Page)
        found += page.observations
        after = page.next
        if not after:
            break
    assert found == some[1:9]
    assert scene.ask(Fetch(some[4].key())) == some[4]
    assert scene.ask(Fetch(b"obs:{cam1}:nothing")) is None


def test_what_was_acknowledged_can_be_read_before_the_tier_has_it() -> None:
    scene = Scene()
    (waiting,) = seen(1)
    scene.world.apply(Partition((HOSTS,)))
    assert scene.offer(waiting) == ["kept"]
    assert scene.ask(Fetch(waiting.key()), for_s=0.5) == waiting
    scene.world.apply(Heal())
    scene.run(30.0)
    assert ids([waiting]) == scene.stored
    assert scene.ask(Fetch(waiting.key())) == waiting


def test_devices_routes_and_storage_are_told_as_they_are() -> None:
    scene = Scene("sharded")
    scene.offer(*seen(1, 2, 2), for_s=5.0)
    (cam1,) = scene.ask(Devices())
    assert (cam1.name, cam1.kept, cam1.duplicates) == ("cam1", 2, 1)
    assert [(latest.id, latest.payload) for latest in cam1.latest] == [("cam1:2", b"x" * 40)]
    assert cam1.age_s > 4.0
    (store,) = scene.ask(DestinationStates())
    assert (store.taken, store.delivered, store.waiting, store.trouble) == (2, 2, 0, "")
    assert counted(scene, "dead-letter").matched == 0
    groups = scene.ask(StorageState())
    assert [group.name for group in groups] == ["g1", "g2", "g3"]
    assert sum(group.slots for group in groups) == 16_384
    scene.world.apply(Crash(HOSTS[0]))
    groups = scene.ask(StorageState())
    assert [sum(group.replicas.values()) for group in groups] == [2, 2, 2]


def test_a_question_that_the_tier_cannot_answer_is_answered_with_why() -> None:
    scene = Scene()
    scene.world.apply(Partition((HOSTS,)))
    answer = scene.answer(Stretch("cam1", "temperature"), 30.0)
    assert answer.body is None
    assert "storage tier" in answer.problem
