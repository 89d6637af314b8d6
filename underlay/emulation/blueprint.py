"""From a plan's network to a Mininet network: who is built, under which address, and where its TAPs are.

Owns only the translation; building is Mininet's, moving frames the ether's.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from underlay.emulation.ether_hops import Port
from underlay.emulation.links import TapLink
from underlay.emulation.net import Network
from underlay.emulation.probes import ProbePoint
from underlay.emulation.rtnetlink import LinkState
from underlay.network import Network as Graph


def addresses(graph: Graph) -> dict[str, str]:
    """IPv4 address of every device: 10.77.0.1 upwards, without those that end in 0 or 255."""
    return {
        device.name: f"10.{77 + n // 63500}.{n // 250 % 254}.{n % 250 + 1}"
        for n, device in enumerate(graph.devices)
    }


def build_network(graph: Graph, link_class: Any = TapLink) -> Network:
    """A Mininet network of these devices, links and channels; addresses and routes come later.

    Args:
        link_class: takes `model` (a spec for each direction) and `name`.
    """
    network = Network()
    with network.batch():
        for device in graph.devices:
            network.addHost(device.name)
        for link in graph.links:
            specs = link.forward, link.backward
            network.addLink(link.a, link.b, cls=link_class, model=specs, name=link.name)
        for channel in graph.channels:
            network.addChannel(channel.name, channel.members)
    return network


def ports(network: Network) -> list[Port]:
    """The TAPs whose frames the ether moves."""
    return [
        Port(interface.node.name, medium, fd, bytes.fromhex(interface.MAC().replace(":", "")))
        for medium, interface, fd in _ends(network)
    ]


def probe_points(network: Network) -> list[ProbePoint]:
    """The same places, as those who verify links see them."""
    return [
        ProbePoint(interface.node.name, medium, interface.node.namespace, interface.name)
        for medium, interface, _ in _ends(network)
    ]


def kernel_counters(network: Network) -> dict[tuple[str, str], LinkState]:
    """State of each TAP's interface by `(medium, device)`."""
    states = {host.name: host.namespace.links() for host in network.hosts}
    return {
        (medium, interface.node.name): states[interface.node.name][interface.name]
        for medium, interface, _ in _ends(network)
    }


def _ends(network: Network) -> Iterator[tuple[str, Any, int]]:
    """Every TAP: its medium's name, its interface, and its descriptor on the ether's side."""
    for link in network.tap_links:
        yield link.name, link.intf1, link.fd_a
        yield link.name, link.intf2, link.fd_b
    for channel in network.channels:
        for interface in channel.interfaces:
            yield channel.name, interface, channel.fds[interface.node.name]
