"""The DNS port of a name server: UDP and TCP sockets on one side, the node on the other.

Owns connections and how much clients may make this host hold; what is answered is the node's business.
Messages over TCP have two bytes of length before them (RFC 1035, 4.2.2); a client may ask on before it was
answered, up to a bound, and answers may overtake each other (RFC 7766).
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterable
from typing import Literal, cast

import msgspec

from gateway.names.messages import NAMES, Answered, Asked
from gateway.names.zone import QUERY_BYTES_MAX
from underlay.messages import Message
from underlay.node import Node
from underlay.plan import BindingHost, BindingPlan

PORT = 53
NAME = "@dns"

Reply = Callable[[bytes], None]


class Listener(msgspec.Struct, frozen=True):
    """Where clients ask, by UDP and TCP."""

    ip: str = ""
    """Empty: the device's own address."""
    port: int = PORT


class Bounds(msgspec.Struct, frozen=True):
    """How much clients may make this host hold."""

    waiting: int = 1024
    """Queries with the node; beyond this those that come by UDP are dropped, as a full queue would do."""
    clients: int = 256
    """TCP connections; beyond this new ones are closed."""
    waiting_of_client: int = 32
    """Beyond this a connection is not read."""
    idle_s: float = 10.0
    """A connection with no whole query for so long is closed, and one whose client reads no answers."""


class DnsBinding:
    """`underlay.plan.Binding` for DNS."""

    def __init__(self, listeners: Iterable[Listener] = (Listener(),), bounds: Bounds | None = None) -> None:
        self.bounds = bounds or Bounds()
        self.connections: dict[Connection, None] = {}
        self._listeners = tuple(listeners)
        self._servers: list[asyncio.Server] = []
        self._datagrams: list[asyncio.DatagramTransport] = []
        self._waiting: dict[int, Reply] = {}
        self._token = 0
        self._sweep: asyncio.TimerHandle | None = None

    async def start(self, host: BindingHost) -> None:
        self._host = host
        self._loop = asyncio.get_running_loop()
        for listener in self._listeners:
            ip = listener.ip or host.ip
            datagrams, _ = await self._loop.create_datagram_endpoint(
                lambda: Datagrams(self), local_addr=(ip, listener.port)
            )
            self._datagrams.append(datagrams)
            self._servers.append(
                await self._loop.create_server(lambda: Connection(self), ip, listener.port, backlog=128)
            )
        self._sweep = self._loop.call_later(self.bounds.idle_s / 4, self._look_around)

    def send(self, node: str, message: Message) -> None:
        assert isinstance(message, Answered)
        reply = self._waiting.pop(message.token, None)
        if reply is not None:
            reply(message.wire)

    async def close(self) -> None:
        if self._sweep is not None:
            self._sweep.cancel()
        for datagrams in self._datagrams:
            datagrams.close()
        for server in self._servers:
            server.close()
        for connection in list(self.connections):
            connection.abort()
        for server in self._servers:
            await server.wait_closed()

    # -------------------------------------------------------------------------------------- what sockets tell

    def now(self) -> float:
        """Seconds, on the loop's clock."""
        return self._loop.time()

    def ask(self, over: Literal["udp", "tcp"], wire: bytes, reply: Reply) -> None:
        """Have the node answer; `reply` gets the response, empty where there is none."""
        if over == "udp" and len(self._waiting) >= self.bounds.waiting:
            return
        self._token += 1
        self._waiting[self._token] = reply
        self._host.deliver(NAMES, Asked(self._token, over, wire))

    def _look_around(self) -> None:
        for connection in list(self.connections):
            connection.close_if_idle()
        self._sweep = self._loop.call_later(self.bounds.idle_s / 4, self._look_around)


class Datagrams(asyncio.DatagramProtocol):
    """One UDP socket."""

    def __init__(self, binding: DnsBinding) -> None:
        self._binding = binding
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.DatagramTransport", transport)  # uvloop's is none by birth

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        def reply(wire: bytes) -> None:
            if wire and self._transport is not None and not self._transport.is_closing():
                self._transport.sendto(wire, addr)

        # Longer ones get an answer by their header; the rest of them is not kept.
        self._binding.ask("udp", data[: QUERY_BYTES_MAX + 1], reply)

    def error_received(self, exc: Exception) -> None:
        """A client is not there any more: its own affair."""


class Connection(asyncio.Protocol):
    """One client by TCP."""

    def __init__(self, binding: DnsBinding) -> None:
        self._binding = binding
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray()
        self._waiting = 0
        """Queries with the node."""
        self._writable = self._reading = True
        self._ending = False
        self._since_s = binding.now()
        """When the client last completed a query."""

    # ---------------------------------------------------------------------------------------- from the socket

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        if len(self._binding.connections) >= self._binding.bounds.clients:
            self._transport.abort()
            return
        self._binding.connections[self] = None
        opened = self._transport.get_extra_info("socket")
        opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        self._go_on()

    def eof_received(self) -> bool:
        """The client asks nothing more, and may still wait for answers."""
        self._ending = True
        return self._waiting > 0

    def connection_lost(self, exc: Exception | None) -> None:
        self._binding.connections.pop(self, None)
        self._transport = None

    def pause_writing(self) -> None:
        self._writable = False

    def resume_writing(self) -> None:
        self._writable = True
        self._go_on()

    # --------------------------------------------------------------------------------------- from the binding

    def close_if_idle(self) -> None:
        """A client that goes on with nothing is not waited for."""
        idle = self._binding.now() - self._since_s > self._binding.bounds.idle_s
        if idle and not (self._waiting and self._writable):
            self.abort()

    def abort(self) -> None:
        """Close at once."""
        if self._transport is not None:
            self._transport.abort()

    # ------------------------------------------------------------------------------------------------ helpers

    def _go_on(self) -> None:
        """Take queries from what was read as long as this client may have more with the node."""
        if self._transport is None or self._transport.is_closing():
            return
        while self._may_ask() and len(self._buffer) >= 2:
            size = int.from_bytes(self._buffer[:2])
            if size > QUERY_BYTES_MAX:  # no question is so long; what follows is not waited for
                self.abort()
                return
            if len(self._buffer) < 2 + size:
                break
            wire = bytes(self._buffer[2 : 2 + size])
            del self._buffer[: 2 + size]
            self._since_s = self._binding.now()
            self._waiting += 1
            self._binding.ask("tcp", wire, self._reply)
        read = self._may_ask()
        if read != self._reading:
            self._reading = read
            if read:
                self._transport.resume_reading()
            else:
                self._transport.pause_reading()

    def _may_ask(self) -> bool:
        return self._writable and self._waiting < self._binding.bounds.waiting_of_client

    def _reply(self, wire: bytes) -> None:
        self._waiting -= 1
        if self._transport is None or self._transport.is_closing():
            return
        if wire:
            self._transport.write(len(wire).to_bytes(2) + wire)
        self._go_on()
        if self._ending and not self._waiting and self._transport is not None:
            self._transport.close()


class NoClients(Node):
    """What stands for the binding in the simulation, where there are no programs that could ask."""


def dns_port(listeners: Iterable[Listener] = (Listener(),), bounds: Bounds | None = None) -> BindingPlan:
    """The binding of a name server, for its `DevicePlan`."""
    listeners = tuple(listeners)
    return BindingPlan(NAME, NoClients, lambda: DnsBinding(listeners, bounds), listeners[0].port)
