"""The CoAP door: what is answered 2.04 is kept, once; what is not kept is said, with when to come again."""

from __future__ import annotations

import asyncio
import json
import socket
from base64 import b64encode
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest

from edge.caching.node import NAME as CACHING
from edge.coap.messages import ENDPOINT, JSON, OCTET_STREAM, Post
from edge.coap.model import ModelEndpoint
from edge.observation import Observation, ObservationId
from gateway.gateway import Gateway, GatewayConfig
from gateway.ingest.coap import NAME, PATIENCE_S, RESOURCE, CoapDoor, coap_door
from gateway.messages import NODE, Judged, Offered, OutcomeName, Unreadable, Verdict
from gateway.spool import Bounds
from kv.client import Client
from kv.tiers import Tier, tier
from tests.edge.caching.asking import TUNING, Ask, birdhouse, get, no_engine, observed, of
from tests.edge.caching.asking import Client as Phone
from tests.edge.coap.street import Street, coap_client, free_port
from underlay.emulation.loopback import Hosts, Site, loopback_addresses
from underlay.faults import Crash, Restart
from underlay.link import LinkSpec
from underlay.messages import Message, Protocol
from underlay.node import Address, Context, Node
from underlay.plan import BindingPlan, DevicePlan, NodePlan
from underlay.simulation import every_pair
from underlay.simulation.scenario import plan_of
from underlay.simulation.world import World
from underlay.trace import Event

needs_coap_client = pytest.mark.needs("coap-client-notls")
HOSTS = ("s1", "s2", "s3")
Devices = dict[str, dict[str, Callable[[], Node]]]


def seen(sequence: int, payload: bytes = b"\x82\xa1h\xcd\x01\x86\xa1u\xa3Cel") -> Observation:
    return Observation(ObservationId("cam1", sequence), "temperature", 60.0 * sequence, 1.0, payload)


def document(sequence: int, payload: object = None, **changed: object) -> bytes:
    plain = {"device": "cam1", "sequence": sequence, "kind": "temperature", "t_event": 1.0, "t_gen": 1.0}
    return json.dumps({**plain, "payload": payload or {"h": 390, "u": "Cel"}, **changed}).encode()


class Offer(Event, frozen=True, tag="test-offered"):
    """The gateway's node was offered an observation, or told of what is none."""

    id: str
    sender: str
    reason: str


class Judge(Node):
    """Stands for the gateway's node, and says of everything what it was made with; None: nothing."""

    protocol = Protocol(NODE)

    def __init__(self, outcome: OutcomeName | None = "kept") -> None:
        self._outcome = outcome

    def on_message(self, ctx: Context, sender: Address, message: Message) -> None:
        match message:
            case Offered(token, _, observations):
                ids = [str(observation.id) for observation in observations]
                for id_ in ids:
                    ctx.emit(Offer(id_, sender, ""))
                if self._outcome is not None:
                    verdicts = (Verdict(id_, self._outcome, "for a reason", 2.5) for id_ in ids)
                    ctx.send(sender, Judged(token, tuple(verdicts)))
            case Unreadable(_, client, reason):
                ctx.emit(Offer("", client, reason))


def simulated(outcome: OutcomeName | None = "kept", path: str = RESOURCE) -> Callable[..., dict[str, Any]]:
    """Posts to a gateway's device in the simulation; what came back."""

    def post(payload: bytes, content_format: int | None = OCTET_STREAM) -> dict[str, Any]:
        devices: Devices = {
            "sink": {NODE: partial(Judge, outcome), NAME: CoapDoor},
            "cam1": {"client": Phone},
        }
        bindings = {
            "sink": [BindingPlan(ENDPOINT, coap_door().bindings[0].model, no_engine, 5683)],
            "cam1": [BindingPlan(ENDPOINT, partial(ModelEndpoint, "client"), no_engine, 5683)],
        }
        link = LinkSpec(rate_kbps=10_000.0, delay_ms=5.0)
        world = World(plan_of(devices, [("cam1", "sink", link)], bindings=bindings, duration_s=100.0))
        request = Post(1, "sink", tuple(path.split("/")), payload, content_format, TUNING)
        world.inject("cam1/client", Ask(request))
        world.run_until(2 * PATIENCE_S)
        (answer,) = of(world, "test-saw")
        answer["payload"] = bytes.fromhex(answer["payload"]).decode()
        return {**answer, "offers": of(world, "test-offered")}

    return post


