"""Storage tiers: which replicas run on which hosts, for each of the three kinds of service.

Owns places, names and ports: what an experiment, a server on loopback and a test must agree on. What a node
does is its own package's; where hosts are and how they hang together is the experiment's.

A tier becomes ready by itself. A sharded one's first configuration is put into the controller's log by the
first leader that the controller ever has, and every group finds itself in it. It can change while it runs,
one tier on paper following another: a group that comes later (`with_group`) is started and then let in by
`BH.JOIN`; a host's place is taken in two steps, `replacing` and, when the newcomers have their votes,
`replaced`.
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
from kv.redis import directory
from kv.redis.binding import redis_port
from kv.redis.router import NODE as ROUTER
from kv.redis.router import Router
from kv.server import Server
from kv.sharding.config import GROUPS_MAX, REPLICAS_MAX, Configuration, check_group, join
from kv.sharding.machine import ShardMachine
from kv.sharding.moves import Timings
from kv.sharding.server import ControllerServer, ShardServer
from underlay.errors import InputError
from underlay.node import Address, Node, address, device_of
from underlay.plan import DevicePlan, NodePlan

Kind = Literal["primary-backup", "paxos", "sharded"]

CONTROLLER = "ctl"
VIEWS = "views"
FIRST_PORT = 7100
"""Of the controller, or the view service; group `gN` has the Nth port after it (`port_of`)."""
ROUTER_PORT = FIRST_PORT - 1


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
    later: tuple[str, ...] = ()
    """Groups that are not in the first configuration: they serve nothing until they have joined."""
    replaces: dict[Address, Address] = {}
    """Replicas that came later, each with the one whose place it takes. While that is still among its group's
    replicas both run; the newcomer gets the other's vote when it has caught up."""

    def nodes(self) -> dict[str, tuple[NodePlan, ...]]:
        """What runs on each host: the controller's replica or the view service first, then the groups'."""
        plans = list(self._plans())
        return {host: tuple(plan for at, plan in plans if at == host) for host in self.hosts}

    def router(self) -> NodePlan:
        """What answers Redis' clients, on every host alike."""
        return NodePlan(ROUTER, partial(_router, self), ROUTER_PORT)

    def devices(self) -> dict[str, DevicePlan]:
        """All that runs on each host: its nodes, and at its own address the port for Redis' clients."""
        redis = redis_port(self.hosts)
        return {host: DevicePlan((self.router(), *nodes), (redis,)) for host, nodes in self.nodes().items()}

    def directory(self) -> Directory:
        """Where a client of this tier begins to ask; one for each client."""
        if self.kind == "sharded":
            return Sharded(self.controller)
        (replicas,) = self.groups.values()
        return Static(replicas)

    def initial(self) -> Configuration:
        """The first configuration: all groups but the later ones, in the order of their names."""
        configuration = Configuration()
        for group, replicas in self.groups.items():
            if group not in self.later:
                configuration = join(configuration, group, replicas)
        return msgspec.structs.replace(configuration, number=1)

    def with_group(self, group: str, hosts: Sequence[str]) -> Tier:
        """The tier and one more group, with a replica on each of these hosts, new ones or old."""
        if self.kind != "sharded" or group in self.groups:
            raise InputError(f"a {self.kind} tier with {', '.join(self.groups)} cannot get a further {group}")
        replicas = tuple(address(host, group) for host in hosts)
        check_group(group, replicas)
        port_of(group)
        return msgspec.structs.replace(
            self,
            hosts=tuple(dict.fromkeys([*self.hosts, *hosts])),
            groups={**self.groups, group: replicas},
            later=(*self.later, group),
        )

    def replacing(self, old: str, new: str) -> Tier:
        """The tier with a further host, whose replicas are to take the places of another's."""
        if self.kind == "primary-backup":
            raise InputError("the view service knows its servers by name: none of them can be replaced")
        if old not in self.hosts or new in self.hosts:
            raise InputError(f"{new} cannot take the place of {old}: the hosts are {', '.join(self.hosts)}")
        everywhere = (*self.controller, *(each for replicas in self.groups.values() for each in replicas))
        places = {
            address(new, replica.partition("/")[2]): replica
            for replica in everywhere
            if device_of(replica) == old
        }
        return msgspec.structs.replace(self, hosts=(*self.hosts, new), replaces={**self.replaces, **places})

    def replaced(self, old: str, new: str) -> Tier:
        """The tier without the former host, whose replicas have no votes any more."""
        successors = {before: after for after, before in self.replaces.items() if device_of(after) == new}

        def present(replicas: tuple[Address, ...]) -> tuple[Address, ...]:
            return tuple(successors.get(replica, replica) for replica in replicas)

        return msgspec.structs.replace(
            self,
            hosts=tuple(host for host in self.hosts if host != old),
            groups={group: present(replicas) for group, replicas in self.groups.items()},
            controller=present(self.controller),
        )

    # ------------------------------------------------------------------------------------------------ helpers

    def _plans(self) -> Iterator[tuple[str, NodePlan]]:
        (group, replicas), *_ = self.groups.items()
        match self.kind:
            case "primary-backup":
                views = partial(primary_backup.ViewService, replicas, self.pings)
                yield device_of(self.views), NodePlan(VIEWS, views, port_of(VIEWS))
                yield from self._alike(replicas, partial(_server, group, self.views, self.pings))
            case "paxos":
                yield from self._alike(replicas, partial(_replica, group, replicas, self.settings))
            case "sharded":
                controller = partial(_controller, self.controller, self.settings, self.initial())
                yield from self._alike(self.controller, controller)
                for group, replicas in self.groups.items():
                    shard = partial(_shard, group, replicas, self.controller, self.settings, self.timings)
                    yield from self._alike(replicas, shard)

    def _alike(
        self, replicas: tuple[Address, ...], make: Callable[..., Node]
    ) -> Iterator[tuple[str, NodePlan]]:
        """The same on the hosts of all these replicas, and of those that are to take the place of one."""
        coming = [new for new, old in self.replaces.items() if old in replicas and new not in replicas]
        for replica in (*replicas, *coming):
            host, _, name = replica.partition("/")
            place = {"replaces": self.replaces[replica]} if replica in self.replaces else {}
            yield host, NodePlan(name, partial(make, **place), port_of(name))


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


