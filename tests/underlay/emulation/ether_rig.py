"""A small network for the ether's tests and benchmarks: namespaces and TAPs, no Mininet.

Owns building it from a `Network` (one TAP for each end of every link and each member of every channel,
permanent neighbours, an address per interface) and taking it down.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from underlay.emulation.ether_hops import Port
from underlay.emulation.namespace import Namespace
from underlay.emulation.probes import ProbePoint
from underlay.emulation.rtnetlink import (
    LinkState,
    add_address,
    no_ipv6_address,
    set_link,
    set_neighbour,
    set_route,
)
from underlay.emulation.tap import open_tap
from underlay.network import Network


class Rig:
    """A built network.

    Attributes:
        namespaces: by device.
        ports: for the ether.
        interfaces: name of each port's interface, in the order of `ports`.
        ip: address of each device; the same on all its interfaces.
    """

    def __init__(self, network: Network, queue_frames: int = 5000) -> None:
        self.network = network
        self.namespaces: dict[str, Namespace] = {}
        self.ports: list[Port] = []
        self.interfaces: list[str] = []
        self.ip: dict[str, str] = {}
        try:
            for number, device in enumerate(network.devices, 1):
                self.namespaces[device.name] = Namespace.open()
                self.ip[device.name] = f"10.1.{number // 250}.{number % 250 + 1}"
            for link in network.links:
                for device_name in (link.a, link.b):
                    self._add_port(device_name, link.name, queue_frames)
                self._introduce(link.name, link.a, link.b)
            for channel in network.channels:
                for device_name in channel.members:
                    self._add_port(device_name, channel.name, queue_frames)
                for a, b in channel.pairs:
                    self._introduce(channel.name, a, b)
        except BaseException:
            self.close()
            raise

    def port(self, medium: str, device: str) -> tuple[Port, str]:
        """A port and the name of its interface."""
        for port, interface in zip(self.ports, self.interfaces, strict=True):
            if (port.medium, port.device) == (medium, device):
                return port, interface
        raise KeyError((medium, device))

    def points(self) -> list[ProbePoint]:
        """For the verification."""
        return [
            ProbePoint(port.device, port.medium, self.namespaces[port.device], interface)
            for port, interface in zip(self.ports, self.interfaces, strict=True)
        ]

    def kernels(self) -> dict[tuple[str, str], LinkState]:
        """The kernel's counters of every port, by medium and device."""
        states = {device: namespace.links() for device, namespace in self.namespaces.items()}
        return {
            (port.medium, port.device): states[port.device][interface]
            for port, interface in zip(self.ports, self.interfaces, strict=True)
        }

    def close(self) -> None:
        """Take it down."""
        for port in self.ports:
            os.close(port.fd)
        self.ports.clear()
        for namespace in self.namespaces.values():
            namespace.close()

    def _add_port(self, device: str, medium: str, queue_frames: int) -> None:
        namespace = self.namespaces[device]
        interface = f"e{len(self.ports)}"
        fd = open_tap(namespace, interface)
        number = len(self.ports)
        mac = bytes([2, 0, 0, 0, number >> 8, number & 255])
        self.ports.append(Port(device, medium, fd, mac))
        self.interfaces.append(interface)
        index = namespace.index(interface)
        namespace.submit(
            no_ipv6_address(index),
            set_link(index, up=True, mac=mac.hex(":"), queue_frames=queue_frames),
            add_address(index, self.ip[device], 32),
        )

    def _introduce(self, medium: str, a: str, b: str) -> None:
        for here, there in ((a, b), (b, a)):
            namespace = self.namespaces[here]
            index = namespace.index(self.port(medium, here)[1])
            namespace.submit(
                set_route(self.ip[there], index=index),
                set_neighbour(index, self.ip[there], self.port(medium, there)[0].mac.hex(":")),
            )


@contextmanager
def rig(network: Network) -> Iterator[Rig]:
    """A `Rig`, closed at the end."""
    built = Rig(network)
    try:
        yield built
    finally:
        built.close()
