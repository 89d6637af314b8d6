"""The Redis serialization protocol, both ways: requests are parsed, replies are encoded.

Owns the wire format and the bounds that are checked before anything is buffered; knows no command. A client
may send what it likes: it gets its requests parsed or one protocol error, and never makes this end hold more
than `Limits` say. A request is an array of bulk strings or one inline line; a reply is encoded in version 2
or 3.

Source: the RESP specification (redis.io/docs/reference/protocol-spec), and Redis 7's networking.c for the
bounds, the wording of its errors and the quoting of inline commands.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence, Set
from typing import Any

import msgspec

from kv.operations import Command

INLINE_BYTES_MAX = 64 * 1024
_HEADER_BYTES_MAX = 24
"""A header is a type, a count of at most 20 characters, and the end of the line."""


class Limits(msgspec.Struct, frozen=True):
    """What one request may be; whoever sends more is told so and disconnected."""

    arguments: int = 4096
    bulk_bytes: int = 512 * 1024
    request_bytes: int = 1024 * 1024
    """All arguments together."""


# --------------------------------------------------------------------------------------------------- requests


class Requests:
    """The requests of one connection, from bytes that arrive in any pieces.

    >>> requests = Requests()
    >>> requests.feed(b"*2\\r\\n$3\\r\\nGET\\r\\n$1\\r\\nk\\r\\nPI"), requests.feed(b"NG\\r\\n")
    ([(b'GET', b'k')], [(b'PING',)])
    """

    __slots__ = ("_arguments", "_chunks", "_expected", "_held", "_limits", "_size", "_wanted", "failure")

    def __init__(self, limits: Limits | None = None) -> None:
        self.failure = ""
        """Why nothing more is parsed, as Redis words it; empty: all is well."""
        self._limits = limits or Limits()
        self._chunks: list[bytes] = []
        self._held = 0
        self._wanted = 0
        self._arguments: list[bytes] = []
        self._expected = 0
        self._size = 0

    @property
    def buffered(self) -> int:
        """Bytes that are held of a request that is not complete."""
        return self._held + self._size

    def feed(self, data: bytes) -> list[Command]:
        """The requests that `data` completes; once `failure` is set, none any more."""
        if self.failure:
            return []
        if self._chunks:
            self._chunks.append(data)
            self._held += len(data)
            if self._held < self._wanted:
                return []
            data = b"".join(self._chunks)
        commands: list[Command] = []
        try:
            taken = self._parse(data, commands)
        except _Broken as broken:
            self.failure = str(broken)
            self._chunks, self._held, self._arguments, self._size = [], 0, [], 0
            return commands
        self._held = len(data) - taken
        self._chunks = [data[taken:]] if self._held else []
        return commands

    def _parse(self, data: bytes, commands: list[Command]) -> int:
        """Take what is complete; returns how many bytes that was. `_wanted` is left at a number of bytes
        without which it is not worth trying again."""
        limits = self._limits
        find = data.find
        arguments, expected = self._arguments, self._expected
        end_of_data = len(data)
        position = 0
        self._wanted = 0
        while position < end_of_data:
            if not expected:
                if data[position] != 42:  # "*"
                    position = self._inline(data, position, commands)
                    if position < 0:
                        position = ~position
                        break
                    continue
                end = find(b"\r\n", position, position + _HEADER_BYTES_MAX)
                if end < 0:
                    if end_of_data - position >= _HEADER_BYTES_MAX:
                        raise _Broken("too big mbulk count string")
                    break
                header = data[position + 1 : end]
                expected = _COUNTS.get(header, -1)
                if expected < 0:
                    expected = _count(header, "invalid multibulk length")
                if expected > limits.arguments:
                    raise _Broken("invalid multibulk length")
                position = end + 2
                continue
            end = find(b"\r\n", position, position + _HEADER_BYTES_MAX)
            if end < 0:
                _expect_dollar(data, position)
                if end_of_data - position >= _HEADER_BYTES_MAX:
                    raise _Broken("too big bulk count string")
                break
            header = data[position:end]
            length = _LENGTHS.get(header, -1)
            if length < 0:
                _expect_dollar(data, position)
                length = _count(header[1:], "invalid bulk length")
                if header[1:2] == b"-":
                    raise _Broken("invalid bulk length")
            if length > limits.bulk_bytes:
                raise _Broken("invalid bulk length")
            if self._size + length > limits.request_bytes:
                raise _Broken("too big request")
            start = end + 2
            end = start + length
            if end + 2 > end_of_data:
                self._wanted = end + 2 - position
                break
            if data[end : end + 2] != b"\r\n":
                raise _Broken("a bulk string does not end where it should")
            arguments.append(data[start:end])
            self._size += length
            position = end + 2
            if len(arguments) == expected:
                commands.append(tuple(arguments))
                arguments.clear()
                expected = 0
                self._size = 0
        self._expected = expected
        return position

    def _inline(self, data: bytes, position: int, commands: list[Command]) -> int:
        """Take one line; returns where the next begins, or `~position` where it is not complete."""
        end = data.find(b"\n", position, position + INLINE_BYTES_MAX)
        if end < 0:
            if len(data) - position >= INLINE_BYTES_MAX:
                raise _Broken("too big inline request")
            return ~position
        words = split_line(data[position:end].removesuffix(b"\r"))
        if words is None:
            raise _Broken("unbalanced quotes in request")
        if words:
            commands.append(words)
        return end + 1


class _Broken(Exception):
    """Nothing that follows on this connection can be understood."""

    def __str__(self) -> str:
        return f"Protocol error: {self.args[0]}"


_COUNTS = {b"%d" % count: count for count in range(1, 64)}
_LENGTHS = {b"$%d" % length: length for length in range(1024)}
"""Headers of nearly all requests; a look-up is quicker than reading them."""


def _count(digits: bytes, problem: str) -> int:
    """The number in a header. Negative counts stand for nothing, as 0 does."""
    if not digits.removeprefix(b"-").isdigit():
        raise _Broken(problem)
    return max(0, int(digits))


def _expect_dollar(data: bytes, position: int) -> None:
    if data[position] != 36:
        raise _Broken(f"expected '$', got '{chr(data[position])}'")


_SPACES = b" \t\r\n\v\f\0"
_ESCAPED = {b"n": b"\n", b"r": b"\r", b"t": b"\t", b"b": b"\b", b"a": b"\a"}
_WORD = re.compile(
    rb"""[ \t\r\v\f\0]*
    (?: "(?P<double>(?:[^"\\]|\\.)*)"  (?=[ \t\r\v\f\0]|\Z)
      | '(?P<single>(?:[^'\\]|\\.)*)'  (?=[ \t\r\v\f\0]|\Z)
      | (?P<plain>[^ \t\r\v\f\0"']+)   (?=[ \t\r\v\f\0]|\Z) )""",
    re.VERBOSE | re.DOTALL,
)


def split_line(line: bytes) -> Command | None:
    """The words of an inline command; None where its quotes are not balanced.

    >>> split_line(b"SET 'a key' \\"tab\\\\t\\\\x41\\"")
    (b'SET', b'a key', b'tab\\tA')
    """
    line = line.strip(_SPACES)
    words = []
    position = 0
    while position < len(line):
        word = _WORD.match(line, position)
        if word is None:
            return None
        position = word.end()
        if (double := word["double"]) is not None:
            words.append(re.sub(rb"\\(x[0-9a-fA-F]{2}|.)", _unescape, double, flags=re.DOTALL))
        elif (single := word["single"]) is not None:
            words.append(single.replace(b"\\'", b"'"))
        else:
            words.append(word["plain"])
    return tuple(words)


def _unescape(escape: re.Match[bytes]) -> bytes:
    code = escape[1]
    if len(code) == 3:
        return bytes([int(code[1:], 16)])
    return _ESCAPED.get(code, code)


# ---------------------------------------------------------------------------------------------------- replies

NULL = {2: b"$-1\r\n", 3: b"_\r\n"}
OK = b"+OK\r\n"
_SMALL = [b":%d\r\n" % number for number in range(1024)]


class Verbatim(msgspec.Struct, frozen=True):
    """Text for people's eyes: version 3 says so."""

    text: str


def encode(value: Any, version: int) -> bytes:
    """A reply, in version 2 or 3 of the protocol.

    None is null, bytes a bulk string, str a simple string, int an integer, float a double, bool a boolean; a
    list or tuple is an array, a dict a map, a set a set (both arrays in version 2), and whatever was encoded
    before (`Encoded`) stays as it is. In the place of anything else stands an error.

    >>> encode({b"proto": 3}, 3), encode({b"role": None}, 2)
    (b'%1\\r\\n$5\\r\\nproto\\r\\n:3\\r\\n', b'*2\\r\\n$4\\r\\nrole\\r\\n$-1\\r\\n')
    """
    return _ENCODERS.get(type(value), _foreign)(value, version)


def bulk(data: bytes) -> bytes:
    """A bulk string."""
    return b"$%d\r\n%b\r\n" % (len(data), data)


def simple(text: str) -> bytes:
    """A simple string; an end of line in it, which it cannot hold, becomes a space."""
    return b"+%b\r\n" % _one_line(text)


def error(text: str) -> bytes:
    """An error: `"ERR what was wrong"`; an end of line in it becomes a space."""
    return b"-%b\r\n" % _one_line(text)


def integer(number: int) -> bytes:
    """An integer."""
    return _SMALL[number] if 0 <= number < 1024 else b":%d\r\n" % number


class Encoded(bytes):
    """A reply that is encoded already; it can stand in a larger one."""

    __slots__ = ()


def _one_line(text: str) -> bytes:
    return text.replace("\r", " ").replace("\n", " ").encode("utf-8", "replace")


def _array(values: Sequence[Any], version: int) -> bytes:
    return b"*%d\r\n%b" % (len(values), b"".join([encode(value, version) for value in values]))


def _map(values: Mapping[Any, Any], version: int) -> bytes:
    head = b"%%%d\r\n" % len(values) if version == 3 else b"*%d\r\n" % (2 * len(values))
    return head + b"".join([encode(key, version) + encode(value, version) for key, value in values.items()])


def _set(values: Set[Any], version: int) -> bytes:
    head = b"~%d\r\n" if version == 3 else b"*%d\r\n"
    return head % len(values) + b"".join(sorted(encode(value, version) for value in values))


def _float(number: float, version: int) -> bytes:
    text = format(number, ".17g").encode()
    return b",%b\r\n" % text if version == 3 else bulk(text)


def _boolean(truth: bool, version: int) -> bytes:
    return (b"#t\r\n" if truth else b"#f\r\n") if version == 3 else integer(truth)


def _foreign(value: object, _version: int) -> bytes:
    return error(f"ERR a {type(value).__name__} has no form in this protocol")


def _verbatim(value: Verbatim, version: int) -> bytes:
    text = value.text.encode()
    return b"=%d\r\ntxt:%b\r\n" % (len(text) + 4, text) if version == 3 else bulk(text)


_ENCODERS: Mapping[type, Callable[[Any, int], bytes]] = {
    type(None): lambda _, version: NULL[version],
    bytes: lambda data, _: bulk(data),
    int: lambda number, _: integer(number),
    str: lambda text, _: simple(text),
    list: _array,
    tuple: _array,
    dict: _map,
    set: _set,
    frozenset: _set,
    float: _float,
    bool: _boolean,
    Verbatim: _verbatim,
    Encoded: lambda reply, _: reply,
}
