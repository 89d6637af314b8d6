"""Mininet's network, built in batches and gone at once.
 Owns the life of a whole network: what is made, in which order it is taken down, and that nothing of it is
left after an error. Hosts, switches, links and interfaces are injected, as in Mininet itself, so that
existing topologies (`Network(topo=...)`), its command line and its own classes work; but no global sysctl is
written, and there is no controller unless one is given."""

from __future__ import annotations

import atexit
import os
import resource
import weakref
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from underlay.emulation import stock
from underlay.emulation.hosts import Bridge, Host, NamespaceNode
from underlay.emulation.links import Interface, TapChannel, TapLink, VethLink
from underlay.emulation.namespace import end_processes
from underlay.emulation.unnumbered import restore
from underlay.errors import Unavailable


class Network(stock.Mininet):
    """A network of namespaces. As a context manager it is gone on exit, whatever happened, and started on
    entry if a topology was given.

    >>> with Network(topo=SingleSwitchTopo(3)) as net:  # doctest: +SKIP
    ...     net["h1"].cmd("ping -c1", net["h2"].IP())
    """

    def __init__(
        self,
        topo: Any = None,
        switch: Any = Bridge,
        host: Any = Host,
        controller: Any = None,
        link: Any = VethLink,
        intf: Any = Interface,
        build: bool = True,
        **options: Any,
    ) -> None:
        """Parameters are Mininet's. Links default to wires; with `link=TapLink` someone has to move the
        frames.

        Raises Unavailable without root or TUN/TAP. After any error while building, nothing is left.
        """
        if os.geteuid() != 0:
            raise Unavailable("building a network needs root", hint="use sudo")
        _raise_descriptor_limit()
        self.channels: list[TapChannel] = []
        self._building = False
        with _no_global_settings():
            super().__init__(
                topo=topo,
                switch=switch,
                host=host,
                controller=controller,
                link=link,
                intf=intf,
                build=False,
                **options,
            )
        self._process = os.getpid()
        _networks.add(self)
        if topo and build:
            self.build()

    def __enter__(self) -> Network:
        if self.built:
            self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    # ----------------------------------------------------------------------------------------------- building

    def build(self) -> None:
        """Build, holding each node's configuration back until it can go in a few batches."""
        with self.batch():
            super().build()

    @contextmanager
    def batch(self) -> Iterator[None]:
        """Hold configuration back meanwhile; for whoever adds many hosts and links by hand.

        An error in it takes the whole network down.
        """
        try:
            self._building = True
            for node in self._own_nodes():
                node.namespace.hold()
            yield
            self._building = False
            for node in self._own_nodes():
                node.namespace.release()
        except BaseException:
            self._building = False
            self.stop()
            raise

    def start(self) -> None:
        """Build if that has not happened, and let the switches forward."""
        try:
            super().start()
        except BaseException:
            self.stop()
            raise

    def addHost(self, name: str, cls: Any = None, **params: Any) -> Any:
        """Add a host, also at run time; `inNamespace=False` makes one of Mininet's own, in the machine's
        namespace."""
        if cls is None and not params.get("inNamespace", True):
            cls = stock.Host
        return self._adopt(super().addHost(name, cls=cls, **params))

    def addSwitch(self, name: str, cls: Any = None, **params: Any) -> Any:
        """Add a switch, also at run time."""
        return self._adopt(super().addSwitch(name, cls=cls, **params))

    def addChannel(self, name: str, nodes: Iterable[Any], **params: Any) -> TapChannel:
        """Put `nodes` on a shared medium; `params` are for their interfaces."""
        members = [self[node] if isinstance(node, str) else node for node in nodes]
        channel = TapChannel(name, members, [self.randMac() for _ in members], **params)
        self.channels.append(channel)
        return channel

    def delNode(self, node: Any, nodes: Any = None) -> None:
        """Remove a node, its links first."""
        for link in [link for link in self.links if node in (link.intf1.node, link.intf2.node)]:
            self.delLink(link)
        super().delNode(node, nodes)

    def configLinkStatus(self, src: str, dst: str, status: str) -> None:
        """Set the links between two nodes `"up"` or `"down"`, and routes that go with them back up."""
        super().configLinkStatus(src, dst, status)
        for node in (self.nameToNode.get(name) for name in (src, dst)):
            if status == "up" and hasattr(node, "routes"):
                restore(node)

    def stop(self) -> None:
        """End every process in the network and remove all of it; harmless if that has happened."""
        own = self._own_nodes()
        # Descriptors of TAPs go before those of namespaces: the other way round each costs 16 ms.
        for medium in (*self.links, *self.channels):
            medium.stop()
        self.links.clear()
        self.channels.clear()
        stubborn = end_processes([node.namespace for node in own])
        for node in own:
            node.close()
        super().stop()  # what is not ours: controllers, terminals, Mininet's own nodes
        for node in (*self.hosts, *self.switches):
            if hasattr(node, "namespace"):
                node.namespace.close()
        if stubborn:
            stock.error(f"*** Still alive after SIGKILL: {stubborn}\n")

    # ------------------------------------------------------------------------------------------ for the ether

    @property
    def tap_links(self) -> list[TapLink]:
        """The links whose frames someone has to move."""
        return [link for link in self.links if isinstance(link, TapLink)]

    def descriptors(self) -> list[int]:
        """Every descriptor we hold, TAPs first: a forked child closes those it does not need, in this
        order."""
        taps = [fd for link in self.tap_links for fd in (link.fd_a, link.fd_b)]
        shared = [fd for channel in self.channels for fd in channel.fds.values()]
        held = [*taps, *shared, *(node.namespace.fd for node in self._own_nodes())]
        return [fd for fd in held if fd >= 0]

    def _adopt(self, node: Any) -> Any:
        if self._building and isinstance(node, NamespaceNode):
            node.namespace.hold()
        return node

    def _own_nodes(self) -> list[Any]:
        return [node for node in (*self.hosts, *self.switches) if isinstance(node, NamespaceNode)]


def _raise_descriptor_limit() -> None:
    """As many descriptors as this process may have: a large star takes three a host."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


@contextmanager
def _no_global_settings() -> Iterator[None]:
    """Mininet's constructor writes eleven global sysctls once a process, unless it thinks that it has."""
    before = stock.Mininet.inited
    stock.Mininet.inited = True
    try:
        yield
    finally:
        stock.Mininet.inited = before


@atexit.register
def _stop_what_was_forgotten() -> None:
    """A script that ends by an exception leaves no process behind. A forked child's end is not the
    network's."""
    for network in list(_networks):
        if network._process == os.getpid():
            network.stop()


_networks: weakref.WeakSet[Network] = weakref.WeakSet()
