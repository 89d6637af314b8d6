"""Mininet's interfaces and links over the routing socket: wires (veth), and emulated links that end in TAPs.

Owns making and removing them, and reading Mininet's link parameters into a `LinkSpec`. Does not move frames:
that is the ether's work, to which a `TapLink` gives its two descriptors and the spec of each direction.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any

from underlay.emulation import rtnetlink, stock
from underlay.emulation.hosts import NamespaceNode, namespace_of, short_name
from underlay.emulation.tap import open_tap
from underlay.errors import InputError
from underlay.link import LinkSpec


class Interface(stock.Intf):
    """An interface that configures itself without a shell."""

    node: Any
    link: Any
    name: str
    mac: str | None
    ip: str | None
    prefixLen: int | None
    channel: TapChannel | None = None
    borrowed = False
    """Unnumbered: it has no address of its own and answers with its device's."""

    @property
    def index(self) -> int:
        """The kernel's number for it."""
        return namespace_of(self.node).index(self.name)

    def peers(self) -> list[Interface]:
        """The interfaces that can hear this one: the far end of its link, or the others on its channel."""
        if self.channel is not None:
            return [interface for interface in self.channel.interfaces if interface is not self]
        if self.link is None:
            return []
        return [self.link.intf2 if self.link.intf1 is self else self.link.intf1]

    def config(
        self,
        mac: str | None = None,
        ip: str | None = None,
        ifconfig: str | None = None,
        up: bool = True,
        mtu_bytes: int | None = None,
        queue_frames: int | None = None,
        **_params: Any,
    ) -> dict[str, Any]:
        """Mininet's parameters, and `mtu_bytes`, `queue_frames` (how many frames may wait in the kernel)."""
        self.mac = mac or self.mac
        self._submit(
            rtnetlink.no_ipv6_address(self.index),
            rtnetlink.set_link(
                self.index, up=up, mac=self.mac, mtu_bytes=mtu_bytes, queue_frames=queue_frames
            ),
        )
        results: dict[str, Any] = {}
        self.setParam(results, "setIP", ip=ip)
        self.setParam(results, "ifconfig", ifconfig=ifconfig)
        return results

    def ifconfig(self, *args: str) -> str:
        """`"up"` and `"down"` here; anything else is left to the program of that name."""
        if args in (("up",), ("down",)):
            self._submit(rtnetlink.set_link(self.index, up=args == ("up",)))
            return ""
        return str(super().ifconfig(*args))

    def setIP(self, ipstr: str, prefixLen: int | str | None = None) -> str:
        """Replace the address: `"10.0.0.1/8"`, or the address and its prefix length."""
        address, _, length = ipstr.partition("/")
        prefix_length = length or prefixLen
        if prefix_length is None:
            raise InputError(
                f"no prefix length for {ipstr}", key=self.name, hint='say "address/prefix length"'
            )
        if self.ip is not None and self.prefixLen is not None and not self.borrowed:
            self._submit(rtnetlink.delete_address(self.index, self.ip, self.prefixLen))
        self.ip, self.prefixLen, self.borrowed = address, int(prefix_length), False
        self._submit(rtnetlink.add_address(self.index, address, int(prefix_length)))
        return ""

    def setMAC(self, macstr: str) -> str:
        """Replace the MAC address."""
        self.mac = macstr
        # Down first, as Mininet does: not every driver changes it live.
        self._submit(
            rtnetlink.set_link(self.index, up=False), rtnetlink.set_link(self.index, up=True, mac=macstr)
        )
        return ""

    def MAC(self) -> str:
        """The MAC address."""
        return self.mac or self.updateMAC()

    def updateIP(self) -> str | None:
        """The address the kernel has now, should somebody have changed it by shell."""
        if not self.borrowed:
            found = namespace_of(self.node).addresses(self.name)
            self.ip, self.prefixLen = found[0] if found else (None, None)
        return self.ip

    def updateMAC(self) -> str:
        """The MAC address the kernel has now."""
        self.mac = namespace_of(self.node).links()[self.name].mac
        return self.mac

    def updateAddr(self) -> tuple[str | None, str]:
        """Both."""
        return self.updateIP(), self.updateMAC()

    def isUp(self, setUp: bool = False) -> bool:
        """Whether it is up, after setting it up if asked to."""
        if setUp:
            self.ifconfig("up")
        return setUp or namespace_of(self.node).links()[self.name].up

    def rename(self, newname: str) -> str:
        """Give it another name."""
        namespace = namespace_of(self.node)
        index = self.index
        self._submit(rtnetlink.set_link(index, up=False), rtnetlink.set_link(index, up=True, name=newname))
        namespace.indexes.pop(self.name, None)
        namespace.indexes[newname] = index
        self.node.nameToIntf[newname] = self.node.nameToIntf.pop(self.name)
        self.name = newname
        return ""

    def status(self) -> str:
        """`"OK"` or `"MISSING"`."""
        return "OK" if self.name in namespace_of(self.node).links() else "MISSING"

    def delete(self) -> None:
        """Remove it from the kernel and from its node."""
        namespace = namespace_of(self.node)
        if not namespace.closed:
            namespace.submit(rtnetlink.delete_link(self.index))
            namespace.indexes.pop(self.name, None)
        self.node.delIntf(self)
        self.link = None

    def _submit(self, *requests: rtnetlink.Request) -> None:
        namespace_of(self.node).submit(*requests)


