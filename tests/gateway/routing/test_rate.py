"""The token bucket: what it lets through, and when."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.routing.rate import Bucket


@pytest.mark.parametrize(
    ("rate_per_s", "burst", "asked_s", "through"),
    [
        pytest.param(1.0, None, [0, 0, 0.9, 1, 1.5, 2], [0, 1, 2], id="one a second"),
        pytest.param(2.0, 1, [0, 0.5, 0.7, 1], [0, 0.5, 1], id="evenly spaced"),
        pytest.param(2.0, None, [0, 0, 0, 0.5], [0, 0, 0.5], id="the burst is a second's worth"),
        pytest.param(0.1, None, [0, 5, 9.9, 10, 19, 20], [0, 10, 20], id="and one at least"),
        pytest.param(1.0, 3, [0, 0, 0, 0], [0, 0, 0], id="a burst of one's own"),
        pytest.param(1.0, 3, [0, 0, 0, 100, 100, 100, 100], [0, 0, 0, 100, 100, 100], id="no larger later"),
        pytest.param(3.0, 1, [0, 1 / 3, 2 / 3, 1], [0, 1 / 3, 2 / 3, 1], id="fractions add up"),
        pytest.param(1.0, 1, [10, 4, 4.5, 5], [10, 5], id="a clock that was set back starts anew"),
    ],
)
def test_what_is_let_through(
    rate_per_s: float, burst: int | None, asked_s: list[float], through: list[float]
) -> None:
    bucket = Bucket(rate_per_s, burst)
    assert [at_s for at_s in asked_s if bucket.take(at_s)] == through


def test_what_was_taken_for_nothing_can_be_given_back_up_to_the_burst() -> None:
    bucket = Bucket(1.0, 2)
    assert (bucket.take(0.0), bucket.take(0.0), bucket.available(0.0)) == (True, True, 0)
    bucket.give_back(5)
    assert bucket.available(0.0) == 2


@given(st.floats(0.01, 1000.0), st.integers(1, 50), st.lists(st.floats(0.0, 5.0), max_size=50))
def test_never_more_than_the_rate_and_a_burst_and_never_later_than_it_says(
    rate_per_s: float, burst: int, pauses_s: list[float]
) -> None:
    bucket, now, taken = Bucket(rate_per_s, burst), 0.0, 0
    for pause_s in pauses_s:
        now += pause_s
        while bucket.take(now):
            taken += 1
        wait_s = bucket.wait_s(now)
        assert wait_s > 0.0
        assert bucket.available(now + wait_s + 1e-6) >= 1
        now += wait_s + 1e-6
    assert taken <= burst + now * rate_per_s + 1e-3
