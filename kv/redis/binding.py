"""The Redis port of a host: sockets on one side, the router on the other.

Owns the connections and how much each of them may make this host hold; decides nothing about commands. Of
each connection one batch of commands is with the router at a time, and the next one goes there with the reply
to the last, unless the client does not read what it is sent. What arrives meanwhile is parsed and kept up to
a bound, then the socket is not read any more: whoever asks faster than the store answers waits in his own
kernel.

Whatever the sockets that are ready in one turn of the event loop bring goes to the router in one message, and
the replies come back in one: with many clients, the cost of a turn is shared by all.
"""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from collections.abc import Iterable
from typing import cast

import msgspec

from kv.operations import Command
from kv.redis import resp
from kv.redis.jobs import BYTES_MAX, OPERATIONS_MAX
from kv.redis.messages import Advertised, Asked, Closed, Opened, Replied
from kv.redis.resp import Limits, Requests
from underlay.messages import Message
from underlay.node import Node
from underlay.plan import BindingHost, BindingPlan

PORT = 6379
NAME = "@redis"
ROUTER = "redis"

READ_BYTES = 64 * 1024
"""Taken from a socket at once."""

COMMANDS_AT_ONCE = 512
"""Handed to the router in one message, or a few more: a handler stays short."""


class Listener(msgspec.Struct, frozen=True):
    """Where clients come in, and where they are sent to from there."""

    ip: str = ""
    """Empty: the device's own address."""
    port: int = PORT
    advertised: Advertised = {}
    """Host and port of every storage device, for clients who came in here. Empty: each device's own address,
    and this port."""


class Bounds(msgspec.Struct, frozen=True):
    """How much clients may make this host hold."""

    clients: int = 1000
    waiting_commands: int = 1024
    """Of a connection: beyond this it is not read."""
    waiting_bytes: int = 256 * 1024
    """Likewise."""
    waiting_commands_in_all: int = 64 * 1024
    """Of all connections: beyond this, none that has commands waiting is read."""
    held_bytes_in_all: int = 64 * 1024 * 1024
    """Of all requests that are waiting or not complete: beyond this, connections that hold more than their
    share are cut off."""
    unread_bytes: int = 256 * 1024
    """Replies that a client has not read; beyond this its next commands wait."""
    stuck_s: float = 60.0
    """A client that is in the middle of a request, or does not read its replies, for so long is cut off."""
    idle_s: float = 3600.0
    """A client that has asked for nothing for so long is cut off."""
    limits: Limits = Limits()


