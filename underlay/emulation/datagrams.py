"""A node's UDP socket: datagrams to one peer, and broadcasts to everybody one hop away.

Owns the socket; knows nothing of messages. A broadcast goes to 255.255.255.255 once out of every interface:
one copy for the neighbour at the far end of a point-to-point link, one transmission heard by all on a
channel. Links are unnumbered, so the socket is bound to no address (only so does it hear broadcasts) and each
broadcast names its source.

Source: ip(7) IP_PKTINFO, udp(7).
"""

from __future__ import annotations

import asyncio
import errno
import socket
import struct
from collections.abc import Callable

# Whatever these say, the datagram is lost, as datagrams may be.
_LOST = frozenset(
    {
        errno.EAGAIN, errno.ENOBUFS, errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN, errno.ENODEV,
        errno.ENXIO, errno.ECONNREFUSED, errno.EPERM,
    }
)  # fmt: skip
_AT_ONCE = 256
_IP_PKTINFO = 8  # linux/in.h; Python 3.11 does not name it
_PKTINFO = struct.Struct("@i4s4s")


class Datagrams:
    """The socket of the node whose port is `port`.

    `on_datagram(ip, port, data)` is called for each datagram of another device; `data` is valid during the
    call only. Who `hears_broadcasts` has the port on every address of its network namespace.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        ip: str,
        port: int,
        on_datagram: Callable[[str, int, memoryview], None],
        *,
        hears_broadcasts: bool = True,
    ) -> None:
        self._loop = loop
        self._ip = ip
        self._source = socket.inet_aton(ip)
        self._on_datagram = on_datagram
        self._buffer = bytearray(65_536)
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        self._socket.bind(("" if hears_broadcasts else ip, port))
        loop.add_reader(self._socket, self._readable)

    def send(self, ip: str, port: int, data: bytes) -> None:
        """One datagram, or silence."""
        self._transmit(data, [], (ip, port))

    def broadcast(self, port: int, data: bytes) -> int:
        """One datagram out of every interface; how many those are."""
        indexes = [index for index, name in socket.if_nameindex() if name != "lo"]
        for index in indexes:
            info = _PKTINFO.pack(index, self._source, b"\0\0\0\0")
            self._transmit(data, [(socket.IPPROTO_IP, _IP_PKTINFO, info)], ("255.255.255.255", port))
        return len(indexes)

    def close(self) -> None:
        """Release the port."""
        self._loop.remove_reader(self._socket)
        self._socket.close()

    def _transmit(self, data: bytes, control: list[tuple[int, int, bytes]], to: tuple[str, int]) -> None:
        try:
            self._socket.sendmsg([data], control, 0, to)
        except OSError as problem:
            if problem.errno not in _LOST:
                raise

    def _readable(self) -> None:
        view = memoryview(self._buffer)
        for _ in range(_AT_ONCE):
            try:
                size, (ip, port) = self._socket.recvfrom_into(self._buffer)
            except BlockingIOError:
                return
            except OSError as problem:
                if problem.errno not in _LOST:
                    raise
                continue
            if ip != self._ip:  # the kernel gives a sender its own broadcasts
                self._on_datagram(ip, port, view[:size])
