"""Does an aggregate keep the laws that its users rely on? Tried on values, by a seed.

What is found is a counterexample; nothing found is no proof.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from random import Random
from typing import Any

from underlay.aggregates.aggregate import Aggregate

TRIES = 8
VALUES_MAX = 60


def violations(aggregate: Aggregate[Any, Any, Any], values: Sequence[Any], seed: int) -> list[str]:
    """The laws that some of these values show to be broken, each in a sentence."""
    rng = Random(seed)
    found: dict[str, None] = {}
    for _ in range(TRIES):
        some = [rng.choice(values) for _ in range(rng.randint(1, VALUES_MAX))] if values else []
        try:
            problem = _broken(aggregate, some, rng)
        except Exception as error:
            problem = f"{type(error).__name__} of {len(some)} values: {error}"
        if problem:
            found[problem] = None
    return list(found)


def _broken(aggregate: Aggregate[Any, Any, Any], values: list[Any], rng: Random) -> str:
    whole = aggregate.pack(_of(aggregate, values))
    shown = f"{values[:3]!r} and {max(0, len(values) - 3)} more values"
    if aggregate.pack(aggregate.unpack(whole)) != whole:
        return f"packing what was unpacked gives other bytes ({shown})"
    shuffled = values.copy()
    rng.shuffle(shuffled)
    if aggregate.pack(_of(aggregate, shuffled)) != whole:
        return f"adding in another order gives another state ({shown})"
    cuts = sorted(rng.randint(0, len(values)) for _ in range(2))
    parts = [values[: cuts[0]], values[cuts[0] : cuts[1]], values[cuts[1] :]]

    def merged(order: tuple[int, ...]) -> bytes:
        return aggregate.pack(reduce(aggregate.merge, (_of(aggregate, parts[n]) for n in order)))

    if merged((0, 1, 2)) != whole:
        return f"merging the states of parts gives another state than adding all ({shown})"
    if merged((2, 0, 1)) != whole:
        return f"merge is not commutative ({shown})"
    right = aggregate.merge(_of(aggregate, parts[1]), _of(aggregate, parts[2]))
    if aggregate.pack(aggregate.merge(_of(aggregate, parts[0]), right)) != whole:
        return f"merge is not associative ({shown})"
    if aggregate.pack(aggregate.merge(aggregate.zero(), _of(aggregate, values))) != whole:
        return f"zero() is not neutral ({shown})"
    if aggregate.safe_under_duplicates and aggregate.pack(_of(aggregate, values + values[:5])) != whole:
        return f"it claims to be safe under duplicates and is not ({shown})"
    return ""


def _of(aggregate: Aggregate[Any, Any, Any], values: Sequence[Any]) -> Any:
    return aggregate.add_many(aggregate.zero(), values)
