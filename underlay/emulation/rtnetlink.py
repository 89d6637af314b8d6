"""The kernel's routing socket in packed messages: links, addresses, routes, neighbours, up to 64 to a send.

Owns the encoding of the few requests that building a network takes, the batches they travel in, and the dumps
read back. Knows nothing of Mininet, nor of namespaces: a `RouteSocket` acts on the one it was opened in.

Source: RFC 3549; rtnetlink(7); `linux/netlink.h`, `linux/rtnetlink.h`, `linux/if_link.h`,
`linux/neighbour.h`.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

BATCH = 64
"""Requests to a send: past this the kernel's receive buffer, not the system call, sets the pace."""

LOOPBACK = 1
"""Index of `lo`, the first interface of every namespace."""


IPV4_FORWARDING, IPV4_SEND_REDIRECTS, IPV4_RP_FILTER = 1, 6, 8
"""IPv4 settings of an interface (`linux/ip.h`, IPV4_DEVCONF_*)."""


class NetlinkError(OSError):
    """The kernel refused an operation of a batch, which the message names. Those after it may or may not have
    been carried out: what was being built should be taken down."""


class Request(NamedTuple):
    """One operation, packed but for its header."""

    kind: int
    flags: int
    body: bytes
    what: str
    """For the error message: `"set link 101 up"`."""
    forgiven: tuple[int, ...] = ()
    """errno values that mean the wanted state was there already."""


class LinkState(NamedTuple):
    """An interface as the kernel sees it, `number` being its index; counters are cumulative."""

    number: int
    name: str
    up: bool
    mac: str
    mtu_bytes: int
    rx_packets: int
    tx_packets: int
    rx_bytes: int
    tx_bytes: int
    rx_dropped: int
    tx_dropped: int


