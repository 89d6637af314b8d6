"""Histories without a store: random calls on one object that is linearizable by construction."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from kv.checking.history import Call
from kv.checking.register import Register
from kv.operations import Command

Draw = Callable[[Random, int], Command]
"""A command, given a number that no other command of the history is given."""


def mixed(rng: Random, number: int) -> Command:
    """Reads, conditional and plain writes, appends: every written value is an atom."""
    atom = b"<%d>" % number
    kinds: list[Command] = [
        (b"GET", b"k"),
        (b"GET", b"k"),
        (b"SET", b"k", atom),
        (b"SET", b"k", atom, b"NX"),
        (b"SET", b"k", atom, b"XX"),
        (b"SET", b"k", atom, b"GET"),
        (b"APPEND", b"k", atom),
        (b"APPEND", b"k", atom),
        (b"DEL", b"k"),
        (b"STRLEN", b"k"),
    ]
    return rng.choice(kinds)


def appends(rng: Random, number: int) -> Command:
    """Reads and appends only."""
    return (b"GET", b"k") if rng.random() < 0.5 else (b"APPEND", b"k", b"<%d>" % number)


def counts(rng: Random, number: int) -> Command:
    """A counter."""
    return (b"GET", b"k") if rng.random() < 0.4 else (b"INCRBY", b"k", b"%d" % rng.randint(1, 9))


def linearizable(
    rng: Random, calls: int, *, clients: int = 5, draw: Draw = mixed, lost_ratio: float = 0.0
) -> list[Call]:
    """What `clients` would see of one object; the calls of a client follow one another.

    Of `lost_ratio` of the calls the answer is lost: half of them take effect, some of these much later, and
    the client goes on under another name, as one does that has given up.
    """
    model = Register()
    starts = [(rng.random(), f"c{client}") for client in range(clients)]
    planned: list[tuple[float, str, Command, float, float | None]] = []
    for number in range(calls):
        starts.sort()
        begin_s, client = starts.pop(0)
        end_s = begin_s + rng.expovariate(1.0)
        moment_s: float | None = rng.uniform(begin_s, end_s)
        returned_s: float | None = end_s
        if rng.random() < lost_ratio:
            client += "'"
            returned_s = None
            moment_s = rng.choice([None, None, moment_s, begin_s + rng.expovariate(0.05)])
        planned.append((begin_s, client, draw(rng, number), moment_s if moment_s else -1.0, returned_s))
        starts.append((end_s + rng.expovariate(4.0), client))
    state = model.initial
    outcomes = {}
    for index in sorted(range(len(planned)), key=lambda index: planned[index][3]):
        if planned[index][3] >= 0.0:
            state, outcomes[index] = model.step(state, planned[index][2])
    return [
        Call(client, command, begin_s, returned_s, outcomes[index] if returned_s is not None else None)
        for index, (begin_s, client, command, _, returned_s) in enumerate(planned)
    ]
