"""One process, one thread, no network: for writing jobs, with breakpoints that work.

The same tasks as everywhere, one after the other. A record on which a function fails is tried twice, as
elsewhere; `strict` lets the first error through instead, with its traceback.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from math import inf
from pathlib import Path

from gateway.mapreduce.counting import added
from gateway.mapreduce.errors import JobFailed
from gateway.mapreduce.inputs import FileSplit, split_files
from gateway.mapreduce.job import JobSource, load
from gateway.mapreduce.results import Result
from gateway.mapreduce.scratch import DiskScratch
from gateway.mapreduce.tasks import BUDGET_BYTES, Bad, MapOrder, Mapped, ReduceOrder, map_task, reduce_task


def run_local(
    source: JobSource,
    paths: Sequence[Path],
    *,
    budget_bytes: int = BUDGET_BYTES,
    split_bytes: int = 1 << 62,
) -> Result:
    """Run a job over files. Raises JobFailed."""
    job = load(source)
    with tempfile.TemporaryDirectory(prefix="birdhouse-job-") as folder:
        scratch = DiskScratch(Path(folder), isolated=False)
        maps = [
            _mapped(source, split, number, scratch, budget_bytes)
            for number, split in enumerate(split_files(paths, split_bytes))
        ]
        watermark_s = max((mapped.watermark_s for mapped in maps), default=-inf)
        parts, counters = [], [mapped.counters for mapped in maps]
        for part in range(job.reduces):
            runs = tuple(f"m{number}.{part}" for number in range(len(maps)))
            reduced = reduce_task(ReduceOrder(source, runs, f"r{part}", watermark_s), scratch)
            if reduced.failure:
                raise JobFailed(reduced.failure)
            counters.append(reduced.counters)
            with scratch.reading(f"r{part}") as file:
                parts.append(file.read())
    bad: list[Bad] = [bad for mapped in maps for bad in mapped.bad]
    return Result(
        job.key_names,
        job.window_s,
        tuple(parts),
        records=sum(mapped.records for mapped in maps),
        bad_records=sum(mapped.bad_count for mapped in maps),
        bad=tuple(bad),
        counters=added(*counters),
    )


def _mapped(
    source: JobSource, split: FileSplit, number: int, scratch: DiskScratch, budget_bytes: int
) -> Mapped:
    suspects: frozenset[int] = frozenset()
    while True:
        order = MapOrder(source, split, f"m{number}", suspects, budget_bytes=budget_bytes, checks=number == 0)
        mapped = map_task(order, scratch)
        if not mapped.failure:
            return mapped
        fresh = {bad.index for bad in mapped.bad} - suspects
        if mapped.fatal or not fresh:
            raise JobFailed(mapped.failure)
        suspects |= fresh