@pytest.mark.parametrize(
    ("outcome", "code", "payload", "max_age_s"),
    [
        pytest.param("kept", 0x44, "", None, id="kept is Changed"),
        pytest.param("duplicate", 0x44, "duplicate: for a reason", None, id="a duplicate too"),
        pytest.param("dead-letter", 0x44, "dead-letter: for a reason", None, id="and a dead letter"),
        pytest.param("busy", 0xA3, "for a reason", 3, id="busy says when to come again, in whole seconds"),
        pytest.param(None, 0xA3, "the gateway does not answer", 1, id="silence does not last for ever"),
    ],
)
def test_a_verdict_is_a_response(
    outcome: OutcomeName | None, code: int, payload: str, max_age_s: int | None
) -> None:
    answer = simulated(outcome)(seen(1).encode())
    assert (answer["code"], answer["payload"], answer["max_age_s"]) == (code, payload, max_age_s)
    assert [offer["id"] for offer in answer["offers"]] == ["cam1:1"]


@pytest.mark.parametrize(
    ("body", "content_format", "code", "says"),
    [
        pytest.param(seen(1).encode(), None, 0x44, "", id="without a format it is the encoded one"),
        pytest.param(document(1), JSON, 0x44, "", id="JSON"),
        pytest.param(seen(1, bytes(60_000)).encode(), OCTET_STREAM, 0x44, "", id="a photograph"),
        pytest.param(seen(1, bytes(70_000)).encode(), OCTET_STREAM, 0x8D, "bytes at most", id="too large"),
        pytest.param(bytes(1024 * 1024 + 1), OCTET_STREAM, 0x8D, "", id="far too large"),
        pytest.param(b"", OCTET_STREAM, 0x80, "truncated", id="nothing"),
        pytest.param(seen(1).encode()[:-3], OCTET_STREAM, 0x80, "truncated", id="a part"),
        pytest.param(b"\xc1\xff\x00", OCTET_STREAM, 0x80, "", id="rubbish"),
        pytest.param(document(1, t_gen="now"), JSON, 0x80, "t_gen", id="a wrong type, with its name"),
        pytest.param(b"[" * 50_000, JSON, 0x80, "", id="nested too deeply"),
        pytest.param(b"[%b,%b]" % (document(1), document(2)), JSON, 0x80, "one observation", id="two"),
        pytest.param(b"[]", JSON, 0x80, "one observation", id="none"),
        pytest.param(b"<obs/>", 41, 0x8F, "42 (encoded) or 50 (JSON)", id="XML"),
    ],
)
def test_a_body_is_an_observation_or_refused(
    body: bytes, content_format: int | None, code: int, says: str
) -> None:
    answer = simulated()(body, content_format)
    assert answer["code"] == code
    assert says in answer["payload"]
    assert bool([offer for offer in answer["offers"] if offer["id"]]) == (code == 0x44)


def test_what_cannot_be_read_is_buried_with_its_sender() -> None:
    (offer,) = simulated()(b"\xc1")["offers"]
    assert (offer["id"], offer["sender"]) == ("", "cam1")
    assert offer["reason"]


def test_there_is_nothing_below_the_resource() -> None:
    assert simulated(path=f"{RESOURCE}/1")(seen(1).encode())["code"] == 0x84


def _client(store: Tier, lanes: int) -> Client[Context]:
    return Client(store.directory(), lanes=lanes)


