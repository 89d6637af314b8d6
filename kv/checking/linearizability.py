"""Whether a history is linearizable: a search for an order that explains it.

A history is linearizable if each operation can be given one moment between its call and its return such that,
done one at a time in that order, all have the outcomes that they had (Herlihy & Wing, "Linearizability: A
Correctness Condition for Concurrent Objects", 1990). The search is that of Wing & Gong ("Testing and
Verifying Concurrent Objects", 1993) with Lowe's two improvements ("Testing for Linearizability", 2017):
configurations that were met before are not searched again, and an operation is ordered just in time, when
one returns that cannot be explained without it. So the search walks along the history, and where it is quiet
nothing but the object's state is carried on.

An operation that never returned may be ordered anywhere after its call, or nowhere. There may be hundreds of
these at any moment, and four rules keep them from being tried in every combination. They refuse no
history, because an order stays one when such an operation is moved or taken out and no outcome changes:

- one is placed only straight before an operation that returned, or before others placed there for it;
- one that changes nothing, or whose effect the next in the order hides, is not placed;
- of several with the same command the oldest is placed, and where the same can be reached with some of them
  unused, the rest is not tried;
- after one, the state must be `is_within_reach` of an outcome that is to be explained.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from math import inf
from typing import Any, NamedTuple, Protocol

import msgspec

from kv.checking.history import Call, by_key, describe
from kv.checking.register import Register
from kv.operations import Command, Outcome

State = Any
"""Hashable, compared by value."""

CONFIGURATIONS_MAX = 3_000_000
LOOK_AHEAD = 8
"""So many calls that see a value are asked whether they still can."""
WINDOW_CALLS = (4, 30)
"""A violation shows what happened since it was last quiet: at least and at most so many returns."""


class Model(Protocol):
    """A sequential object, and what the search may know of it to be quick."""

    initial: State

    def step(self, state: State, command: Command) -> tuple[State, Outcome]:
        """The state after `command`, and its outcome."""

    def is_idle(self, command: Command, outcome: Outcome | None) -> bool:
        """Whether a command with that outcome has changed nothing, whatever the state was."""

    def is_within_reach(self, state: State, command: Command, outcome: Outcome) -> bool:
        """False only if no operations that build upon `state` lead to where `command` has `outcome`."""

    def simplified(self, calls: Sequence[Call]) -> list[Call]:
        """One call for each, in the same order, linearizable exactly if `calls` are: alike where no outcome
        can tell them apart, and with an end, but no outcome, where others have seen the effect of one that
        never returned."""

    def beginnings(self, calls: Sequence[Call]) -> dict[int, int]:
        """For calls that saw a value, by index, the call that wrote its beginning, where that is known and no
        other could have: once that one is ordered, the state stays within reach of what is seen, and not
        initial, until it is seen."""


class Violation(msgspec.Struct, frozen=True):
    """No order explains this history."""

    key: bytes
    calls: tuple[Call, ...]
    """What cannot be ordered: the calls around the first return that no order reaches."""
    order: tuple[Call, ...]
    """Of these, the longest beginning of an order that was found."""
    state: State
    """The object's state after it, as the model has it (a `Register` shows what nobody read as dots)."""
    culprit: Call
    """Whose return it is."""
    expected: Outcome
    """What the culprit would have got in that state."""

    def __str__(self) -> str:
        ordered = "\n".join(f"  {call}" for call in self.order) or "  (nothing)"
        rest = "\n".join(f"  {call}" for call in self.calls if call not in self.order)
        return (
            f"not linearizable: {describe(Outcome(self.key))}\n"
            f"these can be ordered so:\n{ordered}\nthen the state is {describe(Outcome(self.state))}, "
            f"and these are left:\n{rest}\n"
            f"no order lets this return:\n  {self.culprit}\n"
            f"(after those above it would get {describe(self.expected)})"
        )


class Undecided(Exception):
    """The search met more configurations than it may; the history is neither proved nor refuted."""


def find_violation(
    calls: Iterable[Call], model: Model | None = None, configurations_max: int = CONFIGURATIONS_MAX
) -> Violation | None:
    """Why the first key that no order explains cannot be explained; None if the history is linearizable.

    Args:
        calls: of any number of keys and clients, in any order.
        model: of one key; None is a `Register`.
        configurations_max: for each key; `Undecided` is raised beyond.
    """
    for key, part in by_key(calls).items():
        object_ = model or Register.of(part)
        violation = _Search(key, part, object_).run(configurations_max)
        if violation is not None:
            return _without_idle_calls(violation, part, object_, configurations_max)
    return None


