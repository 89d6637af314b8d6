"""Names while devices die, come back and are replaced: in virtual time."""

from __future__ import annotations

from typing import cast

import dns.message
import dns.rcode
import msgspec
import pytest

from gateway.names.messages import Announce, Answered, Asked
from gateway.names.node import Settings
from gateway.names.plan import Served, names_plan
from kv.tiers import tier
from underlay.emulation.blueprint import addresses
from underlay.errors import InputError
from underlay.faults import Crash, Pause, Restart, Resume
from underlay.messages import Message
from underlay.network import Device, Link, Network
from underlay.node import Address, Context, Node
from underlay.plan import BindingPlan, Plan
from underlay.simulation import World
from underlay.simulation.scenario import WIRE

SETTINGS = Settings(interval_s=2.0)
BACK_S = 5.0 + 1.1 * SETTINGS.interval_s
"""After a restart: routes are back, and there was one more announcement."""
DEVICES = ("hub", "ns1", "ns2", "cam3", "new3", "gw1", "gw2", "s1", "s2", "s3")


class Client(Node):
    """Stands for the sockets: hands over queries, and keeps the last answer."""

    def __init__(self) -> None:
        self.answer = b""

    def on_message(self, ctx: Context, sender: Address, message: Message) -> None:
        if isinstance(message, Answered):
            self.answer = message.wire
        else:
            raise AssertionError("only answers come here")


class Scene:
    """Everybody around a hub; two name servers."""

    def __init__(self) -> None:
        network = Network(
            tuple(Device(name) for name in DEVICES),
            tuple(Link("hub", name, WIRE, WIRE) for name in DEVICES if name != "hub"),
        )
        plans = names_plan(
            addresses(network),
            ("ns1", "ns2"),
            roles={"cam3": "birdhouse"},
            kinds={"cam3": ("image", "temperature")},
            served=Served({"hub": 1883}, {"cam3": 5683}, {"gw1": (8080, 3), "gw2": (8080, 1)}),
            storage=tier("sharded", ("s1", "s2", "s3"), groups=1),
            replaces={"new3": "cam3"},
            settings=SETTINGS,
        )
        for server in ("ns1", "ns2"):
            (port,) = plans[server].bindings
            seen = BindingPlan(port.name, Client, port.engine, port.port)
            plans[server] = msgspec.structs.replace(plans[server], bindings=(seen,))
        self.world = World(Plan(seed=1, duration_s=600.0, network=network, devices=plans))
        self.world.apply(Crash("new3"))
        self.run(SETTINGS.lease_s + 1.0)

    def run(self, for_s: float) -> None:
        self.world.run_until(self.world.now + for_s)

    def ask(self, name: str, kind: str = "A", server: str = "ns1") -> list[str] | str:
        """What was found, or the name of the error."""
        query = dns.message.make_query(name, kind)
        self.world.inject(f"{server}/names", Asked(1, "tcp", query.to_wire()), sender="@dns")
        self.run(0.01)
        client = cast("Client", self.world.node(f"{server}/@dns"))
        response = dns.message.from_wire(client.answer)
        if response.rcode():
            return dns.rcode.to_text(response.rcode())
        return sorted(rdata.to_text() for rrset in response.answer for rdata in rrset)


def test_everybody_has_the_names_of_what_it_is() -> None:
    scene = Scene()
    assert scene.ask("cam3.birdhouse.test") == ["10.77.0.4"]
    assert scene.ask("4.0.77.10.in-addr.arpa", "PTR") == ["cam3.birdhouse.test."]
    assert scene.ask("cam3.birdhouse.test", "TXT") == ['"role=birdhouse" "kind=image" "kind=temperature"']
    assert scene.ask("gateway.birdhouse.test") == ["10.77.0.6", "10.77.0.7"]
    assert scene.ask("_mqtt._tcp.birdhouse.test", "SRV") == ["0 1 1883 hub.birdhouse.test."]
    assert scene.ask("_coap._udp.birdhouse.test", "SRV") == ["0 1 5683 cam3.birdhouse.test."]
    assert scene.ask("_http._tcp.birdhouse.test", "SRV") == [
        "0 1 8080 gw2.birdhouse.test.",
        "0 3 8080 gw1.birdhouse.test.",
    ]
    storage = [f"0 1 6379 s{n}.birdhouse.test." for n in (1, 2, 3)]
    assert scene.ask("_redis._tcp.kv.birdhouse.test", "SRV") == storage
    assert scene.ask("_redis._tcp.g1.kv.birdhouse.test", "SRV") == storage