class RouteSocket:
    """A netlink socket of the namespace that the calling thread is in when it is made. A context manager."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
        self._socket.setsockopt(_SOL_NETLINK, _NETLINK_CAP_ACK, 1)
        self._socket.setsockopt(_SOL_NETLINK, _NETLINK_EXT_ACK, 1)

    def __enter__(self) -> RouteSocket:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def apply(self, requests: Sequence[Request]) -> None:
        """Carry out `requests` in order.

        Raises NetlinkError for the first one refused, with the kernel's own explanation where it gives one.
        """
        for start in range(0, len(requests), BATCH):
            self._apply_batch(requests[start : start + BATCH])

    def links(self) -> dict[str, LinkState]:
        """Every interface of the namespace by name, with its counters, from one dump."""
        states = (
            _link_state(body) for body in self.dump(_RTM_GETLINK, _IFINFO.pack(socket.AF_UNSPEC, 0, 0, 0, 0))
        )
        return {state.name: state for state in states}

    def addresses(self) -> dict[int, list[tuple[str, int]]]:
        """IPv4 addresses as `(address, prefix length)` by interface index."""
        found: dict[int, list[tuple[str, int]]] = {}
        for body in self.dump(_RTM_GETADDR, _IFADDR.pack(socket.AF_INET, 0, 0, 0, 0)):
            _, prefix_length, _, _, index = _IFADDR.unpack_from(body)
            local = attributes(body, _IFADDR.size).get(_IFA_LOCAL)
            if local is not None:
                found.setdefault(index, []).append((socket.inet_ntoa(local), prefix_length))
        return found

    def dump(self, kind: int, body: bytes) -> Iterator[bytes]:
        """The body of every answer to a request for a list, for kinds that this module does not read."""
        self._socket.send(
            _HEADER.pack(_HEADER.size + len(body), kind, _NLM_F_REQUEST | _NLM_F_DUMP, 0, 0) + body
        )
        while True:
            for answer, _, _, payload in _messages(self._socket.recv(_RECEIVE_BYTES)):
                if answer == _NLMSG_DONE:
                    return
                if answer == _NLMSG_ERROR:
                    code = -_INT.unpack_from(payload)[0]
                    raise NetlinkError(code, f"cannot list: {os.strerror(code)}")
                yield payload

    def _apply_batch(self, requests: Sequence[Request]) -> None:
        # Refusals come unasked, so only the last request asks for an acknowledgement: one answer to a good
        # batch.
        last = len(requests) - 1
        self._socket.send(
            b"".join(
                _HEADER.pack(
                    _HEADER.size + len(request.body),
                    request.kind,
                    request.flags | _NLM_F_REQUEST | (_NLM_F_ACK if sequence == last else 0),
                    sequence,
                    0,
                )
                + request.body
                for sequence, request in enumerate(requests)
            )
        )
        refusal: NetlinkError | None = None
        sequence = -1
        while sequence != last:
            for kind, flags, sequence, body in _messages(self._socket.recv(_RECEIVE_BYTES)):
                if kind != _NLMSG_ERROR:
                    continue
                code = -_INT.unpack_from(body)[0]
                if code and code not in requests[sequence].forgiven and refusal is None:
                    why = _explanation(body, flags) or os.strerror(code)
                    refusal = NetlinkError(code, f"cannot {requests[sequence].what}: {why}")
        if refusal is not None:
            raise refusal


# --------------------------------------------------------------------------------------------------- requests


def veth(
    name: str, index: int, mac: str | None, peer: str, peer_index: int, peer_mac: str | None, peer_fd: int
) -> Request:
    """A virtual wire between this namespace and the one that descriptor `peer_fd` refers to."""
    far_end = (
        _IFINFO.pack(socket.AF_UNSPEC, 0, peer_index, 0, 0)
        + _text(_IFLA_IFNAME, peer)
        + (_mac(peer_mac) if peer_mac else b"")
        + _u32(_IFLA_NET_NS_FD, peer_fd)
    )
    kind = _text(_IFLA_INFO_KIND, "veth") + nest(_IFLA_INFO_DATA, attribute(_VETH_INFO_PEER, far_end))
    return Request(
        _RTM_NEWLINK,
        _NLM_F_CREATE | _NLM_F_EXCL,
        _IFINFO.pack(socket.AF_UNSPEC, 0, index, 0, 0)
        + _text(_IFLA_IFNAME, name)
        + (_mac(mac) if mac else b"")
        + nest(_IFLA_LINKINFO, kind),
        f"make the wire {name} - {peer}",
    )


def bridge(name: str, index: int, *, stp: bool = False) -> Request:
    """A learning bridge; with `stp` it speaks the spanning tree protocol, with the shortest legal forward
    delay."""
    options = _u32(_IFLA_BR_STP_STATE, int(stp)) + attribute(_IFLA_BR_MCAST_SNOOPING, b"\0")
    if stp:
        options += _u32(_IFLA_BR_FORWARD_DELAY, 2 * os.sysconf("SC_CLK_TCK"))
    return Request(
        _RTM_NEWLINK,
        _NLM_F_CREATE | _NLM_F_EXCL,
        _IFINFO.pack(socket.AF_UNSPEC, 0, index, 0, 0)
        + _text(_IFLA_IFNAME, name)
        + nest(_IFLA_LINKINFO, _text(_IFLA_INFO_KIND, "bridge") + nest(_IFLA_INFO_DATA, options)),
        f"make the bridge {name}",
    )


def set_link(
    index: int,
    *,
    up: bool | None = None,
    mac: str | None = None,
    mtu_bytes: int | None = None,
    queue_frames: int | None = None,
    segments_max: int | None = None,
    master: int | None = None,
    name: str | None = None,
    ipv4: Mapping[int, int] | None = None,
) -> Request:
    """Change an interface; None leaves a property as it is.

    Args:
        queue_frames: txqueuelen; on a TAP, how many frames may wait to be read.
        segments_max: how many TCP segments the kernel may hand it as one packet.
        master: index of the bridge it is a port of; 0 takes it off.
        ipv4: per-interface settings, such as `IPV4_FORWARDING`.
    """
    attributes = b"".join(
        (
            _mac(mac) if mac is not None else b"",
            _u32(_IFLA_MTU, mtu_bytes) if mtu_bytes is not None else b"",
            _u32(_IFLA_TXQLEN, queue_frames) if queue_frames is not None else b"",
            _u32(_IFLA_GSO_MAX_SEGS, segments_max) if segments_max is not None else b"",
            _u32(_IFLA_MASTER, master) if master is not None else b"",
            _text(_IFLA_IFNAME, name) if name is not None else b"",
            _ipv4_settings(ipv4) if ipv4 else b"",
        )
    )
    wanted = 0 if up is None else _IFF_UP if up else 0
    changed = 0 if up is None else _IFF_UP
    state = "" if up is None else " up" if up else " down"
    body = _IFINFO.pack(socket.AF_UNSPEC, 0, index, wanted, changed) + attributes
    return Request(_RTM_SETLINK, 0, body, f"set link {index}{state}")


def no_ipv6_address(index: int) -> Request:
    """Give an interface no link-local IPv6 address when it comes up: the kernel sends no IPv6 on its own.

    Per interface, because a namespace's own settings lie in /proc/sys, where opening a file takes longer the
    more namespaces there are. Fine where the kernel has no IPv6.
    """
    setting = attribute(_IFLA_INET6_ADDR_GEN_MODE, bytes((_IN6_ADDR_GEN_MODE_NONE,)))
    body = _IFINFO.pack(socket.AF_UNSPEC, 0, index, 0, 0)
    body += nest(_IFLA_AF_SPEC, nest(socket.AF_INET6, setting))
    return Request(_RTM_SETLINK, 0, body, f"keep IPv6 off link {index}", (errno.EAFNOSUPPORT,))


def delete_link(index: int) -> Request:
    """Remove an interface (and with a veth its peer); fine if it is gone."""
    return Request(
        _RTM_DELLINK,
        0,
        _IFINFO.pack(socket.AF_UNSPEC, 0, index, 0, 0),
        f"delete link {index}",
        (errno.ENODEV,),
    )


def add_address(index: int, address: str, prefix_length: int) -> Request:
    """Give an interface an IPv4 address; fine if it has it."""
    return _address(_RTM_NEWADDR, _NLM_F_CREATE | _NLM_F_REPLACE, index, address, prefix_length)


def delete_address(index: int, address: str, prefix_length: int) -> Request:
    """Take an IPv4 address off an interface; fine if it is not there."""
    return _address(_RTM_DELADDR, 0, index, address, prefix_length)


def set_route(
    destination: str,
    *,
    index: int | None = None,
    via: str | None = None,
    source: str | None = None,
    congestion_control: str | None = None,
) -> Request:
    """Send what goes to `destination` out of interface `index`, replacing an earlier route there.

    Args:
        destination: an address, `"address/prefix length"` or `"default"`.
        via: next hop. With an `index` it is taken to be on that link, whatever the addresses say (onlink).
        source: preferred source address.
        congestion_control: of the TCP connections that go this way, in place of the machine's default.
    """
    network, prefix_length = _network(destination)
    onlink = via is not None and index is not None
    scope = _RT_SCOPE_UNIVERSE if via is not None else _RT_SCOPE_LINK
    body = _RTMSG.pack(
        socket.AF_INET,
        prefix_length,
        0,
        0,
        _RT_TABLE_MAIN,
        _RTPROT_STATIC,
        scope,
        _RTN_UNICAST,
        _RTNH_F_ONLINK * onlink,
    )
    body += _ipv4(_RTA_DST, network) if prefix_length else b""
    body += _ipv4(_RTA_GATEWAY, via) if via is not None else b""
    body += _u32(_RTA_OIF, index) if index is not None else b""
    body += _ipv4(_RTA_PREFSRC, source) if source is not None else b""
    if congestion_control is not None:
        body += nest(_RTA_METRICS, attribute(_RTAX_CC_ALGO, congestion_control.encode() + b"\0"))
    hop = f" via {via}" if via is not None else ""
    return Request(
        _RTM_NEWROUTE, _NLM_F_CREATE | _NLM_F_REPLACE, body, f"route {destination}{hop} dev {index}"
    )


def delete_route(destination: str) -> Request:
    """Forget the main table's route to exactly `destination`; fine if there is none."""
    network, prefix_length = _network(destination)
    body = _RTMSG.pack(socket.AF_INET, prefix_length, 0, 0, _RT_TABLE_MAIN, 0, _RT_SCOPE_NOWHERE, 0, 0)
    body += _ipv4(_RTA_DST, network) if prefix_length else b""
    return Request(_RTM_DELROUTE, 0, body, f"delete route {destination}", (errno.ESRCH,))


