"""Bodies in blocks: they are whole or refused, and what is incomplete is bounded for each and for all."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.coap.messages import (
    BAD_REQUEST,
    CONTINUE,
    REQUEST_ENTITY_INCOMPLETE,
    REQUEST_ENTITY_TOO_LARGE,
    SERVICE_UNAVAILABLE,
)
from edge.coap.uploads import Bounds, Part, Uploads

SMALL = Bounds(body_bytes_max=100, bytes_max=200, assemblies_max=6, assemblies_per_client_max=2, kept_s=10.0)


def part(number: int, payload: bytes = bytes(16), more: bool = True, exponent: int = 0) -> Part:
    return Part(number, exponent, more, payload)


def parts(body: bytes, exponent: int) -> list[Part]:
    size = 16 << exponent
    cut = [body[start : start + size] for start in range(0, max(1, len(body)), size)]
    return [Part(n, exponent, n < len(cut) - 1, piece) for n, piece in enumerate(cut)]


@given(st.binary(max_size=5000), st.integers(0, 6))
def test_a_body_comes_out_as_it_went_in(body: bytes, exponent: int) -> None:
    uploads = Uploads()
    *others, last = parts(body, exponent)
    assert all(uploads.take(0.0, "cam", "photograph", block) == CONTINUE for block in others)
    assert uploads.take(0.0, "cam", "photograph", last) == body
    assert (len(uploads), uploads.held_bytes) == (0, 0)


@pytest.mark.parametrize(
    ("blocks", "code"),
    [
        pytest.param([part(1)], REQUEST_ENTITY_INCOMPLETE, id="the first block never came"),
        pytest.param([part(0), part(2)], REQUEST_ENTITY_INCOMPLETE, id="a block is missing"),
        pytest.param([part(0), part(1), part(0, b"y" * 16), part(2)], REQUEST_ENTITY_INCOMPLETE, id="anew"),
        pytest.param([part(0), part(0), part(1, bytes(15))], BAD_REQUEST, id="a block too short"),
        pytest.param([part(0, bytes(17))], BAD_REQUEST, id="a block too long"),
        pytest.param([part(0, bytes(17), more=False)], BAD_REQUEST, id="a last block too long"),
        pytest.param([part(0, bytes(2048), exponent=7)], BAD_REQUEST, id="a size that is not for UDP"),
        pytest.param([part(n) for n in range(7)], REQUEST_ENTITY_TOO_LARGE, id="more than there may be"),
        pytest.param([part(5000)], REQUEST_ENTITY_TOO_LARGE, id="a number far out"),
        pytest.param(
            [Part(0, 0, True, bytes(16), announced_bytes=101)], REQUEST_ENTITY_TOO_LARGE, id="announced"
        ),
    ],
)
def test_what_is_no_body_is_refused_and_forgotten(blocks: list[Part], code: int) -> None:
    uploads = Uploads(SMALL)
    assert [uploads.take(0.0, "cam", "x", block) for block in blocks][-1] == code
    assert (len(uploads), uploads.held_bytes) == (0, 0)


def test_a_block_that_is_sent_anew_is_taken_again_where_it_is_the_same() -> None:
    uploads = Uploads(SMALL)
    for n in (0, 1, 1):
        assert uploads.take(0.0, "cam", "x", part(n, b"%d" % n * 16)) == CONTINUE
    assert uploads.take(0.0, "cam", "x", part(2, b"end", more=False)) == b"0" * 16 + b"1" * 16 + b"end"
    for n in (0, 1):
        uploads.take(0.0, "cam", "x", part(n, b"%d" % n * 16))
    assert uploads.take(0.0, "cam", "x", part(1, b"y" * 16)) == REQUEST_ENTITY_INCOMPLETE


def test_a_client_that_begins_too_much_loses_its_own() -> None:
    uploads = Uploads(SMALL)
    uploads.take(0.0, "quiet", "x", part(0))
    for name in "abcd":
        assert uploads.take(0.0, "greedy", name, part(0)) == CONTINUE
    assert len(uploads) == 3
    assert uploads.take(0.0, "quiet", "x", part(1, b"", more=False)) == bytes(16)
    assert uploads.take(0.0, "greedy", "a", part(1)) == REQUEST_ENTITY_INCOMPLETE
    assert uploads.take(0.0, "greedy", "d", part(1)) == CONTINUE


def test_where_all_room_is_taken_a_client_is_to_come_again() -> None:
    uploads = Uploads(SMALL)
    clients = [f"cam{n}" for n in range(6)]
    assert [uploads.take(0.0, client, "x", part(0)) for client in clients] == [CONTINUE] * 6
    assert uploads.take(0.0, "late", "x", part(0)) == SERVICE_UNAVAILABLE
    held = [uploads.take(0.0, client, "x", part(n)) for n in range(1, 5) for client in clients]
    assert SERVICE_UNAVAILABLE in held, "200 bytes are not 6 times 80"
    assert uploads.held_bytes <= SMALL.bytes_max
    assert uploads.take(10.0, "late", "x", part(0)) == CONTINUE, "the others were forgotten"
    assert len(uploads) == 1


@given(
    st.lists(
        st.tuples(
            st.floats(0, 5),
            st.sampled_from("abcdef"),
            st.sampled_from("xyz"),
            st.integers(0, 8),
            st.booleans(),
            st.sampled_from([0, 15, 16, 17, 32]),
            st.integers(0, 7),
        ),
        max_size=80,
    )
)
def test_whatever_comes_is_within_bounds(
    blocks: list[tuple[float, str, str, int, bool, int, int]],
) -> None:
    uploads, now_s = Uploads(SMALL), 0.0
    for after_s, client, resource, number, more, size, exponent in blocks:
        now_s += after_s
        taken = uploads.take(now_s, client, resource, Part(number, exponent, more, bytes(size)))
        assert isinstance(taken, int) or len(taken) <= SMALL.body_bytes_max
        assert len(uploads) <= SMALL.assemblies_max
        assert uploads.held_bytes <= SMALL.bytes_max
