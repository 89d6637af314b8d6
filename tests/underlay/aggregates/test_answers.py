"""What aggregates finish with, beside what is known to be right."""

from __future__ import annotations

import statistics
from fractions import Fraction
from math import isclose, sqrt

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from underlay.aggregates import (
    Aggregate,
    Count,
    Distinct,
    First,
    Gaps,
    Histogram,
    Last,
    Mean,
    MinMax,
    Quantile,
    Sum,
    TopK,
    Unsuitable,
    Variance,
)
from underlay.aggregates.windows import Windows, duration_s

NUMBERS = st.one_of(st.integers(-(2**60), 2**60), st.floats(-1e100, 1e100))


def answer(aggregate: Aggregate, values: list) -> object:  # type: ignore[type-arg]
    return aggregate.finish(aggregate.add_many(aggregate.zero(), values))


@given(st.lists(NUMBERS, min_size=2, max_size=20))
def test_sums_means_and_variances_are_the_exact_ones_rounded_once(values: list[float]) -> None:
    exact = [Fraction(value) for value in values]
    total = sum(exact)
    assert answer(Sum(), values) == (int(total) if total.denominator == 1 else float(total))
    assert answer(Mean(), values) == float(total / len(values))
    assert answer(Variance(), values) == float(statistics.variance(exact))


def test_a_deviation_is_the_variances_root() -> None:
    assert answer(Variance(deviation=True), [1, 2, 3, 4]) == sqrt(Fraction(5, 3))


@given(st.lists(st.floats(-1e9, 1e9), min_size=1, max_size=60), st.floats(0, 1))
def test_a_quantile_is_within_its_relative_error(values: list[float], q: float) -> None:
    assume(all(value == 0 or abs(value) > 1e-200 for value in values))
    right = sorted(values)[int(q * (len(values) - 1))]
    found = answer(Quantile(q, 0.01), values)
    assert isinstance(found, float)
    assert isclose(found, right, rel_tol=0.0101), (found, right)


@pytest.mark.parametrize("count", [0, 1, 100, 3000, 100_000])
def test_distinct_is_within_four_standard_errors(count: int) -> None:
    distinct = Distinct()
    found = answer(distinct, [f"device {n}" for n in range(count)])
    assert isinstance(found, int)
    assert abs(found - count) <= 4 * distinct.standard_error * count


@pytest.mark.parametrize(
    ("aggregate", "values", "right"),
    [
        pytest.param(Count(), ["a", "b"], 2, id="a count"),
        pytest.param(MinMax(), [3, -1, 2.5], {"min": -1, "max": 3}, id="extremes"),
        pytest.param(MinMax(), [], None, id="the extremes of nothing"),
        pytest.param(Mean(), [], None, id="the mean of nothing"),
        pytest.param(Variance(), [1], None, id="the variance of one"),
        pytest.param(TopK(2), ["b", "a", "b", "c", "a"], [["a", 2], ["b", 2]], id="ties go by the item"),
        pytest.param(TopK(1, weighted=True), [("x", 2), ("y", 3)], [["y", 3]], id="weights"),
        pytest.param(First(), [(2, "b"), (1, "a")], "a", id="the first"),
        pytest.param(Last(), [(2, "b"), (1, "a")], "b", id="the last"),
        pytest.param(
            Gaps(),
            [3, 5, 5, 8],
            {"first": 3, "last": 8, "seen": 3, "missing": 3, "repeated": 1},
            id="gaps and repetitions",
        ),
        pytest.param(
            Histogram([0, 10]),
            [-1, 0, 9.9, 10],
            [
                {"from": None, "to": 0, "count": 1},
                {"from": 0, "to": 10, "count": 2},
                {"from": 10, "to": None, "count": 1},
            ],
            id="an edge belongs above",
        ),
    ],
)
def test_answers(aggregate: Aggregate, values: list, right: object) -> None:  # type: ignore[type-arg]
    assert answer(aggregate, values) == right


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "3", None, [1]], ids=repr)
@pytest.mark.parametrize(
    "aggregate", [Sum(), Mean(), Variance(), MinMax(), Quantile(0.5), Histogram([0])], ids=repr
)
def test_what_is_no_number_is_refused(aggregate: Aggregate, value: object) -> None:  # type: ignore[type-arg]
    with pytest.raises(Unsuitable, match="number"):
        aggregate.add(aggregate.zero(), value)


@pytest.mark.parametrize(
    ("windows", "t_s", "starts"),
    [
        pytest.param(Windows.of("1h"), 3600.0, (3600,), id="a start belongs to its window"),
        pytest.param(Windows.of("1h"), 3599.999, (0,), id="an end does not"),
        pytest.param(Windows.of("1h"), -1.0, (-3600,), id="before the epoch"),
        pytest.param(Windows.of("10s", "5s"), 12.0, (10, 5), id="sliding windows overlap"),
        pytest.param(Windows.of(0.5), 1.2, (1,), id="whole starts are ints"),
    ],
)
def test_windows(windows: Windows, t_s: float, starts: tuple[float, ...]) -> None:
    assert windows.starts(t_s) == starts


@given(st.floats(-1e10, 1e10), st.sampled_from([0.1, 1.0, 7.0, 3600.0]), st.integers(1, 5))
def test_a_moment_is_in_as_many_windows_as_overlap(t_s: float, slide_s: float, overlap: int) -> None:
    windows = Windows(slide_s * overlap, slide_s)
    starts = windows.starts(t_s)
    assert all(start <= t_s < start + windows.size_s for start in starts)
    assert len(set(starts)) == len(starts)
    assert abs(len(starts) - overlap) <= (0 if slide_s >= 1 else 1)


def test_a_window_is_open_until_the_newest_event_is_late_enough() -> None:
    windows = Windows.of("1h", lateness="10min")
    assert windows.is_open(0, 3600 + 599)
    assert not windows.is_open(0, 3600 + 600)
    assert not Windows.of("1h").is_open(0, 0)


@pytest.mark.parametrize("given_text", ["1x", "h", "", "-5s", "1 h 5 min"])
def test_what_is_no_duration_is_refused(given_text: str) -> None:
    with pytest.raises(ValueError, match="duration"):
        duration_s(given_text)


@pytest.mark.parametrize(("size", "slide"), [(0, None), ("1h", "2h"), ("1d", "1s")])
def test_windows_that_make_no_sense_are_refused(size: str, slide: str | None) -> None:
    with pytest.raises(ValueError, match="window"):
        Windows.of(size, slide)
