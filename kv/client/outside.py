"""The client for programs outside the network: the command line, benchmarks, tests of running hosts.

Owns TCP connections to replicas and asyncio futures; what is asked of whom is `kv.client.client`'s affair. It
speaks the nodes' own framed streams (`underlay.emulation.streams`), as a caller without an address.

    async with Store(Static(["store1/g1", "store2/g1"]), locate) as store:
        await store.set(b"k", b"v")
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator, Callable
from random import Random, SystemRandom
from typing import cast

import msgspec

from kv.client.client import Client, Reply
from kv.client.directory import Directory
from kv.client.patience import Patience
from kv.messages import CLIENT_MESSAGES, Status
from kv.operations import Command, Outcome
from underlay.emulation.streams import Hello
from underlay.errors import BirdhouseError
from underlay.messages import MalformedMessage, Message, Protocol
from underlay.node import Address, Timer

Locate = Callable[[Address], tuple[str, int] | None]
"""IP address and port of a replica, or None if there is no such one."""

LANES = 64
"""Writes under way at a time, unless the caller says otherwise."""

_LENGTH = struct.Struct("!I")
_PROTOCOL = Protocol("kv", *CLIENT_MESSAGES)


TOO_LARGE = "answer too large: ask for less at a time"
"""What the store says of a page whose values together do not fit a message."""


class StoreFailed(BirdhouseError):
    """The store refused a command, or nobody executed it by the deadline: nothing happened."""


class OutcomeUnknown(StoreFailed):
    """The deadline passed, and the command may have been executed, or may yet be."""


class Page(msgspec.Struct, frozen=True):
    """A part of a range, as of one revision."""

    revision: int
    items: tuple[tuple[bytes, bytes], ...]
    more: bool


class Store:
    """A connection to the store, to be used in an `async with` block.

    Args:
        directory: the replicas, or the shard controller's.
        locate: where they are.
        patience: how long to wait for what.
        lanes: writes under way at a time.
    """

    def __init__(
        self, directory: Directory, locate: Locate, patience: Patience | None = None, *, lanes: int = LANES
    ) -> None:
        self.directory = directory
        self._client: Client[_World] = Client(directory, patience, lanes=lanes)
        self._world = _World(self._client, locate)

    async def __aenter__(self) -> Store:
        return self

    async def __aexit__(self, *_: object) -> None:
        self._world.close()

    async def do(
        self,
        command: Command,
        *,
        deadline_s: float | None = None,
        stale: bool = False,
        group: str = "",
        to: Address = "",
    ) -> Reply:
        """Execute any command and tell all about it; the arguments are those of `Client.call`."""
        future: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()

        def done(_: _World, reply: Reply) -> None:
            if not future.done():
                future.set_result(reply)

        self._client.call(self._world, command, done, deadline_s=deadline_s, stale=stale, group=group, to=to)
        return await future

    async def get(self, key: bytes, *, stale: bool = False) -> bytes | None:
        """The value, or None."""
        return _bytes(value_of(await self.do((b"GET", key), stale=stale)))

    async def set(self, key: bytes, value: bytes, *, only_if: str = "") -> bool:
        """Write; `only_if` is "" (always), "NX" (the key is not there) or "XX" (it is). Whether it did."""
        options = (only_if.encode(),) if only_if else ()
        return value_of(await self.do((b"SET", key, value, *options))) is not None

    async def append(self, key: bytes, value: bytes) -> int:
        """The value's length afterwards."""
        return _int(value_of(await self.do((b"APPEND", key, value))))

    async def delete(self, *keys: bytes) -> int:
        """How many of the keys, all of one slot, were there."""
        return _int(value_of(await self.do((b"DEL", *keys))))

    async def incr(self, key: bytes, by: int = 1) -> int:
        """The number afterwards."""
        return _int(value_of(await self.do((b"INCRBY", key, b"%d" % by))))

    async def range(
        self, start: bytes, end: bytes, limit: int = 1000, *, revision: int | None = None
    ) -> Page:
        """Keys of the slot of `start` with `start <= key < end`, in order; `revision` None is the present."""
        at = () if revision is None else (b"%d" % revision,)
        answer = value_of(await self.do((b"BH.RANGE", start, end, b"%d" % limit, *at)))
        found_at, keys, values, more = msgspec.convert(answer, tuple[int, list[bytes], list[bytes], int])
        return Page(found_at, tuple(zip(keys, values, strict=True)), bool(more))

    async def pages(self, start: bytes, end: bytes, limit: int = 1000) -> AsyncIterator[Page]:
        """The whole range in pages, all as of one revision: a consistent snapshot. `StoreFailed` with
        COMPACTED if it takes so long that the revision is forgotten."""
        after, revision, more = start, None, True
        while more:
            try:
                page = await self.range(after, end, limit, revision=revision)
            except StoreFailed as error:
                if not str(error).endswith(TOO_LARGE) or limit == 1:
                    raise
                limit //= 2  # large values, which together do not fit a message
                continue
            yield page
            more, revision = page.more, page.revision
            if page.items:
                after = page.items[-1][0] + b"\0"

    async def scan(self, pattern: bytes = b"*", count: int = 1000) -> AsyncIterator[bytes]:
        """All keys of all groups that match a glob pattern. Keys that are there throughout are found, unless
        their slot moves meanwhile."""
        while not self.directory.groups:
            value_of(await self.do((b"EXISTS", b"")))
        for group in self.directory.groups:
            cursor = b"0"
            while True:
                command = (b"SCAN", cursor, b"MATCH", pattern, b"COUNT", b"%d" % count)
                answer = value_of(await self.do(command, group=group))
                cursor, keys = msgspec.convert(answer, tuple[bytes, list[bytes]])
                for key in keys:
                    yield key
                if cursor == b"0":
                    break

    async def status(self, replica: Address) -> Status | None:
        """How a replica is; None if it does not answer."""
        future: asyncio.Future[Status | None] = asyncio.get_running_loop().create_future()

        def done(_: _World, status: Status | None) -> None:
            if not future.done():
                future.set_result(status)

        self._client.status(self._world, replica, done)
        return await future


