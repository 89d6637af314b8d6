"""Routes: which destinations an observation goes to, and why.

Pure: a `Table` is made of what a user wrote, and judges one observation at a time. The first route that
matches takes it, and only it, unless it says `continue`; what no route takes goes to `unmatched`. Nothing
here sends or stores: how much of a route may wait, how fast it leaves and who goes first is said here and
done by the destination's spool (`gateway.spool`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from fnmatch import translate
from typing import Annotated, Any, Literal

import msgspec

from edge.observation import Observation
from gateway.readings import meaning

STORE = "store"
"""The storage tier: a destination that is always there."""
DROP = "drop"
"""Nowhere: another one."""

UNMATCHED = "unmatched"
"""The name of the route that takes what no other does."""
DEAD_LETTER = "dead-letter"
"""The name of the route that takes what cannot be stored."""
TABLE = "table"
"""Where it goes if nobody says otherwise: the last thousand in the gateway's own store."""

Overflow = Literal["spool", "block", "drop-oldest"]
Names = str | tuple[str, ...]
"""One glob pattern, or several of which one has to fit."""
Plain = str | int | float | bool


class Condition(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """About one field of what a reading says; everything that is given has to hold."""

    equals: Plain | None = None
    one_of: tuple[Plain, ...] = ()
    below: float | None = None
    above: float | None = None

    def problem(self, value: object) -> str:
        """Why a value does not fit; empty: it does."""
        if self.equals is not None and value != self.equals:
            return f"is not {self.equals}"
        if self.one_of and value not in self.one_of:
            return f"is none of {', '.join(map(str, self.one_of))}"
        if self.below is None and self.above is None:
            return ""
        if isinstance(value, bool) or not isinstance(value, int | float):
            return "is no number"
        if self.below is not None and value >= self.below:
            return f"is not below {self.below:g}"
        if self.above is not None and value <= self.above:
            return f"is not above {self.above:g}"
        return ""


class Route(
    msgspec.Struct,
    frozen=True,
    forbid_unknown_fields=True,
    rename={"goes_on": "continue"},
    omit_defaults=True,
):
    """What a user wrote. Conditions that are left out hold always."""

    to: str
    """A destination: `store`, `drop`, or one of the user's own."""
    name: str = ""
    """For counters and traces; empty: the destination's."""
    kind: Names = ()
    """Glob patterns."""
    device: Names = ()
    """Likewise."""
    size_min_bytes: Annotated[int, msgspec.Meta(ge=0)] | None = None
    """Of the encoded observation."""
    size_max_bytes: Annotated[int, msgspec.Meta(ge=0)] | None = None
    age_min_s: float | None = None
    """When it comes: the gateway's clock less `t_gen`."""
    age_max_s: float | None = None
    where: dict[str, Condition] = {}
    """Fields of what the reading says, `{ celsius = { above = 30 } }`; one that is not there does not fit."""
    goes_on: bool = False
    """Later routes may take it as well."""
    rate_limit_per_s: Annotated[float, msgspec.Meta(gt=0, le=1e9)] | None = None
    """Observations a second: with `block` that come in, otherwise that leave for the destination."""
    rate_burst: Annotated[int, msgspec.Meta(ge=1, le=10**9)] | None = None
    """How many at once after a pause; left out: as many as in one second, one at least."""
    priority: Annotated[int, msgspec.Meta(ge=-100, le=100)] = 0
    """Of the routes to one destination, the higher goes first, and has room for longer."""
    overflow: Overflow = "spool"
    """`spool`: wait on disk, and `busy` when there is no room. `block`: `busy` beyond the rate, too.
    `drop-oldest`: what waits longest gives way; acknowledged, and lost by choice."""
    spool_max_observations: Annotated[int, msgspec.Meta(ge=1, le=10**9)] | None = None
    """How many may wait for their turn."""


class Step(msgspec.Struct, frozen=True):
    """What one route made of an observation."""

    route: str
    to: str
    takes: bool
    why: str
    """The first condition that does not hold; or that all do."""


class Table:
    """Routes in their order.

    Args:
        routes: what the user wrote.
        unmatched: where everything else goes.
        dead_letter: where that goes which no destination takes.
    """

    def __init__(
        self, routes: tuple[Route, ...] = (), unmatched: str = STORE, dead_letter: str = TABLE
    ) -> None:
        self.routes = _named(routes)
        self.unmatched = Route(unmatched, UNMATCHED)
        self.dead_letter = Route(dead_letter, DEAD_LETTER)
        self._patterns = [(_pattern(route.kind), _pattern(route.device)) for route in self.routes]
        self._names: dict[tuple[str, str], tuple[int, ...]] = {}
        """Routes whose names fit a kind and a device: these are few, and come again and again."""

    @property
    def all(self) -> tuple[Route, ...]:
        """In their order, and then those that are always there."""
        return (*self.routes, self.unmatched, self.dead_letter)

    def leading_to(self, destination: str) -> tuple[Route, ...]:
        """All of them."""
        return tuple(route for route in self.all if route.to == destination)

    def match(self, observation: Observation, size_bytes: int, age_s: float) -> tuple[Route, ...]:
        """The routes that take it, to each destination the first that leads there."""
        names = observation.kind, observation.id.device
        fitting = self._names.get(names)
        if fitting is None:
            if len(self._names) >= CACHED_MAX:
                self._names.clear()
            fitting = self._names[names] = tuple(self._fitting(*names))
        found: dict[str, Route] = {}
        for number in fitting:
            route = self.routes[number]
            if not _problem_of_values(route, observation, size_bytes, age_s):
                found.setdefault(route.to, route)
                if not route.goes_on:
                    break
        return tuple(found.values()) or (self.unmatched,)

    def explain(self, observation: Observation, size_bytes: int, age_s: float) -> tuple[Step, ...]:
        """What each route that is looked at makes of it, up to the last one."""
        steps = []
        for number, route in enumerate(self.routes):
            kind, device = self._patterns[number]
            why = ""
            if kind is not None and not kind.match(observation.kind):
                why = f"its kind is {observation.kind}"
            elif device is not None and not device.match(observation.id.device):
                why = f"it comes from {observation.id.device}"
            why = why or _problem_of_values(route, observation, size_bytes, age_s)
            steps.append(Step(route.name, route.to, not why, why or "everything holds"))
            if not why and not route.goes_on:
                return tuple(steps)
        if not any(step.takes for step in steps):
            steps.append(Step(UNMATCHED, self.unmatched.to, True, "no route takes it"))
        return tuple(steps)

    def shadowed(self) -> Iterator[tuple[Route, Route]]:
        """Routes that never take anything, each with the earlier one that takes everything first."""
        for number, route in enumerate(self.routes):
            conditions = (route.kind, route.device, route.where)
            bounds = (route.size_min_bytes, route.size_max_bytes, route.age_min_s, route.age_max_s)
            bare = not any(conditions) and all(bound is None for bound in bounds)
            if bare and not route.goes_on:
                yield from ((later, route) for later in self.routes[number + 1 :])
                return

    def _fitting(self, kind: str, device: str) -> Iterator[int]:
        for number, (kinds, devices) in enumerate(self._patterns):
            if (kinds is None or kinds.match(kind)) and (devices is None or devices.match(device)):
                yield number


CACHED_MAX = 10_000


def _named(routes: tuple[Route, ...]) -> tuple[Route, ...]:
    """Each under a name of its own: a second one to `archive` is `archive-2`."""
    taken = dict.fromkeys((UNMATCHED, DEAD_LETTER, *(route.name for route in routes if route.name)))
    found = []
    for route in routes:
        name, number = route.name or route.to, 1
        while not route.name and name in taken:
            number += 1
            name = f"{route.to}-{number}"
        taken[name] = None
        found.append(msgspec.structs.replace(route, name=name))
    return tuple(found)


def _pattern(names: Names) -> re.Pattern[str] | None:
    globs = (names,) if isinstance(names, str) else names
    return re.compile("|".join(map(translate, globs))) if globs else None


def _problem_of_values(route: Route, observation: Observation, size_bytes: int, age_s: float) -> str:
    """The first condition beside names that does not hold."""
    if route.size_min_bytes is not None and size_bytes < route.size_min_bytes:
        return f"it has {size_bytes} bytes, less than {route.size_min_bytes}"
    if route.size_max_bytes is not None and size_bytes > route.size_max_bytes:
        return f"it has {size_bytes} bytes, more than {route.size_max_bytes}"
    if route.age_min_s is not None and age_s < route.age_min_s:
        return f"it is {age_s:.1f} s old, less than {route.age_min_s:g} s"
    if route.age_max_s is not None and age_s > route.age_max_s:
        return f"it is {age_s:.1f} s old, more than {route.age_max_s:g} s"
    if route.where:
        said: Any = meaning(observation.kind, observation.payload)
        for field, condition in route.where.items():
            if not isinstance(said, dict) or field not in said:
                return f"it says nothing of {field}"
            problem = condition.problem(said[field])
            if problem:
                return f"its {field}, {said[field]}, {problem}"
    return ""
