"""Ways to a store that runs: a client of our own, by the folder that is served or by hosts' addresses.

Owns finding out whom to ask. Every call of this package opens one client and closes it again.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar

import msgspec

from kv.client import Directory, Patience, Sharded, Static
from kv.client.outside import Store
from kv.messages import Status
from kv.tiers import CONTROLLER, port_of
from topologies.kv_service.service import load
from underlay.errors import RunFailed
from underlay.node import Address, address

Where = Path | Mapping[str, str]
"""The folder that is served; or IP addresses of storage hosts by their names, as many as you know."""

DEADLINE_S = 10.0
"""Of a call, unless the caller says otherwise."""
_TRY_S = 0.5
"""Longer than a host of this machine, or of a local network, ever takes."""

_LEARN_S = 3.0

T = TypeVar("T")


class Reached(msgspec.Struct, frozen=True):
    """A client, and what is known of the store."""

    store: Store
    replicas: tuple[Address, ...]
    """All that should be there, the controller's among them."""

    async def statuses(self) -> dict[Address, Status | None]:
        """How all of them are; None: does not answer."""
        return await asked(self.store, self.replicas)


def use(
    where: Where, what: Callable[[Reached], Awaitable[T]], deadline_s: float = DEADLINE_S, lanes: int = 1
) -> T:
    """Open a client, do something with it, and close it."""

    async def main() -> T:
        async with reached(where, deadline_s, lanes) as client:
            return await what(client)

    return asyncio.run(main())


@asynccontextmanager
async def reached(where: Where, deadline_s: float = DEADLINE_S, lanes: int = 1) -> AsyncIterator[Reached]:
    """A client of the store. Raises InputError where there is none, RunFailed where nobody answers."""
    patience = Patience(deadline_s=deadline_s, try_s=_TRY_S)
    if isinstance(where, Path):
        service = load(where)
        made = service.tier
        everybody = {*made.controller, *made.replaces, *(a for group in made.groups.values() for a in group)}
        present = tuple(replica for replica in sorted(everybody) if replica.partition("/")[0] in made.hosts)
        async with Store(made.directory(), service.locate, patience, lanes=lanes) as store:
            yield Reached(store, present)
    else:
        directory, replicas = await _found(where)
        async with Store(directory, _locator(where), patience, lanes=lanes) as store:
            yield Reached(store, replicas)


async def asked(store: Store, replicas: tuple[Address, ...]) -> dict[Address, Status | None]:
    """How these replicas are; None: does not answer."""
    found = await asyncio.gather(*(store.status(replica) for replica in replicas))
    return dict(zip(replicas, found, strict=True))


# ---------------------------------------------------------------------------------------------------- helpers


def _locator(hosts: Mapping[str, str]) -> Callable[[Address], tuple[str, int] | None]:
    def locate(replica: Address) -> tuple[str, int] | None:
        host, _, node = replica.partition("/")
        return (hosts[host], port_of(node)) if host in hosts else None

    return locate


async def _found(hosts: Mapping[str, str]) -> tuple[Directory, tuple[Address, ...]]:
    """What the hosts are part of: every one is asked for a replica of the controller, and of group 1."""
    for group in (CONTROLLER, "g1"):
        replicas = tuple(address(host, group) for host in hosts)
        async with Store(Static(replicas), _locator(hosts), Patience(try_s=_TRY_S)) as store:
            statuses = [status for status in (await asked(store, replicas)).values() if status is not None]
            members = next((status.members for status in statuses if status.members), ())
            if members and group == CONTROLLER:
                directory = Sharded(members)
                await _learn(Store(directory, _locator(hosts), Patience(try_s=_TRY_S)))
                groups = directory.groups.values()
                return directory, (*members, *(replica for group in groups for replica in group))
            if members:
                return Static(members), members
    raise RunFailed(f"none of {', '.join(hosts)} has a replica that answers")


async def _learn(store: Store) -> None:
    """Have the directory ask for the configuration."""
    async with store:
        await store.do((b"EXISTS", b""), stale=True, deadline_s=_LEARN_S)
