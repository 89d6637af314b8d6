"""Jobs that say what they want and not how: observations, a key, windows, aggregates.

    job = Observations("temperature").key("device").window("1h").aggregate(mean=Mean(), p95=Quantile(0.95))

Each call gives a new query; `aggregate` and `map` give a `Job`.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from math import inf
from operator import attrgetter
from typing import Any

from gateway.mapreduce.inputs import Selection
from gateway.mapreduce.job import REDUCES, Job
from gateway.mapreduce.keys import Key
from gateway.mapreduce.operators import Column, Combiner, Grouping, Mapper, Reducer
from underlay.aggregates import Aggregate, Count
from underlay.aggregates.windows import Windows

Getter = Callable[[Any], Any]


class Observations:
    """Some of the stored observations.

    Args:
        kind, device: glob patterns.
        since, until: of `t_event`, Unix seconds or an ISO 8601 time (UTC unless it says otherwise).

    Raises ValueError and TypeError for what makes no sense, where it is said.
    """

    def __init__(
        self,
        kind: str = "*",
        device: str = "*",
        *,
        since: float | str | None = None,
        until: float | str | None = None,
    ) -> None:
        self.selection = Selection(kind, device, _time(since, -inf), _time(until, inf))
        self._keys: tuple[tuple[str, Getter], ...] = ()
        self._where: Getter | None = None
        self._value: Getter = _VALUE
        self._plain_key = True
        self._windows: Windows | None = None

    def key(self, *parts: str | Getter, **named: str | Getter) -> Observations:
        """Group by these: names of a record's attributes or fields, or functions of a record."""
        unnamed = [(part if isinstance(part, str) else part.__name__, part) for part in parts]
        found = [(name, _getter(part)) for name, part in (*unnamed, *named.items())]
        plain = self._plain_key and not named and all(part in _ATTRIBUTES for part in parts)
        return self._with(_keys=(*self._keys, *found), _plain_key=plain)

    def where(self, test: Callable[[Any], bool]) -> Observations:
        """Only records for which this holds, and what was said before."""
        before = self._where
        both = test if before is None else lambda record: before(record) and test(record)
        return self._with(_where=both)

    def value(self, value: str | Getter) -> Observations:
        """What is aggregated: an attribute or field of a record, or a function of it; by default
        `record.value`."""
        return self._with(_value=_getter(value))

    def window(
        self, size: str | float, slide: str | float | None = None, *, lateness: str | float | None = None
    ) -> Observations:
        """Group by windows of `t_event` too: of that size (`"1h"`, `"15min"`, seconds), one after the other,
        or one every `slide`.

        Args:
            lateness: a window is given once the newest event of the job is so long past its end, and held
                back before: more of it may be on its way. `"0s"` waits for the first event after its end.
                Default: every window is given.
        """
        return self._with(_windows=Windows.of(size, slide, lateness))

    def aggregate(self, *, reduces: int = REDUCES, **columns: Any) -> Job:
        """A job that gives one row for each key, with these columns. A column is an aggregate of the value,
        or a pair of a value (as for `value`) and an aggregate of it."""
        if not columns:
            raise TypeError("aggregate() needs at least one column, such as mean=Mean()")
        getters = [getter for _, getter in self._keys]
        names = tuple(name for name, _ in self._keys)
        made = [self._column(*each) for each in columns.items()]
        grouping = Grouping(
            _key_of(getters),
            made,
            self._where,
            self._windows,
            plain_key=names if self._plain_key else None,
            plain_values=all(column.value in (_VALUE, _one) for column in made),
        )
        return Job(
            operator=grouping,
            source=self.selection,
            key_names=names if self._windows is None else (*names, "window"),
            window_s=0.0 if self._windows is None else self._windows.size_s,
            reduces=reduces,
        )

    def map(self, mapper: Mapper, reducer: Reducer, combiner: Combiner | None = None, **options: Any) -> Job:
        """A job with a mapper and a reducer of one's own over these; `options` are those of `Job`."""
        where = self._where
        if where is None:
            return Job(mapper, reducer, combiner, source=self.selection, **options)

        def of_some(record: Any) -> Any:
            return mapper(record) if where(record) else None

        return Job(of_some, reducer, combiner, source=self.selection, **options)

    def _column(self, name: str, given: Any) -> Column:
        value = _one if isinstance(given, Count) else self._value
        if isinstance(given, tuple) and len(given) == 2:
            value, given = _getter(given[0]), given[1]
        if isinstance(given, type) or not isinstance(given, Aggregate):
            raise TypeError(f"{name} is an aggregate such as Mean(), and this is {given!r}")
        if name in dict(self._keys) or name == "window":
            raise TypeError(f"{name!r} is a column already")
        return Column(name, given, value)

    def _with(self, **changes: Any) -> Observations:
        changed = object.__new__(Observations)
        changed.__dict__.update(self.__dict__ | changes)
        return changed


def _getter(part: str | Getter) -> Getter:
    if not isinstance(part, str):
        if not callable(part):
            raise TypeError(f"{part!r} is neither the name of a field nor a function")
        return part
    if part == "value":
        return _VALUE
    if part in _ATTRIBUTES:
        return attrgetter(part)

    def field(record: Any) -> Any:
        return record.fields.get(part)

    return field


_VALUE = attrgetter("value")
_ATTRIBUTES = ("device", "kind", "sequence", "t_event", "t_gen", "value", "text", "file", "offset")


def _one(_: Any) -> int:
    """What is counted where a column only counts: records, whether they have a value or not."""
    return 1


def _key_of(getters: list[Getter]) -> Callable[[Any], tuple[Key, ...]]:
    if len(getters) == 1:
        (only,) = getters
        return lambda record: (only(record),)
    return lambda record: tuple(getter(record) for getter in getters)


def _time(given: float | str | None, default: float) -> float:
    if given is None:
        return default
    if isinstance(given, str):
        at = datetime.fromisoformat(given)
        return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()
    return float(given)
