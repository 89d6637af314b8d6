"""From ports of 127.0.0.1 to ports of devices: how programs of this machine reach a network that is up.

Owns the local sockets, made in the machine's own network namespace before anything of a run exists, and the
process that serves them. Towards a device it makes a socket inside the device's namespace and connects to the
device's own address from there: nothing is ever sent to an emulated address from outside, and what is
forwarded crosses none of the emulated links. A device that is down refuses, and can be reached again when it
is back.

A socket belongs for good to the namespace in which it was made (network_namespaces(7)).
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Literal

import msgspec

from underlay.emulation.processes import CLONE_NEWNET, close_all_but, default_signals, join, set_name
from underlay.errors import InputError

HERE = "127.0.0.1"
TRIES = 50
"""Ports that are tried after the one that is wanted, where nobody insists on that."""
CONNECTIONS_MAX = 256
"""Of one way."""
CLIENTS_MAX = 256
"""Of one UDP way; the one that was silent for longest makes room."""
SILENT_S = 300.0
"""After which a UDP client is forgotten."""
READ_BYTES = 64 * 1024

Transport = Literal["tcp", "udp"]


class Wanted(msgspec.Struct, frozen=True):
    """A way that somebody wants."""

    name: str
    """`http`, `redis-store1`: unique."""
    device: str
    port: int
    """Of the device."""
    local_port: int
    """Preferred on this machine."""
    transports: tuple[Transport, ...] = ("tcp",)
    """All at the same port."""
    insists: bool = False
    """No other port will do."""


class Way(msgspec.Struct, frozen=True):
    """A way whose local ports are taken: sockets that listen already."""

    name: str
    device: str
    port: int
    local_port: int
    sockets: Mapping[Transport, socket.socket]

    def close(self) -> None:
        """Give the ports back."""
        for each in self.sockets.values():
            each.close()


def take(wanted: Iterable[Wanted]) -> list[Way]:
    """Take a port for each; raises InputError where one that is insisted on, or all tried, are taken."""
    ways: list[Way] = []
    try:
        ways.extend(map(_taken, wanted))
    except BaseException:
        for way in ways:
            way.close()
        raise
    return ways


def forward(ways: Sequence[Way], namespaces: Mapping[str, int], addresses: Mapping[str, str]) -> None:
    """Be the process that forwards, until killed.

    Args:
        ways: what leads where.
        namespaces: descriptor of every device's network namespace.
        addresses: IPv4 address of every device.
    """
    default_signals()
    set_name("forwarder")
    sockets = [each.fileno() for way in ways for each in way.sockets.values()]
    close_all_but(*sockets, *(namespaces[way.device] for way in ways))
    asyncio.run(_serve(ways, namespaces, addresses))


# ---------------------------------------------------------------------------------------------------- helpers


def _taken(wanted: Wanted) -> Way:
    last = wanted.local_port + (0 if wanted.insists else TRIES)
    for port in range(wanted.local_port, min(last, 65_535) + 1):
        sockets: dict[Transport, socket.socket] = {}
        try:
            for transport in wanted.transports:
                sockets[transport] = _bound(transport, port)
        except OSError:
            for each in sockets.values():
                each.close()
            continue
        return Way(wanted.name, wanted.device, wanted.port, port, sockets)
    problem = (
        f"port {wanted.local_port} of {HERE} is taken" if wanted.insists else f"no port is free up to {last}"
    )
    raise InputError(f"{wanted.name}: {problem}", key="--port", hint=f"--port {wanted.name}=PORT")


def _bound(transport: Transport, port: int) -> socket.socket:
    made = socket.socket(socket.AF_INET, socket.SOCK_STREAM if transport == "tcp" else socket.SOCK_DGRAM)
    try:
        if transport == "tcp":
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((HERE, port))
        if transport == "tcp":
            made.listen(128)
        made.setblocking(False)
    except OSError:
        made.close()
        raise
    return made


class _Inside:
    """Makes sockets in a device's namespace."""

    def __init__(self, namespace: int, address: tuple[str, int], own: int) -> None:
        self.address = address
        self._namespace = namespace
        self._own = own

    def socket(self, kind: socket.SocketKind) -> socket.socket:
        """Not connected yet; this thread is where it was again when it returns."""
        join(self._namespace, CLONE_NEWNET)
        try:
            made = socket.socket(socket.AF_INET, kind)
        finally:
            join(self._own, CLONE_NEWNET)
        made.setblocking(False)
        return made


