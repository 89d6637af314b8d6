"""Storage tiers: which replicas run on which hosts, for each of the three kinds of service.

Owns places, names and ports: what an experiment, a server on loopback and a test must agree on. What a node
does is its own package's; where hosts are and how they hang together is the experiment's.

A tier becomes ready by itself. A sharded one's first configuration is put into the controller's log by the
first leader that the controller ever has, and every group finds itself in it. A group that comes later is
made by `added_group`, started, and let in by `BH.JOIN`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Literal

import msgspec

from kv import primary_backup
from kv.client import Directory, Sharded, Static
from kv.machine import KeyValueMachine
from kv.paxos import Settings, paxos
from kv.server import Server
from kv.sharding.config import GROUPS_MAX, REPLICAS_MAX, Configuration, join
from kv.sharding.machine import ShardMachine
from kv.sharding.moves import Timings
from kv.sharding.server import ControllerServer, ShardServer
from underlay.errors import InputError
from underlay.node import Address, Node, address, device_of
from underlay.plan import NodePlan

Kind = Literal["primary-backup", "paxos", "sharded"]

CONTROLLER = "ctl"
VIEWS = "views"
FIRST_PORT = 7100
"""Of the controller, or the view service; group `gN` has the Nth port after it."""


class Tier(msgspec.Struct, frozen=True):
    """A storage tier on paper."""

    kind: Kind
    hosts: tuple[str, ...]
    groups: dict[str, tuple[Address, ...]]
    """The replicas of each group."""
    controller: tuple[Address, ...] = ()
    """The replicas of the shard controller; none where there is one group."""
    views: Address = ""
    """The view service of a primary/backup tier."""
    settings: Settings = Settings()
    """Of every Paxos group."""
    pings: primary_backup.Settings = primary_backup.Settings()
    """Of a primary/backup service."""
    timings: Timings = Timings()
    """Of the moves of slots."""

    def nodes(self) -> dict[str, tuple[NodePlan, ...]]:
        """What runs on each host: the controller's replica or the view service first, then the groups'."""
        plans = list(self._plans())
        return {host: tuple(plan for at, plan in plans if at == host) for host in self.hosts}

    def directory(self) -> Directory:
        """Where a client of this tier begins to ask; one for each client."""
        if self.kind == "sharded":
            return Sharded(self.controller)
        (replicas,) = self.groups.values()
        return Static(replicas)

    def initial(self) -> Configuration:
        """The first configuration: all groups, in the order of their names."""
        configuration = Configuration()
        for group, replicas in self.groups.items():
            configuration = join(configuration, group, replicas)
        return msgspec.structs.replace(configuration, number=1)

    def added_group(self, number: int, hosts: Sequence[str]) -> dict[str, NodePlan]:
        """The replicas of a group that is not in the first configuration, by host. It serves nothing until it
        has joined."""
        group = _group(number)
        if self.kind != "sharded" or group in self.groups:
            raise InputError(f"a {self.kind} tier with {', '.join(self.groups)} cannot get a further {group}")
        replicas = tuple(address(host, group) for host in hosts)
        return dict(self._shards(number, replicas))

    # ------------------------------------------------------------------------------------------------ helpers

    def _plans(self) -> Iterator[tuple[str, NodePlan]]:
        (group, replicas), *_ = self.groups.items()
        match self.kind:
            case "primary-backup":
                views = partial(primary_backup.ViewService, replicas, self.pings)
                yield device_of(self.views), NodePlan(VIEWS, views, FIRST_PORT)
                yield from _alike(replicas, partial(_server, group, self.views, self.pings), 1)
            case "paxos":
                yield from _alike(replicas, partial(_replica, group, replicas, self.settings), 1)
            case "sharded":
                controller = partial(_controller, self.controller, self.settings, self.initial())
                yield from _alike(self.controller, controller, 0)
                for number, replicas in enumerate(self.groups.values(), 1):
                    yield from self._shards(number, replicas)

    def _shards(self, number: int, replicas: tuple[Address, ...]) -> Iterator[tuple[str, NodePlan]]:
        make = partial(_shard, _group(number), replicas, self.controller, self.settings, self.timings)
        return _alike(replicas, make, number)


def tier(
    kind: Kind,
    hosts: Sequence[str],
    groups: int = 3,
    replicas: int = 3,
    *,
    settings: Settings | None = None,
    timings: Timings | None = None,
    pings: primary_backup.Settings | None = None,
) -> Tier:
    """A tier whose replicas are spread over the hosts: each has as many as any other, give or take one.

    Args:
        kind: all but `sharded` are one group with all slots, whatever `groups` says.
        hosts: names of devices.
        groups: of a sharded tier, beside its controller.
        replicas: of each group and the controller, each on another host; of a primary/backup service the
            servers, of which those beyond two are idle until one of these dies. Its view service is on the
            last host, which is another one where there are enough.
        settings: of every Paxos group.
        timings: of the moves of slots.
        pings: of a primary/backup service.

    >>> tier("sharded", ["store1", "store2", "store3", "store4"], groups=2).groups["g2"]
    ('store4/g2', 'store1/g2', 'store2/g2')
    """
    if len(set(hosts)) != len(hosts) or not 1 <= replicas <= min(len(hosts), REPLICAS_MAX):
        raise InputError(f"{replicas} replicas need as many different hosts, and there are {len(set(hosts))}")
    if not 1 <= groups <= GROUPS_MAX:
        raise InputError(f"{groups} groups are too many or too few", hint=f"1 to {GROUPS_MAX}")
    names = [_group(number) for number in range(1, (groups if kind == "sharded" else 1) + 1)]
    places = {name: _places(hosts, place, replicas, name) for place, name in enumerate(names)}
    return Tier(
        kind,
        tuple(hosts),
        places,
        controller=_places(hosts, len(names), replicas, CONTROLLER) if kind == "sharded" else (),
        views=address(hosts[-1], VIEWS) if kind == "primary-backup" else "",
        settings=settings or Settings(),
        pings=pings or primary_backup.Settings(),
        timings=timings or Timings(),
    )


def storage_nodes(
    kind: Kind, hosts: Sequence[str], groups: int = 3, replicas: int = 3
) -> dict[str, tuple[NodePlan, ...]]:
    """`tier(...).nodes()`: the storage nodes of each host."""
    return tier(kind, hosts, groups, replicas).nodes()


# ---------------------------------------------------------------------------------------------------- helpers


def _group(number: int) -> str:
    return f"g{number}"


def _places(hosts: Sequence[str], place: int, replicas: int, name: str) -> tuple[Address, ...]:
    first = place * replicas
    return tuple(address(hosts[(first + at) % len(hosts)], name) for at in range(replicas))


def _alike(
    replicas: Sequence[Address], make: Callable[[], Node], port: int
) -> Iterator[tuple[str, NodePlan]]:
    """The same on the hosts of all these replicas."""
    for replica in replicas:
        device, _, name = replica.partition("/")
        yield device, NodePlan(name, make, FIRST_PORT + port)


def _controller(replicas: tuple[Address, ...], settings: Settings, initial: Configuration) -> Node:
    return ControllerServer(paxos(replicas, settings), initial)


def _shard(
    group: str,
    replicas: tuple[Address, ...],
    controller: tuple[Address, ...],
    settings: Settings,
    timings: Timings,
) -> Node:
    machine = ShardMachine(group, KeyValueMachine())
    return ShardServer(group, paxos(replicas, settings), machine, controller, timings)


def _replica(group: str, replicas: tuple[Address, ...], settings: Settings) -> Node:
    return Server(group, paxos(replicas, settings), KeyValueMachine())


def _server(group: str, views: Address, settings: primary_backup.Settings) -> Node:
    return Server(group, primary_backup.primary_backup(views, settings), KeyValueMachine())
