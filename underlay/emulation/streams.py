"""Streams between nodes: TCP connections that carry length-prefixed messages.

Owns a node's listening socket and its connections; knows nothing of messages but their bytes. A connection is
opened with the first message for a peer and used both ways while it lives. Its first frame, the hello, names
the sender's address and incarnation: a peer that was restarted has no use for older connections, which are
reset. Where TCP gives up (no acknowledgement for 30 s, no answer to the handshake or to a keepalive, a reset)
the peer is reported down.

A program outside the network has no address and says so in its hello. It is a *caller*: known by a handle
that means nothing elsewhere and ends with its connection. Callers are strangers, so whatever they can make
this process hold is bounded: their number, the time until they greet, and what waits for them or from them.

Frame: 4 bytes of length, big-endian, then the message. Source: tcp(7), RFC 5482 (TCP_USER_TIMEOUT), RFC 9293
§3.8.4 (keepalives).
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable
from contextlib import suppress
from typing import cast

import msgspec

from underlay.messages import MESSAGE_BYTES_MAX
from underlay.node import Address

USER_TIMEOUT_MS = 30_000
"""Data that stays unacknowledged, or a handshake unanswered, for this long ends a stream."""
QUEUE_BYTES_MAX = 4 * 1024 * 1024
"""More than this waiting in front of a stream resets it: the peer cannot keep up, and memory is bounded."""
KEEPALIVE_IDLE_S = 30
"""An idle connection is probed after this long, and then every `KEEPALIVE_PAUSE_S`: a peer without power is
noticed although nobody says anything."""
KEEPALIVE_PAUSE_S = 10
HELLO_TIMEOUT_S = 10.0
"""Whoever connects and does not say hello for this long is reset."""
CALLERS_MAX = 1024
"""Connections from outside, and such as have not said hello; one more is reset."""

_CALLER = "caller:"
_LENGTH = struct.Struct("!I")
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


class Hello(msgspec.Struct, frozen=True, array_like=True):
    """The first frame of a connection, from who opened it."""

    address: Address
    """Of the node; empty: a caller from outside."""
    incarnation: int = 1


class Streams:
    """All streams of one node.

    Args:
        hello: who we are.
        locate: IP address and port of a peer, or None if there is no such device.
        on_frame: a message's bytes arrived from a peer; valid during the call only.
        on_down: the stream to a peer ended.
        on_malformed: bytes arrived that are no frame; the connection was reset.
        busy: whether callers should not be listened to for now; `listen_again` ends that.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        ip: str,
        hello: Hello,
        *,
        locate: Callable[[Address], tuple[str, int] | None],
        on_frame: Callable[[Address, memoryview], None],
        on_down: Callable[[Address], None],
        on_malformed: Callable[[str, str], None],
        busy: Callable[[], bool] = lambda: False,
    ) -> None:
        self.hello = hello
        self.busy = busy
        self.locate = locate
        self.on_frame = on_frame
        self.on_malformed = on_malformed
        self._loop = loop
        self._ip = ip
        self._on_down = on_down
        self._live: dict[Address, _Connection] = {}
        self._all: dict[_Connection, None] = {}
        self._strangers: dict[_Connection, None] = {}
        """Callers, and incoming connections that have not said hello."""
        self._unheard: dict[_Connection, None] = {}
        """Callers that wait to be listened to again."""
        self._callers = 0
        self._unflushed: list[_Connection] = []
        self._incarnations: dict[Address, int] = {}
        self._opening: dict[asyncio.Task[None], None] = {}
        self._server: asyncio.Server | None = None

    async def listen(self, port: int) -> None:
        """Accept connections on `port`."""
        listener = bound_socket(self._ip, port)
        listener.listen(128)
        self._server = await self._loop.create_server(lambda: _Connection(self), sock=listener)

    def send(self, peer: Address, data: bytes) -> None:
        """Queue one message, which `flush` sends; opens a connection where there is none. A caller that has
        left hears no more."""
        connection = self._live.get(peer)
        if connection is None:
            if peer.startswith(_CALLER):
                return
            connection = self._live[peer] = _Connection(self, peer)
            self._all[connection] = None
            task = self._loop.create_task(self._open(connection, peer))
            self._opening[task] = None
            task.add_done_callback(self._opening.pop)
        if connection.send(data):
            self._unflushed.append(connection)

    def flush(self) -> None:
        """Hand what is queued to the kernel, with one call for each connection."""
        for connection in self._unflushed:
            connection.flush()
        self._unflushed.clear()

    def give_up(self, peer: Address) -> None:
        """Reset the connection to `peer`, if there is one; `on_down` is not called for it."""
        connection = self._live.pop(peer, None)
        if connection is not None:
            connection.peer = None
            connection.reset()

    def listen_again(self) -> None:
        """Hear the callers that had to wait, until it is too much again."""
        while self._unheard and not self.busy():
            connection = next(iter(self._unheard))
            del self._unheard[connection]
            connection.hear()

    def wait_to_be_heard(self, connection: _Connection) -> None:
        """Put a caller in the queue for `listen_again`."""
        self._unheard[connection] = None

    async def close(self) -> None:
        """Reset everything; nobody is told."""
        if self._server is not None:
            self._server.close()
        for task in list(self._opening):
            task.cancel()
        for connection in list(self._all):
            connection.peer = None
            connection.reset()

    def accepted(self, connection: _Connection) -> None:
        """An incoming connection is there; whose, it has yet to say."""
        self._all[connection] = None
        if len(self._strangers) >= CALLERS_MAX:
            connection.reset()
            return
        self._strangers[connection] = None
        self._loop.call_later(HELLO_TIMEOUT_S, self._end_if_silent, connection)

    def greeted(self, connection: _Connection, ip: str, hello: Hello) -> str | None:
        """An incoming connection said who it is; returns what is wrong with that, or None."""
        if not hello.address:
            self._callers += 1
            self._live[connection.become_caller(self._callers)] = connection
            return None
        located = self.locate(hello.address)
        if located is None or located[0] != ip:
            return f"a hello from {ip} names {hello.address!r}"
        if hello.incarnation > self._incarnations.get(hello.address, 1):
            self._incarnations[hello.address] = hello.incarnation
            for older in [c for c in self._all if c.peer == hello.address]:
                older.reset()
        del self._strangers[connection]
        connection.peer = hello.address
        self._live.setdefault(hello.address, connection)
        return None

    def ended(self, connection: _Connection) -> None:
        """A connection is gone."""
        self._all.pop(connection, None)
        self._strangers.pop(connection, None)
        self._unheard.pop(connection, None)
        peer, connection.peer = connection.peer, None
        if peer is not None:
            if self._live.get(peer) is connection:
                del self._live[peer]
            self._on_down(peer)

    def _end_if_silent(self, connection: _Connection) -> None:
        if connection in self._strangers and connection.peer is None:
            connection.reset()

    async def _open(self, connection: _Connection, peer: Address) -> None:
        where = self.locate(peer)
        if where is None:
            self.ended(connection)
            return
        opened = bound_socket(self._ip, 0)
        try:
            await self._loop.sock_connect(opened, where)
            await self._loop.create_connection(lambda: connection, sock=opened)
        except (OSError, asyncio.CancelledError):
            opened.close()
            self.ended(connection)