def port_of(node: str) -> int:
    """The port of a storage node, by its name; the same on every host, in every tier.

    >>> port_of("ctl"), port_of("g2")
    (7100, 7102)
    """
    if node in (CONTROLLER, VIEWS):
        return FIRST_PORT
    number = node.removeprefix("g")
    if number == node or not number.isdecimal() or not 1 <= int(number) <= GROUPS_MAX:
        raise InputError(f"{node!r} is no name of a group", hint=f"g1 to g{GROUPS_MAX}")
    return FIRST_PORT + int(number)


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


def _controller(
    replicas: tuple[Address, ...], settings: Settings, initial: Configuration, replaces: Address = ""
) -> Node:
    return ControllerServer(paxos(replicas, settings, replaces=replaces), initial)


def _shard(
    group: str,
    replicas: tuple[Address, ...],
    controller: tuple[Address, ...],
    settings: Settings,
    timings: Timings,
    replaces: Address = "",
) -> Node:
    machine = ShardMachine(group, KeyValueMachine())
    replication = paxos(replicas, settings, replaces=replaces)
    return ShardServer(group, replication, machine, controller, timings)


def _router(made: Tier) -> Node:
    if made.kind == "sharded":
        return Router(directory.Directory(made.initial(), made.controller))
    ((group, replicas),) = made.groups.items()
    return Router(directory.Directory.of_one_group(group, replicas))


def _replica(group: str, replicas: tuple[Address, ...], settings: Settings, replaces: Address = "") -> Node:
    return Server(group, paxos(replicas, settings, replaces=replaces), KeyValueMachine())


def _server(group: str, views: Address, settings: primary_backup.Settings) -> Node:
    return Server(group, primary_backup.primary_backup(views, settings), KeyValueMachine())
