"""The response cache: RFC 7252 §5.6 as tables, the mistakes that caches are known for, and its budget."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.caching.cache import MAX_AGE_DEFAULT_S, Cache, Stored, may_be_stored
from edge.coap.messages import CONTENT, NOT_FOUND, VALID, Representation

PATH = ("cam1", "temperature")
CREATED, DELETED, CHANGED, UNKNOWN_SUCCESS = 0x41, 0x42, 0x44, 0x5E
BAD_GATEWAY = 0xA2


def content(payload: bytes = b"21.5", etag: bytes = b"\x01", max_age_s: int | None = 10) -> Representation:
    return Representation(CONTENT, payload, etag, max_age_s)


@pytest.mark.parametrize(
    ("response", "stored"),
    [
        pytest.param(content(), True, id="content is stored"),
        pytest.param(content(max_age_s=None), True, id="content without Max-Age is stored"),
        pytest.param(Representation(NOT_FOUND, max_age_s=5), True, id="an error with Max-Age is stored"),
        pytest.param(Representation(NOT_FOUND), False, id="an error without Max-Age is not stored"),
        pytest.param(Representation(BAD_GATEWAY), False, id="a gateway's error is not stored"),
        pytest.param(Representation(UNKNOWN_SUCCESS, b"?", b"1", 60), False, id="an unknown 2.xx never is"),
        pytest.param(Representation(CREATED, max_age_s=60), False, id="2.01 is no answer to a GET"),
        pytest.param(Representation(CHANGED, max_age_s=60), False, id="2.04 is no answer to a GET"),
        pytest.param(Representation(DELETED, max_age_s=60), False, id="2.02 is no answer to a GET"),
    ],
)
def test_what_may_be_stored(response: Representation, stored: bool) -> None:
    assert may_be_stored(response) is stored
    cache = Cache(1000)
    cache.take_in(PATH, response, 0.0)
    assert (cache.get(PATH) is not None) is stored


@pytest.mark.parametrize(
    ("max_age_s", "now_s", "fresh", "left_s"),
    [
        pytest.param(10, 100.0, True, 10, id="new: all of it is left"),
        pytest.param(10, 103.0, True, 7, id="replayed after 3 s: reduced by 3 s"),
        pytest.param(10, 103.4, True, 7, id="what is left is rounded to the nearest second"),
        pytest.param(10, 103.6, True, 6, id="whichever that is"),
        pytest.param(2, 100.001, True, 2, id="passed on at once: all of it"),
        pytest.param(10, 109.99, True, 0, id="nearly over"),
        pytest.param(10, 110.0, False, 0, id="over"),
        pytest.param(0, 100.0, False, 0, id="Max-Age 0 is never fresh"),
        pytest.param(None, 159.0, True, 1, id="no Max-Age is 60 s"),
        pytest.param(None, 160.0, False, 0, id="and not longer"),
    ],
)
def test_freshness(max_age_s: int | None, now_s: float, fresh: bool, left_s: int) -> None:
    stored = Stored(content(max_age_s=max_age_s), 100.0)
    assert stored.is_fresh(now_s) is fresh
    assert stored.served(now_s).max_age_s == left_s


def test_an_error_without_max_age_is_passed_on_without_one() -> None:
    """Or the next cache would store it, for the minute that an option left out means."""
    passed_on = Stored(Representation(NOT_FOUND), 100.0).served(100.0)
    assert passed_on == Representation(NOT_FOUND)
    assert not may_be_stored(passed_on)


def test_valid_makes_content_fresh_again_for_its_own_max_age() -> None:
    cache = Cache(1000)
    cache.take_in(PATH, content(b"21.5", b"\x01", 10), 0.0)
    stored = cache.take_in(PATH, Representation(VALID, etag=b"\x01", max_age_s=3), 20.0)
    assert stored is not None
    assert stored.representation == content(b"21.5", b"\x01", 3)
    assert stored.is_fresh(22.9)
    assert not stored.is_fresh(23.0)


def test_valid_without_max_age_means_the_default_and_not_what_the_content_had() -> None:
    cache = Cache(1000)
    cache.take_in(PATH, content(max_age_s=5), 0.0)
    stored = cache.take_in(PATH, Representation(VALID, etag=b"\x01"), 20.0)
    assert stored is not None
    assert stored.lifetime_s == MAX_AGE_DEFAULT_S == 60


def test_valid_about_something_else_is_no_answer() -> None:
    cache = Cache(1000)
    assert cache.take_in(PATH, Representation(VALID, etag=b"\x01"), 0.0) is None
    cache.take_in(PATH, content(etag=b"\x01"), 0.0)
    assert cache.take_in(PATH, Representation(VALID, etag=b"\x02"), 1.0) is None


def test_what_cannot_be_stored_takes_the_place_of_what_was() -> None:
    """After a 4.04 the old content must not come back."""
    cache = Cache(1000)
    cache.take_in(PATH, content(), 0.0)
    gone = cache.take_in(PATH, Representation(NOT_FOUND), 1.0)
    assert gone is not None
    assert gone.representation.code == NOT_FOUND
    assert cache.get(PATH) is None


def test_the_least_recently_used_goes_first() -> None:
    cache = Cache(30)
    for name in ("a", "b", "c"):
        cache.take_in((name,), content(bytes(8), b"1"), 0.0)  # 10 bytes each
    cache.get(("a",))
    cache.take_in(("d",), content(bytes(8), b"1"), 1.0)
    assert [name for name in "abcd" if cache.get((name,))] == ["a", "c", "d"]


def test_what_is_larger_than_the_budget_is_passed_on_and_not_stored() -> None:
    cache = Cache(30)
    cache.take_in(("a",), content(bytes(8), b"1"), 0.0)
    passed = cache.take_in(("b",), content(bytes(100)), 0.0)
    assert passed is not None
    assert len(passed.representation.payload) == 100
    assert cache.get(("b",)) is None
    assert cache.get(("a",)) is not None


operations = st.lists(st.tuples(st.sampled_from("abcdef"), st.integers(0, 120), st.booleans()), max_size=60)


@given(st.integers(1, 300), operations)
def test_the_budget_is_kept_and_counted_exactly(
    budget_bytes: int, steps: list[tuple[str, int, bool]]
) -> None:
    """Against a list that keeps the order of use in the plainest way."""
    cache = Cache(budget_bytes)
    plain: list[tuple[str, int]] = []
    for name, size, only_look in steps:
        held = next((entry for entry in plain if entry[0] == name), None)
        if only_look:
            assert (cache.get((name,)) is not None) == (held is not None)
            if held:
                plain.remove(held)
                plain.append(held)
            continue
        cache.take_in((name,), content(bytes(size), b"1"), 0.0)
        if held:
            plain.remove(held)
        counted = 1 + size + 1
        if counted <= budget_bytes:
            plain.append((name, counted))
        while sum(entry[1] for entry in plain) > budget_bytes:
            plain.pop(0)
        assert cache.size_bytes == sum(entry[1] for entry in plain) <= budget_bytes
        assert len(cache) == len(plain)
