"""Names for a run: which device is called what and offers what, and where the name servers are.

Owns names of services and ports of nodes; whoever plans a run merges what `names_plan` gives into its
devices, and names the servers in its `Plan`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

import msgspec

from gateway.names.messages import ANNOUNCER, NAMES, Announce, Service, check
from gateway.names.node import Announcer, Names, Settings
from gateway.names.server import Listener, dns_port
from kv.redis.binding import PORT as REDIS_PORT
from kv.tiers import Tier
from underlay.errors import InputError
from underlay.node import Node, device_of
from underlay.plan import DevicePlan, NodePlan

NAMES_PORT, ANNOUNCER_PORT = 7090, 7091
"""Of the nodes; DNS' own is `server.PORT`."""
MQTT, COAP, HTTP, DNS = "_mqtt._tcp", "_coap._udp", "_http._tcp", "_dns._udp"
REDIS = "_redis._tcp.kv"
"""Every storage host."""
GATEWAY = "gateway"
"""The name that all gateways share."""


class Served(msgspec.Struct, frozen=True):
    """What devices offer, each `{device: port}`, or for the gateways `{device: (port, weight)}`."""

    mqtt: Mapping[str, int] = {}
    coap: Mapping[str, int] = {}
    http: Mapping[str, tuple[int, int]] = {}
    """The gateways: a client takes one of them with a chance in proportion to its weight (RFC 2782)."""


def names_plan(
    addresses: Mapping[str, str],
    servers: Sequence[str],
    *,
    roles: Mapping[str, str] | None = None,
    kinds: Mapping[str, Sequence[str]] | None = None,
    served: Served | None = None,
    storage: Tier | None = None,
    replaces: Mapping[str, str] | None = None,
    listeners: Mapping[str, Sequence[Listener]] | None = None,
    settings: Settings | None = None,
) -> dict[str, DevicePlan]:
    """What runs on each device so that it has a name: an announcer everywhere, a name server on `servers`.

    Args:
        addresses: IPv4 address of every device that is to have a name
            (`underlay.emulation.blueprint.addresses`).
        servers: devices on which a name server runs, at least one.
        roles: what a device is, for its TXT record: `role=birdhouse`.
        kinds: what its sensors observe, likewise: `kind=image`.
        served: brokers, CoAP servers and gateways.
        storage: the tier whose hosts answer Redis' clients: all as `_redis._tcp.kv`, those of group `g1` also
            as `_redis._tcp.g1.kv`.
        replaces: `{replacement: replaced}`: the former announces the latter's name, and gets it.
        listeners: where a server's clients ask, instead of port 53 of the device's own address.

    Raises:
        InputError: a device cannot have its name in DNS, or is not in `addresses`.
    """
    served, settings = served or Served(), settings or Settings()
    if not servers:
        raise InputError("names need a device on which a name server runs", key="servers")
    _check_known(addresses, servers, "servers")
    for what, given in (("mqtt", served.mqtt), ("coap", served.coap), ("http", served.http)):
        _check_known(addresses, tuple(given), f"served.{what}")
    _check_known(addresses, tuple(replaces or ()), "replaces")
    places = tuple(servers)
    plans = {}
    for device in addresses:
        announced = _announced(device, places, roles or {}, kinds or {}, served, storage, replaces or {})
        try:
            check(announced)
        except ValueError as error:
            raise InputError(f"{device} cannot have its names in DNS: {error}", key="names") from error
        nodes = [NodePlan(ANNOUNCER, partial(_announcer, announced, places, settings), ANNOUNCER_PORT)]
        if device not in servers:
            plans[device] = DevicePlan(tuple(nodes))
            continue
        nodes.insert(0, NodePlan(NAMES, partial(_names, addresses, places, settings), NAMES_PORT))
        plans[device] = DevicePlan(tuple(nodes), (dns_port((listeners or {}).get(device, (Listener(),))),))
    return plans


def _announced(
    device: str,
    servers: tuple[str, ...],
    roles: Mapping[str, str],
    kinds: Mapping[str, Sequence[str]],
    served: Served,
    storage: Tier | None,
    replaces: Mapping[str, str],
) -> Announce:
    services = []
    if device in served.mqtt:
        services.append(Service(MQTT, served.mqtt[device]))
    if device in served.coap:
        services.append(Service(COAP, served.coap[device]))
    if device in served.http:
        port, weight = served.http[device]
        services.append(Service(HTTP, port, weight))
    if device in servers:
        services.append(Service(DNS, 53))
    if storage is not None and device in storage.hosts:
        services.append(Service(REDIS, REDIS_PORT))
        services += [
            Service(f"_redis._tcp.{group}.kv", REDIS_PORT)
            for group, replicas in storage.groups.items()
            if any(device_of(replica) == device for replica in replicas)
        ]
    texts = [f"role={roles[device]}"] if device in roles else []
    texts += [f"kind={kind}" for kind in kinds.get(device, ())]
    name, generation = device, 0
    while name in replaces:  # a replacement may have been replaced in its turn
        if generation > len(replaces):
            raise InputError(f"{device} replaces itself in the end", key="replaces")
        name, generation = replaces[name], generation + 1
    return Announce(
        name=name,
        lease_s=1.0,  # the announcer's settings say
        generation=generation,
        aliases=(GATEWAY,) if device in served.http and name != GATEWAY else (),
        services=tuple(services),
        texts=tuple(texts),
    )


def _check_known(addresses: Mapping[str, str], devices: Sequence[str], key: str) -> None:
    for device in devices:
        if device not in addresses:
            raise InputError(f"there is no device {device!r}", key=key, hint=", ".join(addresses))


def _announcer(announced: Announce, servers: tuple[str, ...], settings: Settings) -> Node:
    return Announcer(announced, servers, settings)


def _names(addresses: Mapping[str, str], servers: tuple[str, ...], settings: Settings) -> Node:
    return Names(addresses, servers, settings)
