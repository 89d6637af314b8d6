"""A gateway with its HTTP door and a storage tier, as real processes on loopback."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import httpx

from gateway.api.door import HttpConfig, http_door
from gateway.gateway import Gateway, GatewayConfig
from gateway.messages import NODE
from kv.client import Client
from kv.tiers import Kind, Tier, tier
from underlay.emulation.loopback import Hosts, Site, loopback_addresses
from underlay.node import Context
from underlay.plan import DevicePlan, NodePlan

_NET = f"127.{1 + os.getpid() % 250}.{os.getpid() // 250 % 250}"
_firsts = count(171, 10)
"""Of the addresses of places that are up at the same time."""
HOSTS = ("s1", "s2", "s3")
GATEWAY = "sink"


def _client(made: Tier, lanes: int) -> Client[Context]:
    return Client(made.directory(), lanes=lanes)


class Place:
    """The processes, and how to speak to the gateway."""

    def __init__(
        self,
        folder: Path,
        kind: Kind = "paxos",
        *,
        http: HttpConfig | None = None,
        config: GatewayConfig | None = None,
    ) -> None:
        made = tier(kind, HOSTS)
        plans = made.nodes()
        addresses = loopback_addresses((*HOSTS, GATEWAY), f"{_NET}.{next(_firsts)}")
        devices = {host: DevicePlan(nodes) for host, nodes in plans.items()}
        node = NodePlan(NODE, partial(Gateway, partial(_client, made), config), 7000)
        devices[GATEWAY] = DevicePlan((node,), (http_door(http),))
        self.hosts = Hosts(Site(folder, devices, addresses))
        self.address = (addresses[GATEWAY], (http or HttpConfig()).port)
        self.url = f"http://{self.address[0]}:{self.address[1]}"

    def client(self, **options: Any) -> httpx.Client:
        return httpx.Client(base_url=self.url, timeout=20.0, **options)

    def kill(self) -> None:
        """The gateway's process is gone, at once."""
        self.hosts.kill(GATEWAY)

    def start(self) -> None:
        """And is there again."""
        self.hosts.start(GATEWAY)


@contextmanager
def running(place: Place) -> Iterator[Place]:
    """Everything is up as long as the block lasts, and the tier answers."""
    with place.hosts:
        place.hosts.start()
        with place.client() as client:
            while client.get("/readyz").status_code != 200:
                pass
        yield place


def document(sequence: int, device: str = "cam1", **changed: Any) -> dict[str, Any]:
    """An observation in JSON."""
    plain = {
        "device": device,
        "sequence": sequence,
        "kind": "temperature",
        "t_event": 60.0 * sequence,
        "t_gen": 5.0,
        "payload": {"h": 390 + sequence, "u": "Cel"},
    }
    return plain | changed
