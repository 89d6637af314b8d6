"""Real processes on loopback, killed again and again under load: what was acknowledged is there, once."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path
from time import monotonic

import msgspec
import pytest

from kv.checking.history import Call
from kv.checking.linearizability import find_violation
from kv.client.outside import OutcomeUnknown, Store, StoreFailed
from kv.client.patience import Patience
from kv.operations import Command, Outcome
from kv.tiers import Kind, tier
from tests.kv.client.test_outside import HOSTS, Running
from tests.kv.cluster import HOT_KEYS, mixed

CLIENTS = 5
ROUNDS = 4
PATIENCE = Patience(deadline_s=20.0, try_s=0.5)


class Recorder:
    """A client with a session of its own that does one random thing after another, and keeps what it saw."""

    def __init__(self, name: str, seed: int) -> None:
        self.calls: list[Call] = []
        self._name = name
        self._rng = random.Random(f"{seed}, {name}")
        self._number = 0

    async def work(self, store: Store, stopped: asyncio.Event) -> None:
        while not stopped.is_set():
            self._number += 1
            command: Command = mixed(self._rng, b"<%s-%d>" % (self._name.encode(), self._number))
            call = Call(self._name, command, monotonic())
            try:
                reply = await store.do(command)
            except OutcomeUnknown:
                self.calls.append(call)
                continue
            except StoreFailed:
                continue  # nothing happened
            outcome = reply.outcome or Outcome()
            self.calls.append(msgspec.structs.replace(call, returned_s=monotonic(), outcome=outcome))
            await asyncio.sleep(self._rng.uniform(0.0, 0.02))


async def ordeal(running: Running, seed: int) -> list[Call]:
    """Clients work while one host after another is killed, and started again; what they saw."""
    rng, stopped = random.Random(seed), asyncio.Event()
    recorders = [Recorder(f"c{number}", seed) for number in range(CLIENTS)]
    stores = [running.store(PATIENCE) for _ in recorders]
    for store in stores:
        await store.__aenter__()
    try:
        for key in HOT_KEYS:
            await stores[0].delete(key)
        pairs = zip(recorders, stores, strict=True)
        work = [asyncio.create_task(recorder.work(store, stopped)) for recorder, store in pairs]
        for _ in range(ROUNDS):
            await asyncio.sleep(rng.uniform(0.3, 1.2))
            host = rng.choice(HOSTS)
            running.hosts.kill(host)
            await asyncio.sleep(rng.uniform(0.0, 1.5))
            await asyncio.to_thread(running.hosts.start, host)
        before = sum(len(recorder.calls) for recorder in recorders)
        while sum(len(recorder.calls) for recorder in recorders) < before + 20 * CLIENTS:
            await asyncio.sleep(0.05)  # it goes on
        stopped.set()
        await asyncio.gather(*work)
    finally:
        for store in stores:
            await store.__aexit__(None, None, None)
    return [call for recorder in recorders for call in recorder.calls]


@pytest.mark.timeout(120)
@pytest.mark.sweep(1)
@pytest.mark.parametrize("kind", ["paxos", "sharded", "primary-backup"])
def test_histories_are_linearizable_though_processes_are_killed(
    kind: Kind, seed: int, tmp_path: Path
) -> None:
    running = Running(tier(kind, HOSTS, groups=2, replicas=2 if kind == "primary-backup" else 3), tmp_path)
    with running.hosts:
        running.hosts.start()
        history = asyncio.run(ordeal(running, seed))
    assert len(history) > 50 * CLIENTS
    assert sum(call.returned_s is not None for call in history) > 0.9 * len(history)
    violation = find_violation(history)
    assert violation is None, violation
