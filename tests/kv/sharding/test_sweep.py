"""Groups of three by Paxos, slots on the move all the time, and everything that can go wrong meanwhile.

Safety is checked over what the clerks saw; when the faults are over, everything must settle and be served.
"""

from random import Random

import pytest

from kv.operations import Command
from kv.sharding.moves import Timings
from kv.slots import SLOTS
from tests.kv.sharding.service import Groups, Service, appends, keys_in
from underlay.faults import Crash, Heal, Partition, Restart
from underlay.simulation import Rule

HOSTS = [f"s{number}" for number in range(1, 6)]
GROUPS: Groups = {"g1": ["s1", "s2", "s3"], "g2": ["s2", "s3", "s4"], "g3": ["s4", "s5", "s1"]}
CONTROLLERS = ["s1", "s3", "s5"]
KEYS = keys_in(0, SLOTS - 1, 3, b"hot")
"""Three keys, in slots of different groups."""


def service(seed: int, **options: object) -> Service:
    """Five clerks on three keys."""
    return Service(
        *[appends(KEYS, 160)] * 5,
        groups=GROUPS,
        controllers=CONTROLLERS,
        seed=seed,
        pause_s=0.02,
        **options,  # type: ignore[arg-type]
    )


def changes(rng: Random, service: Service, count: int) -> list[Command]:
    """Joins, leaves and moves that make sense in this order; many of the hot slots."""
    here = dict.fromkeys(service.groups)
    found: list[Command] = []
    while len(found) < count:
        group = rng.choice(list(service.groups))
        kind = rng.random()
        if kind < 0.5 and group in here:
            first = rng.randrange(SLOTS)
            last = min(SLOTS - 1, first + rng.choice([0, 300, 8000]))
            found.append((b"BH.MOVE", b"%d-%d" % (first, last), group.encode()))
        elif group not in here:
            here[group] = None
            replicas = [replica.encode() for replica in service.groups[group]]
            found.append((b"BH.JOIN", group.encode(), *replicas))
        elif len(here) > 1 and kind < 0.8:
            del here[group]
            found.append((b"BH.LEAVE", group.encode()))
    return found


def trouble(rng: Random, service: Service, until_s: float) -> None:
    """Crashes, restarts, partitions and cuts, at most one of the five hosts down at a time."""
    world = service.world
    down: str | None = None
    while world.now < until_s:
        service.run(rng.uniform(0.1, 0.8))
        kind = rng.random()
        if down is not None and kind < 0.6:
            world.apply(Restart(down))
            down = None
        elif down is None and kind < 0.35:
            down = rng.choice(HOSTS)
            world.apply(Crash(down))
        elif kind < 0.7:
            apart = rng.sample(HOSTS, rng.choice([1, 2]))
            world.apply(Partition((tuple(apart),)))
        elif kind < 0.8:
            a, b = rng.sample(HOSTS, 2)
            world.carrier.cut([(a, b)])
        else:
            world.apply(Heal())
    world.apply(Heal())
    if down is not None:
        world.apply(Restart(down))


def check_all(service: Service, number: int) -> None:
    """The faults are over: it settles, every slot has one owner, every history has an explanation."""
    service.settle(number, wait_s=120.0)
    service.run(3.0)
    while any(clerk.pending for clerk in map(service.clerk, range(1, 6))):
        service.run(1.0)
        assert service.world.now < 300.0, service.describe()
    service.check_slots()
    service.check()


@pytest.mark.sweep(3)
def test_moves_without_faults(seed: int) -> None:
    rng = Random(seed)
    made = service(seed)
    made.settle(1)
    made.run(1.5)
    for command in changes(rng, made, 5):
        made.do(command, wait_s=30.0)
        made.run(rng.uniform(0.0, 1.0))
    check_all(made, 6)
    assert not [call for call in made.calls() if call.outcome is not None and call.outcome.failure]


@pytest.mark.timeout(120)
@pytest.mark.sweep(6)
def test_moves_with_crashes_and_partitions(seed: int) -> None:
    rng = Random(seed)
    made = service(seed, timings=Timings(chunk_bytes=rng.choice([600, 36 * 1024])))
    made.settle(1)
    made.run(1.0)
    made.order(*changes(rng, made, 6))
    trouble(rng, made, until_s=14.0)
    check_all(made, 7)


@pytest.mark.timeout(120)
@pytest.mark.sweep(4)
def test_moves_with_lost_requests_and_lost_replies(seed: int) -> None:
    rng = Random(seed)
    rules = [
        Rule(
            source="clerk*", lost_ratio=0.1, duplicated_ratio=0.1, delayed_ratio=0.1, delay_s=1.0, to_s=14.0
        ),
        Rule(target="clerk*", lost_ratio=0.18, to_s=14.0),
        Rule(source="s*", lost_ratio=0.03, duplicated_ratio=0.03, delayed_ratio=0.05, delay_s=0.4, to_s=14.0),
    ]
    made = service(seed, tamper=rules, timings=Timings(chunk_bytes=rng.choice([600, 36 * 1024])))
    made.settle(1)
    made.run(1.0)
    made.order(*changes(rng, made, 6))
    trouble(rng, made, until_s=14.0)
    check_all(made, 7)