async def _serve(ways: Sequence[Way], namespaces: Mapping[str, int], addresses: Mapping[str, str]) -> None:
    own = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    servers = []
    for way in ways:
        inside = _Inside(namespaces[way.device], (addresses[way.device], way.port), own)
        if "tcp" in way.sockets:
            callers = _Callers(inside)
            servers.append(await asyncio.start_server(callers.serve, sock=way.sockets["tcp"]))
        if "udp" in way.sockets:
            _Datagrams(way.sockets["udp"], inside)
    await asyncio.Event().wait()


class _Callers:
    """TCP connections of one way."""

    def __init__(self, inside: _Inside) -> None:
        self._inside = inside
        self._count = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, from its beginning to its end; each direction ends by itself."""
        if self._count >= CONNECTIONS_MAX:
            writer.transport.abort()
            return
        self._count += 1
        try:
            await self._join(reader, writer)
        finally:
            self._count -= 1
            writer.transport.abort()

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        made = self._inside.socket(socket.SOCK_STREAM)
        try:
            await asyncio.get_running_loop().sock_connect(made, self._inside.address)
            far_reader, far_writer = await asyncio.open_connection(sock=made)
        except OSError:
            made.close()
            return
        try:
            there = asyncio.create_task(_pump(reader, far_writer))
            back = asyncio.create_task(_pump(far_reader, writer))
            done, pending = await asyncio.wait((there, back), return_when=asyncio.FIRST_EXCEPTION)
            for task in pending:
                task.cancel()
            for task in done:
                task.exception()
        finally:
            far_writer.transport.abort()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(READ_BYTES):
        writer.write(data)
        await writer.drain()
    writer.write_eof()
    await writer.drain()


class _Datagrams:
    """UDP clients of one way: a socket inside for each, so that answers find back."""

    def __init__(self, local: socket.socket, inside: _Inside) -> None:
        self._local = local
        self._inside = inside
        self._loop = asyncio.get_running_loop()
        self._clients: dict[tuple[str, int], tuple[socket.socket, asyncio.TimerHandle]] = {}
        self._loop.add_reader(local, self._on_client)

    def _on_client(self) -> None:
        with suppress(BlockingIOError, ConnectionError):
            data, client = self._local.recvfrom(READ_BYTES)
            far = self._far(client)
            with suppress(OSError):  # nobody is there: as with UDP anywhere, that is silence
                far.send(data)

    def _far(self, client: tuple[str, int]) -> socket.socket:
        known = self._clients.pop(client, None)
        if known is not None:
            far, timer = known
            timer.cancel()
        else:
            if len(self._clients) >= CLIENTS_MAX:
                self._forget(next(iter(self._clients)))
            far = self._inside.socket(socket.SOCK_DGRAM)
            far.connect(self._inside.address)
            self._loop.add_reader(far, partial(self._on_device, far, client))
        self._clients[client] = far, self._loop.call_later(SILENT_S, self._forget, client)
        return far

    def _on_device(self, far: socket.socket, client: tuple[str, int]) -> None:
        with suppress(OSError):
            self._local.sendto(far.recv(READ_BYTES), client)

    def _forget(self, client: tuple[str, int]) -> None:
        far, timer = self._clients.pop(client)
        timer.cancel()
        self._loop.remove_reader(far)
        far.close()
