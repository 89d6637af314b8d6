"""Glob patterns, as Redis has them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kv.machine.patterns import Pattern

CASES = [
    (b"*", b"", True),
    (b"*", b"anything/at.all\n", True),
    (b"", b"", True),
    (b"", b"a", False),
    (b"h?llo", b"hello", True),
    (b"h?llo", b"hllo", False),
    (b"h*llo", b"hllo", True),
    (b"h*llo", b"heeeello", True),
    (b"*llo*", b"hello world", True),
    (b"a*a", b"a", False),
    (b"a*ba", b"aba", True),
    (b"a*b*c", b"axxbyybzc", True),
    (b"h[ae]llo", b"hallo", True),
    (b"h[ae]llo", b"hillo", False),
    (b"h[^e]llo", b"hello", False),
    (b"h[^e]llo", b"hbllo", True),
    (b"h[a-b]llo", b"hbllo", True),
    (b"h[b-a]llo", b"hallo", True),
    (b"h[a-b]llo", b"hcllo", False),
    (b"[a", b"a", True),
    (b"[]", b"]", False),
    (b"[\\]]", b"]", True),
    (b"[^]", b"x", True),
    (b"[-x]", b"-", True),
    (b"\\*", b"*", True),
    (b"\\*", b"x", False),
    (b"a\\", b"a\\", True),
    (b"(.+)", b"(.+)", True),
    (b"(.+)", b"xx", False),
    (b"?", b"\n", True),
    (b"obs:{cam?}:*", b"obs:{cam3}:temperature:12", True),
]


@pytest.mark.parametrize(("pattern", "key", "matches"), CASES, ids=repr)
def test_patterns(pattern: bytes, key: bytes, matches: bool) -> None:
    assert Pattern(pattern).matches(key) is matches


def simple(pattern: bytes, key: bytes) -> bool:
    """The definition, slowly; for patterns of stars, question marks and letters."""
    if not pattern:
        return not key
    if pattern[:1] == b"*":
        return any(simple(pattern[1:], key[i:]) for i in range(len(key) + 1))
    return bool(key) and pattern[:1] in (b"?", key[:1]) and simple(pattern[1:], key[1:])


@given(
    st.lists(st.sampled_from([b"a", b"b", b"?", b"*"]), max_size=7).map(b"".join),
    st.lists(st.sampled_from([b"a", b"b"]), max_size=9).map(b"".join),
)
def test_patterns_mean_what_their_definition_says(pattern: bytes, key: bytes) -> None:
    assert Pattern(pattern).matches(key) is simple(pattern, key)


@given(st.binary(max_size=20), st.binary(max_size=20))
def test_no_pattern_is_an_error(pattern: bytes, key: bytes) -> None:
    assert Pattern(pattern).matches(key) in (True, False)


def test_many_stars_do_not_take_exponential_time() -> None:
    """One that did would not end before the test's timeout."""
    assert not Pattern(b"*a" * 2000 + b"b").matches(b"a" * 4000)