def set_neighbour(index: int, address: str, mac: str) -> Request:
    """A permanent neighbour entry: no ARP is ever asked for `address` on that interface."""
    body = (
        _NDMSG.pack(socket.AF_INET, index, _NUD_PERMANENT, 0, 0)
        + _ipv4(_NDA_DST, address)
        + attribute(_NDA_LLADDR, _mac_bytes(mac))
    )
    return Request(
        _RTM_NEWNEIGH, _NLM_F_CREATE | _NLM_F_REPLACE, body, f"set neighbour {address} on link {index}"
    )


# ---------------------------------------------------------------------------------------------------- packing


def _address(kind: int, flags: int, index: int, address: str, prefix_length: int) -> Request:
    body = _IFADDR.pack(socket.AF_INET, prefix_length, 0, _RT_SCOPE_UNIVERSE, index)
    body += _ipv4(_IFA_LOCAL, address) + _ipv4(_IFA_ADDRESS, address)
    if kind == _RTM_NEWADDR and prefix_length < 31:
        host_bits = (1 << (32 - prefix_length)) - 1
        broadcast = int.from_bytes(socket.inet_aton(address)) | host_bits
        body += attribute(_IFA_BROADCAST, broadcast.to_bytes(4))
    verb = "set" if kind == _RTM_NEWADDR else "delete"
    forgiven = (errno.EADDRNOTAVAIL,) if kind == _RTM_DELADDR else ()
    return Request(kind, flags, body, f"{verb} address {address}/{prefix_length} on link {index}", forgiven)


