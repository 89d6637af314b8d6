"""How a store is: what its replicas say of themselves, and what that means for their groups.

Owns the meaning, not the picture (`topologies.cli.kv_tables`). A group is served if one of its replicas
leads; who is silent says nothing, and may be dead or cut off.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from kv.messages import Status
from kv.tiers import CONTROLLER
from topologies.kv_service.reach import Reached, Where, use
from underlay.node import Address, device_of

LEADS = ("leader", "primary")


class ReplicaStatus(msgspec.Struct, frozen=True):
    """One replica."""

    host: str
    group: str
    role: str
    """"leader", "follower", "candidate", "joining", "primary", "backup", "idle"; or "silent"."""
    ballot: str = ""
    """Ballot, or number of the view."""
    chosen: int = 0
    """Log position through which it knows what was chosen."""
    applied: int = 0
    """Log position through which it has executed."""
    log_from: int = 0
    """First position that is still in its log."""
    lag: int | None = None
    """Positions that its group's leader has and it has not executed; None: nobody leads."""
    keys: int = 0


class GroupStatus(msgspec.Struct, frozen=True):
    """One group."""

    group: str
    leader: str
    """The host that leads; empty: none."""
    members: tuple[str, ...]
    """Hosts whose replicas have a vote, as the leader knows them."""
    slots: int
    """That it serves."""
    ranges: tuple[tuple[int, int], ...]
    """Of these slots, both ends included."""
    moving: Mapping[str, int]
    """Slots on their way, by state (docs/kv-sharding.md)."""
    keys: int
    configuration: int | None
    """The last one that it has gone on to; None: it knows of none."""

    @property
    def settled(self) -> bool:
        """Whether somebody leads, and nothing is on its way."""
        return bool(self.leader) and not self.moving


class StoreStatus(msgspec.Struct, frozen=True):
    """The whole store, at about one moment."""

    replicas: tuple[ReplicaStatus, ...]
    groups: tuple[GroupStatus, ...]
    """In the order of their names, the controller first."""

    @property
    def slots(self) -> int:
        """That are served by somebody."""
        return sum(group.slots for group in self.groups if group.group != CONTROLLER)


def status(where: Where) -> StoreStatus:
    """Ask all replicas how they are; takes half a second where some are silent.

    Raises InputError where there is no store. A store in which nobody answers has a status too.
    """
    return use(where, look)


async def look(client: Reached) -> StoreStatus:
    """The same with a client that is open."""
    statuses = await client.statuses()
    members: dict[str, list[Address]] = {}
    for replica in statuses:
        members.setdefault(_group_of(replica), []).append(replica)
    groups = {group: _group(group, replicas, statuses) for group, replicas in members.items()}
    order = sorted(groups, key=lambda group: (group != CONTROLLER, len(group), group))
    return StoreStatus(
        tuple(
            _replica(replica, statuses[replica], statuses)
            for group in order
            for replica in sorted(members[group], key=_natural)
        ),
        tuple(groups[group] for group in order),
    )


# ---------------------------------------------------------------------------------------------------- helpers


def _group_of(replica: Address) -> str:
    return replica.partition("/")[2]


def _natural(replica: Address) -> tuple[int, str]:
    return len(replica), replica


def _leader(group: str, statuses: Mapping[Address, Status | None]) -> Status | None:
    """Of those who say that they lead, the last elected: one that was deposed may not know it yet."""
    leading = [each for each in statuses.values() if each and each.group == group and each.role in LEADS]
    return max(leading, key=lambda each: each.chosen, default=None)


def _group(group: str, replicas: Iterable[Address], statuses: Mapping[Address, Status | None]) -> GroupStatus:
    leader = _leader(group, statuses)
    if leader is None:
        return GroupStatus(group, "", tuple(map(device_of, replicas)), 0, (), {}, 0, None)
    counts = leader.details.get("slots", {})
    ranges = () if group == CONTROLLER else leader.slots
    return GroupStatus(
        group,
        leader=device_of(leader.leader),
        members=tuple(map(device_of, leader.members)),
        slots=sum(last - first + 1 for first, last in ranges),
        ranges=ranges,
        moving={state: count for state, count in counts.items() if state != "owned"},
        keys=leader.keys,
        configuration=leader.details.get("configuration"),
    )


def _replica(
    replica: Address, said: Status | None, statuses: Mapping[Address, Status | None]
) -> ReplicaStatus:
    host, group = device_of(replica), _group_of(replica)
    if said is None:
        return ReplicaStatus(host, group, "silent")
    leader = _leader(group, statuses)
    return ReplicaStatus(
        host,
        group,
        said.role,
        ballot=said.ballot,
        chosen=said.chosen,
        applied=said.applied,
        log_from=said.stored_from,
        lag=None if leader is None else max(0, leader.chosen - said.applied),
        keys=said.keys,
    )
