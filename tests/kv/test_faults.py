"""Every kind of service under every kind of fault: what its clients saw must be linearizable, and go on."""

from __future__ import annotations

import pytest

from tests.kv.cluster import CALM_S, Cluster, Mover


@pytest.mark.sweep(5)
def test_a_group_of_one_is_linearizable(seed: int) -> None:
    Cluster("solo", seed).check()


@pytest.mark.sweep(30, fresh=10)
def test_paxos_is_linearizable(seed: int) -> None:
    Cluster("paxos", seed).check()


@pytest.mark.sweep(10, fresh=5)
def test_paxos_of_five_is_linearizable(seed: int) -> None:
    Cluster("paxos", seed, hosts=5).check()


@pytest.mark.sweep(30, fresh=10)
def test_paxos_is_linearizable_though_requests_and_replies_are_lost(seed: int) -> None:
    Cluster("paxos", seed, lossy=True).check()


@pytest.mark.sweep(25, fresh=10)
def test_primary_and_backup_are_linearizable(seed: int) -> None:
    Cluster("primary-backup", seed).check()


@pytest.mark.sweep(25, fresh=10)
def test_primary_and_backup_are_linearizable_though_requests_and_replies_are_lost(seed: int) -> None:
    Cluster("primary-backup", seed, lossy=True).check()


@pytest.mark.sweep(25, fresh=10)
def test_shards_that_move_are_linearizable(seed: int) -> None:
    cluster = Cluster("sharded", seed, hosts=5)
    cluster.check()
    mover = cluster.world.node("mover/mover")
    assert isinstance(mover, Mover)
    assert mover.moves > 0


@pytest.mark.sweep(25, fresh=10)
def test_shards_that_move_are_linearizable_though_requests_and_replies_are_lost(seed: int) -> None:
    Cluster("sharded", seed, hosts=5, lossy=True).check()


def test_the_same_seed_is_the_same_history() -> None:
    first, second = Cluster("paxos", 3), Cluster("paxos", 3)
    for cluster in (first, second):
        cluster.world.run_until(CALM_S)
    assert first.history() == second.history() != []