def _network(destination: str) -> tuple[str, int]:
    if destination == "default":
        return "0.0.0.0", 0
    address, _, length = destination.partition("/")
    return address, int(length) if length else 32


def _ipv4_settings(settings: Mapping[int, int]) -> bytes:
    values = b"".join(_u32(number, value) for number, value in settings.items())
    return nest(_IFLA_AF_SPEC, nest(socket.AF_INET, nest(_IFLA_INET_CONF, values)))


def attribute(kind: int, payload: bytes) -> bytes:
    """One attribute, padded."""
    return _ATTRIBUTE.pack(4 + len(payload), kind) + payload + b"\0" * (-len(payload) % 4)


def nest(kind: int, inner: bytes) -> bytes:
    """An attribute that holds attributes."""
    return attribute(kind | _NLA_F_NESTED, inner)


def _u32(kind: int, value: int) -> bytes:
    return _U32_ATTRIBUTE.pack(8, kind, value)


def _text(kind: int, text: str) -> bytes:
    return attribute(kind, text.encode() + b"\0")


def _ipv4(kind: int, address: str) -> bytes:
    return attribute(kind, socket.inet_aton(address))


def _mac(address: str) -> bytes:
    return attribute(_IFLA_ADDRESS, _mac_bytes(address))


def _mac_bytes(address: str) -> bytes:
    return bytes.fromhex(address.replace(":", ""))


# -------------------------------------------------------------------------------------------------- unpacking


def _messages(data: bytes) -> Iterator[tuple[int, int, int, bytes]]:
    """`(kind, flags, sequence, body)` of each message in a datagram."""
    offset = 0
    while offset < len(data):
        length, kind, flags, sequence, _ = _HEADER.unpack_from(data, offset)
        yield kind, flags, sequence, data[offset + _HEADER.size : offset + length]
        offset += length + -length % 4


def attributes(body: bytes, offset: int) -> dict[int, bytes]:
    """Payloads by kind, of the attributes that begin at `offset`."""
    found = {}
    while offset + 4 <= len(body):
        length, kind = _ATTRIBUTE.unpack_from(body, offset)
        found[kind & ~_NLA_F_NESTED] = body[offset + 4 : offset + length]
        offset += length + -length % 4
    return found


def _explanation(body: bytes, flags: int) -> str:
    """The kernel's words in an error message (NETLINK_EXT_ACK), or nothing."""
    if not flags & _NLM_F_ACK_TLVS:
        return ""
    capped = _INT.size + _HEADER.size
    return attributes(body, capped).get(_NLMSGERR_ATTR_MSG, b"").rstrip(b"\0").decode(errors="replace")