def test_a_device_that_dies_is_gone_after_its_lease_and_back_when_it_starts() -> None:
    scene = Scene()
    scene.world.apply(Crash("cam3"))
    scene.run(SETTINGS.lease_s - SETTINGS.interval_s * 1.2)
    assert scene.ask("cam3.birdhouse.test") == ["10.77.0.4"]  # nobody can know yet
    scene.run(SETTINGS.interval_s * 1.2)
    assert scene.ask("cam3.birdhouse.test") == "NXDOMAIN"
    assert scene.ask("4.0.77.10.in-addr.arpa", "PTR") == "NXDOMAIN"
    assert scene.ask("_coap._udp.birdhouse.test", "SRV") == "NXDOMAIN"
    scene.world.apply(Restart("cam3"))
    scene.run(BACK_S)
    assert scene.ask("cam3.birdhouse.test") == ["10.77.0.4"]
    told = [
        record["event"]
        for record in scene.world.records()
        if record.get("holder") == "cam3" and record["device"] == "ns1"
    ]
    assert told == ["name-found", "name-lost", "name-found"]


def test_a_replacement_takes_the_name_over() -> None:
    scene = Scene()
    scene.world.apply(Restart("new3"))
    scene.run(BACK_S)
    assert scene.ask("cam3.birdhouse.test") == ["10.77.0.5"]


def test_one_name_server_is_as_good_as_the_other() -> None:
    scene = Scene()
    scene.world.apply(Crash("ns1"))
    scene.run(60.0)
    assert scene.ask("cam3.birdhouse.test", server="ns2") == ["10.77.0.4"]
    assert scene.ask("ns1.birdhouse.test", server="ns2") == "NXDOMAIN"


def test_a_name_server_that_starts_denies_nothing_until_it_can_know() -> None:
    scene = Scene()
    scene.world.apply(Crash("ns1"))
    scene.world.apply(Restart("ns1"))
    scene.run(0.01)
    assert scene.ask("cam3.birdhouse.test") == "SERVFAIL"
    scene.run(SETTINGS.lease_s)
    assert scene.ask("cam3.birdhouse.test") == ["10.77.0.4"]
    assert scene.ask("cam4.birdhouse.test") == "NXDOMAIN"


def test_a_paused_name_server_believes_nothing_that_is_over() -> None:
    scene = Scene()
    scene.world.apply(Crash("cam3"))
    scene.world.apply(Pause("ns1"))
    scene.run(60.0)
    scene.world.apply(Resume("ns1"))
    scene.run(SETTINGS.interval_s)
    assert scene.ask("cam3.birdhouse.test") == "NXDOMAIN"


def test_an_impossible_announcement_is_refused_and_told() -> None:
    scene = Scene()
    scene.world.inject("ns1/names", Announce("..", 1.0), sender="cam3/announcer")
    scene.world.inject("ns1/names", Announce("x", 1.0), sender="stranger/announcer")
    scene.run(0.1)
    refused = [r["sender"] for r in scene.world.records() if r["event"] == "announcement-refused"]
    assert refused == ["cam3/announcer", "stranger/announcer"]


def test_a_plan_without_servers_or_with_unknown_devices_is_refused() -> None:
    with pytest.raises(InputError, match="name server"):
        names_plan({"a": "10.77.0.1"}, ())
    with pytest.raises(InputError, match="no device 'b'"):
        names_plan({"a": "10.77.0.1"}, ("b",))
    with pytest.raises(InputError, match="in the end"):
        names_plan({"a": "10.77.0.1", "b": "10.77.0.2"}, ("a",), replaces={"a": "b", "b": "a"})
