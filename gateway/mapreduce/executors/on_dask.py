"""A job on Dask: its scheduler places the same tasks, and moves their packed bytes (extra `[cluster]`).

Every map task is one Dask task that returns the bytes of its R runs, every reduce task one that takes its run
from each of them. Lost workers, retries and placement are Dask's; what is computed is ours, byte for byte.
Files are read by the workers under the names they have here.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gateway.mapreduce.counting import added
from gateway.mapreduce.errors import JobFailed
from gateway.mapreduce.inputs import FileSplit, split_files
from gateway.mapreduce.job import JobSource, load
from gateway.mapreduce.results import Result
from gateway.mapreduce.scratch import MemoryScratch
from gateway.mapreduce.tasks import (
    BUDGET_BYTES,
    MapOrder,
    Mapped,
    Reduced,
    ReduceOrder,
    map_task,
    reduce_task,
)

if TYPE_CHECKING:
    from distributed import Client

SPLIT_BYTES = 16 << 20

Runs = tuple[Mapped, tuple[bytes, ...]]


def run_on_dask(
    source: JobSource,
    paths: Sequence[Path],
    *,
    scheduler: str = "",
    workers: int = 2,
    split_bytes: int = SPLIT_BYTES,
) -> Result:
    """Run a job over files. Raises JobFailed.

    Args:
        scheduler: its address, such as `tcp://10.0.0.1:8786`; empty: a cluster of this machine, for this job
            alone.
        workers: of that one, a thread each.
    """
    try:
        from distributed import Client, LocalCluster
    except ImportError as error:
        raise JobFailed("Dask is not installed: pip install 'birdhouse[cluster]'") from error
    if scheduler:
        try:
            with Client(scheduler, timeout=10, set_as_default=False) as client:
                return run_with(client, source, paths, split_bytes)
        except OSError as error:
            raise JobFailed(f"no Dask scheduler answers at {scheduler}") from error
    with (
        tempfile.TemporaryDirectory(prefix="birdhouse-dask-") as folder,
        LocalCluster(
            n_workers=workers,
            threads_per_worker=1,
            dashboard_address=None,
            local_directory=folder,
            host="127.0.0.1",
        ) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        return run_with(client, source, paths, split_bytes)


def run_with(client: Client, source: JobSource, paths: Sequence[Path], split_bytes: int) -> Result:
    """Run a job on a cluster that is there."""
    job = load(source)
    splits = split_files(paths, split_bytes)
    mapped = [
        client.submit(_map, source, split, number == 0, pure=False) for number, split in enumerate(splits)
    ]
    heads: list[Mapped] = client.gather([client.submit(_head, each, pure=False) for each in mapped])
    failure = next((head.failure for head in heads if head.failure), "")
    if failure:
        raise JobFailed(failure)
    watermark_s = max((head.watermark_s for head in heads), default=-inf)
    reduced = [
        client.submit(
            _reduce,
            source,
            watermark_s,
            [client.submit(_part, each, part, pure=False) for each in mapped],
            pure=False,
        )
        for part in range(job.reduces)
    ]
    done: list[tuple[Reduced, bytes]] = client.gather(reduced)
    failure = next((each.failure for each, _ in done if each.failure), "")
    if failure:
        raise JobFailed(failure)
    return Result(
        job.key_names,
        job.window_s,
        tuple(data for _, data in done),
        records=sum(head.records for head in heads),
        bad_records=sum(head.bad_count for head in heads),
        bad=tuple(bad for head in heads for bad in head.bad),
        counters=added(*(head.counters for head in heads), *(each.counters for each, _ in done)),
    )


# --------------------------------------------------------------------------------------------- on the workers


def _map(source: JobSource, split: FileSplit, checks: bool) -> Runs:
    suspects: frozenset[int] = frozenset()
    scratch = MemoryScratch()
    while True:
        mapped = map_task(
            MapOrder(source, split, "m", suspects, budget_bytes=BUDGET_BYTES, checks=checks), scratch
        )
        fresh = frozenset(bad.index for bad in mapped.bad) - suspects
        if not mapped.failure or mapped.fatal or not fresh:
            break
        suspects |= fresh
    parts = len(mapped.sizes)
    return mapped, tuple(scratch.files[f"m.{part}"] for part in range(parts))


def _head(runs: Runs) -> Mapped:
    return runs[0]


def _part(runs: Runs, part: int) -> bytes:
    return runs[1][part]


def _reduce(source: JobSource, watermark_s: float, runs: list[bytes]) -> tuple[Reduced, bytes]:
    scratch: Any = MemoryScratch()
    for number, data in enumerate(runs):
        scratch.files[f"m{number}"] = data
    names = tuple(f"m{number}" for number in range(len(runs)))
    reduced = reduce_task(ReduceOrder(source, names, "r", watermark_s), scratch)
    return reduced, scratch.files.get("r", b"")