@pytest.mark.parametrize("seed", range(4))
def test_nothing_answered_is_lost_and_nothing_is_stored_twice(seed: int) -> None:
    """A camera posts over a bad link, each until it hears 2.04, while the gateway crashes in between."""
    store = tier("paxos", HOSTS)
    devices: Devices = {
        host: {plan.name: plan.make for plan in plans} for host, plans in store.nodes().items()
    }
    devices["sink"] = {NODE: partial(Gateway, partial(_client, store)), NAME: CoapDoor}
    devices["cam1"] = {"client": Camera}
    wire, radio = LinkSpec(rate_kbps=1e5, delay_ms=1.0), LinkSpec(250.0, delay_ms=10.0, loss_ratio=0.1)
    plan = plan_of(
        devices,
        [*((a, b, wire) for a, b in every_pair((*HOSTS, "sink"))), ("cam1", "sink", radio)],
        bindings={
            "sink": [BindingPlan(ENDPOINT, coap_door().bindings[0].model, no_engine, 5683)],
            "cam1": [BindingPlan(ENDPOINT, partial(ModelEndpoint, "client"), no_engine, 5683)],
        },
        faults=[(6.0, Crash("sink")), (9.0, Restart("sink")), (15.0, Crash("sink")), (16.0, Restart("sink"))],
        seed=seed,
        duration_s=200.0,
    )
    plan = msgspec.structs.replace(
        plan,
        devices={
            name: msgspec.structs.replace(device, nodes=(*store.nodes().get(name, ()), *_own(name, device)))
            for name, device in plan.devices.items()
        },
    )
    world = World(plan)
    world.run_until(200.0)
    stored = Counter(record["id"] for record in of(world, "stored"))
    answered = {record["id"] for record in of(world, "test-offered")}
    assert len(answered) == Camera.OBSERVATIONS
    assert set(stored) == answered


def _own(name: str, device: DevicePlan) -> tuple[NodePlan, ...]:
    """Of a plan made of names only: a tier's nodes have ports of their own."""
    return () if name in HOSTS else device.nodes


class Camera(Node):
    """Posts one observation after the other, and each again until it is told that it is kept."""

    protocol = Protocol("client")
    OBSERVATIONS = 60

    def __init__(self) -> None:
        self._sequence = 0
        self._token = 0

    def on_start(self, ctx: Context) -> None:
        ctx.set_timer("next", 3.0)

    def on_timer(self, ctx: Context, timer: object) -> None:
        self._token += 1
        payload = bytes(5000) if self._sequence % 5 == 0 else b"\x2a"
        body = seen(self._sequence, payload).encode()
        ctx.send(ENDPOINT, Post(self._token, "sink", (RESOURCE,), body, OCTET_STREAM, TUNING))

    def on_message(self, ctx: Context, sender: Address, message: Message) -> None:
        shown = getattr(message, "representation", None)
        if shown is not None and shown.code == 0x44:
            ctx.emit(Offer(f"cam1:{self._sequence}", "", ""))
            self._sequence += 1
        elif shown is None and not hasattr(message, "reason"):
            return  # acknowledged, and more to come
        if self._sequence < self.OBSERVATIONS:
            ctx.set_timer("next", 0.1)


# ----------------------------------------------------------------------------------------------- real clients


class Served:
    """A gateway with its door and its tier, as processes on loopback."""

    def __init__(self, folder: Path, config: GatewayConfig | None = None) -> None:
        store = tier("paxos", HOSTS)
        self.port = free_port()
        addresses = loopback_addresses((*HOSTS, "sink"), "127.78.1.1")
        devices = {host: DevicePlan(nodes) for host, nodes in store.nodes().items()}
        door = coap_door(port=self.port)
        node = NodePlan(NODE, partial(Gateway, partial(_client, store), config), 7000)
        devices["sink"] = DevicePlan((node, *door.nodes), door.bindings)
        self.hosts = Hosts(Site(folder, devices, addresses))
        self.ip = addresses["sink"]
        self.uri = f"coap://{self.ip}:{self.port}/{RESOURCE}"

    def post(self, *arguments: str) -> str:
        """What libcoap's client has to say."""
        said, complained = asyncio.run(coap_client("-m", "post", *arguments, self.uri))
        return (said + complained).decode().strip()


