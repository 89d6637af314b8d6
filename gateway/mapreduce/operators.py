"""What a job does with records and pairs: the user's own functions, or typed aggregates.

An operator collects what one map task emits, combines pairs of one key before they cross a link, and finishes
a key at a reducer. Values are bytes outside of it. Whatever it gives is the same in whichever order records
and pairs come: the user's reducer sees values in the order of their bytes, and aggregates do not depend on
order (`underlay.aggregates`).

Source: Dean and Ghemawat, "MapReduce: Simplified Data Processing on Large Clusters" (OSDI 2004), §2, §4.3.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from inspect import isgenerator
from typing import Any, Protocol

import msgspec

from gateway.mapreduce import keys
from gateway.mapreduce.keys import Key
from gateway.mapreduce.records import AnyRecord
from gateway.mapreduce.runs import Pair, grouped
from underlay.aggregates import Aggregate
from underlay.aggregates.windows import Windows

VALUE_BYTES_MAX = 48 * 1024
"""Of a packed value: pairs travel in messages."""
PACKED_MAX = 100_000
"""Keys that are remembered with their bytes."""
PAIR_BYTES = 120
"""About what a pair takes in memory beside its key and value."""

Mapper = Callable[[Any], Iterable[tuple[Key, Any]] | None]
Reducer = Callable[[Any, Iterator[Any]], Any]
Combiner = Callable[[Any, Iterator[Any]], Any]

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder().decode


class BadValue(TypeError):
    """What cannot be a value, and why."""


class Blame(Exception):
    """A user's function raised: which, and given what. The cause is the error itself."""

    def __init__(self, where: str, record: str) -> None:
        super().__init__(where, record)
        self.where = where
        self.record = record


class Collector(Protocol):
    """What one map task has emitted and not yet written."""

    size_bytes: int
    """About what it takes in memory."""

    def take(self, record: AnyRecord) -> None:
        """Map one record; whatever it raises, nothing of the record was collected."""

    def drain(self) -> Iterator[Pair]:
        """All pairs in order, combined; the collector is empty afterwards."""


class Operator(Protocol):
    """What a job does."""

    @property
    def combines(self) -> bool:
        """Whether pairs of one key can be made fewer."""

    def collector(self) -> Collector:
        """For one map task."""

    def combine(self, key: bytes, values: Iterator[bytes]) -> Iterable[bytes]:
        """Fewer values that mean the same; only if `combines`."""

    def finish(self, key: bytes, values: Iterator[bytes], watermark_s: float) -> Iterable[bytes]:
        """The rows of a key, packed; `watermark_s` is the newest `t_event` that the job has seen."""


def pack_value(value: object) -> bytes:
    """A value as bytes; raises BadValue."""
    try:
        data = _encode(value)
    except (TypeError, OverflowError, RecursionError, UnicodeEncodeError) as error:
        raise BadValue(f"{_short(value)} cannot be packed: {error}") from error
    if len(data) > VALUE_BYTES_MAX:
        raise BadValue(f"a value of {len(data)} bytes ({_short(value)}): values end at {VALUE_BYTES_MAX}")
    return data


def unpack_value(data: bytes) -> Any:
    """The inverse; tuples come back as lists."""
    return _decode(data)


def combined(operator: Operator, pairs: Iterable[Pair]) -> Iterator[Pair]:
    """Pairs in order, with the values of each key combined."""
    for key, values in grouped(pairs):
        for value in operator.combine(key, values):
            yield key, value


# ---------------------------------------------------------------------------------------------- user's
# functions


class Functions:
    """A user's mapper and reducer.

    Args:
        mapper: gets a record and gives (key, value) pairs.
        reducer: gets a key and an iterator of its values, in the order of their packed bytes. What it returns
            is the key's row; a generator gives as many rows as it yields.
        combiner: like the reducer, and called with some of a key's values at a time; what it returns is a
            value, or a generator of values.
    """

    def __init__(self, mapper: Mapper, reducer: Reducer, combiner: Combiner | None = None) -> None:
        self.mapper = mapper
        self.reducer = reducer
        self.combiner = combiner

    @property
    def combines(self) -> bool:
        return self.combiner is not None

    def collector(self) -> Collector:
        return _Pairs(self)

    def combine(self, key: bytes, values: Iterator[bytes]) -> Iterable[bytes]:
        assert self.combiner is not None
        return self._called(self.combiner, "combiner", key, values)

    def finish(self, key: bytes, values: Iterator[bytes], watermark_s: float) -> Iterable[bytes]:
        return self._called(self.reducer, "reducer", key, values)

    def _called(
        self, function: Callable[[Any, Iterator[Any]], Any], name: str, key: bytes, values: Iterator[bytes]
    ) -> list[bytes]:
        unpacked = keys.unpack(key)
        try:
            result = function(unpacked, map(_decode, values))
            if isgenerator(result):
                return [pack_value(value) for value in result]
            return [pack_value(result)]
        except Exception as error:
            raise Blame(name, f"key {_short(unpacked)}") from error


