"""What an experiment becomes when it is kept up: its plan without an end, with doors, names and ways in.

Owns what `birdhouse up` adds to a run: the gateway's doors for HTTP and CoAP, a name server and announcers, a
second port for Redis' clients on each storage host, and which ports of this machine lead to what. Faults of
the spec happen at their times.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import inf
from typing import TYPE_CHECKING

import msgspec

from edge.caching.node import NAME as CACHING
from edge.coap.messages import ENDPOINT as COAP
from edge.coap.messages import PORT as COAP_PORT
from gateway.api.door import NAME as HTTP
from gateway.api.door import PORT as HTTP_PORT
from gateway.api.door import HttpConfig, http_door
from gateway.api.running import Place
from gateway.ingest.coap import NAME as COAP_DOOR
from gateway.ingest.coap import RESOURCE, coap_door
from gateway.names.plan import Served, names_plan
from gateway.names.server import NAME as DNS
from gateway.names.server import PORT as DNS_PORT
from gateway.names.zone import DOMAIN
from kv.redis.binding import NAME as REDIS
from kv.redis.binding import PORT as REDIS_PORT
from kv.redis.binding import Listener, redis_port
from topologies.experiment import Experiment, build_plan, joined
from underlay.errors import InputError
from underlay.plan import BindingPlan, DevicePlan, Plan

if TYPE_CHECKING:
    from underlay.emulation.forwarding import Wanted, Way

REDIS_OUTSIDE_PORT = 16_379
"""Of storage hosts, for clients from outside the network, who are redirected to ports of 127.0.0.1."""
LOCAL_DNS_PORT = 5353
MQTT, MQTT_PORT = "mosquitto", 1883
LOCAL_INGEST_PORT = 5684

_EXAMPLE = '{"device": "phone", "sequence": 1, "kind": "temperature", "payload": {"h": 2150, "u": "Cel"}}'


class Reach(msgspec.Struct, frozen=True):
    """A way in, as a person is told of it."""

    name: str
    device: str
    local_port: int
    command: str
    """To try it with."""


def lasting_plan(experiment: Experiment, token: str = "") -> Plan:
    """The experiment's plan with no end, a door for HTTP and names.

    Args:
        token: what clients on other devices of the network show at the HTTP door; empty: none is let in.
    """
    from underlay.emulation.blueprint import addresses

    topology, spec = experiment.topology, experiment.spec
    plan = build_plan(msgspec.structs.replace(experiment, unending=True))
    added: dict[str, list[DevicePlan]] = {device: [] for device in topology.roles}
    roles = {name: str(role) for name, role in topology.roles.items()}
    if experiment.tier is not None:
        door = http_door(HttpConfig(token=token), Place(spec.name, topology.network, roles))
        added[topology.sink].append(DevicePlan(bindings=(door,)))
        plan = _with_coap_door(plan, topology.sink)
    served = Served(
        mqtt=dict.fromkeys(_running(plan, MQTT), MQTT_PORT),
        coap=dict.fromkeys(_running(plan, COAP), COAP_PORT),
        http={topology.sink: (HTTP_PORT, 1)} if experiment.tier is not None else {},
    )
    kinds = {device: [sensor.kind for sensor in sensors] for device, sensors in experiment.sources.items()}
    names = names_plan(
        addresses(topology.network),
        (topology.sink,),
        roles=roles,
        kinds=kinds,
        served=served,
        storage=experiment.tier,
    )
    for device, more in names.items():
        added[device].append(more)
    devices = {device: joined(plan.devices[device], *parts) for device, parts in added.items()}
    return msgspec.structs.replace(
        plan, duration_s=inf, devices=devices, name_servers=(topology.sink,), search_domain=DOMAIN
    )


def _with_coap_door(plan: Plan, sink: str) -> Plan:
    """One endpoint on the sink for all that comes by CoAP, whether it has one already or not."""
    there = plan.devices[sink]
    server = CACHING if any(node.name == CACHING for node in there.nodes) else COAP_DOOR
    bindings = tuple(binding for binding in there.bindings if binding.name != COAP)
    whole = joined(msgspec.structs.replace(there, bindings=bindings), coap_door(server))
    return msgspec.structs.replace(plan, devices={**plan.devices, sink: whole})


def wanted_ways(experiment: Experiment, plan: Plan, ports: Mapping[str, int]) -> list[Wanted]:
    """What of the plan can be reached from this machine.

    Args:
        ports: local ports that the user insists on, by the way's name.

    Raises InputError where there is no such way.
    """
    from underlay.emulation.forwarding import Wanted

    sink, hub = experiment.topology.sink, experiment.topology.hub
    found = []
    if sink in _running(plan, HTTP):
        found.append(Wanted("http", sink, HTTP_PORT, HTTP_PORT))
    if hub in _running(plan, MQTT):
        found.append(Wanted("mqtt", hub, MQTT_PORT, MQTT_PORT))
    coap = next((device for device in (hub, *experiment.sources) if device in _running(plan, COAP)), None)
    if coap is not None:
        found.append(Wanted("coap", coap, COAP_PORT, COAP_PORT, ("udp",)))
    if any(node.name == COAP_DOOR for node in plan.devices[sink].nodes):
        found.append(Wanted("coap-ingest", sink, COAP_PORT, LOCAL_INGEST_PORT, ("udp",)))
    if sink in _running(plan, DNS):
        found.append(Wanted("dns", sink, DNS_PORT, LOCAL_DNS_PORT, ("udp", "tcp")))
    for n, host in enumerate(experiment.topology.storage):
        found.append(Wanted(f"redis-{host}", host, REDIS_OUTSIDE_PORT, REDIS_PORT + n))
    names = [each.name for each in found]
    for name, port in ports.items():
        if name not in names:
            raise InputError(f"there is no way in called {name!r}", key="--port", hint=", ".join(names))
        if not 1 <= port <= 65_535:
            raise InputError(f"{port} is no port", key="--port", hint="1 to 65535")
    return [_insisting(each, ports) for each in found]


def with_ways(plan: Plan, ways: list[Way]) -> Plan:
    """The plan with Redis' second ports, whose clients are sent to the ports that were taken."""
    advertised = {way.device: ("127.0.0.1", way.local_port) for way in ways if way.name.startswith("redis-")}
    listeners = (Listener(), Listener(port=REDIS_OUTSIDE_PORT, advertised=advertised))

    def changed(binding: BindingPlan) -> BindingPlan:
        return redis_port(tuple(advertised), listeners) if binding.name == REDIS else binding

    devices = {
        name: msgspec.structs.replace(device, bindings=tuple(map(changed, device.bindings)))
        for name, device in plan.devices.items()
    }
    return msgspec.structs.replace(plan, devices=devices)


