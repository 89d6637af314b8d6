"""The two kinds of task, as functions from files to files: what runs in a process of its own on a worker.

A map task reads the records of a split, and writes for each of the job's R parts one run (`runs`), in order
and combined. What does not fit its memory budget is written earlier, as more runs, and merged in the end. A
reduce task merges its part of all maps' runs and writes the rows of each key. Neither knows of other tasks,
nor of messages; both return what happened, and raise nothing that a user's function did.

Records on which a function fails: an attempt goes through the whole split and reports all of them; those that
fail in a second attempt are left out of it (`suspects`). One on which the process died is not tried a third
time (`skip`). Source: OSDI 2004, §3.1, §4.6 (skipping bad records).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, MutableSequence
from contextlib import ExitStack, contextmanager
from math import inf
from typing import BinaryIO

import msgspec

from gateway.mapreduce import columns, keys
from gateway.mapreduce.check import broken_promise
from gateway.mapreduce.counting import Counters
from gateway.mapreduce.errors import JobFailed, told
from gateway.mapreduce.inputs import FileSplit, Selection, records_of, records_of_file
from gateway.mapreduce.isolation import limit_memory
from gateway.mapreduce.job import Job, JobSource, load
from gateway.mapreduce.operators import Blame, Collector, Grouping, Operator, combined
from gateway.mapreduce.progress import reporting
from gateway.mapreduce.records import AnyRecord
from gateway.mapreduce.runs import FAN_IN_MAX, Pair, grouped, merged, read_run, write_run
from gateway.mapreduce.scratch import Scratch
from underlay.messages import Message

BUDGET_BYTES = 64 << 20
"""Of what a map task holds before it writes."""
SAMPLES_MAX = 10
"""Bad records of which more is kept than their number."""


class Bad(msgspec.Struct, frozen=True, array_like=True):
    """A record on which a function failed."""

    index: int
    """In its split, from 0."""
    record: str
    error: str


class MapOrder(msgspec.Struct, frozen=True):
    """What a map task has to do."""

    job: JobSource
    given: str | FileSplit
    """The name of a file of encoded observations in the scratch space, or a part of a file of the machine."""
    output: str
    """Prefix of the files: the run of part 3 is `<output>.3`."""
    suspects: frozenset[int] = frozenset()
    skip: frozenset[int] = frozenset()
    budget_bytes: int = BUDGET_BYTES
    checks: bool = False
    """Whether to look first if the job's combiner or aggregates keep their promises."""


class Mapped(Message, frozen=True, array_like=True, tag=370):
    """What became of a map task."""

    transport = "local"
    key: str
    """The order's `output`."""
    sizes: tuple[int, ...] = ()
    """Bytes of each part's run."""
    pairs: int = 0
    """In all runs."""
    records: int = 0
    watermark_s: float = -inf
    """The newest `t_event`."""
    counters: dict[str, int] = msgspec.field(default_factory=dict)
    bad: tuple[Bad, ...] = ()
    """Left out, or if there is a `failure` the reason for it."""
    bad_count: int = 0
    failure: str = ""
    """Empty: it worked."""
    fatal: bool = False
    """Trying again would end the same way."""
    spills: int = 0


class ReduceOrder(msgspec.Struct, frozen=True):
    """What a reduce task has to do."""

    job: JobSource
    inputs: tuple[str, ...]
    """Names of runs."""
    output: str
    watermark_s: float = -inf


class Reduced(Message, frozen=True, array_like=True, tag=371):
    """What became of a reduce task."""

    transport = "local"
    key: str
    """The order's `output`."""
    rows: int = 0
    size_bytes: int = 0
    counters: dict[str, int] = msgspec.field(default_factory=dict)
    failure: str = ""
    fatal: bool = False


class _TooMany(Exception):
    """More bad records than the job bears."""


def map_task(order: MapOrder, scratch: Scratch) -> Mapped:
    """Run a map task."""
    try:
        scratch.enter()
        job = load(order.job)
        _limit(job, scratch)
        with reporting(scratch.path(f"{order.output}.progress")) as now_at:
            return _Mapping(order, job, scratch, now_at).run()
    except JobFailed as error:
        return Mapped(order.output, failure=str(error), fatal=True)
    except Blame as error:
        return Mapped(order.output, failure=_blamed(order.job, error))