@contextmanager
def running(site: Served) -> Iterator[Served]:
    with site.hosts:
        site.hosts.start()
        yield site


@needs_coap_client
def test_coap_client_posts(tmp_path: Path) -> None:
    """A reading in JSON, a photograph in blocks of two sizes, losses on the way, and what is refused."""
    photograph = tmp_path / "photograph"
    photograph.write_bytes(seen(3, bytes(range(256)) * 234).encode())
    with running(Served(tmp_path)) as site:
        assert site.post("-t", "50", "-e", document(1).decode()) == ""
        assert site.post("-t", "50", "-e", document(1).decode()) == "duplicate"
        assert site.post("-t", "42", "-f", str(photograph)) == ""
        assert site.post("-t", "42", "-b", "64", "-f", str(photograph)) == "duplicate"
        assert site.post("-t", "50", "-l", "1", "-e", document(2).decode()) == "", "the first is lost"
        assert "dead-letter" in site.post("-t", "50", "-e", document(4, kind="Not A Kind").decode())
        assert "4.15" in site.post("-t", "41", "-e", "<obs/>")
        assert "4.00" in site.post("-t", "50", "-e", "rubbish")
        photograph.write_bytes(seen(5, b64encode(bytes(60_000))).encode())
        assert "4.13" in site.post("-t", "42", "-f", str(photograph))
        assert site.post("-t", "50", "-e", document(6).decode()) == "", "and goes on"


def test_a_request_that_is_repeated_is_answered_as_before(tmp_path: Path) -> None:
    """The same message id: the same answer, bit by bit. A new one: a duplicate, by the observation's id."""
    with running(Served(tmp_path)) as site, client_of(site) as exchange:
        first = exchange(request(7, seen(1).encode()))
        assert first[1] == 0x44
        assert exchange(request(7, seen(1).encode())) == first
        assert exchange(request(8, seen(1).encode()))[4:].endswith(b"duplicate")


def test_a_full_gateway_says_when_to_come_again(tmp_path: Path) -> None:
    config = GatewayConfig(bounds=Bounds(bytes_max=100))
    with running(Served(tmp_path, config)) as site, client_of(site) as exchange:
        answer = exchange(request(7, seen(1, bytes(1000)).encode()))
        assert answer[1] == 0xA3
        assert answer[4] == 0xD1, "Max-Age is option 14, and has one byte"


@contextmanager
def client_of(site: Served) -> Iterator[Callable[[bytes], bytes]]:
    """Sends a datagram; the next that comes back."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(20.0)
        sock.connect((site.ip, site.port))

        def exchange(datagram: bytes) -> bytes:
            sock.send(datagram)
            return sock.recv(2048)

        yield exchange


def request(mid: int, payload: bytes) -> bytes:
    """A confirmable POST to /observations without a token, written by hand."""
    path = RESOURCE.encode()
    assert len(path) == 12
    return b"\x40\x02%b\xbc%b\x11\x2a\xff%b" % (mid.to_bytes(2, "big"), path, payload)


def test_one_port_has_both_the_cache_and_the_door(tmp_path: Path) -> None:
    devices: Devices = {
        "sink": {CACHING: partial(birdhouse, 60), NAME: CoapDoor, NODE: Judge},
        "cam1": {"client": Phone},
    }

    async def scenario() -> None:
        async with Street(tmp_path, devices, free_port(), {RESOURCE: NAME}) as street:
            street.tell("sink", CACHING, observed(0, b"21.5"))
            street.tell("cam1", "client", Ask(get("sink", "temperature", 1)))
            street.tell("cam1", "client", Ask(Post(2, "sink", (RESOURCE,), seen(1).encode(), 42, TUNING)))
            await street.until(lambda: len(street.records("test-saw")) == 2)
            assert {record["code"] for record in street.records("test-saw")} == {0x45, 0x44}

    asyncio.run(scenario())