class _Pairs:
    """Pairs as they come."""

    def __init__(self, functions: Functions) -> None:
        self._functions = functions
        self._mapper = functions.mapper
        self._pairs: list[Pair] = []
        self._packed: dict[object, bytes] = {}
        self.size_bytes = 0

    def take(self, record: AnyRecord) -> None:
        emitted = self._mapper(record)
        if emitted is None:
            return
        packed, encode = self._packed, _encode
        fresh = []
        size_bytes = 0
        for key, value in emitted:
            try:
                key_data = packed[key]
            except (KeyError, TypeError):
                key_data = self._pack_new(key)
            try:
                data = encode(value)
            except Exception:
                data = pack_value(value)
            if len(data) > VALUE_BYTES_MAX:
                pack_value(value)
            fresh.append((key_data, data))
            size_bytes += len(data) + len(key_data) + PAIR_BYTES
        self._pairs += fresh
        self.size_bytes += size_bytes

    def _pack_new(self, key: Key) -> bytes:
        data = keys.pack(key)
        if len(self._packed) >= PACKED_MAX:
            self._packed.clear()
        self._packed[key] = data
        return data

    def drain(self) -> Iterator[Pair]:
        pairs, self._pairs, self.size_bytes = self._pairs, [], 0
        pairs.sort()
        return combined(self._functions, pairs) if self._functions.combines else iter(pairs)


# --------------------------------------------------------------------------------------------- typed
# aggregates


class Column:
    """One column of a result: an aggregate of one value of each record.

    Args:
        value: of a record; None is no value, and the record does not count here.
    """

    def __init__(self, name: str, aggregate: Aggregate[Any, Any, Any], value: Callable[[Any], Any]) -> None:
        self.name = name
        self.aggregate = aggregate
        self.value = value


class Grouping:
    """Aggregates of records by key and window.

    Args:
        key: of a record, its parts in a tuple.
        columns: what to make of the records of a key.
        where: which records count; None: all.
        windows: of `t_event`; the start becomes the key's last part. None: no windows.
        plain_key: the record's attributes that the key is made of, if it is nothing else.
        plain_values: whether every column is of `record.value`, or of records as such.
    """

    combines = True

    def __init__(
        self,
        key: Callable[[Any], tuple[Key, ...]],
        columns: Sequence[Column],
        where: Callable[[Any], bool] | None = None,
        windows: Windows | None = None,
        plain_key: tuple[str, ...] | None = None,
        plain_values: bool = False,
    ) -> None:
        self.key = key
        self.columns = tuple(columns)
        self.where = where
        self.windows = windows
        self.plain_key = plain_key
        self.plain_values = plain_values

    def collector(self) -> Collector:
        return _States(self)

    def combine(self, key: bytes, values: Iterator[bytes]) -> Iterable[bytes]:
        return (self.pack(self._merged(values)),)

    def finish(self, key: bytes, values: Iterator[bytes], watermark_s: float) -> Iterable[bytes]:
        if self.windows is not None:
            unpacked = keys.unpack(key)
            assert isinstance(unpacked, tuple)
            if self.windows.is_open(unpacked[-1], watermark_s):
                return ()
        states = self._merged(values)
        row = {
            column.name: column.aggregate.finish(state)
            for column, state in zip(self.columns, states, strict=True)
        }
        return (pack_value(row),)

    def pack(self, states: list[Any]) -> bytes:
        """The states of all columns as one value; raises BadValue where that is too large."""
        data = _encode(
            [column.aggregate.pack(state) for column, state in zip(self.columns, states, strict=True)]
        )
        if len(data) > VALUE_BYTES_MAX:
            raise BadValue(f"the aggregates of a key take {len(data)} bytes: values end at {VALUE_BYTES_MAX}")
        return data

    def _merged(self, values: Iterator[bytes]) -> list[Any]:
        aggregates = [column.aggregate for column in self.columns]
        merged: list[Any] | None = None
        for value in values:
            states = [
                aggregate.unpack(data) for aggregate, data in zip(aggregates, _decode(value), strict=True)
            ]
            if merged is None:
                merged = states
            else:
                merged = [
                    aggregate.merge(a, b) for aggregate, a, b in zip(aggregates, merged, states, strict=True)
                ]
        assert merged is not None
        return merged


class _States:
    """States by key."""

    def __init__(self, grouping: Grouping) -> None:
        self._grouping = grouping
        self._states: dict[tuple[Key, ...], list[Any]] = {}
        self._state_bytes = PAIR_BYTES + 200 * len(grouping.columns)
        self.size_bytes = 0

    def take(self, record: AnyRecord) -> None:
        grouping = self._grouping
        if grouping.where is not None and not grouping.where(record):
            return
        key = grouping.key(record)
        values = [column.value(record) for column in grouping.columns]
        if all(value is None for value in values):
            return
        if grouping.windows is None:
            self._add(key, values)
        else:
            for start in grouping.windows.starts(record.t_event):
                self._add((*key, start), values)

    def drain(self) -> Iterator[Pair]:
        states, self._states, self.size_bytes = self._states, {}, 0
        grouping = self._grouping
        packed = sorted((keys.pack(key), key) for key in states)
        return ((data, grouping.pack(states[key])) for data, key in packed)

    def _add(self, key: tuple[Key, ...], values: list[Any]) -> None:
        states = self._states.get(key)
        columns = self._grouping.columns
        if states is None:
            keys.pack(key)  # a key that cannot be packed is this record's fault
            states = self._states[key] = [column.aggregate.zero() for column in columns]
            self.size_bytes += self._state_bytes
        added = [
            state if value is None else column.aggregate.add(state, value)
            for column, state, value in zip(columns, states, values, strict=True)
        ]
        states[:] = added


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
