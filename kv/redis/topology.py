"""The cluster as CLUSTER tells it: hosts, who leads which slots, at the addresses the client can reach.

Owns the translation from groups to Redis' terms. There a node is a master of slots or the replica of one
master; here a host may lead some groups and follow others. A host that leads anything is told of as a master
only; one that leads nothing, as a replica of whoever leads what it has. Slots whose leader nobody knows are
left out.

Source: redis.io, the commands CLUSTER SLOTS, SHARDS, NODES and INFO.
"""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha1
from typing import Any

import msgspec

from kv.redis.directory import Directory
from kv.redis.messages import Advertised
from kv.sharding.config import Range
from kv.slots import SLOTS
from underlay.node import device_of


class Host(msgspec.Struct):
    """A storage device as a Redis node."""

    device: str
    ip: str
    port: int
    ranges: list[Range] = msgspec.field(default_factory=list)
    """Slots of the groups that it leads, ascending."""
    groups: list[str] = msgspec.field(default_factory=list)
    """Of which it has a replica."""
    follows: str = ""
    """The device of its master, where it leads nothing itself."""

    @property
    def id(self) -> str:
        return node_id(self.device)

    @property
    def role(self) -> str:
        return "replica" if self.follows else "master"


def node_id(device: str) -> str:
    """A device's name in Redis' terms: 40 hexadecimal digits."""
    return sha1(device.encode(), usedforsecurity=False).hexdigest()


def hosts(directory: Directory, advertised: Advertised) -> dict[str, Host]:
    """All storage devices that a client can be sent to, by name."""
    found: dict[str, Host] = {}
    for group, replicas in directory.configuration.groups.items():
        for device in map(device_of, replicas):
            if device in advertised:
                found.setdefault(device, Host(device, *advertised[device])).groups.append(group)
    for first, last, group in directory.configuration.ranges():
        leader = found.get(directory.leader_of(group) or "")
        if leader is not None:
            leader.ranges.append((first, last))
    for host in found.values():
        if not host.ranges:
            leaders = [directory.leader_of(group) for group in host.groups]
            host.follows = next(
                (leader for leader in leaders if leader in found and found[leader].ranges), ""
            )
    return dict(sorted(found.items()))


def slots(directory: Directory, advertised: Advertised) -> list[Any]:
    """CLUSTER SLOTS: first slot, last slot, the master, its replicas."""
    known = hosts(directory, advertised)
    told = []
    for first, last, group in directory.configuration.ranges():
        leader = known.get(directory.leader_of(group) or "")
        if leader is not None:
            others = [host for host in known.values() if host.follows and group in host.groups]
            nodes = [[host.ip.encode(), host.port, host.id.encode(), []] for host in (leader, *others)]
            told.append([first, last, *nodes])
    return told


def shards(directory: Directory, advertised: Advertised) -> list[Any]:
    """CLUSTER SHARDS: the masters with their slots and replicas."""
    known = hosts(directory, advertised)
    return [
        {
            b"slots": [slot for both in master.ranges for slot in both],
            b"nodes": [
                _shard_node(host) for host in known.values() if master.device in (host.device, host.follows)
            ],
        }
        for master in known.values()
        if master.role == "master"
    ]


def nodes(directory: Directory, advertised: Advertised, me: str) -> str:
    """CLUSTER NODES: one line for each host. There is no cluster bus, so its port is 0."""
    lines = []
    for host in hosts(directory, advertised).values():
        flags = ("myself," if host.device == me else "") + ("slave" if host.follows else "master")
        master = node_id(host.follows) if host.follows else "-"
        where = f"{host.ip}:{host.port}@0"
        words = [host.id, where, flags, master, "0", "0", str(directory.configuration.number), "connected"]
        words += [f"{first}-{last}" if first != last else f"{first}" for first, last in host.ranges]
        lines.append(" ".join(words) + "\n")
    return "".join(lines)


def info(directory: Directory, advertised: Advertised) -> str:
    """CLUSTER INFO. A slot is in order where its leader is known."""
    known = hosts(directory, advertised)
    assigned = sum(last - first + 1 for first, last, group in directory.configuration.ranges() if group)
    led = sum(last - first + 1 for host in known.values() for first, last in host.ranges)
    return _lines(
        {
            "cluster_state": "ok" if led == SLOTS else "fail",
            "cluster_slots_assigned": assigned,
            "cluster_slots_ok": led,
            "cluster_slots_pfail": 0,
            "cluster_slots_fail": assigned - led,
            "cluster_known_nodes": len(known),
            "cluster_size": sum(bool(host.ranges) for host in known.values()),
            "cluster_current_epoch": directory.configuration.number,
            "cluster_my_epoch": directory.configuration.number,
        }
    )


def _shard_node(host: Host) -> dict[bytes, Any]:
    return {
        b"id": host.id.encode(),
        b"port": host.port,
        b"ip": host.ip.encode(),
        b"endpoint": host.ip.encode(),
        b"role": host.role.encode(),
        b"replication-offset": 0,
        b"health": b"online",
    }


def _lines(fields: Mapping[str, object]) -> str:
    return "".join(f"{name}:{value}\r\n" for name, value in fields.items())