class RedisBinding:
    """`underlay.plan.Binding` for Redis' protocol.

    Args:
        devices: all storage devices, which clients are redirected to.
        listeners: where to listen.
    """

    def __init__(
        self,
        devices: Iterable[str],
        listeners: Iterable[Listener] = (Listener(),),
        bounds: Bounds | None = None,
    ) -> None:
        self.bounds = bounds or Bounds()
        self.waiting = 0
        """Commands of all connections that are with the router or wait for it."""
        self.held_bytes = 0
        """Of all connections' requests that wait or are not complete."""
        self._devices = tuple(devices)
        self._listeners = tuple(listeners)
        self._servers: list[asyncio.Server] = []
        self._connections: dict[int, Connection] = {}
        self._opened = 0
        self._ready: dict[Connection, None] = {}
        self._held_back: dict[Connection, None] = {}
        self._sweep: asyncio.TimerHandle | None = None
        self._buffer = memoryview(bytearray(READ_BYTES))

    async def start(self, host: BindingHost) -> None:
        self._host = host
        self._loop = asyncio.get_running_loop()
        for listener in self._listeners:
            advertised = listener.advertised or {
                device: (host.ip_of(device), listener.port) for device in self._devices
            }
            self._servers.append(
                await self._loop.create_server(
                    lambda advertised=advertised: Connection(self, advertised, self._buffer),  # type: ignore[misc]
                    listener.ip or host.ip,
                    listener.port,
                    backlog=512,
                )
            )
        self._sweep = self._loop.call_later(self.bounds.stuck_s / 4, self._look_around)

    def send(self, node: str, message: Message) -> None:
        assert isinstance(message, Replied)
        for number, replies in message.batches:
            connection = self._connections.get(number)
            if connection is not None:
                connection.answer(replies)
        for number in message.ending:
            connection = self._connections.get(number)
            if connection is not None:
                connection.end()
        if self._held_back and self.waiting < self.bounds.waiting_commands_in_all // 2:
            held_back, self._held_back = self._held_back, {}
            for connection in held_back:
                connection.adjust()

    async def close(self) -> None:
        if self._sweep is not None:
            self._sweep.cancel()
        for server in self._servers:
            server.close()
        for connection in list(self._connections.values()):
            connection.abort()
        for server in self._servers:
            await server.wait_closed()

    # ---------------------------------------------------------------------------------- what connections tell

    def now(self) -> float:
        """Seconds, on the loop's clock."""
        return self._loop.time()

    def opened(self, connection: Connection, peer: str, here: str, advertised: Advertised) -> int:
        """A client came; its number, or 0 if there are too many."""
        if len(self._connections) >= self.bounds.clients:
            return 0
        self._opened += 1
        self._connections[self._opened] = connection
        self._host.deliver(ROUTER, Opened(self._opened, peer, here, advertised))
        return self._opened

    def closed(self, connection: Connection) -> None:
        """A client went."""
        if self._connections.pop(connection.number, None) is not None:
            self._ready.pop(connection, None)
            self._held_back.pop(connection, None)
            self._host.deliver(ROUTER, Closed(connection.number))

    def ready(self, connection: Connection) -> None:
        """A connection has commands and none with the router."""
        if not self._ready:
            self._loop.call_soon(self._hand_over)
        self._ready[connection] = None

    def crowded(self, connection: Connection) -> bool:
        """Whether a connection that has commands waiting must not be read because of all the others."""
        if self.waiting < self.bounds.waiting_commands_in_all:
            return False
        self._held_back[connection] = None
        return True

    def _hand_over(self) -> None:
        ready, self._ready = self._ready, {}
        batches: list[tuple[int, list[Command], int]] = []
        together = 0
        for connection in ready:
            commands, size_bytes = connection.take()
            batches.append((connection.number, commands, size_bytes))
            together += len(commands)
            if together >= COMMANDS_AT_ONCE:
                self._host.deliver(ROUTER, Asked(tuple(batches)))
                batches, together = [], 0
        if batches:
            self._host.deliver(ROUTER, Asked(tuple(batches)))

    def _look_around(self) -> None:
        for connection in list(self._connections.values()):
            connection.cut_off_if_stuck()
        self._sweep = self._loop.call_later(self.bounds.stuck_s / 4, self._look_around)


