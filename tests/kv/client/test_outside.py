"""The client for programs outside, with real hosts on loopback that die meanwhile."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path

import pytest

from kv.client.directory import CONTROLLER
from kv.client.outside import OutcomeUnknown, Page, Store, StoreFailed
from kv.client.patience import Patience
from kv.tiers import Kind, Tier, tier
from underlay.emulation.loopback import Hosts, Site, loopback_addresses
from underlay.node import Address, device_of
from underlay.plan import DevicePlan

FIRST = f"127.{1 + os.getpid() % 250}.{os.getpid() // 250 % 250}.101"
HOSTS = ("s1", "s2", "s3")


class Running:
    """A tier on loopback, and how to reach it."""

    def __init__(self, made: Tier, folder: Path) -> None:
        self.tier = made
        plans = made.nodes()
        self._addresses = loopback_addresses(made.hosts, FIRST)
        self._ports = {node.name: node.port for nodes in plans.values() for node in nodes}
        devices = {host: DevicePlan(nodes) for host, nodes in plans.items()}
        self.hosts = Hosts(Site(folder, devices, self._addresses))

    def locate(self, replica: Address) -> tuple[str, int] | None:
        device, _, node = replica.partition("/")
        return self._addresses[device], self._ports[node]

    def store(self, patience: Patience | None = None) -> Store:
        return Store(self.tier.directory(), self.locate, patience)

    def use(
        self, what: Callable[[Store], Coroutine[object, object, None]], patience: Patience | None = None
    ) -> None:
        async def main() -> None:
            async with self.store(patience) as store:
                await what(store)

        asyncio.run(main())


@pytest.fixture(params=["paxos", "sharded"])
def running(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Running]:
    kind: Kind = request.param
    made = Running(tier(kind, HOSTS, groups=2), tmp_path)
    with made.hosts:
        made.hosts.start()
        yield made


def test_every_call_does_what_it_says(running: Running) -> None:
    async def use(store: Store) -> None:
        assert await store.get(b"k") is None
        assert await store.set(b"k", b"v")
        assert not await store.set(b"k", b"w", only_if="NX")
        assert await store.append(b"k", b"w") == 2
        assert await store.get(b"k") == b"vw"
        assert await store.incr(b"n", 5) == 5
        assert await store.delete(b"n") == 1
        with pytest.raises(StoreFailed, match="not an integer"):
            await store.incr(b"k")
        keys = [b"obs:{cam1}:%03d" % number for number in range(25)]
        await asyncio.gather(*(store.set(key, key[-3:]) for key in keys))
        pages: list[Page] = []
        async for page in store.pages(b"obs:{cam1}:", b"obs:{cam1};", 10):
            pages.append(page)
            await store.set(b"obs:{cam1}:024", b"later")
        assert [len(page.items) for page in pages] == [10, 10, 5]
        assert {page.revision for page in pages} == {pages[0].revision}
        assert pages[-1].items[-1] == (keys[-1], b"024")
        large = [b"big:{large}:%d" % n for n in range(5)]
        for key in large:
            await store.set(key, key * 4000)
        found = [item async for page in store.pages(b"big:{large}:", b"big:{large};") for item in page.items]
        assert found == [(key, key * 4000) for key in large]
        assert sorted([key async for key in store.scan(b"obs:*", 7)]) == keys
        for group, replicas in store.directory.groups.items():
            told = [await store.status(replica) for replica in replicas]
            assert [status.group for status in told if status is not None] == [group] * 3
            assert "leader" in [status.role for status in told if status is not None]

    running.use(use)


def test_a_killed_leader_costs_time_and_nothing_else(running: Running) -> None:
    async def use(store: Store) -> None:
        for number in range(30):
            assert await store.append(b"k", b"%02d" % number) == 2 * number + 2
            if number == 10:
                reply = await store.do((b"GET", b"k"))
                running.hosts.kill(device_of(reply.replica))
        assert await store.get(b"k") == b"".join(b"%02d" % number for number in range(30))

    running.use(use, Patience(try_s=0.3))


def test_without_a_majority_nothing_is_promised(running: Running) -> None:
    async def use(store: Store) -> None:
        assert await store.set(b"k", b"v")
        for device in running.hosts.running[1:]:
            running.hosts.kill(device)
        with pytest.raises(OutcomeUnknown):
            await store.set(b"k", b"w")
        with pytest.raises(StoreFailed, match="TRYAGAIN"):
            await store.get(b"k")

    running.use(use, Patience(deadline_s=3.0, try_s=0.3))


def test_the_controller_is_a_group_of_its_own(tmp_path: Path) -> None:
    made = Running(tier("sharded", HOSTS, groups=2), tmp_path)

    async def use(store: Store) -> None:
        reply = await store.do((b"BH.MOVE", b"0-9", b"g2"), group=CONTROLLER)
        assert reply.outcome is not None
        assert reply.outcome.value == 2

    with made.hosts:
        made.hosts.start()
        made.use(use)