class _NamespaceLink(stock.Link):
    """What wires and emulated links share: ends made where they live, under names that fit."""

    def __init__(self, node1: Any, node2: Any, **params: Any) -> None:
        params.setdefault("intf", Interface)
        self.nodes = (node1, node2)
        self.intf1: Any = None
        self.intf2: Any = None
        try:
            super().__init__(node1, node2, **{**params, "fast": True})
        except BaseException:
            self.stop()
            raise

    def intfName(self, node: Any, n: int) -> str:
        """`cam3-eth0`, shortened where it is longer than the kernel allows."""
        return short_name(node.name, f"-eth{n}")


class VethLink(_NamespaceLink):
    """A wire: unlimited, loses nothing, needs no ether."""

    def __init__(self, node1: Any, node2: Any, **params: Any) -> None:
        ends = (params, params.get("params1") or {}, params.get("params2") or {})
        refused = sorted({key for end in ends for key in end if key in _LIMITS and end[key] is not None})
        if refused:
            raise InputError(
                f"a wire cannot enforce {', '.join(refused)}",
                key=f"{node1}-{node2}",
                hint="use TapLink, whose frames the ether moves",
            )
        super().__init__(node1, node2, **params)

    def makeIntfPair(
        self,
        intfname1: str,
        intfname2: str,
        addr1: str | None,
        addr2: str | None,
        node1: Any,
        node2: Any,
        **_: Any,
    ) -> None:
        """Both ends in one request, each in its namespace from birth."""
        here, there = namespace_of(node1), namespace_of(node2)
        index, far_index = here.number(intfname1), there.number(intfname2)
        here.make(rtnetlink.veth(intfname1, index, addr1, intfname2, far_index, addr2, there.fd))

    def stop(self) -> None:
        """The ends die with their namespaces; only what is in somebody else's has to be removed."""
        if not all(isinstance(node, NamespaceNode) for node in self.nodes) and self.intf1 is not None:
            self.delete()


class TapLink(_NamespaceLink):
    """An emulated link: two TAPs, and what should happen to the frames between them.

    Attributes:
        name: unique among the links of a plan.
        fd_a, fd_b: the TAPs' descriptors on our side, that of the first node first; -1 once closed.
        forward, backward: the spec of each direction, from the first node to the second and back.
    """

    def __init__(
        self,
        node1: Any,
        node2: Any,
        *,
        name: str | None = None,
        **params: Any,
    ) -> None:
        """The link is described as `take_specs` reads it.

        Args:
            name: `"cam1-hub"` if not given.
            params: see `take_specs`.

        Raises InputError for a parameter that is out of range or that no enforcer of ours has.
        """
        self.name = name or f"{node1}-{node2}"
        self.fd_a = self.fd_b = -1
        (self.forward, self.backward), rest = take_specs(self.name, params)
        super().__init__(node1, node2, **rest)

    def makeIntfPair(
        self,
        intfname1: str,
        intfname2: str,
        addr1: str | None,
        addr2: str | None,
        node1: Any,
        node2: Any,
        **_: Any,
    ) -> None:
        """Open both TAPs; the interfaces set their own addresses."""
        self.fd_a = open_tap(namespace_of(node1), intfname1)
        self.fd_b = open_tap(namespace_of(node2), intfname2)

    def stop(self) -> None:
        """Close the descriptors; the interfaces die with their namespaces."""
        for fd in (self.fd_a, self.fd_b):
            if fd >= 0:
                os.close(fd)
        self.fd_a = self.fd_b = -1

    def delete(self) -> None:
        """Remove the link from a running network."""
        self.stop()
        super().delete()


