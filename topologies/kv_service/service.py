"""A store on this machine, on paper: which tier, at which addresses, in which folder.

Owns the file `service.json`, which says what is to run. Whoever serves the folder makes it so, and whoever
changes the store writes there what is wanted: the two need no other way to talk. What runs on a host is
`kv.tiers`' affair, how it is run is `serving`'s.

Names give addresses: host `store3` has the third address and the third Redis port, whether it is there yet
or not. So a host that comes later needs no introduction.
"""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import msgspec

from kv.redis.binding import Listener, redis_port
from kv.redis.directory import Directory
from kv.redis.router import NODE, Router
from kv.sharding.config import GROUPS_MAX
from kv.tiers import Tier, port_of
from underlay.emulation.loopback import Site
from underlay.errors import InputError
from underlay.node import Address, Node
from underlay.plan import DevicePlan, NodePlan

DEFAULT_PORT = 7001
HOSTS_MAX = 64
PORT_MIN, PORT_MAX = 1024, 65535 - HOSTS_MAX + 1

LOOPBACK = "127.0.0.1"
"""Where Redis clients come in."""

_FILE = "service.json"
_LOCK = "changes.lock"
_ROUTER_PORT = 7000
_HOST = re.compile(r"store([1-9][0-9]?)")


class Service(msgspec.Struct, frozen=True):
    """What is to run. Ports are so chosen that hosts of the same service, and services, do not meet."""

    tier: Tier
    port: int = DEFAULT_PORT
    """Redis port of the first host, on 127.0.0.1."""

    def __post_init__(self) -> None:
        if not PORT_MIN <= self.port <= PORT_MAX:
            raise InputError(f"{self.port} is none", key="--port", hint=f"{PORT_MIN} to {PORT_MAX}")

    def address(self, host: str) -> str:
        """The host's own, where replicas talk. Services whose ports differ do not meet."""
        return f"127.{self.port >> 8}.{self.port & 255}.{number_of(host)}"

    def redis_port(self, host: str) -> int:
        """Where Redis clients of that host come in, on 127.0.0.1."""
        return self.port + number_of(host) - 1

    def locate(self, replica: Address) -> tuple[str, int]:
        """IP address and port of a replica."""
        host, _, node = replica.partition("/")
        return self.address(host), port_of(node)

    def site(self, folder: Path) -> Site:
        """Its hosts as devices: replicas, and Redis' protocol before them."""
        router = NodePlan(NODE, partial(_router, self.tier), _ROUTER_PORT)
        reached = {host: (LOOPBACK, self.redis_port(host)) for host in _NAMES}
        devices = {
            host: DevicePlan(
                nodes=(router, *nodes),
                bindings=(redis_port(_NAMES, [Listener(*reached[host], advertised=reached)]),),
            )
            for host, nodes in self.tier.nodes().items()
        }
        groups = [f"g{number}" for number in range(1, GROUPS_MAX + 1)]
        return Site(
            folder,
            devices,
            addresses={host: self.address(host) for host in _NAMES},
            ports={group: port_of(group) for group in groups},
        )

    def role(self, host: str) -> Role | None:
        """What the host is told when it starts; None: it is not there."""
        made = self.tier
        if host not in made.hosts:
            return None
        nodes = tuple(node.name for node in made.nodes()[host])
        return Role(nodes, made.controller, {} if made.kind == "sharded" else made.groups)


class Role(msgspec.Struct, frozen=True):
    """All that a host was told when it started, and does not learn by itself."""

    nodes: tuple[str, ...]
    """Its replicas."""
    controller: tuple[Address, ...]
    groups: dict[str, tuple[Address, ...]]
    """Of a store that is not sharded: a sharded one's its controller tells."""

    def outdated(self, now: Role) -> bool:
        """Whether the host has to start anew: it has other replicas, or knows less than a majority of the
        present controller."""
        known = set(self.controller) & set(now.controller)
        return (self.nodes, self.groups) != (now.nodes, now.groups) or 2 * len(known) <= len(now.controller)


def host_named(number: int) -> str:
    """The nth host.

    >>> host_named(3)
    'store3'
    """
    return f"store{number}"


def number_of(host: str) -> int:
    """Which one it is, counted from 1; raises InputError."""
    match = _HOST.fullmatch(host)
    if match is None or int(match[1]) > HOSTS_MAX:
        raise InputError(f"{host!r} is no name of a host", hint=f"store1 to store{HOSTS_MAX}")
    return int(match[1])


def load(folder: Path) -> Service:
    """What is to run in that folder; raises InputError if it is none of a store."""
    try:
        return msgspec.json.decode((folder / _FILE).read_bytes(), type=Service)
    except FileNotFoundError as error:
        raise InputError("there is no store", file=folder, hint="`birdhouse kv serve` makes one") from error
    except (OSError, msgspec.DecodeError) as error:
        raise InputError(f"cannot be read: {error}", file=folder / _FILE) from error


def save(folder: Path, service: Service) -> None:
    """Say what is to run from now on."""
    fresh = folder / f"{_FILE}.new"
    with fresh.open("wb") as file:
        file.write(msgspec.json.format(msgspec.json.encode(service), indent=2))
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(folder / _FILE)


def exists(folder: Path) -> bool:
    """Whether there is a store in that folder."""
    return (folder / _FILE).exists()


def is_strange(folder: Path) -> bool:
    """Whether something is in that folder, and no store."""
    return not exists(folder) and any(path.name != _LOCK for path in folder.iterdir())


def stamp(folder: Path) -> object:
    """Another one each time that something else is to run."""
    found = (folder / _FILE).stat()
    return found.st_ino, found.st_mtime_ns


@contextmanager
def changing(folder: Path) -> Iterator[None]:
    """Nobody else founds or changes the store of that folder meanwhile; waits for who does."""
    with (folder / _LOCK).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


# ---------------------------------------------------------------------------------------------------- helpers

_NAMES = [host_named(number) for number in range(1, HOSTS_MAX + 1)]
"""Of all hosts that there can be."""


def _router(made: Tier) -> Node:
    if made.kind == "sharded":
        return Router(Directory(made.initial(), made.controller))
    ((group, replicas),) = made.groups.items()
    return Router(Directory.of_one_group(group, replicas))