# ---------------------------------------------------------------------------------------------------- helpers

_NOTHING: Any = object()
"""In place of a state: the last operation that was ordered is one that returned."""


class _Configuration(NamedTuple):
    """How far an order has come."""

    position: int
    """Returns explained so far."""
    placed: frozenset[int]
    """Calls in the order that have not returned yet."""
    state: State
    before: State
    """The state before the last of the order, if that is one whose outcome is unknown."""
    spent: frozenset[int]
    """Calls in the order that never return."""


class _Path(NamedTuple):
    """An order, last first."""

    call: int
    earlier: _Path | None


_Reached = tuple[_Configuration, _Path | None]


class _Search:
    """Of one key's history. Calls are numbered: first those that returned, by their return."""

    def __init__(self, key: bytes, calls: Sequence[Call], model: Model) -> None:
        self._key = key
        self._model = model
        pairs = [
            (simple, call)
            for simple, call in zip(model.simplified(calls), calls, strict=True)
            if simple.returned_s is not None or not model.is_idle(call.command, None)
        ]
        pairs.sort(key=lambda pair: (_end_s(pair[0]), pair[0].invoked_s))
        self._calls = [simple for simple, _ in pairs]
        self._originals = [call for _, call in pairs]
        self._returning = sum(call.returned_s is not None for call in self._calls)
        self._idle = [model.is_idle(call.command, call.outcome) for call in self._calls]
        self._open = list(self._open_at_returns())
        self._beginnings = model.beginnings(self._calls)
        self._observers = sorted(number for number in self._beginnings if number < self._returning)
        self._lost_s = [call.invoked_s for call in self._calls[self._returning :]]

    def run(self, configurations_max: int) -> Violation | None:
        """Depth first; at each return first without any of the calls that never returned."""
        start = self._settle(_Configuration(0, frozenset(), self._model.initial, _NOTHING, frozenset()), None)
        stack = [start]
        furthest = start
        met: dict[_Configuration, list[frozenset[int]]] = {}
        configurations = 0
        while stack:
            configuration, path = stack.pop()
            if configuration.position == self._returning:
                return None
            # Whatever can follow can follow as well where fewer of those that never return are spent.
            same_but_spent = met.setdefault(configuration._replace(spent=frozenset()), [])
            if any(spent <= configuration.spent for spent in same_but_spent):
                continue
            same_but_spent.append(configuration.spent)
            if self._is_doomed(configuration):
                continue
            configurations += 1
            if configurations > configurations_max:
                raise Undecided(f"{self._key!r}: more than {configurations_max} configurations")
            if configuration.position > furthest[0].position:
                furthest = configuration, path
            stack.extend(reversed([self._settle(*step) for step in self._following(configuration, path)]))
        return self._violation(*furthest)

    def _is_doomed(self, configuration: _Configuration) -> bool:
        """Whether one of the next values to be seen was begun, and is gone."""
        position, placed, state, _, _ = configuration
        next_observer = bisect_left(self._observers, position)
        for observer in self._observers[next_observer : next_observer + LOOK_AHEAD]:
            beginning = self._beginnings[observer]
            begun = beginning < position or beginning in placed
            kept = state != self._model.initial and self._within_reach(state, observer)
            if begun and not kept and observer not in placed:
                return True
        return False

    def _settle(self, configuration: _Configuration, path: _Path | None) -> _Reached:
        """Order at once what changes nothing and fits, and pass the returns that are explained."""
        position, placed, state, before, spent = configuration
        while position < self._returning:
            for number in self._open[position]:
                if self._idle[number] and number not in placed and self._fits(number, state):
                    placed |= {number}
                    path = _Path(number, path)
                    if before is not _NOTHING and not self._fits(number, before):
                        before = _NOTHING
            if position not in placed:
                break
            placed -= {position}
            position += 1
        return _Configuration(position, placed, state, before, spent), path

    def _following(self, configuration: _Configuration, path: _Path | None) -> Iterator[_Reached]:
        """What can come next in the order, the most likely first."""
        position, placed, state, before, spent = configuration
        step, calls = self._model.step, self._calls
        waiting = [number for number in self._open[position] if number not in placed]
        answered = [number for number in waiting if calls[number].outcome is not None]
        for number in answered:
            if self._idle[number] or not self._fits(number, state):
                continue
            command = calls[number].command
            after = step(state, command)[0]
            hides = (
                before is not _NOTHING and self._fits(number, before) and step(before, command)[0] == after
            )
            if not hides:
                reached = _Configuration(position, placed | {number}, after, _NOTHING, spent)
                yield reached, _Path(number, path)
        tried: set[Command] = set()
        for number in self._unanswered(position):
            command = calls[number].command
            if number in placed or number in spent or command in tried:
                continue
            tried.add(command)
            after = step(state, command)[0]
            hides = before is not _NOTHING and step(before, command)[0] == after
            if after != state and not hides and any(self._within_reach(after, other) for other in answered):
                ends = number < self._returning
                reached = _Configuration(
                    position,
                    placed | {number} if ends else placed,
                    after,
                    state,
                    spent if ends else spent | {number},
                )
                yield reached, _Path(number, path)

    def _unanswered(self, position: int) -> Iterator[int]:
        """The calls without an outcome that may be placed, those that must be first, then the oldest."""
        yield from (number for number in self._open[position] if self._calls[number].outcome is None)
        begun = bisect_right(self._lost_s, _end_s(self._calls[position]))
        yield from range(self._returning, self._returning + begun)

    def _fits(self, number: int, state: State) -> bool:
        """Whether the call would have the outcome that it had."""
        call = self._calls[number]
        return call.outcome is not None and _alike(self._model.step(state, call.command)[1], call.outcome)

    def _within_reach(self, state: State, number: int) -> bool:
        call = self._calls[number]
        assert call.outcome is not None, "only an outcome can be explained"
        return self._model.is_within_reach(state, call.command, call.outcome)

    def _open_at_returns(self) -> Iterator[list[int]]:
        """For each return the calls that are under way and do return, the returning one first."""
        calls = self._calls
        by_invocation = sorted(range(self._returning), key=lambda number: calls[number].invoked_s)
        under_way: dict[int, None] = {}
        begun = 0
        for position in range(self._returning):
            returned_s = _end_s(calls[position])
            while begun < self._returning and calls[by_invocation[begun]].invoked_s <= returned_s:
                under_way[by_invocation[begun]] = None
                begun += 1
            yield sorted(under_way)
            del under_way[position]

    def _violation(self, configuration: _Configuration, path: _Path | None) -> Violation:
        """What is wrong: the calls since all was quiet, and the order that came furthest."""
        position, state = configuration.position, configuration.state
        least, most = WINDOW_CALLS
        quiet = max(0, position - least)
        while quiet > max(0, position - most) and len(self._open[quiet - 1]) > 1:
            quiet -= 1
        order: list[int] = []
        while path is not None:
            order.append(path.call)
            path = path.earlier
        order.reverse()
        begun = next((at for at, number in enumerate(order) if number >= quiet), len(order))
        window = {*order[begun:], *self._open[position]}
        return Violation(
            self._key,
            tuple(self._originals[number] for number in sorted(window)),
            tuple(self._originals[number] for number in order[begun:]),
            state,
            self._originals[position],
            self._model.step(state, self._calls[position].command)[1],
        )


def _without_idle_calls(
    violation: Violation, calls: Sequence[Call], model: Model, configurations_max: int
) -> Violation:
    """The same for a history without the calls that change nothing and that the violation does not need."""
    for call in violation.calls:
        if call is violation.culprit or not model.is_idle(call.command, call.outcome):
            continue
        fewer = [other for other in calls if other is not call]
        smaller = _Search(violation.key, fewer, model).run(configurations_max)
        if smaller is not None and smaller.culprit == violation.culprit:
            violation, calls = smaller, fewer
    return violation


def _end_s(call: Call) -> float:
    return inf if call.returned_s is None else call.returned_s


def _alike(expected: Outcome, outcome: Outcome) -> bool:
    """Failures are compared by their code."""
    return (
        expected.value == outcome.value
        and expected.failure.partition(" ")[0] == outcome.failure.partition(" ")[0]
    )
