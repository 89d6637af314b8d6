"""Glob patterns of SCAN and KEYS.

Source: Redis' documentation of KEYS: `?`, `*`, `[abc]`, `[^a]`, `[a-c]`, and a backslash before what
shall be taken as it is. Unlike in a shell, a slash is a byte like any other, and so is a leading dot.
"""

from __future__ import annotations

import re


class Pattern:
    """A compiled pattern. Matching takes time proportional to key and pattern, whatever they are.

    >>> Pattern(b"obs:{cam?}:t*").matches(b"obs:{cam3}:temperature")
    True
    """

    def __init__(self, glob: bytes) -> None:
        # Between stars everything has a fixed length: each piece is taken at its first place after the one
        # before, so nothing is tried twice. (One regular expression of many stars takes exponential time.)
        pieces = [re.compile(piece, re.DOTALL) for piece in _pieces(glob)]
        self._first, *self._others = pieces

    def matches(self, key: bytes) -> bool:
        """Whether the whole key matches."""
        if not self._others:
            return self._first.fullmatch(key) is not None
        found = self._first.match(key)
        for piece in self._others[:-1]:
            if found is None:
                return False
            found = piece.search(key, found.end())
        if found is None:
            return False
        last = self._others[-1]
        tail = len(key) - _length(last)
        return tail >= found.end() and last.fullmatch(key, tail) is not None

    @classmethod
    def nothing(cls) -> Pattern:
        """Matches no key."""
        pattern = cls(b"")
        pattern._first = re.compile(b"(?!)")
        return pattern


def _length(piece: re.Pattern[bytes]) -> int:
    """Bytes that a piece matches: each of its groups is one."""
    return piece.groups


def _pieces(glob: bytes) -> list[bytes]:
    """Regular expressions of what stands between stars; one group for each byte that they match."""
    pieces = [b""]
    i = 0
    while i < len(glob):
        char = glob[i : i + 1]
        i += 1
        if char == b"*":
            pieces.append(b"")
            continue
        if char == b"[":
            expression, i = _choice(glob, i)
        elif char == b"?":
            expression = b"."
        else:
            if char == b"\\" and i < len(glob):
                char = glob[i : i + 1]
                i += 1
            expression = re.escape(char)
        pieces[-1] += b"(" + expression + b")"
    return pieces


def _choice(glob: bytes, i: int) -> tuple[bytes, int]:
    """A choice of bytes whose `[` stands before `i`, and where the pattern goes on. One that is not closed
    ends with the pattern."""
    negated = glob[i : i + 1] == b"^"
    if negated:
        i += 1
    ranges: list[bytes] = []
    while i < len(glob) and glob[i : i + 1] != b"]":
        if glob[i : i + 1] == b"\\" and i + 1 < len(glob):
            i += 1
            low = high = glob[i : i + 1]
        elif glob[i + 1 : i + 2] == b"-" and i + 2 < len(glob):
            low, high = sorted((glob[i : i + 1], glob[i + 2 : i + 3]))
            i += 2
        else:
            low = high = glob[i : i + 1]
        ranges.append(re.escape(low) + b"-" + re.escape(high))
        i += 1
    if not ranges:
        return (b"[\\x00-\\xff]" if negated else b"(?!)."), i + 1
    return b"[" + (b"^" if negated else b"") + b"".join(ranges) + b"]", i + 1
