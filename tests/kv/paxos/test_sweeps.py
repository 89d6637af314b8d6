"""Seeds of misfortune: whatever breaks, replicas agree and clients see one order; afterwards the group goes
on."""

from functools import partial
from random import Random

import pytest

from kv.paxos import Settings
from tests.kv.paxos.chaos import Clerk, Deed, judge, mend, misfortune
from tests.kv.paxos.group import Agreement, Group
from underlay.clock import DeviceClock

SMALL_LOG = Settings(
    checkpoint_operations=30,
    checkpoint_entries=15,
    retained_entries=8,
    message_bytes_max=512,
    drift_ratio=0.02,
)
"""So that checkpoints, snapshots and chunks are met often."""


def clumsy_group(seed: int, size: int, settings: Settings) -> Group:
    """Replicas whose clocks disagree, and four clerks."""
    rng = Random(seed)
    names = [f"s{number}" for number in range(1, size + 1)]
    replicas = [f"{name}/g1" for name in names]
    drift_ppm = settings.drift_ratio * 1e6
    return Group(
        size,
        seed=seed,
        settings=settings,
        clocks={name: DeviceClock(rng.uniform(0, 5), rng.uniform(-drift_ppm, drift_ppm)) for name in names},
        clerks={f"w{number}": partial(Clerk, replicas, 2) for number in range(4)},
        disk_sync_ms=rng.choice([0.5, 5.0, 40.0]),
        check_codec=False,
    )


def deeds_of(group: Group) -> list[Deed]:
    deeds = []
    for name in group.clerks:
        clerk = group.world.node(f"{name}/clerk")
        assert isinstance(clerk, Clerk)
        clerk.stopped = True
        deeds += clerk.deeds
    return deeds


@pytest.mark.sweep(30)
def test_replicas_agree_and_clients_see_one_order(seed: int) -> None:
    rng = Random(seed)
    group = clumsy_group(seed, rng.choice([3, 3, 5]), rng.choice([SMALL_LOG, Settings(drift_ratio=0.02)]))
    agreement = Agreement(group)
    agreement.run(2.0)
    misfortune(group, rng, agreement, 20)
    mend(group)
    agreement.run(15.0)
    before = len([deed for deed in deeds_of(group) if deed.answered_s is not None])
    agreement.run(3.0)
    deeds = deeds_of(group)
    assert all(deed.answered_s is not None for deed in deeds), "a client waits still"
    assert before > 50
    (leader,) = group.leaders()
    states = [group.machine(name).records for name in group.names]
    assert all(state == states[0] for state in states), "a replica was not caught up"
    records = group.machine(leader).records
    judge(deeds, {key[1:]: value for key, value in records.items() if key.startswith(b"k")})