class Connection(asyncio.BufferedProtocol):
    """One client."""

    def __init__(self, binding: RedisBinding, advertised: Advertised, buffer: memoryview) -> None:
        self.number = 0
        self._binding = binding
        self._bounds = binding.bounds
        self._advertised = advertised
        self._buffer = buffer
        self._requests = Requests(binding.bounds.limits)
        self._transport: asyncio.Transport | None = None
        self._waiting: deque[Command] = deque()
        self._held_bytes = 0
        """Of commands that wait, and of one that is not complete."""
        self._with_router = 0
        self._reading = self._writable = True
        self._ended = False
        self._since_s = binding.now()
        """When the client last completed a request, or began one, or began not to read."""

    # ---------------------------------------------------------------------------------------- from the socket

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is none by birth
        self._transport.set_write_buffer_limits(high=self._bounds.unread_bytes)
        opened = self._transport.get_extra_info("socket")
        opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        peer, here = (_shown(self._transport.get_extra_info(name)) for name in ("peername", "sockname"))
        self.number = self._binding.opened(self, peer, here, self._advertised)
        if not self.number:
            self._transport.write(resp.error("ERR max number of clients reached"))
            self.end()

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        if self._ended:
            return
        beginning = not self._requests.buffered
        commands = self._requests.feed(bytes(self._buffer[:nbytes]))
        if commands or beginning:
            self._since_s = self._binding.now()
        self._waiting.extend(commands)
        self._binding.waiting += len(commands)
        self._hold(nbytes)
        self._go_on()
        self.adjust()

    def connection_lost(self, exc: Exception | None) -> None:
        self._ended = True
        self._binding.waiting -= len(self._waiting) + self._with_router
        self._waiting.clear()
        self._hold(-self._held_bytes)
        self._binding.closed(self)

    def pause_writing(self) -> None:
        self._writable = False
        self._since_s = self._binding.now()

    def resume_writing(self) -> None:
        self._writable = True
        self._go_on()

    # --------------------------------------------------------------------------------------- from the binding

    def take(self) -> tuple[list[Command], int]:
        """The next batch for the router, and its size in bytes."""
        waiting = self._waiting
        if len(waiting) <= OPERATIONS_MAX and self._held_bytes <= BYTES_MAX:
            batch, size_bytes = list(waiting), self._held_bytes
            waiting.clear()
        else:
            batch, size_bytes = [], 0
            while waiting and len(batch) < OPERATIONS_MAX:
                more_bytes = sum(map(len, waiting[0]))
                if batch and size_bytes + more_bytes > BYTES_MAX:
                    break
                size_bytes += more_bytes
                batch.append(waiting.popleft())
        left_bytes = self._held_bytes - size_bytes if waiting else self._requests.buffered
        self._hold(left_bytes - self._held_bytes)
        self._with_router = len(batch)
        self.adjust()
        return batch, size_bytes

    def answer(self, replies: bytes) -> None:
        """The replies to the batch that was taken last."""
        if self._ended or self._transport is None:
            return
        self._binding.waiting -= self._with_router
        self._with_router = 0
        self._transport.write(replies)
        self._go_on()

    def end(self) -> None:
        """Close when everything that was written is on its way."""
        self._ended = True
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """Close at once."""
        self._ended = True
        if self._transport is not None:
            self._transport.abort()

    def adjust(self) -> None:
        """Read the socket, or leave it alone."""
        if self._transport is None or self._ended:
            return
        bounds = self._bounds
        enough = len(self._waiting) >= bounds.waiting_commands or self._held_bytes >= bounds.waiting_bytes
        read = not (self._waiting and (enough or self._binding.crowded(self)))
        if read != self._reading:
            self._reading = read
            if read:
                self._transport.resume_reading()
            else:
                self._transport.pause_reading()

    def cut_off_if_stuck(self) -> None:
        """A client that goes on with nothing is not waited for."""
        silent_s = self._binding.now() - self._since_s
        stuck = self._ended or not self._writable or self._requests.buffered > 0
        busy = self._with_router > 0 or bool(self._waiting)
        if silent_s > (self._bounds.stuck_s if stuck else self._bounds.idle_s) and (stuck or not busy):
            self.abort()

    # ------------------------------------------------------------------------------------------------ helpers

    def _go_on(self) -> None:
        if self._with_router or self._ended or not self._writable:
            return
        if self._waiting:
            self._binding.ready(self)
        elif self._requests.failure and self._transport is not None:
            self._transport.write(resp.error(f"ERR {self._requests.failure}"))
            self.end()

    def _hold(self, more_bytes: int) -> None:
        """Count what is held. Who holds more than a fair share when all together hold too much has to go."""
        self._held_bytes += more_bytes
        self._binding.held_bytes += more_bytes
        bounds = self._bounds
        if (
            self._binding.held_bytes > bounds.held_bytes_in_all
            and self._held_bytes > bounds.held_bytes_in_all // bounds.clients
        ):
            self.abort()


class NoClients(Node):
    """What stands for the binding in the simulation, where there are no programs that could connect."""


def redis_port(
    devices: Iterable[str], listeners: Iterable[Listener] = (Listener(),), bounds: Bounds | None = None
) -> BindingPlan:
    """The binding of a storage host, for its `DevicePlan`."""
    devices, listeners = tuple(devices), tuple(listeners)
    return BindingPlan(NAME, NoClients, lambda: RedisBinding(devices, listeners, bounds), listeners[0].port)


def _shown(name: object) -> str:
    return f"{name[0]}:{name[1]}" if isinstance(name, tuple) else "?"