class _Connection(asyncio.Protocol):
    """One TCP connection. `peer` is None until an incoming one said its hello, and after it ended."""

    def __init__(self, streams: Streams, peer: Address | None = None) -> None:
        self.peer = peer
        self._streams = streams
        self._transport: asyncio.Transport | None = None
        self._outgoing = peer is not None
        self._waiting: list[bytes] = []
        self._waiting_bytes = 0
        self._received = bytearray()
        self._failed = False
        self._caller = False
        self._deaf = False
        self._behind = False
        """It does not read what we write."""

    def send(self, data: bytes) -> bool:
        """Queue a frame; whether it is the first since the last `flush`."""
        first = not self._waiting
        self._waiting += (_LENGTH.pack(len(data)), data)
        self._waiting_bytes += len(data)
        if self._waiting_bytes > QUEUE_BYTES_MAX:
            self.reset()
        return first

    def flush(self) -> None:
        """Write what is queued, once there is a connection."""
        if self._transport is None or not self._waiting or self._failed:
            return
        self._transport.write(b"".join(self._waiting))
        self._waiting.clear()
        self._waiting_bytes = 0
        if self._transport.get_write_buffer_size() > QUEUE_BYTES_MAX:
            self.reset()

    def reset(self) -> None:
        """End it with a TCP reset; `Streams.ended` follows."""
        self._failed = True
        self._waiting.clear()
        if self._transport is None:
            self._streams.ended(self)
            return
        with suppress(OSError, AttributeError):
            raw = self._transport.get_extra_info("socket")
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is none by birth
        if self._failed:
            self.reset()
        elif self._outgoing:
            hello = msgspec.msgpack.encode(self._streams.hello)
            self._transport.write(_LENGTH.pack(len(hello)) + hello)
            self.flush()
        else:
            self._streams.accepted(self)

    def data_received(self, data: bytes) -> None:
        self._received += data
        self.hear()

    def hear(self) -> None:
        """Take the frames that are complete. A caller who does not read, or comes while there is too much to
        do, is heard later, and TCP tells it to slow down."""
        view = memoryview(self._received)
        taken = 0
        while len(view) - taken >= _LENGTH.size and not self._failed:
            (length,) = _LENGTH.unpack_from(view, taken)
            if length > MESSAGE_BYTES_MAX:
                self._refuse(f"a frame of {length} bytes")
                break
            if len(view) - taken < _LENGTH.size + length:
                break
            if self._caller and (self._behind or self._streams.busy()):
                self._be_deaf()
                break
            self._take(view[taken + _LENGTH.size : taken + _LENGTH.size + length])
            taken += _LENGTH.size + length
        else:
            self._listen()
        view.release()
        del self._received[:taken]

    def pause_writing(self) -> None:
        self._behind = True

    def resume_writing(self) -> None:
        self._behind = False
        if self._caller:
            self.hear()

    def become_caller(self, number: int) -> Address:
        """It is somebody from outside; the handle by which it is known."""
        self._caller = True
        self.peer = f"{_CALLER}{number}"
        return self.peer

    def connection_lost(self, exc: Exception | None) -> None:
        self._streams.ended(self)

    def _be_deaf(self) -> None:
        assert self._transport is not None
        if not self._deaf:
            self._deaf = True
            self._transport.pause_reading()
        if not self._behind:
            self._streams.wait_to_be_heard(self)

    def _listen(self) -> None:
        if self._deaf and not self._failed and self._transport is not None:
            self._deaf = False
            self._transport.resume_reading()

    def _take(self, frame: memoryview) -> None:
        if self.peer is not None:
            self._streams.on_frame(self.peer, frame)
            return
        try:
            hello = msgspec.msgpack.decode(frame, type=Hello)
        except msgspec.DecodeError as error:
            self._refuse(f"no hello: {error}")
            return
        problem = self._streams.greeted(self, self._remote(), hello)
        if problem:
            self._refuse(problem)

    def _refuse(self, problem: str) -> None:
        self._streams.on_malformed(self.peer or self._remote(), problem)
        self.reset()

    def _remote(self) -> str:
        assert self._transport is not None
        name = self._transport.get_extra_info("peername")
        return str(name[0]) if name else "?"


def bound_socket(ip: str, port: int) -> socket.socket:
    """A bound, non-blocking TCP socket; what accepts inherits its options."""
    made = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, USER_TIMEOUT_MS)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEPALIVE_IDLE_S)
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, KEEPALIVE_PAUSE_S)
    made.bind((ip, port))
    return made