def reduce_task(order: ReduceOrder, scratch: Scratch) -> Reduced:
    """Run a reduce task."""
    try:
        scratch.enter()
        job = load(order.job)
        _limit(job, scratch)
        operator = job.does
        counters = Counters()
        rows = 0

        def finished() -> Iterator[Pair]:
            nonlocal rows
            for key, values in grouped(merged_runs(scratch, order.inputs, f"{order.output}.m", operator)):
                now_at[0] = rows
                for row in operator.finish(key, values, order.watermark_s):
                    yield key, row
                    rows += 1
                counters.keep()

        with (
            reporting(scratch.path(f"{order.output}.progress")) as now_at,
            counters,
            scratch.writing(order.output) as file,
        ):
            size_bytes = write_run(file, finished())
        return Reduced(order.output, rows, size_bytes, counters.totals)
    except JobFailed as error:
        return Reduced(order.output, failure=str(error), fatal=True)
    except Blame as error:
        return Reduced(order.output, failure=_blamed(order.job, error))


def merged_runs(scratch: Scratch, names: Iterable[str], temporary: str, operator: Operator) -> Iterator[Pair]:
    """All pairs of these runs in order, with as few of them open at a time as a process may have.

    Args:
        temporary: prefix of the names of files that are made on the way, and removed.
    """
    left = list(names)
    number = 0
    while len(left) > FAN_IN_MAX:
        now, left = left[:FAN_IN_MAX], left[FAN_IN_MAX:]
        name = f"{temporary}{number}"
        number += 1
        with ExitStack() as opened, scratch.writing(name) as file:
            pairs = merged([read_run(opened.enter_context(scratch.reading(each))) for each in now])
            write_run(file, combined(operator, pairs) if operator.combines else pairs)
        left.append(name)
    with ExitStack() as opened:
        yield from merged([read_run(opened.enter_context(scratch.reading(each))) for each in left])
    scratch.remove(temporary)


# ---------------------------------------------------------------------------------------------------- helpers


