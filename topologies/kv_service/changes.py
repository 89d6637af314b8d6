"""Changes of a store that runs: slots that move, groups that come and go, a host in another's place.

Owns the order of steps; each is safe to repeat, so a call that was interrupted is simply made again. That a
host is started, started anew or stopped is `serving`'s doing: this writes what is wanted and waits until the
replicas say that it is so.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from time import monotonic

import msgspec

from kv.client.outside import StoreFailed, value_of
from kv.operations import Command
from kv.sharding.config import Configuration, read_ranges
from kv.tiers import CONTROLLER, Tier
from topologies.kv_service.reach import Reached, Where, use
from topologies.kv_service.service import HOSTS_MAX, changing, host_named, load, number_of, save
from topologies.kv_service.status import StoreStatus, look
from underlay.errors import InputError, RunFailed
from underlay.node import address

DEADLINE_S = 60.0
"""For all steps together, unless the caller says otherwise."""
_LOOK_S = 0.1


def move(where: Where, slots: str, group: str, *, deadline_s: float = DEADLINE_S) -> int:
    """Have a group take these slots (`"0-99,512"`) over; returns when they are there.

    Returns the number of the configuration. Raises InputError, or RunFailed after the deadline: then they
    are still on their way.
    """
    read_ranges(slots)
    return use(
        where, lambda client: _change(client, (b"BH.MOVE", slots.encode(), group.encode()), deadline_s)
    )


def join(where: Where, group: str, hosts: Sequence[str], *, deadline_s: float = DEADLINE_S) -> int:
    """Have a group on these hosts take its share of the slots from the others; returns when it has them.

    By its folder, a store gets the hosts that it has not yet, and those that it has get the replica: they are
    started anew for that, one after another. Without it, the replicas must run already. Returns and raises
    as `move`.
    """
    replicas = [address(host, group).encode() for host in hosts]
    if isinstance(where, Path):
        _edit(where, lambda tier: _with_group(tier, group, hosts))

    async def call(client: Reached) -> int:
        until_s = monotonic() + deadline_s
        await _until(client, until_s, f"no replica of {group} leads", lambda now: _leads(now, group))
        return await _change(client, (b"BH.JOIN", group.encode(), *replicas), until_s - monotonic())

    return use(where, call)


def leave(where: Where, group: str, *, deadline_s: float = DEADLINE_S) -> int:
    """Have a group give all its slots to the others; returns when they have them. Its replicas stay, empty,
    and it may join again. Returns and raises as `move`."""
    return use(where, lambda client: _change(client, (b"BH.LEAVE", group.encode()), deadline_s))


def replace(folder: Path, old: str, new: str | None = None, *, deadline_s: float = DEADLINE_S) -> str:
    """Put a new host in the place of one that is dead, or is to go: every replica there gets a successor,
    which catches up from the others and then has its vote. Returns the new host's name.

    Args:
        new: default: the first name that was never used.

    Raises InputError where that is not possible, and RunFailed after the deadline; calling it again goes on.
    """
    service = load(folder)
    began = {after: before for after, before in service.tier.replaces.items() if before.startswith(f"{old}/")}
    if new is None:
        new = next((after.partition("/")[0] for after in began), None) or _unused(folder, service.tier)
    number_of(new)
    if not any(after.startswith(f"{new}/") for after in began):
        if (folder / new).exists():
            raise InputError(f"{new} has been here before", file=folder / new, hint="take another name")
        _edit(folder, lambda tier: tier.replacing(old, new))
    made = load(folder).tier
    places = {after.partition("/")[2] for after in made.replaces if after.startswith(f"{new}/")}
    use(folder, lambda client: _admitted(client, new, places, deadline_s))
    if old in made.hosts:
        _edit(folder, lambda tier: tier.replaced(old, new))
    if made.kind == "sharded":
        groups = load(folder).tier.groups
        use(folder, lambda client: _tell(client, {g: groups[g] for g in sorted(places - {CONTROLLER})}))
    return new


# ---------------------------------------------------------------------------------------------------- helpers


def _edit(folder: Path, change: Callable[[Tier], Tier]) -> None:
    """Say what is wanted from now on."""
    with changing(folder):
        service = load(folder)
        save(folder, msgspec.structs.replace(service, tier=change(service.tier)))


def _with_group(tier: Tier, group: str, hosts: Sequence[str]) -> Tier:
    for host in hosts:
        number_of(host)
    if tuple(address(host, group) for host in hosts) == tier.groups.get(group):
        return tier
    if group in tier.groups:
        has = ", ".join(replica.partition("/")[0] for replica in tier.groups[group])
        raise InputError(f"{group} is on {has} already", hint="`birdhouse kv replace` changes hosts")
    return tier.with_group(group, hosts)


def _unused(folder: Path, tier: Tier) -> str:
    names = (host_named(number) for number in range(1, HOSTS_MAX + 1))
    name = next((name for name in names if name not in tier.hosts and not (folder / name).exists()), None)
    if name is None:
        raise InputError(f"all {HOSTS_MAX} names of hosts are used")
    return name


async def _change(client: Reached, command: Command, deadline_s: float) -> int:
    """Have the controller decide, and wait until the groups have done what it says."""
    until_s = monotonic() + deadline_s
    number = await _decided(client, command)
    before, after = [await _configuration(client, b"%d" % n) for n in (number - 1, number)]
    groups = {**before.groups, **after.groups}
    client = Reached(client.store, tuple(a for replicas in groups.values() for a in replicas))

    def done(now: StoreStatus) -> bool:
        return all(group.settled and (group.configuration or 0) >= number for group in now.groups)

    await _until(client, until_s, f"configuration {number} is decided, and its slots are on their way", done)
    return number


async def _decided(client: Reached, command: Command) -> int:
    if not client.store.directory.replicas(CONTROLLER):
        raise InputError("the store is one group, and has no slots to move", hint="--kind sharded has")
    try:
        number = value_of(await client.store.do(command, group=CONTROLLER))
    except StoreFailed as error:
        if str(error).startswith("ERR "):
            raise InputError(str(error).removeprefix("ERR ")) from error
        raise
    assert isinstance(number, int)
    return number


async def _configuration(client: Reached, *number: bytes) -> Configuration:
    """The one of that number, or the latest."""
    answer = value_of(await client.store.do((b"BH.QUERY", *number), group=CONTROLLER))
    assert isinstance(answer, bytes)
    return Configuration.decode(answer)


async def _until(client: Reached, until_s: float, problem: str, done: Callable[[StoreStatus], bool]) -> None:
    while not done(await look(client)):
        if monotonic() > until_s:
            raise RunFailed(f"{problem} (`birdhouse kv status` shows how it goes on)")
        await asyncio.sleep(_LOOK_S)


def _leads(now: StoreStatus, group: str) -> bool:
    return any(each.group == group and each.leader for each in now.groups)


async def _admitted(client: Reached, new: str, groups: set[str], deadline_s: float) -> None:
    """Wait until the newcomer's replicas have their votes."""

    def done(now: StoreStatus) -> bool:
        voting = {each.group for each in now.groups if new in each.members}
        return groups <= voting

    await _until(client, monotonic() + deadline_s, f"{new} has not caught up with all its groups yet", done)


async def _tell(client: Reached, groups: dict[str, tuple[str, ...]]) -> None:
    """Tell the controller of the present replicas of the groups that have joined; no slot moves for that."""
    joined = (await _configuration(client)).groups
    for group, replicas in groups.items():
        if group in joined:
            await _decided(client, (b"BH.JOIN", group.encode(), *(replica.encode() for replica in replicas)))
