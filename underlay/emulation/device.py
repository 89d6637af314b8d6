"""A device's process, from the fork to its end: enters its namespace, drives its nodes, answers to the
supervisor.

Owns what happens around `driver`: descriptors, signals, the event loop, the log, and the few words it
exchanges with the supervisor over a socket pair. The child says `Ready` once its sockets are bound, and
`Failed` where it cannot go on; the supervisor says `Go`, `Hops`, `DiskIs` and `Stop`.
"""

from __future__ import annotations

import asyncio
import gc
import os
import socket
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

import msgspec
import uvloop

from underlay.emulation.driver import DiskFailed, Driver, Incarnation
from underlay.emulation.namespace import Namespace
from underlay.emulation.processes import (
    CLONE_NEWNET,
    close_all_but,
    default_signals,
    die_with_parent,
    join,
    prepare_log,
    run_to_end,
    set_name,
)
from underlay.emulation.trace_file import open_trace
from underlay.emulation.warm import loaded
from underlay.trace import TraceFile

_LINE_BYTES = 1 << 20


class Ready(msgspec.Struct, frozen=True, tag=True):
    """Child: everything is bound, the bindings have started."""

    imported: Sequence[str]
    """What it had to import for that."""


class Failed(msgspec.Struct, frozen=True, tag=True):
    """Child: the last word before it ends."""

    problem: str
    by_fault: bool = False
    """It was a fault's doing, and is no failure of the run."""


class Go(msgspec.Struct, frozen=True, tag=True):
    """Supervisor: power on."""

    t0_s: float
    """Monotonic time of the run's start."""


class Hops(msgspec.Struct, frozen=True, tag=True):
    """Supervisor: routes changed; hops to every device that can be reached."""

    hops: Mapping[str, int]


class DiskIs(msgspec.Struct, frozen=True, tag=True):
    """Supervisor: how the disk is from now on."""

    slowness: float = 1.0
    """A commit takes so many times as long."""
    fails: bool = False
    """The next commit fails."""


class Stop(msgspec.Struct, frozen=True, tag=True):
    """Supervisor: the run is over."""


FromDevice = Ready | Failed
ToDevice = Go | Hops | DiskIs | Stop


def fork_device(life: Incarnation, namespace: Namespace | None) -> tuple[int, socket.socket]:
    """Start a device's process in its namespace (None: where we are); its id, and the socket on which it
    answers."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    pid = os.fork()
    if pid == 0:
        run_to_end(lambda: _child(life, namespace, theirs))
    theirs.close()
    ours.setblocking(False)
    return pid, ours


def say(channel: socket.socket, word: FromDevice | ToDevice) -> None:
    """One word over the socket pair."""
    channel.send(msgspec.msgpack.encode(word))


def heard(channel: socket.socket) -> FromDevice | None:
    """What a device said, or None at the end of its life."""
    try:
        data = channel.recv(_LINE_BYTES)
    except ConnectionResetError:
        return None
    return msgspec.msgpack.decode(data, type=FromDevice) if data else None


async def opened(life: Incarnation, trace: TraceFile | None) -> Driver:
    """A driver that has the running loop to itself, with everything bound; whatever goes wrong in the loop is
    its failure."""
    loop = asyncio.get_running_loop()
    driver = Driver(life, loop, trace)
    loop.set_exception_handler(
        lambda _, context: driver.fail(context.get("exception") or RuntimeError(context["message"]))
    )
    await driver.open()
    return driver


async def live(driver: Driver, stopped: asyncio.Event) -> None:
    """Let a driver that has been opened live until it is told to stop, or raise what it could not bear."""
    waiting = driver.loop.create_task(stopped.wait())
    await asyncio.wait((waiting, driver.failure), return_when=asyncio.FIRST_COMPLETED)
    if driver.failure.done():
        driver.failure.result()
    await driver.close()


def _child(life: Incarnation, namespace: Namespace | None, channel: socket.socket) -> None:
    die_with_parent()
    default_signals()
    os.setsid()
    prepare_log(life.log)
    if namespace is not None:
        join(namespace.fd, CLONE_NEWNET)
    # Those of the other devices' links would keep them alive; 0 is given away too, for nobody types here.
    close_all_but(channel.fileno())
    set_name(f"bh-{life.device}")
    # Never closed: a loop that failed may wait for its sockets for ever, and the process ends anyway.
    runner = asyncio.Runner(loop_factory=uvloop.new_event_loop)
    try:
        life.store.parent.mkdir(parents=True, exist_ok=True)
        with open_trace(life) as trace:
            runner.run(_obey(life, channel, trace))
    except Exception as error:
        with suppress(OSError):  # the disk may be full
            traceback.print_exc()
        say(channel, Failed(f"{type(error).__name__}: {error}", isinstance(error, DiskFailed)))
        os._exit(1)


async def _obey(life: Incarnation, channel: socket.socket, trace: TraceFile | None) -> None:
    shared = loaded()
    driver = await opened(life, trace)
    gc.freeze()  # what it took to start stays: looking through it would hold the nodes up now and then
    stopped = asyncio.Event()
    words: Mapping[type, Callable[[ToDevice], None]] = {
        Go: lambda word: driver.start(word.t0_s),  # type: ignore[union-attr]
        Hops: lambda word: setattr(driver, "hops", word.hops),  # type: ignore[union-attr]
        DiskIs: lambda word: driver.disturb_disk(word.slowness, word.fails),  # type: ignore[union-attr]
        Stop: lambda _: stopped.set(),
    }

    def listen() -> None:
        data = channel.recv(_LINE_BYTES)
        word: ToDevice = msgspec.msgpack.decode(data, type=ToDevice) if data else Stop()
        words[type(word)](word)

    channel.setblocking(False)
    driver.loop.add_reader(channel, listen)
    say(channel, Ready(sorted(loaded() - shared)))
    try:
        await live(driver, stopped)
    finally:
        driver.loop.remove_reader(channel)
