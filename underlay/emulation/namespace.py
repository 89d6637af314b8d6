"""Network namespaces held by nothing but a descriptor: no name in /run/netns, no process inside, nothing to
clean up.
 Owns making, entering and closing them, the batch of routing requests waiting for each, and ending the
processes that live in them. When the last descriptor and process are gone the kernel removes the namespace
with every interface in it, also after a SIGKILL.

Source: network_namespaces(7), setns(2), pidfd_open(2).
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import socket
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from time import monotonic

from underlay.emulation.rtnetlink import LOOPBACK, LinkState, Request, RouteSocket, set_link
from underlay.errors import Unavailable

_CLONE_NEWNET = 0x4000_0000
_HERE = "/proc/thread-self/ns/net"

FIRST_INDEX = 100
"""Interfaces we make are numbered from here, so that no request has to ask the kernel for an index first, and
no interface that a user adds by hand is in the way."""


class Namespace:
    """A network namespace.

    Requests given to `submit` are sent at once, or, between `hold` and `release`, together at the end.
    """

    def __init__(self, fd: int, *, first_index: int = FIRST_INDEX) -> None:
        """Takes over descriptor `fd` of a namespace."""
        self.fd = fd
        self.inode = os.fstat(fd).st_ino
        """Its identity, as in `/proc/<pid>/ns/net`."""
        self.indexes: dict[str, int] = {"lo": LOOPBACK}
        """Of the interfaces we made here, by name."""
        self._next_index = first_index
        self._held: list[Request] | None = None

    @classmethod
    def open(cls) -> Namespace:
        """A new namespace, with its loopback up."""
        with _returning_home():
            if _libc.unshare(_CLONE_NEWNET) != 0:
                raise Unavailable(
                    f"cannot make a network namespace: {os.strerror(ctypes.get_errno())}", hint="run as root"
                )
            namespace = cls(os.open(_HERE, os.O_RDONLY | os.O_CLOEXEC))
            with RouteSocket() as route_socket:
                route_socket.apply([set_link(LOOPBACK, up=True)])
        return namespace

    @classmethod
    def of_process(cls, pid: int | None) -> Namespace:
        """The namespace of another process, or of this one for None. Its settings are never written."""
        foreign = _Foreign(os.open(f"/proc/{pid or 'self'}/ns/net", os.O_RDONLY | os.O_CLOEXEC))
        foreign._next_index = max(link.number for link in foreign.links().values()) + FIRST_INDEX
        return foreign

    @property
    def closed(self) -> bool:
        """Whether `close` has been called."""
        return self.fd < 0

    def close(self) -> None:
        """Let go of it. Close the TAP descriptors of its interfaces first: the other way round costs 16 ms
        each."""
        if not self.closed:
            os.close(self.fd)
            self.fd = -1

    def __del__(self) -> None:
        if hasattr(self, "fd"):
            self.close()

    @contextmanager
    def enter(self) -> Iterator[None]:
        """Put the calling thread inside; processes started and sockets opened there belong to the namespace.

        Requests held back are sent first: whoever goes in finds everything as it was ordered.
        """
        self.flush()
        with self.inside():
            yield

    @contextmanager
    def inside(self) -> Iterator[None]:
        """`enter`, with the requests still waiting: for making things that they may speak of."""
        with _returning_home():
            _setns(self.fd)
            yield

    def socket(
        self, family: int = socket.AF_INET, kind: int = socket.SOCK_DGRAM, protocol: int = 0
    ) -> socket.socket:
        """A socket that lives inside, usable from anywhere."""
        with self.enter():
            return socket.socket(family, kind, protocol)

    def configure(self, settings: Mapping[str, int]) -> None:
        """Write this namespace's own settings, named as below `/proc/sys/net` (`"ipv4/ip_forward"`).

        Each takes longer the more namespaces there are; what an interface can be told by `submit` does not.
        """
        with self.inside():
            for name, value in settings.items():
                with open(f"/proc/sys/net/{name}", "w") as setting:
                    setting.write(str(value))

    # --------------------------------------------------------------------------------------------- interfaces

    def submit(self, *requests: Request) -> None:
        """Carry out `requests` here, in order: now, or on `release`. Raises NetlinkError when they are
        sent."""
        if self._held is not None:
            self._held.extend(requests)
        else:
            self._apply(requests)

    def hold(self) -> None:
        """Collect requests from now on."""
        if self._held is None:
            self._held = []

    def flush(self) -> None:
        """Send what was collected so far, in batches."""
        if self._held:
            held, self._held = self._held, []
            self._apply(held)

    def release(self) -> None:
        """Send what was collected, and go back to sending at once."""
        self.flush()
        self._held = None

    def make(self, request: Request) -> None:
        """Carry out `request` now, ahead of those waiting, which may speak of what it makes."""
        self._apply((request,))

    def number(self, name: str) -> int:
        """Reserve an index for an interface of that name, about to be made here."""
        index = self.indexes[name] = self._next_index
        self._next_index += 1
        return index

    def index(self, name: str) -> int:
        """Index of an interface, whoever made it; OSError if there is none of that name."""
        if name not in self.indexes:
            with self.enter():
                return socket.if_nametoindex(name)
        return self.indexes[name]

    def links(self) -> dict[str, LinkState]:
        """State and counters of every interface, by name."""
        with self.enter(), RouteSocket() as route_socket:
            return route_socket.links()

    def addresses(self, name: str) -> list[tuple[str, int]]:
        """IPv4 addresses of an interface as `(address, prefix length)`."""
        with self.enter(), RouteSocket() as route_socket:
            return route_socket.addresses().get(self.index(name), [])

    def _apply(self, requests: Sequence[Request]) -> None:
        with self.inside(), RouteSocket() as route_socket:
            route_socket.apply(requests)


class _Foreign(Namespace):
    """Somebody else's namespace, the machine's own perhaps: interfaces may be added, settings not touched."""

    def configure(self, settings: Mapping[str, int]) -> None:
        raise PermissionError(f"these settings are not ours to write: {', '.join(settings)}")


def end_processes(namespaces: Collection[Namespace], *, patience_s: float = 5.0) -> list[int]:
    """Kill every process that lives in one of `namespaces`, whoever started it, and wait until all are gone.

    Processes are recognised by the namespace they are in, never by name, and signalled through a pidfd, so
    that a reused process id cannot hit a stranger.

    Returns:
        Process ids that would not die within `patience_s`; normally empty.
    """
    inodes = {f"net:[{namespace.inode}]" for namespace in namespaces if not namespace.closed}
    deadline_s = monotonic() + patience_s
    while inodes:
        # Again until none is found: what was killed may have been forking.
        living = _living(inodes)
        if not living:
            break
        for pidfd in living.values():
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        for pidfd in living.values():
            gone = select.poll()
            gone.register(pidfd, select.POLLIN)
            gone.poll(max(0.0, deadline_s - monotonic()) * 1e3)
            os.close(pidfd)
        if monotonic() > deadline_s:
            return list(living)
    return []


def signal_processes(namespaces: Collection[Namespace], number: signal.Signals) -> None:
    """Send a signal to every process that lives in one of `namespaces`."""
    for pidfd in _living({f"net:[{namespace.inode}]" for namespace in namespaces}).values():
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(pidfd, number)
        os.close(pidfd)


def _living(inodes: Collection[str]) -> dict[int, int]:
    """A pidfd for each process in those namespaces but this one, by process id. Zombies are in none."""
    if os.readlink("/proc/self") != str(os.getpid()):
        raise Unavailable("/proc shows another PID namespace than ours", hint="mount it anew")
    found = {}
    for pid in (int(entry) for entry in os.listdir("/proc") if entry.isdigit()):
        with suppress(OSError):
            if pid == os.getpid() or os.readlink(f"/proc/{pid}/ns/net") not in inodes:
                continue
            pidfd = os.pidfd_open(pid)
            # The id may have changed hands between the two calls above; the pidfd is for good.
            if os.readlink(f"/proc/{pid}/ns/net") in inodes:
                found[pid] = pidfd
            else:
                os.close(pidfd)
    return found


@contextmanager
def _returning_home() -> Iterator[None]:
    home = os.open(_HERE, os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield
    finally:
        _setns(home)
        os.close(home)


def _setns(fd: int) -> None:
    # os.setns came with Python 3.12.
    if _libc.setns(fd, _CLONE_NEWNET) != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"cannot enter a network namespace: {os.strerror(code)}")


_libc = ctypes.CDLL(None, use_errno=True)