def value_of(reply: Reply) -> object:
    """The value of a reply; raises StoreFailed or OutcomeUnknown where there is none."""
    if reply.outcome is None:
        raise OutcomeUnknown(f"the outcome is unknown: {reply.trouble}")
    if reply.outcome.failure:
        raise StoreFailed(reply.outcome.failure)
    return reply.outcome.value


# ---------------------------------------------------------------------------------------------------- helpers


def _bytes(value: object) -> bytes | None:
    if value is None or isinstance(value, bytes):
        return value
    raise StoreFailed(f"the store answered {Outcome(value)}, where bytes were expected")


def _int(value: object) -> int:
    if isinstance(value, int):
        return value
    raise StoreFailed(f"the store answered {Outcome(value)}, where a number was expected")


class _World:
    """What the core needs (`kv.client.client.Surroundings`), of an event loop."""

    def __init__(self, client: Client[_World], locate: Locate) -> None:
        self.rng = Random(SystemRandom().getrandbits(64))
        self._client = client
        self._locate = locate
        self._timers: dict[Timer, asyncio.TimerHandle] = {}
        self._connections: dict[Address, _Connection] = {}

    @property
    def now(self) -> float:
        return asyncio.get_running_loop().time()

    def send(self, peer: Address, message: Message) -> None:
        connection = self._connections.get(peer)
        if connection is None:
            connection = self._connections[peer] = _Connection(self, peer)
            connection.open(self._locate(peer))
        connection.send(_PROTOCOL.encode(message))

    def give_up(self, peer: Address) -> None:
        connection = self._connections.pop(peer, None)
        if connection is not None:
            connection.close()

    def set_timer(self, key: Timer, delay_s: float) -> None:
        self.cancel_timer(key)
        self._timers[key] = asyncio.get_running_loop().call_later(delay_s, self._fire, key)

    def cancel_timer(self, key: Timer) -> None:
        handle = self._timers.pop(key, None)
        if handle is not None:
            handle.cancel()

    def received(self, peer: Address, frame: bytes) -> None:
        """A message's bytes arrived."""
        self._client.on_message(self, peer, _PROTOCOL.decode(frame))

    def ended(self, connection: _Connection) -> None:
        """A connection is no more, or never was."""
        if self._connections.get(connection.peer) is connection:
            del self._connections[connection.peer]
            self._client.on_peer_down(self, connection.peer)

    def close(self) -> None:
        """End all connections and timers."""
        for handle in self._timers.values():
            handle.cancel()
        self._timers.clear()
        for peer in list(self._connections):
            self.give_up(peer)

    def _fire(self, key: Timer) -> None:
        del self._timers[key]
        self._client.on_timer(self, key)


class _Connection(asyncio.Protocol):
    """To one replica; what is sent before it is open waits."""

    def __init__(self, world: _World, peer: Address) -> None:
        self.peer = peer
        self._world = world
        self._transport: asyncio.Transport | None = None
        self._opening: asyncio.Task[None] | None = None
        hello = msgspec.msgpack.encode(Hello(""))
        self._waiting = bytearray(_LENGTH.pack(len(hello)) + hello)
        self._received = bytearray()

    def open(self, where: tuple[str, int] | None) -> None:
        self._opening = asyncio.get_running_loop().create_task(self._open(where))

    def send(self, data: bytes) -> None:
        frame = _LENGTH.pack(len(data)) + data
        if self._transport is None:
            self._waiting += frame
        else:
            self._transport.write(frame)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()
        elif self._opening is not None:
            self._opening.cancel()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is none by birth
        self._transport.write(bytes(self._waiting))
        self._waiting.clear()

    def data_received(self, data: bytes) -> None:
        self._received += data
        taken = 0
        while len(self._received) - taken >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(self._received, taken)
            if len(self._received) - taken < _LENGTH.size + length:
                break
            frame = bytes(self._received[taken + _LENGTH.size : taken + _LENGTH.size + length])
            taken += _LENGTH.size + length
            try:
                self._world.received(self.peer, frame)
            except MalformedMessage:
                self.close()
                return
        del self._received[:taken]

    def connection_lost(self, exc: Exception | None) -> None:
        self._world.ended(self)

    async def _open(self, where: tuple[str, int] | None) -> None:
        try:
            if where is None:
                raise OSError(f"nobody knows where {self.peer} is")
            await asyncio.get_running_loop().create_connection(lambda: self, *where)
        except OSError:
            self._world.ended(self)
