"""Addresses and routes of a network built from a plan: one address a device, none on its links.

Each device has one /32 on its loopback, which all its interfaces borrow (unnumbered links, RFC 1812 section
2.2.7), and static routes whose next hops are taken to be on the link. Neighbour entries are permanent: no ARP
burdens a slow link, and a device that crashed is met by silence. A device with one interface and one
neighbour has one default route.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from underlay.emulation.rtnetlink import (
    IPV4_FORWARDING,
    IPV4_RP_FILTER,
    IPV4_SEND_REDIRECTS,
    LOOPBACK,
    Request,
    add_address,
    delete_route,
    set_link,
    set_neighbour,
    set_route,
)
from underlay.routes import Routes

if TYPE_CHECKING:
    from underlay.emulation.net import Network

CONGESTION_CONTROL = "cubic"
"""Of all TCP between devices: Linux's own default, which the simulation models, whatever this machine's is.
It goes with the routes, because a namespace may not choose one that the machine reserves."""

RouteTable = Mapping[str, Sequence[tuple[str, str, str]]]
"""For each device `(destination device, next device, own interface's name)`."""


def configure_unnumbered(network: Network, addresses: Mapping[str, str], routes: RouteTable) -> None:
    """Give every device its address, its permanent neighbours and its routes: one batch a device.

    Args:
        addresses: IPv4 address of every device.
        routes: of every device that has any.
    """
    # The kernel takes the stricter of this and an interface's own; a namespace may inherit the machine's.
    strict = Path("/proc/sys/net/ipv4/conf/all/rp_filter").read_text() != "0\n"
    for name, address in addresses.items():
        host = network[name]
        settings = _QUIET | {IPV4_FORWARDING: int(not _is_leaf(host))}
        requests = [add_address(LOOPBACK, address, 32)]
        for interface in host.interfaces:
            interface.ip, interface.prefixLen, interface.borrowed = address, 32, True
            requests.append(set_link(interface.index, ipv4=settings))
        if strict:
            host.namespace.configure({"ipv4/conf/all/rp_filter": 0})
        if any(interface.channel for interface in host.interfaces):
            # In and out of one interface is how a channel is forwarded on, and no shortcut to be taught.
            host.namespace.configure({"ipv4/conf/all/send_redirects": 0})
        host.addresses, host.routes = addresses, {}
        host.params["ip"] = None  # Mininet, should it be asked to configure its hosts, has no address to give
        host.namespace.submit(*requests, *_neighbours(host), *_changes(host, routes.get(name, ())))


def replace_routes(network: Network, routes: RouteTable) -> None:
    """Give the devices in `routes` exactly those routes; only what differs is sent, one batch a device.

    A device that is not mentioned keeps its routes (one that is down, say); with an empty list it loses all.
    """
    for name, table in routes.items():
        host = network[name]
        host.namespace.submit(*_changes(host, table))


def restore(host: Any) -> None:
    """Set neighbours and routes anew: the kernel forgets those of an interface that was down."""
    forgotten, host.routes = host.routes, {}
    host.namespace.submit(*_neighbours(host), *_set_routes(host, forgotten))


def route_table(network: Network, routes: Routes) -> dict[str, list[tuple[str, str, str]]]:
    """Next hops by device, as `underlay.routes` computes them, as routes by interface.

    A device with a single way out needs, and gets, only one of them.
    """
    table: dict[str, list[tuple[str, str, str]]] = {}
    for name, next_hops in routes.items():
        host = network[name]
        interface_to = {peer.node.name: each.name for each in host.interfaces for peer in each.peers()}
        hops = islice(next_hops.items(), 1 if _is_leaf(host) else None)
        table[name] = [(destination, via, interface_to[via]) for destination, via in hops]
    return table


def _changes(host: Any, table: Sequence[tuple[str, str, str]]) -> list[Request]:
    """Requests that lead from the routes the host has to those in `table`."""
    addresses = host.addresses
    if _is_leaf(host) and table:
        _, via, interface = table[0]
        wanted = {"default": (via, interface)}
    else:
        wanted = {addresses[destination]: (via, interface) for destination, via, interface in table}
    gone = [delete_route(destination) for destination in host.routes if destination not in wanted]
    return gone + _set_routes(host, wanted)


def _set_routes(host: Any, wanted: dict[str, tuple[str, str]]) -> list[Request]:
    own, addresses = host.addresses[host.name], host.addresses
    requests = []
    for destination, hop in wanted.items():
        if host.routes.get(destination) != hop:
            via, interface = addresses[hop[0]], host.namespace.index(hop[1])
            # A neighbour is on the link itself; whatever is beyond it goes by it.
            gateway = None if via == destination else via
            requests.append(
                set_route(
                    destination,
                    index=interface,
                    via=gateway,
                    source=own,
                    congestion_control=CONGESTION_CONTROL,
                )
            )
    host.routes = wanted
    return requests


def _neighbours(host: Any) -> list[Request]:
    return [
        set_neighbour(interface.index, host.addresses[peer.node.name], peer.MAC())
        for interface in host.interfaces
        for peer in interface.peers()
        if peer.node.name in host.addresses
    ]


def _is_leaf(host: Any) -> bool:
    interfaces = host.interfaces
    return len(interfaces) == 1 and len(interfaces[0].peers()) <= 1


_QUIET = {IPV4_RP_FILTER: 0, IPV4_SEND_REDIRECTS: 0}
"""Answers may come by another way than questions went."""
