"""Every aggregate keeps the laws: any order, any tree of merges, packed on the way or not, the same bytes."""

from __future__ import annotations

from functools import reduce
from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from underlay.aggregates import (
    Aggregate,
    Count,
    Distinct,
    First,
    Gaps,
    Histogram,
    Last,
    Max,
    Mean,
    Min,
    MinMax,
    Quantile,
    Sum,
    TopK,
    Unsuitable,
    Variance,
)
from underlay.aggregates.laws import violations

NUMBERS = st.one_of(
    st.integers(-(2**60), 2**60),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from([0, -0.0, 0.1]),
)
ITEMS = st.one_of(st.text(max_size=5), st.integers(-5, 5), st.none(), st.binary(max_size=3))
CASES: list[tuple[Aggregate[Any, Any, Any], st.SearchStrategy[Any]]] = [
    (Count(), ITEMS),
    (Sum(), NUMBERS),
    (Mean(), NUMBERS),
    (Variance(), NUMBERS),
    (Variance(deviation=True), NUMBERS),
    (Min(), NUMBERS),
    (Max(), NUMBERS),
    (MinMax(), NUMBERS),
    (Histogram([-1, 0.5, 10]), NUMBERS),
    (Quantile(0.9), NUMBERS),
    (Quantile(0.5, relative_error=0.1), NUMBERS),
    (TopK(3), ITEMS),
    (TopK(2, weighted=True), st.tuples(ITEMS, st.integers(1, 9))),
    (Distinct(), ITEMS),
    (Distinct(4), ITEMS),
    (First(), st.tuples(NUMBERS, ITEMS)),
    (Last(), st.tuples(NUMBERS, ITEMS)),
    (Gaps(), st.integers(-20, 20)),
]
IDS = [repr(aggregate) for aggregate, _ in CASES]


def state_of(aggregate: Aggregate[Any, Any, Any], values: list[Any]) -> Any:
    state = aggregate.zero()
    for value in values:
        state = aggregate.add(state, value)
    return state


@pytest.mark.parametrize(("aggregate", "values"), CASES, ids=IDS)
@given(data=st.data())
def test_any_tree_of_merges_gives_the_same_bytes(
    aggregate: Aggregate[Any, Any, Any], values: st.SearchStrategy[Any], data: st.DataObject
) -> None:
    given_values = data.draw(st.lists(values, max_size=12))
    rng = Random(data.draw(st.integers(0, 1 << 30)))
    whole = aggregate.pack(state_of(aggregate, given_values))
    shuffled = given_values.copy()
    rng.shuffle(shuffled)
    leaves: list[Any] = []
    while shuffled:
        cut = rng.randint(1, len(shuffled))
        leaves.append(state_of(aggregate, shuffled[:cut]))
        shuffled = shuffled[cut:]
    leaves.append(aggregate.zero())
    while len(leaves) > 1:
        a, b = (leaves.pop(rng.randrange(len(leaves))) for _ in range(2))
        merged = aggregate.merge(a, b)
        leaves.append(aggregate.unpack(aggregate.pack(merged)) if rng.random() < 0.5 else merged)
    assert aggregate.pack(leaves[0]) == whole
    assert repr(aggregate.finish(leaves[0])) == repr(aggregate.finish(aggregate.unpack(whole)))


@pytest.mark.parametrize(("aggregate", "values"), CASES, ids=IDS)
@given(data=st.data())
def test_many_at_once_are_the_same_as_one_by_one(
    aggregate: Aggregate[Any, Any, Any], values: st.SearchStrategy[Any], data: st.DataObject
) -> None:
    given_values = data.draw(st.lists(values, max_size=12))
    many = aggregate.add_many(aggregate.zero(), given_values)
    assert aggregate.pack(many) == aggregate.pack(state_of(aggregate, given_values))


@pytest.mark.parametrize(("aggregate", "values"), CASES, ids=IDS)
@given(data=st.data())
def test_what_claims_to_be_safe_under_duplicates_is(
    aggregate: Aggregate[Any, Any, Any], values: st.SearchStrategy[Any], data: st.DataObject
) -> None:
    given_values = data.draw(st.lists(values, min_size=1, max_size=8))
    once = aggregate.pack(state_of(aggregate, given_values))
    twice = aggregate.pack(state_of(aggregate, given_values + given_values))
    assert (once == twice) or not aggregate.safe_under_duplicates


@pytest.mark.parametrize(("aggregate", "values"), CASES, ids=IDS)
@given(data=st.binary(max_size=40))
def test_hostile_bytes_are_refused_or_a_state(
    aggregate: Aggregate[Any, Any, Any], values: st.SearchStrategy[Any], data: bytes
) -> None:
    try:
        state = aggregate.unpack(data)
    except Unsuitable:
        return
    aggregate.pack(state)


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), max_size=60))
def test_arrays_are_summed_exactly(values: list[float]) -> None:
    for aggregate in (Sum(), Mean()):
        many = aggregate.add_many(aggregate.zero(), np.array(values, dtype=np.float64))
        assert aggregate.pack(many) == aggregate.pack(state_of(aggregate, values))


class Newest(Aggregate[Any, Any, Any]):
    """Keeps whichever came last: its merge is not commutative."""

    def zero(self) -> Any:
        return None

    def add(self, state: Any, value: Any) -> Any:
        return value

    def merge(self, a: Any, b: Any) -> Any:
        return a if b is None else b

    def finish(self, state: Any) -> Any:
        return state

    def pack(self, state: Any) -> bytes:
        return repr(state).encode()

    def unpack(self, data: bytes) -> Any:
        return eval(data.decode())


class Running(Newest):
    """A running mean, merged as if both sides were as many."""

    def merge(self, a: Any, b: Any) -> Any:
        return b if a is None else a if b is None else (a + b) / 2

    def add(self, state: Any, value: Any) -> Any:
        return self.merge(state, value)


@pytest.mark.parametrize("broken", [Newest(), Running()], ids=repr)
def test_broken_laws_are_found(broken: Aggregate[Any, Any, Any]) -> None:
    assert violations(broken, [1, 2, 3, 4.5], 1)


@pytest.mark.parametrize("aggregate", [aggregate for aggregate, _ in CASES[:11]], ids=repr)
def test_kept_laws_are_not_complained_about(aggregate: Aggregate[Any, Any, Any]) -> None:
    assert not violations(aggregate, [1, 2, -3, 4.5, 1e300], 1)


def test_reduce_over_nothing_is_zero() -> None:
    assert Count().finish(reduce(Count().merge, [], Count().zero())) == 0
