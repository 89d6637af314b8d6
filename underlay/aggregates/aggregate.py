"""The contract of aggregates.

Laws, which `laws.violations` tries: `merge` is associative and commutative with `zero()` as its neutral
element; adding values to one state, or to several that are merged, in any order, gives states that pack to
the same bytes; `unpack(pack(s))` packs to the same bytes again.

Source of the shape: Gray et al., "Data Cube" (1997), distributive and algebraic aggregate functions; Madden
et al., "TAG" (OSDI 2002), §3, where initialiser, merging function and evaluator are `add`, `merge`, `finish`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from math import isfinite
from typing import Any, ClassVar, Generic, TypeVar

import msgspec

State = TypeVar("State")
Value = TypeVar("Value")
Result = TypeVar("Result")


class Unsuitable(ValueError):
    """A value that an aggregate cannot take, or bytes that are none of its states."""


class Aggregate(ABC, Generic[State, Value, Result]):
    """What to make of many values.

    A state belongs to whoever got it from `zero`, `add`, `merge` or `unpack`; `add` and `merge` may change
    the state that they are given first, and return the one to go on with.
    """

    safe_under_duplicates: ClassVar[bool] = False
    """Whether adding a value again changes nothing: then it may be disseminated by paths that repeat it."""

    @abstractmethod
    def zero(self) -> State:
        """Of no values."""

    @abstractmethod
    def add(self, state: State, value: Value) -> State:
        """One value more. Raises Unsuitable, and then the state is as it was."""

    @abstractmethod
    def merge(self, a: State, b: State) -> State:
        """Of the values of both."""

    @abstractmethod
    def finish(self, state: State) -> Result:
        """What is made of them; None where that is not defined for so few."""

    @abstractmethod
    def pack(self, state: State) -> bytes:
        """The state as bytes, which do not depend on the order in which it came about."""

    @abstractmethod
    def unpack(self, data: bytes) -> State:
        """The inverse; raises Unsuitable."""

    def add_many(self, state: State, values: Iterable[Value]) -> State:
        """As `add` for each; faster where the aggregate knows how."""
        for value in values:
            state = self.add(state, value)
        return state

    def __repr__(self) -> str:
        options = ", ".join(f"{name.strip('_')}={value!r}" for name, value in vars(self).items())
        return f"{type(self).__name__}({options})"

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and vars(other) == vars(self)

    def __hash__(self) -> int:
        return hash(repr(self))


def number(value: Any) -> int | float:
    """A finite number (a bool is 0 or 1); raises Unsuitable."""
    kind = type(value)
    if kind is float:
        if isfinite(value):
            return value  # type: ignore[no-any-return]
        raise Unsuitable(f"{value} is no number that can be added up")
    if kind is int:
        return value  # type: ignore[no-any-return]
    if isinstance(value, int | float):
        return number(int(value) if isinstance(value, int) else float(value))
    raise Unsuitable(f"{value!r} is no number")


encode = msgspec.msgpack.Encoder().encode


def decode(data: bytes, shape: Any) -> Any:
    """Packed bytes in that shape; raises Unsuitable."""
    try:
        return msgspec.msgpack.decode(data, type=shape)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Unsuitable(f"{data[:20]!r} is no packed state: {error}") from error


def integer_bytes(value: int) -> bytes:
    """A whole number of any size, shortest form, two's complement."""
    return value.to_bytes((value.bit_length() + 8) // 8, "big", signed=True)


def integer_of(data: bytes) -> int:
    """The inverse of `integer_bytes`."""
    return int.from_bytes(data, "big", signed=True)
