"""Keys of intermediate and final pairs as bytes whose order is the keys' own.

Workers sort, merge and group bytes and never ask what a key means. A key is None, a bool, a number, a text,
bytes, or a tuple of keys; `pack` puts them in this order: None, bytes, text, tuples, numbers. Numbers compare
as numbers whether they are whole or not, and what is equal packs alike: 1, 1.0 and True are one key, as they
are in a dict.

Source: the encoding follows FoundationDB's tuple layer (its design document "Tuple layer",
`design/tuple.md`), with one difference: numbers share one type code, so that 1 and 1.5 are neighbours.
"""

from __future__ import annotations

import struct
from math import isfinite

Key = object
"""None, bool, int, float, str, bytes, or a tuple of these."""

KEY_BYTES_MAX = 4096
"""Of a packed key."""

_END, _NONE, _BYTES, _TEXT, _TUPLE, _NUMBER = 0x00, 0x01, 0x02, 0x03, 0x05, 0x10
_ESCAPED = b"\x00\xff"
_INTEGER_MAX = 1 << 63
_DOUBLE = struct.Struct(">Q")
_FLOAT = struct.Struct(">d")
_WHOLE = struct.Struct(">q")
_EXACT_MAX = 1 << 53


class BadKey(TypeError):
    """What cannot be a key, and why."""


def pack(key: Key) -> bytes:
    """The bytes of a key. Raises BadKey.

    >>> sorted([pack(("cam10", 1)), pack(("cam1", 2)), pack(("cam1", 1.5))]) == [
    ...     pack(("cam1", 1.5)), pack(("cam1", 2)), pack(("cam10", 1))]
    True
    """
    out = bytearray()
    _pack(key, out)
    if len(out) > KEY_BYTES_MAX:
        raise BadKey(f"a key of {len(out)} bytes: keys end at {KEY_BYTES_MAX}")
    return bytes(out)


def unpack(data: bytes) -> Key:
    """The inverse of `pack`; a number that was equal to an integer comes back as one. Raises ValueError."""
    try:
        key, end = _unpack(data, 0)
    except (IndexError, struct.error, UnicodeDecodeError) as error:
        raise ValueError(f"{data[:40]!r} is no key: {error}") from error
    if end != len(data):
        raise ValueError(f"{data[:40]!r} is no key: {len(data) - end} bytes are left")
    return key


def _pack(key: Key, out: bytearray) -> None:
    kind = type(key)
    if kind is str:
        out.append(_TEXT)
        try:
            data = key.encode()  # type: ignore[attr-defined]
        except UnicodeEncodeError as error:
            raise BadKey(f"{key!r} is no Unicode text") from error
        out += data.replace(b"\x00", _ESCAPED) if b"\x00" in data else data
        out.append(_END)
    elif kind is tuple:
        out.append(_TUPLE)
        for part in key:  # type: ignore[attr-defined]
            _pack(part, out)
        out.append(_END)
    elif key is None:
        out.append(_NONE)
    elif isinstance(key, int):
        _pack_number(int(key), out)
    elif isinstance(key, float):
        if not isfinite(key):
            raise BadKey(f"{key} is no key: it has no place in the order of numbers")
        whole = key == int(key) and -_INTEGER_MAX <= key < _INTEGER_MAX
        _pack_number(int(key) if whole else float(key), out)
    elif isinstance(key, bytes):
        out.append(_BYTES)
        out += bytes(key).replace(b"\x00", _ESCAPED)
        out.append(_END)
    else:
        raise BadKey(
            f"{key!r} ({kind.__name__}) is no key: a key is a text, a number, bytes, or a tuple of them"
        )


def _pack_number(number: int | float, out: bytearray) -> None:
    """Its double in an order-preserving form, then, for an integer, what that lost, and which it was."""
    if isinstance(number, int) and not -_INTEGER_MAX <= number < _INTEGER_MAX:
        raise BadKey(f"{number} is no key: integers end at 64 bits")
    (bits,) = _DOUBLE.unpack(_FLOAT.pack(number))
    ordered = bits ^ 0xFFFF_FFFF_FFFF_FFFF if bits >> 63 else bits | 1 << 63
    out.append(_NUMBER)
    out += _DOUBLE.pack(ordered)
    if isinstance(number, float):
        out.append(0x80)
    elif abs(number) < _EXACT_MAX:
        out.append(0x7F)
    else:  # several integers have this double: the sign bit flipped, so that bytes compare as numbers
        out.append(0x81)
        out += _DOUBLE.pack((number + _INTEGER_MAX) & 0xFFFF_FFFF_FFFF_FFFF)


def _unpack(data: bytes, at: int) -> tuple[Key, int]:
    code = data[at]
    at += 1
    if code == _TEXT:
        raw, at = _until_end(data, at)
        return raw.decode(), at
    if code == _TUPLE:
        parts = []
        while data[at] != _END:
            part, at = _unpack(data, at)
            parts.append(part)
        return tuple(parts), at + 1
    if code == _NUMBER:
        return _unpack_number(data, at)
    if code == _BYTES:
        return _until_end(data, at)
    if code == _NONE:
        return None, at
    raise ValueError(f"no key begins with the byte {code:#04x}")


def _unpack_number(data: bytes, at: int) -> tuple[Key, int]:
    (ordered,) = _DOUBLE.unpack_from(data, at)
    bits = ordered & ~(1 << 63) if ordered >> 63 else ordered ^ 0xFFFF_FFFF_FFFF_FFFF
    (number,) = _FLOAT.unpack(_DOUBLE.pack(bits))
    form = data[at + 8]
    at += 9
    if form == 0x80:
        return number, at
    if form == 0x7F:
        return int(number), at
    (whole,) = _DOUBLE.unpack_from(data, at)
    return whole - _INTEGER_MAX, at + 8


def _until_end(data: bytes, at: int) -> tuple[bytes, int]:
    """The bytes up to an end that is none of the escaped ones, and what follows it."""
    begin = at
    while True:
        at = data.index(b"\x00", at)
        if data[at + 1 : at + 2] != b"\xff":
            return data[begin:at].replace(_ESCAPED, b"\x00"), at + 1
        at += 2
