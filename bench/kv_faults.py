"""The storage tier in trouble, on loopback: how long it is away, and what it keeps.

- Its leader is killed, again and again: from SIGKILL to the next acknowledged write.
- A million writes to a thousand keys: what every host has in memory and on its disk meanwhile; then a host is
  killed and started, and then all are.
- Ten thousand keys move from one group to another while clients read and write them.

    `python -m bench.kv_faults [--kills N] [--writes N] [--folder PATH]`
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from random import Random
from statistics import median

from bench.kv_clusters import HOSTS, SETTINGS, Load, Ours, file_system, missing_programs, running
from kv.client.directory import CONTROLLER
from kv.client.outside import Store, StoreFailed, value_of
from kv.client.patience import Patience
from kv.messages import Status
from kv.paxos import Settings
from kv.tiers import tier
from underlay.node import Address

EAGER = Patience(pause_s_max=0.02)
"""Of a client that finds out when the store is back."""

SAMPLES = 10
RESTART_S_MAX = 2.0

MOVED_KEYS, TAGS = 10_000, 400
"""Keys that move, and the slots they are in."""
WORKERS = 32
PAUSE_MS_MAX = 300.0

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


# ------------------------------------------------------------------------------------------------------ kills


def kill_leaders(folder: Path, settings: Settings, kills: int) -> tuple[list[float], list[float]]:
    """Seconds from each kill to the first write after it that is acknowledged, in order: to a client that
    asks all the time, and to one that pauses between its tries as clients do."""
    eager_s, usual_s = list[float](), list[float]()
    with running(tier("paxos", HOSTS, settings=settings), folder) as ours:
        for _ in range(kills):
            leader = ours.leader()
            ours.hosts.kill(leader)
            first_s, second_s = asyncio.run(_return_of(ours))
            eager_s.append(first_s)
            usual_s.append(second_s)
            ours.hosts.start(leader)
            time.sleep(2 * settings.election_timeout_s)  # it may have to keep silent for one
    return sorted(eager_s), sorted(usual_s)


async def _return_of(ours: Ours) -> tuple[float, float]:
    return await asyncio.gather(_write(ours, EAGER), _write(ours, Patience()))


async def _write(ours: Ours, patience: Patience) -> float:
    began_s = time.monotonic()
    async with ours.store(patience) as store:
        await store.set(b"key", b"value")
    return time.monotonic() - began_s


# --------------------------------------------------------------------------------------- growth, and restarts


def grow(folder: Path, writes: int) -> None:
    """Print what hosts hold as writes go on, and how long they take to be back."""
    with running(tier("paxos", HOSTS, settings=SETTINGS), folder) as ours:
        print("  writes so far   log entries    memory MB      disk MB   (of the host that has most)")
        for number in range(SAMPLES + 1):
            if number:
                ours.measure(Load(64, writes // SAMPLES, pipeline=16, keys=1000))
            status = _status(ours, ours.leader())
            entries = status.chosen - status.stored_from + 1
            memory_mb = max(_memory_bytes(ours.hosts.pid(host)) for host in HOSTS) / 1e6
            disk_mb = max(_disk_bytes(folder / host) for host in HOSTS) / 1e6
            done = number * (writes // SAMPLES)
            print(f"  {done:13,} {entries:13,} {memory_mb:12.1f} {disk_mb:12.1f}", flush=True)
        leader = ours.leader()
        chosen = _status(ours, leader).chosen
        follower = next(host for host in HOSTS if host != leader)
        one_s = _restarted(ours, (follower,), chosen)
        all_s = _restarted(ours, HOSTS, chosen)
        verdict = _met(max(one_s, all_s) < RESTART_S_MAX)
        print(f"  restart: one host has everything again after {one_s:.2f} s, all three after {all_s:.2f} s ")
        print(f"  (less than {RESTART_S_MAX:g}: {verdict})")


def _restarted(ours: Ours, hosts: Sequence[str], chosen: int) -> float:
    """Kill hosts and start them: how long until the last has executed everything that was chosen before."""
    for host in hosts:
        ours.hosts.kill(host)
    began_s = time.monotonic()
    ours.hosts.start(*hosts)
    while any(_status(ours, host).applied < chosen for host in hosts):
        time.sleep(0.01)
    return time.monotonic() - began_s


def _status(ours: Ours, host: str) -> Status:
    async def ask() -> Status:
        async with ours.store() as store:
            while (status := await store.status(f"{host}/g1")) is None:
                pass
            return status

    return asyncio.run(ask())


def _memory_bytes(pid: int) -> int:
    """Resident, and its own."""
    _, resident, shared, *_ = Path(f"/proc/{pid}/statm").read_text().split()
    return (int(resident) - int(shared)) * _PAGE_BYTES


def _disk_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir())


# ------------------------------------------------------------------------------------------------------ moves


async def move(ours: Ours, seed: int) -> tuple[float, list[float], list[str]]:
    """Move all keys under load: how long that took, how long each operation took meanwhile in milliseconds,
    and what failed."""
    keys = [b"{%d}%d" % (tag, number) for tag in range(TAGS) for number in range(MOVED_KEYS // TAGS)]
    times_ms, failures = list[float](), list[str]()
    async with ours.store() as store, ours.store() as admin:
        await _give(admin, "g1", ours.tier.groups["g1"])
        for at in range(0, len(keys), 500):
            await asyncio.gather(*(store.set(key, b"v" * 100) for key in keys[at : at + 500]))
        moving = True

        async def work(rng: Random) -> None:
            while moving:
                key = rng.choice(keys)
                began_s = time.monotonic()
                try:
                    await (store.append(key, b"+") if rng.random() < 0.5 else store.get(key))
                except StoreFailed as error:
                    failures.append(str(error))
                times_ms.append((time.monotonic() - began_s) * 1e3)

        workers = [asyncio.create_task(work(Random(f"{seed}/{number}"))) for number in range(WORKERS)]
        await asyncio.sleep(1.0)
        times_ms.clear()
        began_s = time.monotonic()
        await _give(admin, "g2", ours.tier.groups["g2"])
        took_s = time.monotonic() - began_s
        moving = False
        await asyncio.gather(*workers)
    return took_s, sorted(times_ms), failures


async def _give(admin: Store, group: str, replicas: Sequence[Address]) -> None:
    """Have a group get all slots; returns when it has them."""
    value_of(await admin.do((b"BH.MOVE", b"0-16383", group.encode()), group=CONTROLLER))
    while True:
        for replica in replicas:
            status = await admin.status(replica)
            if status is not None and status.slots == ((0, 16383),):
                return
        await asyncio.sleep(0.02)


# ---------------------------------------------------------------------------------------------------- helpers


def _quantile(ordered: Sequence[float], share: float) -> float:
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def _met(well: bool) -> str:
    return "met" if well else "missed"


def main() -> int:
    """Print all three."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--writes", type=int, default=1_000_000)
    parser.add_argument("--folder", type=Path, default=None, help="where the hosts keep their data")
    arguments = parser.parse_args()
    if missing := missing_programs():
        print(f"not installed: {', '.join(missing)}", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory(prefix="bench-kv-", dir=arguments.folder) as scratch:
        print(f"{os.cpu_count()} cores, {file_system(Path(scratch))}")
        folder = Path(scratch)
        for settings in (Settings(), SETTINGS):
            timeout_s = settings.election_timeout_s
            eager_s, usual_s = kill_leaders(folder / f"kills-{timeout_s}", settings, arguments.kills)
            p99_s = _quantile(eager_s, 0.99)
            print(
                f"election timeout {timeout_s:g} s, leader killed {len(eager_s)} times: writes again after "
                f"{median(eager_s):.2f} s (median), {p99_s:.2f} s (p99; at most two timeouts: "
                f"{_met(p99_s <= 2 * timeout_s)}); for a client that pauses between its tries "
                f"{median(usual_s):.2f} s and {_quantile(usual_s, 0.99):.2f} s",
                flush=True,
            )
        print(f"{arguments.writes:,} writes to 1,000 keys:")
        grow(folder / "growth", arguments.writes)
        with running(tier("sharded", HOSTS, groups=2, settings=SETTINGS), folder / "move") as ours:
            took_s, times_ms, failures = asyncio.run(move(ours, seed=1))
        print(
            f"{MOVED_KEYS:,} keys moved in {took_s:.1f} s during {len(times_ms):,} operations of {WORKERS} "
            f"clients: {len(failures)} failed (none: {_met(not failures)}); p50 {median(times_ms):.1f} ms, "
            f"longest {times_ms[-1]:.0f} ms (at most {PAUSE_MS_MAX:g}: {_met(times_ms[-1] <= PAUSE_MS_MAX)})"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