def reaches(experiment: Experiment, ways: list[Way]) -> list[Reach]:
    """What a person may try."""
    source, sensors = next(iter(experiment.sources.items()))
    found = []
    for way in ways:
        port = way.local_port
        command = {
            "http": f"curl http://127.0.0.1:{port}/api/v1/devices   (a browser: http://127.0.0.1:{port}/)",
            "mqtt": f"mosquitto_sub -p {port} -t 'birdhouse/+/{sensors[0].kind}' -F '%t %l bytes'",
            "coap": f"coap-client-notls -m get coap://127.0.0.1:{port}/{source}/{sensors[0].kind}",
            "coap-ingest": (
                f"coap-client-notls -m post -t 50 -e '{_EXAMPLE}' coap://127.0.0.1:{port}/{RESOURCE}"
            ),
            "dns": f"dig @127.0.0.1 -p {port} {source}.{DOMAIN}",
        }.get(way.name, f"redis-cli -c -p {port}")
        found.append(Reach(way.name, way.device, port, command))
    return found


def _insisting(way: Wanted, ports: Mapping[str, int]) -> Wanted:
    if way.name not in ports:
        return way
    return msgspec.structs.replace(way, local_port=ports[way.name], insists=True)


def _running(plan: Plan, name: str) -> list[str]:
    """Devices with a binding or a program of that name."""
    found = []
    for device, on_it in plan.devices.items():
        names = [each.name for each in on_it.bindings] + [each.name for each in on_it.programs]
        if name in names:
            found.append(device)
    return found
