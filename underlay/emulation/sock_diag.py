"""Destroys the TCP sockets of a namespace, as a power cut does.

A process that is killed leaves its connections to the kernel, which would go on telling the peers goodbye
(FIN) long after the device is back. Destroyed, they answer like those of a machine that rebooted: with a
reset to whoever still believes.

Source: sock_diag(7), `linux/inet_diag.h`; SOCK_DESTROY is Linux 4.9, CONFIG_INET_DIAG_DESTROY.
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Iterator

from underlay.emulation.namespace import Namespace

_NETLINK_SOCK_DIAG = 4
_SOCK_DIAG_BY_FAMILY = 20
_SOCK_DESTROY = 21
_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_REQUEST, _ACK, _DUMP = 1, 4, 0x300
_HEADER = struct.Struct("=IHHII")
_QUERY = struct.Struct("=BBBBI")
_ANSWER_HEAD_BYTES = 4
_ID_BYTES = 48
_ALL_STATES = 0xFFFF_FFFF


def destroy_sockets(namespace: Namespace) -> int:
    """Destroy every TCP socket in there; returns how many, or -1 where this kernel cannot."""
    destroyed = 0
    with namespace.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_SOCK_DIAG) as diag:
        for identity in list(_identities(diag)):
            diag.send(_message(_SOCK_DESTROY, _REQUEST | _ACK, _ALL_STATES, identity))
            (code,) = struct.unpack_from("=i", diag.recv(65_536), _HEADER.size)
            if -code == errno.EOPNOTSUPP:
                return -1
            destroyed += code == 0
    return destroyed


def _identities(diag: socket.socket) -> Iterator[bytes]:
    diag.send(_message(_SOCK_DIAG_BY_FAMILY, _REQUEST | _DUMP, _ALL_STATES, bytes(_ID_BYTES)))
    while True:
        data = diag.recv(65_536)
        offset = 0
        while offset < len(data):
            length, kind, *_ = _HEADER.unpack_from(data, offset)
            if kind in (_NLMSG_DONE, _NLMSG_ERROR):
                return
            start = offset + _HEADER.size + _ANSWER_HEAD_BYTES
            yield data[start : start + _ID_BYTES]
            offset += (length + 3) & ~3


def _message(kind: int, flags: int, states: int, identity: bytes) -> bytes:
    body = _QUERY.pack(socket.AF_INET, socket.IPPROTO_TCP, 0, 0, states) + identity
    return _HEADER.pack(_HEADER.size + len(body), kind, flags, 1, 0) + body
