"""Devices as ordinary processes of this machine: no root, no namespaces, no links to model.

Owns the life of such a device outside a run: who it is, its folder, its incarnations, and a few processes
under one parent. What happens inside is the same `driver` as in a run. Every address of 127.0.0.0/8 is this
machine's own on Linux, so each device has one to itself and nodes keep their ports.

A device's clock shows Unix time here, and its random streams differ in every life: this is a service, which
outlives its processes and is not replayed.
"""

from __future__ import annotations

import asyncio
import os
import select
import signal
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from ipaddress import IPv4Address
from math import inf
from pathlib import Path
from random import SystemRandom
from socket import socket
from time import monotonic, time

import msgspec
import uvloop

from underlay.clock import DeviceClock
from underlay.emulation.device import DiskIs, Failed, Go, Ready, Stop, fork_device, heard, live, opened, say
from underlay.emulation.driver import Incarnation
from underlay.emulation.programs import last_lines
from underlay.emulation.store_log import lose, rot
from underlay.emulation.trace_file import open_trace
from underlay.emulation.warm import learn
from underlay.errors import InputError, RunFailed
from underlay.faults import DiskFault, FailDisk, LoseDisk, RotDisk, SlowDisk
from underlay.plan import DevicePlan

READY_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 10.0


class Site(msgspec.Struct, frozen=True):
    """The devices that know each other, and where those of this machine keep what is theirs."""

    folder: Path
    """Each device has a folder of its name in it: `store`, `incarnation`, `log`, and its trace if wanted."""
    devices: Mapping[str, DevicePlan]
    addresses: Mapping[str, str]
    """IPv4 address of every device, of those too that are not there yet."""
    trace_bytes_max: int | None = None
    """Keep the last so many bytes (up to twice as much) of each device's trace; None: no traces."""
    ports: Mapping[str, int] = {}
    """Of nodes that devices may come to have, beside those that they have."""

    def store(self, device: str) -> Path:
        """The device's disk."""
        return self.folder / device / "store"

    def log(self, device: str) -> Path:
        """What its process prints: nothing, as long as all is well."""
        return self.folder / device / "log"

    def next_life(self, device: str) -> Incarnation:
        """Of a device that is about to start: its incarnation is one more than ever before."""
        if device not in self.devices:
            raise InputError(f"there is no device {device!r}", hint=", ".join(self.devices))
        folder = self.folder / device
        folder.mkdir(parents=True, exist_ok=True)
        return Incarnation(
            device=device,
            number=_count_up(folder / "incarnation"),
            seed=SystemRandom().getrandbits(64),
            plan=self.devices[device],
            addresses=self.addresses,
            ports={
                **self.ports,
                **{node.name: node.port for plan in self.devices.values() for node in plan.nodes},
            },
            hops=dict.fromkeys(self.addresses, 1),
            clock=DeviceClock(offset_s=time()),
            duration_s=inf,
            usage_interval_s=1.0,
            store=self.store(device),
            trace=None if self.trace_bytes_max is None else folder / "trace.jsonl",
            trace_bytes_max=self.trace_bytes_max,
            log=self.log(device),
            on_loopback=True,
        )


def loopback_addresses(devices: Iterable[str], first: str = "127.0.1.1") -> dict[str, str]:
    """An address of this machine for each device, counted from `first`.

    >>> loopback_addresses(["store1", "store2"])
    {'store1': '127.0.1.1', 'store2': '127.0.1.2'}
    """
    return {device: str(IPv4Address(first) + n) for n, device in enumerate(devices)}


def serve(site: Site, device: str, *, ready: Callable[[], None] = lambda: None) -> None:
    """Be that device, in this process, until SIGTERM or SIGINT.

    `ready` is called when its ports are bound. Raises what a handler raised, or OSError where a port is
    taken or the disk fails.
    """
    life = site.next_life(device)
    with open_trace(life) as trace, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:

        async def main() -> None:
            loop = asyncio.get_running_loop()
            stopped = asyncio.Event()
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.add_signal_handler(number, stopped.set)
            driver = await opened(life, trace)
            driver.start(monotonic())
            ready()
            await live(driver, stopped)

        runner.run(main())


class Ended(msgspec.Struct, frozen=True):
    """A device whose process ended by itself."""

    device: str
    status: int
    """Exit status, or minus the signal's number."""
    last_lines: tuple[str, ...]
    """Of its log."""