class TapChannel:
    """A shared medium: one TAP on each member, however many others it hears. The ether decides who does.

    Attributes:
        fds: descriptor of each member's TAP on our side, by device name; empty once closed.
        interfaces: of the members, in order.
    """

    def __init__(self, name: str, nodes: Iterable[Any], macs: Iterable[str], **params: Any) -> None:
        self.name = name
        self.fds: dict[str, int] = {}
        self.interfaces: list[Interface] = []
        try:
            for node, mac in zip(nodes, macs, strict=True):
                port = node.newPort()
                interface_name = short_name(node.name, f"-eth{port}")
                self.fds[node.name] = open_tap(namespace_of(node), interface_name)
                interface = Interface(
                    interface_name, node=node, port=port, mac=mac, moveIntfFn=_stay, **params
                )
                interface.channel = self
                self.interfaces.append(interface)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Close the descriptors."""
        for fd in self.fds.values():
            os.close(fd)
        self.fds.clear()


def take_specs(name: str, params: Mapping[str, Any]) -> tuple[tuple[LinkSpec, LinkSpec], dict[str, Any]]:
    """The spec of each direction of link `name`, and the parameters that say something else.

    Args:
        params: `model` (one spec for both directions, or one for each), or parameters as for TCLink: `bw`
            (Mbit/s), `delay` and `jitter` (`"5ms"`), `loss` (percent), `max_queue_size` (frames); those in
            `params1` and `params2` are of one interface, and so of the direction that leaves it.
    """
    rest = dict(params)
    model, params1, params2 = (rest.pop(key, None) for key in ("model", "params1", "params2"))
    own1, own2 = {**rest, **(params1 or {})}, {**rest, **(params2 or {})}
    if model is None:
        model = tc_spec(own1, name), tc_spec(own2, name)
    both = {"params1": _without_limits(own1), "params2": _without_limits(own2)}
    return model if isinstance(model, tuple) else (model, model), {**_without_limits(rest), **both}


def tc_spec(params: Mapping[str, Any], name: str) -> LinkSpec:
    """TCLink's parameters as a spec. Its queue, like tc's, holds 1,000 frames unless told otherwise.

    Raises InputError, naming link `name`, for a value that is out of range or cannot be read.
    """
    impossible = sorted(key for key in _UNSUPPORTED if params.get(key))
    if impossible:
        raise InputError(
            f"the ether has no {', '.join(impossible)}", key=name, hint=f"known: {', '.join(_TC_LIMITS)}"
        )
    given = {key: params[key] for key in _TC_LIMITS if params.get(key) is not None}
    fields: dict[str, Any] = {"queue_bytes": int(given.get("max_queue_size", 1000)) * _FRAME_BYTES}
    if "bw" in given:
        fields["rate_kbps"] = float(given["bw"]) * 1e3
    if "loss" in given:
        fields["loss_ratio"] = float(given["loss"]) / 100.0
    for key in ("delay", "jitter"):
        if key in given:
            fields[f"{key}_ms"] = _time_ms(given[key], f"{name}: {key}")
    try:
        return LinkSpec(**fields)
    except ValueError as problem:
        raise InputError(str(problem), key=name) from problem


def _time_ms(text: str, key: str) -> float:
    number = str(text).rstrip("nmusec")
    unit = str(text)[len(number) :]
    try:
        return float(number) * _MS_PER[unit]
    except (ValueError, KeyError):
        raise InputError(
            f"cannot read the time {text!r}", key=key, hint='say "5ms", "1.5s" or "100us"'
        ) from None


def _without_limits(params: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in params.items() if key not in _LIMITS}


def _stay(*_: object, **__: object) -> None:
    """In place of Mininet's moving an interface into its namespace: it was made there."""


_TC_LIMITS = ("bw", "delay", "jitter", "loss", "max_queue_size")
_TC_MEANS = ("use_htb", "use_hfsc", "use_tbf", "gro", "txo", "rxo")
"""How tc or the card should do it: nothing that the link's user sees."""
_UNSUPPORTED = ("enable_ecn", "enable_red", "latency_ms", "speedup")
_LIMITS = frozenset((*_TC_LIMITS, *_TC_MEANS, *_UNSUPPORTED))
_FRAME_BYTES = 1500
_MS_PER = {
    "ms": 1.0,
    "msec": 1.0,
    "msecs": 1.0,
    "s": 1e3,
    "sec": 1e3,
    "secs": 1e3,
    "us": 1e-3,
    "usec": 1e-3,
    "usecs": 1e-3,
}