def _link_state(body: bytes) -> LinkState:
    _, _, index, flags, _ = _IFINFO.unpack_from(body)
    found = attributes(body, _IFINFO.size)
    rx_packets, tx_packets, rx_bytes, tx_bytes, _, _, rx_dropped, tx_dropped = _COUNTERS.unpack_from(
        found[_IFLA_STATS64]
    )
    return LinkState(
        index,
        found[_IFLA_IFNAME].rstrip(b"\0").decode(),
        bool(flags & _IFF_UP),
        found.get(_IFLA_ADDRESS, b"").hex(":"),
        _UINT.unpack(found[_IFLA_MTU])[0],
        rx_packets,
        tx_packets,
        rx_bytes,
        tx_bytes,
        rx_dropped,
        tx_dropped,
    )


# ----------------------------------------------------------------------------------- the kernel's own numbers

_HEADER = struct.Struct("=IHHII")  # nlmsghdr: length, type, flags, sequence, port
_IFINFO = struct.Struct("=BxHiII")  # ifinfomsg: family, type, index, flags, change mask
_IFADDR = struct.Struct("=BBBBI")  # ifaddrmsg: family, prefix length, flags, scope, index
_RTMSG = struct.Struct(
    "=BBBBBBBBI"
)  # rtmsg: family, dst length, src length, tos, table, protocol, scope, type, flags
_NDMSG = struct.Struct("=BxxxiHBB")  # ndmsg: family, index, state, flags, type
_ATTRIBUTE = struct.Struct("=HH")  # nlattr: length, type
_U32_ATTRIBUTE = struct.Struct("=HHI")
_COUNTERS = struct.Struct("=8Q")  # the head of rtnl_link_stats64
_INT = struct.Struct("=i")
_UINT = struct.Struct("=I")
_RECEIVE_BYTES = 1 << 17

_SOL_NETLINK, _NETLINK_CAP_ACK, _NETLINK_EXT_ACK = 270, 10, 11
_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_NLM_F_REQUEST, _NLM_F_ACK, _NLM_F_ACK_TLVS, _NLM_F_DUMP = 0x1, 0x4, 0x200, 0x300
_NLM_F_REPLACE, _NLM_F_EXCL, _NLM_F_CREATE = 0x100, 0x200, 0x400
_NLA_F_NESTED, _NLMSGERR_ATTR_MSG = 0x8000, 1

_RTM_NEWLINK, _RTM_DELLINK, _RTM_GETLINK, _RTM_SETLINK = 16, 17, 18, 19
_RTM_NEWADDR, _RTM_DELADDR, _RTM_GETADDR = 20, 21, 22
_RTM_NEWROUTE, _RTM_DELROUTE = 24, 25
_RTM_NEWNEIGH = 28

_IFF_UP = 1
_IFLA_ADDRESS, _IFLA_IFNAME, _IFLA_MTU, _IFLA_MASTER, _IFLA_TXQLEN = 1, 3, 4, 10, 13
_IFLA_LINKINFO, _IFLA_STATS64, _IFLA_AF_SPEC, _IFLA_NET_NS_FD = 18, 23, 26, 28
_IFLA_GSO_MAX_SEGS = 40
_IFLA_INFO_KIND, _IFLA_INFO_DATA, _VETH_INFO_PEER, _IFLA_INET_CONF = 1, 2, 1, 1
_IFLA_BR_FORWARD_DELAY, _IFLA_BR_STP_STATE, _IFLA_BR_MCAST_SNOOPING = 1, 5, 23
_IFLA_INET6_ADDR_GEN_MODE, _IN6_ADDR_GEN_MODE_NONE = 8, 1
_IFA_ADDRESS, _IFA_LOCAL, _IFA_BROADCAST = 1, 2, 4
_RTA_DST, _RTA_OIF, _RTA_GATEWAY, _RTA_PREFSRC, _RTA_METRICS = 1, 4, 5, 7, 8
_RTAX_CC_ALGO = 16
_RT_TABLE_MAIN, _RTPROT_STATIC, _RTN_UNICAST, _RTNH_F_ONLINK = 254, 4, 1, 4
_RT_SCOPE_UNIVERSE, _RT_SCOPE_LINK, _RT_SCOPE_NOWHERE = 0, 253, 255
_NDA_DST, _NDA_LLADDR, _NUD_PERMANENT = 1, 2, 0x80