class _Mapping:
    """One attempt at a map task."""

    def __init__(self, order: MapOrder, job: Job, scratch: Scratch, now_at: MutableSequence[int]) -> None:
        self._order = order
        self._job = job
        self._operator = job.does
        self._scratch = scratch
        self._now_at = now_at
        self._spills: list[tuple[str, ...]] = []
        self._records = 0
        self._watermark_s = -inf
        self._bad: list[Bad] = []
        self._bad_count = 0
        self._failing: list[Bad] = []
        """On which it failed that are no suspects yet."""

    def run(self) -> Mapped:
        if self._order.checks:
            problem = self._checked()
            if problem:
                return Mapped(
                    self._order.output, failure=f"job {self._order.job.name}: {problem}", fatal=True
                )
        by_columns = self._by_columns()
        if by_columns is not None:
            return by_columns
        counters = Counters()
        collector = self._operator.collector()
        try:
            with counters, self._opened() as records:
                self._take_all(records, collector, counters)
        except _TooMany:
            pass
        failed = len(self._failing) + self._bad_count
        if failed > self._job.bad_records_max or (failed == self._records and failed > 0):
            worst = (self._failing or self._bad)[0]
            share = "all" if failed == self._records else f"{failed} of the first {self._records}"
            return Mapped(
                self._order.output,
                failure=f"job {self._order.job.name}: {worst.error} ({share} records fail)",
                fatal=True,
                records=self._records,
                bad=tuple(self._failing[:SAMPLES_MAX]),
                bad_count=failed,
            )
        if self._failing:
            return Mapped(
                self._order.output,
                failure=self._failing[0].error,
                bad=tuple(self._failing),
                bad_count=failed,
                records=self._records,
            )
        sizes, pairs = self._finish(collector)
        return Mapped(
            self._order.output,
            sizes,
            pairs,
            self._records,
            self._watermark_s,
            counters.totals,
            tuple(self._bad[:SAMPLES_MAX]),
            self._bad_count,
            spills=max(0, len(self._spills) - 1),
        )

    def _by_columns(self) -> Mapped | None:
        """The whole task at once, where job and file allow it; None: row by row."""
        order, operator = self._order, self._operator
        if not isinstance(order.given, FileSplit) or not isinstance(operator, Grouping):
            return None
        if not order.given.path.endswith(".csv") or order.suspects or order.skip:
            return None
        if order.given.size > order.budget_bytes or not columns.allows(operator):
            return None
        try:
            pairs, records, watermark_s = columns.pairs_of(order.given, self._job.source, operator)
        except columns.NotPlain:
            return None
        _, sizes, written = self._write(iter(pairs), order.output)
        return Mapped(order.output, sizes, written, records, watermark_s)

    def _take_all(self, records: Iterator[AnyRecord], collector: Collector, counters: Counters) -> None:
        order, now_at, budget_bytes = self._order, self._now_at, self._order.budget_bytes
        take, keep, counted = collector.take, counters.keep, counters.now
        special = order.skip | order.suspects
        watermark_s = -inf
        index = -1
        for index, record in enumerate(records):
            now_at[0] = index
            if special and index in order.skip:
                self._leave_out(Bad(index, str(record), f"the process died at the record {record}, twice"))
                continue
            try:
                if special and index in order.suspects:
                    self._operator.collector().take(record)  # before it touches what others have made
                    counters.discard()
                take(record)
            except Exception as error:
                counters.discard()
                self._on_bad(index, record, error)
                continue
            if counted:
                keep()
            t_event = record.t_event
            if t_event > watermark_s:
                watermark_s = t_event
            if collector.size_bytes > budget_bytes and not self._failing:
                self._spill(collector)
        self._records = index + 1
        self._watermark_s = watermark_s

    def _on_bad(self, index: int, record: AnyRecord, error: Exception) -> None:
        source = self._order.job
        cause = error.__cause__ if isinstance(error, Blame) and error.__cause__ else error
        bad = Bad(index, str(record), told(cause, source.file, "mapper", str(record)))
        if index in self._order.suspects:
            self._leave_out(bad)
        else:
            self._failing.append(bad)
        if len(self._failing) + self._bad_count > self._job.bad_records_max:
            self._records = index + 1
            raise _TooMany

    def _leave_out(self, bad: Bad) -> None:
        self._bad.append(bad)
        self._bad_count += 1

    @contextmanager
    def _opened(self) -> Iterator[Iterator[AnyRecord]]:
        given, selection = self._order.given, self._job.source
        if isinstance(given, FileSplit):
            yield records_of_file(given, selection)
        else:
            with self._scratch.reading(given) as file:
                yield _stored(file, selection)

    def _checked(self) -> str:
        """What promise is broken. A record that ends the process does so here already, and is known by its
        number as in the task itself."""
        order, now_at = self._order, self._now_at

        def harmless(records: Iterator[AnyRecord]) -> Iterator[AnyRecord]:
            for index, record in enumerate(records):
                now_at[0] = index
                if index not in order.suspects and index not in order.skip:
                    yield record

        with self._opened() as records:
            return broken_promise(self._job, harmless(records), order.job.file)

    def _spill(self, collector: Collector) -> None:
        prefix = f"{self._order.output}.s{len(self._spills)}"
        self._spills.append(self._write(collector.drain(), prefix)[0])

    def _finish(self, collector: Collector) -> tuple[tuple[int, ...], int]:
        """The runs of all parts; their sizes, and how many pairs there are."""
        output = self._order.output
        if not self._spills:
            _, sizes, pairs = self._write(collector.drain(), output)
            return sizes, pairs
        self._spill(collector)
        sizes_found = []
        pairs = 0
        for part in range(self._job.reduces):
            runs = [names[part] for names in self._spills]
            found = merged_runs(self._scratch, runs, f"{output}.m", self._operator)
            if self._operator.combines:
                found = combined(self._operator, found)

            def counted(found: Iterator[Pair] = found) -> Iterator[Pair]:
                nonlocal pairs
                for pair in found:
                    pairs += 1
                    yield pair

            with self._scratch.writing(f"{output}.{part}") as file:
                sizes_found.append(write_run(file, counted()))
        self._scratch.remove(f"{output}.s")
        return tuple(sizes_found), pairs

    def _write(self, pairs: Iterator[Pair], prefix: str) -> tuple[tuple[str, ...], tuple[int, ...], int]:
        """Sorted pairs, each into the run of its part; the runs' names and sizes, and how many pairs."""
        job = self._job
        names = tuple(f"{prefix}.{part}" for part in range(job.reduces))
        waiting: list[list[Pair]] = [[] for _ in names]
        sizes = [0] * job.reduces
        total = 0
        with ExitStack() as opened:
            files = [opened.enter_context(self._scratch.writing(name)) for name in names]
            for pair in pairs:
                part = _part_of(job, pair[0])
                batch = waiting[part]
                batch.append(pair)
                total += 1
                if len(batch) >= 1024:
                    sizes[part] += write_run(files[part], batch)
                    batch.clear()
            for part, batch in enumerate(waiting):
                sizes[part] += write_run(files[part], batch)
        return names, tuple(sizes), total


def _limit(job: Job, scratch: Scratch) -> None:
    if scratch.isolated:
        limit_memory(job.memory_mb)


def _part_of(job: Job, packed: bytes) -> int:
    if job.partition is None:
        return job.part_of(None, packed)
    key = keys.unpack(packed)
    try:
        return job.part_of(key, packed)
    except Exception as error:
        raise Blame("partition", f"key {key!r}") from error


def _stored(file: BinaryIO, selection: Selection) -> Iterator[AnyRecord]:
    yield from records_of(file, selection)


def _blamed(source: JobSource, error: Blame) -> str:
    cause = error.__cause__ or error
    return f"job {source.name}: {told(cause, source.file, error.where)}, at the {error.record}"
