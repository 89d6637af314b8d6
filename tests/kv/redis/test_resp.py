"""The wire format: what is a request, what is refused before it is held, how replies look."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kv.machine import Reference
from kv.operations import Command
from kv.redis.resp import INLINE_BYTES_MAX, Encoded, Limits, Requests, Verbatim, encode, split_line

SMALL = Limits(arguments=4, bulk_bytes=100, request_bytes=150)


def request(*arguments: bytes) -> bytes:
    """A request as every client sends it."""
    return b"*%d\r\n" % len(arguments) + b"".join(b"$%d\r\n%b\r\n" % (len(a), a) for a in arguments)


def parsed(data: bytes, limits: Limits | None = None) -> tuple[list[Command], str]:
    """What the bytes are when they arrive at once."""
    requests = Requests(limits)
    return requests.feed(data), requests.failure


@pytest.mark.parametrize(
    ("data", "commands"),
    [
        pytest.param(request(b"GET", b"k"), [(b"GET", b"k")], id="an array of bulk strings"),
        pytest.param(request(b"SET", b"k", b""), [(b"SET", b"k", b"")], id="an empty value"),
        pytest.param(
            request(b"SET", b"k", b"\r\n$1\r\n"), [(b"SET", b"k", b"\r\n$1\r\n")], id="a value of syntax"
        ),
        pytest.param(request(b"A") + request(b"B"), [(b"A",), (b"B",)], id="two at once"),
        pytest.param(b"PING\r\n", [(b"PING",)], id="inline"),
        pytest.param(
            b"SET k 'a b'\n", [(b"SET", b"k", b"a b")], id="inline with quotes and a bare line feed"
        ),
        pytest.param(b"\r\n \r\nPING\r\n", [(b"PING",)], id="empty lines are nothing"),
        pytest.param(b"*0\r\n*-1\r\n" + request(b"A"), [(b"A",)], id="empty arrays are nothing"),
        pytest.param(
            b"PING\r\n" + request(b"A") + b"B\r\n", [(b"PING",), (b"A",), (b"B",)], id="both in turn"
        ),
        pytest.param(b"*1\r\n$0000000004\r\nPING\r\n", [(b"PING",)], id="leading zeros"),
    ],
)
def test_requests(data: bytes, commands: list[Command]) -> None:
    assert parsed(data) == (commands, "")


@pytest.mark.parametrize(
    ("data", "failure"),
    [
        pytest.param(b"*5\r\n", "invalid multibulk length", id="more arguments than allowed"),
        pytest.param(b"*1000000000\r\n", "invalid multibulk length", id="a billion arguments"),
        pytest.param(b"*" + b"9" * 20 + b"\r\n", "invalid multibulk length", id="a count beyond 64 bits"),
        pytest.param(b"*x\r\n", "invalid multibulk length", id="a count that is no number"),
        pytest.param(b"*+1\r\n", "invalid multibulk length", id="a count with a plus sign"),
        pytest.param(b"*1_0\r\n", "invalid multibulk length", id="a count as Python writes it"),
        pytest.param(b"*\xc2\xb2\r\n", "invalid multibulk length", id="a digit of another script"),
        pytest.param(b"*" + b"1" * 30, "too big mbulk count string", id="a count without an end"),
        pytest.param(b"*1\r\n$101\r\n", "invalid bulk length", id="a longer argument than allowed"),
        pytest.param(b"*1\r\n$-1\r\n", "invalid bulk length", id="no argument at all"),
        pytest.param(b"*1\r\n$ 1\r\n", "invalid bulk length", id="a length with a blank"),
        pytest.param(b"*1\r\n$" + b"1" * 30, "too big bulk count string", id="a length without an end"),
        pytest.param(
            request(b"x" * 80) + request(b"x" * 80, b"x" * 80), "too big request", id="too much together"
        ),
        pytest.param(b"*1\r\n:5\r\n", "expected '$', got ':'", id="an integer as an argument"),
        pytest.param(b"*1\r\n*1\r\n$1\r\nx\r\n", "expected '$', got '*'", id="an array as an argument"),
        pytest.param(b"*1\r\n+", "expected '$', got '+'", id="refused as soon as it is seen"),
        pytest.param(
            b"*1\r\n$1\r\nxyz", "a bulk string does not end where it should", id="too long a string"
        ),
        pytest.param(b'GET "a\r\n', "unbalanced quotes in request", id="an open quote"),
        pytest.param(b"x" * INLINE_BYTES_MAX, "too big inline request", id="a line without an end"),
    ],
)
def test_what_is_refused(data: bytes, failure: str) -> None:
    requests = Requests(SMALL)
    requests.feed(data)
    assert requests.failure == f"Protocol error: {failure}"
    assert requests.buffered == 0
    assert requests.feed(request(b"PING")) == []


def test_what_came_before_a_failure_counts() -> None:
    assert parsed(request(b"GET", b"k") + b"*1\r\n$-1\r\n", SMALL) == (
        [(b"GET", b"k")],
        "Protocol error: invalid bulk length",
    )


commands_strategy = st.lists(
    st.one_of(
        st.lists(st.binary(max_size=40), min_size=1, max_size=4).map(tuple),
        st.lists(st.sampled_from([b"\r\n", b"$1", b"*1\r\n"]), min_size=1, max_size=4).map(tuple),
    ),
    max_size=5,
)


@given(commands_strategy, st.lists(st.integers(1, 30)))
def test_pieces_make_no_difference(commands: list[Command], sizes: list[int]) -> None:
    data = b"".join(request(*command) for command in commands)
    requests = Requests(SMALL)
    found: list[Command] = []
    for size in sizes:
        piece, data = data[:size], data[size:]
        found += requests.feed(piece) if piece else []
    found += requests.feed(data)
    assert (found, requests.failure, requests.buffered) == (commands, "", 0)


def test_a_request_split_at_every_byte() -> None:
    data = b"PING x\r\n" + request(b"SET", b"k", b"a\r\nb") + b"*0\r\n" + request(b"GET", b"k")
    whole = [(b"PING", b"x"), (b"SET", b"k", b"a\r\nb"), (b"GET", b"k")]
    for at in range(len(data)):
        requests = Requests()
        assert requests.feed(data[:at]) + requests.feed(data[at:]) == whole
    requests = Requests()
    assert [command for byte in data for command in requests.feed(bytes([byte]))] == whole


hostile = st.lists(
    st.one_of(
        st.binary(max_size=20),
        st.sampled_from(
            [b"*3\r\n", b"$3\r\n", b"\r\n", b"\n", b"*", b"$", b'"', b"'", b"-1", b"99999999999"]
        ),
        st.integers(-5, 10**12).map(lambda n: b"*%d\r\n" % n),
        st.integers(-5, 10**12).map(lambda n: b"$%d\r\n" % n),
    ),
    max_size=30,
)


@given(hostile)
def test_anything_is_parsed_or_refused_and_little_is_held(pieces: Sequence[bytes]) -> None:
    at_once = parsed(b"".join(pieces), SMALL)
    requests = Requests(SMALL)
    found: list[Command] = []
    for piece in pieces:
        found += requests.feed(piece) if piece else []
        assert requests.buffered <= SMALL.request_bytes + SMALL.arguments * 24 + INLINE_BYTES_MAX
    assert (found, requests.failure) == at_once
    for command in found:
        assert command
        assert all(type(argument) is bytes for argument in command)


def test_a_large_value_in_small_pieces_is_put_together_once() -> None:
    value = bytes(range(256)) * 2000
    data = request(b"SET", b"k", value)
    requests = Requests()
    found = [requests.feed(data[at : at + 1000]) for at in range(0, len(data), 1000)]
    assert found[-1] == [(b"SET", b"k", value)]
    assert not any(found[:-1])


@pytest.mark.parametrize(
    ("line", "words"),
    [
        pytest.param(b"", (), id="nothing"),
        pytest.param(b"  a \t b ", (b"a", b"b"), id="blanks"),
        pytest.param(b'"a b" c', (b"a b", b"c"), id="double quotes"),
        pytest.param(b"'it\\'s' x", (b"it's", b"x"), id="a quote in single quotes"),
        pytest.param(b"'a\\n'", (b"a\\n",), id="no escapes in single quotes"),
        pytest.param(b'"\\x00\\xff\\n\\"\\\\"', (b'\x00\xff\n"\\',), id="escapes"),
        pytest.param(b'""', (b"",), id="an empty word"),
        pytest.param(b'"a"b', None, id="a quote that ends in a word"),
        pytest.param(b"'a", None, id="an open quote"),
        pytest.param(b'a"b"', None, id="a quote that begins in a word"),
    ],
)
def test_words_of_a_line(line: bytes, words: Command | None) -> None:
    assert split_line(line) == words


@given(st.binary(max_size=200))
def test_any_line_has_words_or_unbalanced_quotes(line: bytes) -> None:
    words = split_line(line)
    assert words is None or all(type(word) is bytes for word in words)


@pytest.mark.parametrize(
    ("value", "in_2", "in_3"),
    [
        pytest.param(None, b"$-1\r\n", b"_\r\n", id="null"),
        pytest.param(b"a\r\n", b"$3\r\na\r\n\r\n", b"$3\r\na\r\n\r\n", id="a bulk string"),
        pytest.param("OK", b"+OK\r\n", b"+OK\r\n", id="a simple string"),
        pytest.param("a\r\nb", b"+a  b\r\n", b"+a  b\r\n", id="a simple string that could end early"),
        pytest.param(-5, b":-5\r\n", b":-5\r\n", id="a negative integer"),
        pytest.param(1 << 62, b":%d\r\n" % (1 << 62), b":%d\r\n" % (1 << 62), id="a large integer"),
        pytest.param(1.5, b"$3\r\n1.5\r\n", b",1.5\r\n", id="a double"),
        pytest.param(True, b":1\r\n", b"#t\r\n", id="a boolean"),
        pytest.param([1, None], b"*2\r\n:1\r\n$-1\r\n", b"*2\r\n:1\r\n_\r\n", id="an array"),
        pytest.param({b"a": 1}, b"*2\r\n$1\r\na\r\n:1\r\n", b"%1\r\n$1\r\na\r\n:1\r\n", id="a map"),
        pytest.param({2, 1}, b"*2\r\n:1\r\n:2\r\n", b"~2\r\n:1\r\n:2\r\n", id="a set"),
        pytest.param(Verbatim("hi"), b"$2\r\nhi\r\n", b"=6\r\ntxt:hi\r\n", id="a text"),
        pytest.param([Encoded(b":7\r\n")], b"*1\r\n:7\r\n", b"*1\r\n:7\r\n", id="what is encoded already"),
        pytest.param(
            [Reference(b"", 9)],
            b"*1\r\n-ERR a Reference has no form in this protocol\r\n",
            b"*1\r\n-ERR a Reference has no form in this protocol\r\n",
            id="what has no form is an error in its place",
        ),
    ],
)
def test_replies(value: Any, in_2: bytes, in_3: bytes) -> None:
    assert (encode(value, 2), encode(value, 3)) == (in_2, in_3)
