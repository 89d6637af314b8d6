"""Gini's coefficient and Jain's index against their definitions."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from topologies.metrics.balance import gini, jain, max_over_mean

loads = st.lists(st.integers(0, 10_000), min_size=1, max_size=30)


@pytest.mark.parametrize(
    ("values", "expected_gini", "expected_jain", "expected_max"),
    [
        pytest.param([5, 5, 5], 0.0, 1.0, 1.0, id="all alike"),
        pytest.param([0, 0, 0, 8], 0.75, 0.25, 4.0, id="all at one of four"),
        pytest.param([1, 3], 0.25, 0.8, 1.5, id="one and three"),
        pytest.param([0, 0], None, None, None, id="nothing at all"),
    ],
)
def test_by_hand(
    values: list[int], expected_gini: float | None, expected_jain: float | None, expected_max: float | None
) -> None:
    found = (gini(values), jain(values), max_over_mean(values))
    assert found == pytest.approx((expected_gini, expected_jain, expected_max))


@given(loads)
def test_gini_is_half_the_relative_mean_difference(values: list[int]) -> None:
    found, n = gini(values), len(values)
    if found is None:
        assert not any(values)
    else:
        differences = sum(abs(a - b) for a in values for b in values)
        assert found == pytest.approx(differences / (2 * n * sum(values)))


@given(loads)
def test_jain_lies_between_one_at_all_and_all_alike(values: list[int]) -> None:
    found = jain(values)
    assert found is None or 1 / len(values) - 1e-9 <= found <= 1 + 1e-9
