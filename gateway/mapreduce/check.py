"""Does a job keep the promises that make its answer independent of how it is run?

A combiner may be called with any of a key's values, in any grouping, any number of times; an aggregate's
merge is associative and commutative. Both are tried on the first records before anything is run for good. A
check finds what it finds: it is no proof. Floats may differ in their last digits here: a combiner that adds
them up is let pass, though the digits of its answer then depend on the splits (`Sum` is exact).
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from math import isclose
from typing import Any

from gateway.mapreduce import keys
from gateway.mapreduce.errors import told
from gateway.mapreduce.operators import Blame, Functions, Grouping, unpack_value
from gateway.mapreduce.records import AnyRecord
from gateway.mapreduce.runs import grouped
from underlay.aggregates.laws import violations

SAMPLE_RECORDS = 200
SEED = 1


def broken_promise(job: Any, records: Iterator[AnyRecord], file: str) -> str:
    """The first promise that some of these records show to be broken, in words; empty: none was found.

    Args:
        job: a `gateway.mapreduce.job.Job`.
        file: the job's, for the line of an error.
    """
    operator = job.does
    sample = islice(records, SAMPLE_RECORDS)
    if isinstance(operator, Grouping):
        return _of_aggregates(operator, sample)
    if isinstance(operator, Functions) and operator.combiner is not None:
        return _of_combiner(operator, sample, file)
    return ""


def _of_aggregates(grouping: Grouping, sample: Iterator[AnyRecord]) -> str:
    values: list[list[Any]] = [[] for _ in grouping.columns]
    for record in sample:
        for column, seen in zip(grouping.columns, values, strict=True):
            try:
                value = column.value(record)
                if value is not None:
                    column.aggregate.add(column.aggregate.zero(), value)
                    seen.append(value)
            except Exception:  # a bad record, which is the mapping's affair
                continue
    for column, seen in zip(grouping.columns, values, strict=True):
        found = violations(column.aggregate, seen, SEED) if seen else []
        if found:
            return f"the column {column.name} cannot be combined: {found[0]}"
    return ""


def _of_combiner(functions: Functions, sample: Iterator[AnyRecord], file: str) -> str:
    collector = Functions(functions.mapper, functions.reducer).collector()
    for record in sample:
        try:
            collector.take(record)
        except Exception:  # as above
            continue
    for key, values in grouped(collector.drain()):
        given = list(values)
        if len(given) < 2:
            continue
        half = len(given) // 2
        try:
            plain = list(functions.finish(key, iter(given), 0.0))
            left = list(functions.combine(key, iter(given[:half])))
            right = list(functions.combine(key, iter(given[half:])))
            once = list(functions.finish(key, iter(sorted(left + right)), 0.0))
            twice = sorted(functions.combine(key, iter(sorted(left + right))))
            again = list(functions.finish(key, iter(twice), 0.0))
        except Blame as error:
            return f"{told(error.__cause__ or error, file, error.where)}, at the {error.record}"
        if not (_alike(plain, once) and _alike(plain, again)):
            return (
                "the combiner changes the answer: reducing a key's values gives something else than "
                f"combining parts of them first (the key {keys.unpack(key)!r}, {len(given)} values)"
            )
    return ""


def _alike(a: list[bytes], b: list[bytes]) -> bool:
    return a == b or _close([unpack_value(row) for row in a], [unpack_value(row) for row in b])


def _close(a: Any, b: Any) -> bool:
    if isinstance(a, float) and isinstance(b, float | int):
        return isclose(a, b, rel_tol=1e-9, abs_tol=1e-9)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(_close, a, b))
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(_close(a[name], b[name]) for name in a)
    return bool(a == b)
