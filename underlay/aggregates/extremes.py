"""The smallest, the largest, the first and the last."""

from __future__ import annotations

from typing import Any

import msgspec

from underlay.aggregates.aggregate import Aggregate, Unsuitable, decode, encode, number

Number = int | float


class MinMax(Aggregate["tuple[Number, Number] | None", Number, Any]):
    """The smallest and the largest number; None of none. Packs to at most 19 bytes. Of equal numbers a whole
    one counts as the smaller."""

    safe_under_duplicates = True

    def zero(self) -> tuple[Number, Number] | None:
        return None

    def add(self, state: tuple[Number, Number] | None, value: Number) -> tuple[Number, Number] | None:
        value = number(value)
        if type(value) is float and value.is_integer() and abs(value) < 1 << 53:
            value = int(value)  # 1 and 1.0 are one number, and so is what is packed
        if state is None:
            return value, value
        low, high = state
        if value < low:
            return value, high
        return (low, value) if value > high else state

    def merge(
        self, a: tuple[Number, Number] | None, b: tuple[Number, Number] | None
    ) -> tuple[Number, Number] | None:
        if a is None or b is None:
            return a or b
        return min(a[0], b[0]), max(a[1], b[1])

    def finish(self, state: tuple[Number, Number] | None) -> Any:
        return None if state is None else {"min": state[0], "max": state[1]}

    def pack(self, state: tuple[Number, Number] | None) -> bytes:
        try:
            return encode(state)
        except OverflowError as error:
            raise Unsuitable(f"{state} has more than 64 bits") from error

    def unpack(self, data: bytes) -> tuple[Number, Number] | None:
        state: tuple[Number, Number] | None = decode(data, tuple[Number, Number] | None)
        if state is not None and state[0] > state[1]:
            raise Unsuitable(f"{state} is no smallest and largest")
        return state


class Min(MinMax):
    """The smallest number."""

    def finish(self, state: tuple[Number, Number] | None) -> Number | None:
        return None if state is None else state[0]


class Max(MinMax):
    """The largest number."""

    def finish(self, state: tuple[Number, Number] | None) -> Number | None:
        return None if state is None else state[1]


class _Timed(Aggregate["tuple[float, bytes] | None", "tuple[float, Any]", Any]):
    """Of pairs (time, value) one value; at equal times the one whose packed bytes are larger."""

    safe_under_duplicates = True
    _sign = 1.0

    def zero(self) -> tuple[float, bytes] | None:
        return None

    def add(self, state: tuple[float, bytes] | None, value: tuple[float, Any]) -> tuple[float, bytes] | None:
        try:
            time, what = value
            timed = (float(number(time)) * self._sign + 0.0, encode(what))
        except (TypeError, OverflowError) as error:
            raise Unsuitable(f"{value!r} is no pair of a time and a value: {error}") from error
        return timed if state is None or timed > state else state

    def merge(
        self, a: tuple[float, bytes] | None, b: tuple[float, bytes] | None
    ) -> tuple[float, bytes] | None:
        return a or b if a is None or b is None else max(a, b)

    def finish(self, state: tuple[float, bytes] | None) -> Any:
        return None if state is None else msgspec.msgpack.decode(state[1])

    def pack(self, state: tuple[float, bytes] | None) -> bytes:
        return encode(state)

    def unpack(self, data: bytes) -> tuple[float, bytes] | None:
        state: tuple[float, bytes] | None = decode(data, tuple[float, bytes] | None)
        return state


class Last(_Timed):
    """The value of the latest time."""


class First(_Timed):
    """The value of the earliest time."""

    _sign = -1.0
