"""Storage hosts as processes on loopback, each with a Redis port at its own address, for real clients.

Addresses are this test process's own, so that tests run side by side.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import count
from pathlib import Path
from time import monotonic, sleep
from typing import Any, TypeVar

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from kv.machine import KeyValueMachine
from kv.paxos import Settings, paxos
from kv.redis.binding import PORT, Bounds, Listener, redis_port
from kv.redis.directory import Directory
from kv.redis.router import Router
from kv.server import Server
from kv.sharding.config import Configuration, join
from tests.kv.solo import Solo
from underlay.emulation.loopback import Hosts, Site, loopback_addresses
from underlay.node import Node
from underlay.plan import DevicePlan, NodePlan

ROUTER_PORT, FIRST_GROUP_PORT = 7000, 7001
OUTSIDE_PORT = 7300
_CLUSTERS = count(1)

T = TypeVar("T")


class Cluster:
    """Hosts that are running.

    Args:
        groups: devices of each group's replicas.
        outside: listen at a second port too, whose clients are told of all hosts at that port.
    """

    def __init__(
        self,
        folder: Path,
        groups: Mapping[str, Sequence[str]],
        *,
        settings: Settings | None = None,
        bounds: Bounds | None = None,
        outside: bool = False,
        patience_s: float = 5.0,
    ) -> None:
        devices = list(dict.fromkeys(device for replicas in groups.values() for device in replicas))
        first = f"127.{1 + os.getpid() % 250}.{next(_CLUSTERS)}.1"
        self.addresses = loopback_addresses(devices, first)
        configuration = Configuration()
        for group, hosts in groups.items():
            configuration = join(configuration, group, [f"{device}/{group}" for device in hosts])
        listeners = [Listener()]
        if outside:
            told = {device: (ip, OUTSIDE_PORT) for device, ip in self.addresses.items()}
            listeners.append(Listener(port=OUTSIDE_PORT, advertised=told))
        plans = {}
        for device in devices:
            router = NodePlan("redis", partial(_router, configuration, patience_s), ROUTER_PORT)
            replicas = [
                NodePlan(group, partial(_replica, group, list(hosts), settings), FIRST_GROUP_PORT + number)
                for number, (group, hosts) in enumerate(groups.items())
                if device in hosts
            ]
            plans[device] = DevicePlan(
                nodes=(router, *replicas), bindings=(redis_port(devices, listeners, bounds),)
            )
        self.hosts = Hosts(Site(folder, plans, self.addresses))

    def client(self, device: str = "s1", *, protocol: int = 2, port: int = PORT) -> redis.Redis:
        """A plain client of one host, which waits until it is told and does not try again."""
        return redis.Redis(
            self.addresses[device], port, protocol=protocol, retry=Retry(NoBackoff(), 0), socket_timeout=20
        )

    def await_leaders(self) -> None:
        """Return when every slot is served."""
        self._until(lambda client: client.execute_command("CLUSTER INFO")["cluster_state"] == "ok")

    def leader(self, key: str = "") -> str:
        """The device that leads a key's slot; waits until one does."""
        return self._until(lambda client: self._leader(client, key))

    def _leader(self, client: Any, key: str) -> str | None:
        slot = client.execute_command("CLUSTER KEYSLOT", key)
        for first, last, (ip, *_), *_ in client.execute_command("CLUSTER SLOTS"):
            if first <= slot <= last:
                return next(device for device, own in self.addresses.items() if own == ip.decode())
        return None

    def _until(self, look: Callable[[Any], T | None]) -> T:
        deadline_s = monotonic() + 20.0
        with self.client(self.hosts.running[0]) as client:
            while not (found := look(client)):
                assert monotonic() < deadline_s, "nobody leads"
                sleep(0.05)
        return found


@contextmanager
def running(cluster: Cluster) -> Iterator[Cluster]:
    """Start all hosts, wait for leaders; kill all at the end."""
    with cluster.hosts:
        cluster.hosts.start()
        cluster.await_leaders()
        yield cluster


def _router(configuration: Configuration, patience_s: float) -> Node:
    return Router(Directory(configuration), patience_s)


def _replica(group: str, hosts: list[str], settings: Settings | None) -> Node:
    members = [f"{device}/{group}" for device in hosts]
    return Server(group, Solo if len(hosts) == 1 else paxos(members, settings), KeyValueMachine())