class Hosts:
    """Devices of a site in processes under this one, forked from it and so warm.

    To be used outside an event loop, in a `with` block, at whose end everything is killed that still lives;
    should this process be killed, the kernel does it.
    """

    def __init__(self, site: Site) -> None:
        self.site = site
        self._running: dict[str, _Process] = {}
        self._warm = False

    def __enter__(self) -> Hosts:
        return self

    def __exit__(self, *_: object) -> None:
        for device in self.running:
            self.kill(device)

    @property
    def running(self) -> tuple[str, ...]:
        """Devices whose processes were started and not ended from here."""
        return tuple(self._running)

    def pid(self, device: str) -> int:
        """Of the device's process; KeyError if it is not running."""
        return self._running[device].pid

    def start(self, *devices: str) -> None:
        """Start these (none named: all that are not running), and return when all can be reached.

        Raises RunFailed with the reason where one cannot start (its port is taken, its disk is unreadable).
        """
        wanted = devices or tuple(name for name in self.site.devices if name not in self._running)
        if not self._warm:
            self._warm = True
            learn(())
        for device in wanted:
            self._running[device] = _Process(*fork_device(self.site.next_life(device), None))
        deadline_s = monotonic() + READY_TIMEOUT_S
        for device in wanted:
            self._await_ready(device, deadline_s)
        for device in wanted:
            say(self._running[device].channel, Go(monotonic()))

    def kill(self, device: str) -> None:
        """SIGKILL: what was not durable is lost, and the kernel closes its connections."""
        process = self._running.pop(device)
        os.kill(process.pid, signal.SIGKILL)
        process.collect()

    def pause(self, device: str) -> None:
        """Its process stands still."""
        os.kill(self.pid(device), signal.SIGSTOP)

    def resume(self, device: str) -> None:
        """It goes on."""
        os.kill(self.pid(device), signal.SIGCONT)

    def disturb_disk(self, fault: DiskFault) -> None:
        """Something happens to a device's disk. One that is to be slow or to fail belongs to a running
        device, and `ended` tells of the failure; one that is lost, to one that is not running."""
        device, store = fault.device, self.site.store(fault.device)
        match fault:
            case SlowDisk(_, factor):
                say(self._running[device].channel, DiskIs(slowness=factor))
            case FailDisk():
                say(self._running[device].channel, DiskIs(fails=True))
            case LoseDisk():
                if device in self._running:
                    raise InputError(f"{device} is running", hint="kill it before it loses its disk")
                lose(store)
            case RotDisk():
                rot(store, SystemRandom().getrandbits(64))

    def stop(self, *devices: str) -> None:
        """Ask these (none named: all) to end, and wait until they have; who does not is killed."""
        wanted = devices or self.running
        for device in wanted:
            with suppress(ConnectionError):
                say(self._running[device].channel, Stop())
        deadline_s = monotonic() + STOP_TIMEOUT_S
        for device in wanted:
            process = self._running[device]
            if _readable([process.pidfd], deadline_s):
                self._running.pop(device).collect()
            else:
                self.kill(device)

    def ended(self, wait_s: float = 0.0) -> list[Ended]:
        """Devices whose processes ended by themselves since the last call; waits up to `wait_s` for one."""
        by_fd = {process.pidfd: device for device, process in self._running.items()}
        found = []
        for fd in _readable(by_fd, monotonic() + wait_s):
            device = by_fd[fd]
            status = self._running.pop(device).collect()
            found.append(Ended(device, status, last_lines(self.site.log(device))))
        return found

    def _await_ready(self, device: str, deadline_s: float) -> None:
        process = self._running[device]
        word = heard(process.channel) if _readable([process.channel.fileno()], deadline_s) else None
        if not isinstance(word, Ready):
            self.kill(device)
            lines = last_lines(self.site.log(device))
            reason = word.problem if isinstance(word, Failed) else (lines[-1] if lines else "it says nothing")
            raise RunFailed(f"{device} does not start: {reason}")


class _Process:
    """A device's process: its id, its channel, and a descriptor that is readable when it has ended."""

    def __init__(self, pid: int, channel: socket) -> None:
        self.pid = pid
        self.channel = channel
        self.pidfd = os.pidfd_open(pid)

    def collect(self) -> int:
        """Wait for its end; its exit status, or minus the signal's number."""
        _, status = os.waitpid(self.pid, 0)
        os.close(self.pidfd)
        self.channel.close()
        return os.waitstatus_to_exitcode(status)


def _readable(fds: Iterable[int], deadline_s: float) -> list[int]:
    """Those of the descriptors that are readable, as soon as one is, or none by `deadline_s`."""
    poll = select.poll()
    for fd in fds:
        poll.register(fd, select.POLLIN)
    return [fd for fd, _ in poll.poll(max(0.0, deadline_s - monotonic()) * 1e3)]


def _count_up(path: Path) -> int:
    """One more than the number in the file, which is on the disk before it is used."""
    number = int(path.read_text()) + 1 if path.exists() else 1
    fresh = path.with_name(path.name + ".new")
    with fresh.open("w") as file:
        file.write(f"{number}\n")
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
    return number
