"""A slice of `bench/gossip.py`: the numbers asked of gossip among 25 nodes hold in every run of the tests."""

from __future__ import annotations

import pytest

from bench.gossip import broadcast, crashes


@pytest.mark.sweep(1)
def test_thirty_messages_a_broadcast_and_half_a_second(seed: int) -> None:
    """25 nodes, 100 ms one way, 10 broadcasts/s for 60 s, everything counted."""
    numbers = broadcast(seed)
    assert numbers["messages"] <= 30
    assert numbers["median_ms"] <= 500.1
    assert numbers["p99_ms"] <= 650
    assert numbers["eager"] <= 8
    assert not numbers["undelivered"]


@pytest.mark.sweep(1)
@pytest.mark.timeout(300)
def test_five_crashes_leave_everybody_with_everything_within_2_s(seed: int) -> None:
    """The five most loaded nodes, and some choices of five."""
    assert [run for run in crashes(seed, 13) if run[0] > 2.0] == []
