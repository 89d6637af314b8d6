"""Jobs, as the command line and Python callers run them: which file, which executor, what comes of it.

>>> from topologies.job_runs import source_of
>>> source_of("hourly", {"kind": "humidity"}).parameters
{'kind': 'humidity'}
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from gateway.mapreduce import jobs as ready
from gateway.mapreduce.errors import JobFailed
from gateway.mapreduce.executors.deployed import Gateway, run_deployed
from gateway.mapreduce.executors.local import run_local
from gateway.mapreduce.inputs import split_files
from gateway.mapreduce.job import Job, JobSource, Plain, load
from gateway.mapreduce.messages import JobState
from gateway.mapreduce.results import Result
from underlay.errors import InputError
from underlay.node import device_of

if TYPE_CHECKING:
    from collections.abc import Iterable

PLOTS = (".svg", ".png")
Told = Callable[[JobState], None]


class Outcome(msgspec.Struct, frozen=True):
    """What a job came to, and how it went where that is known."""

    name: str
    result: Result
    state: JobState | None = None


def source_of(job: str, parameters: Mapping[str, Plain] | None = None) -> JobSource:
    """A job file, or a ready-made job of that name. Raises InputError for one that is none."""
    path = Path(job)
    try:
        if path.suffix == ".py" or path.exists():
            text = path.read_text(encoding="utf-8")
            source = JobSource(path.stem, path.name, text, dict(parameters or {}))
        else:
            source = ready.ready_made(job, dict(parameters or {}))
        load(source)
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", file=path) from error
    except UnicodeDecodeError as error:
        raise InputError("is no UTF-8 text", file=path) from error
    except JobFailed as error:
        raise InputError(str(error)) from error
    return source


def gateway(at: str, token: str = "") -> Gateway:
    """The gateway of a network that is up. Raises InputError for what is no address."""
    if not at.startswith(("http://", "https://")):
        raise InputError(
            f"{at!r} is no address of a gateway", key="--at", hint="such as http://127.0.0.1:8080"
        )
    return Gateway(at, token)


def run(
    source: JobSource,
    executor: str,
    paths: Sequence[Path] = (),
    *,
    at: str = "http://127.0.0.1:8080",
    token: str = "",
    workers: int = 2,
    scheduler: str = "",
    told: Told = lambda _: None,
) -> Outcome:
    """Run a job to its end.

    Args:
        executor: "birdhouse" (on the network that is up, over its store or files), "local" or "dask" (files).
        at, token: of the gateway.
        workers, scheduler: of Dask.
        told: hears how it is, again and again.

    Raises InputError for what cannot run so, JobFailed where it does not end well.
    """
    _check_paths(paths)
    if executor == "birdhouse":
        state, result = run_deployed(gateway(at, token), source, paths, told)
        return Outcome(source.name, result, state)
    if not paths:
        raise InputError(
            f"the {executor} executor reads files",
            key="--input",
            hint="an export of the gateway: /api/v1/devices/.../observations?format=ndjson",
        )
    if executor == "local":
        return Outcome(source.name, run_local(source, paths))
    from gateway.mapreduce.executors.on_dask import run_on_dask  # Dask takes a second to import

    return Outcome(source.name, run_on_dask(source, paths, scheduler=scheduler, workers=workers))


def fetched(id_: str, at: str, token: str = "") -> Outcome:
    """Of a job that is done. Raises JobFailed where there is no result."""
    there = gateway(at, token)
    state = there.job(id_)
    if state.state != "done":
        because = f": {state.problem}" if state.problem else ""
        raise JobFailed(f"there is no result: job {id_} is {state.state}{because}")
    return Outcome(state.name, there.result(state), state)


def listed(at: str, token: str = "") -> dict[str, Any]:
    """The jobs a gateway knows, its workers, and the ready-made jobs; where none answers, those alone."""
    try:
        return gateway(at, token).jobs()
    except JobFailed as error:
        names = {name: ready.about(name) for name in ready.names()}
        return {"jobs": [], "workers": {}, "ready_made": names, "problem": str(error)}


def write(result: Result, path: Path, form: str) -> None:
    """A result as a file: "csv", "jsonl", "parquet", or "table" for what its name says."""
    if form == "table":
        form = {".csv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".parquet": "parquet"}.get(
            path.suffix, ""
        )
        if not form:
            raise InputError(
                f"a result is no {path.suffix or 'file without a suffix'}", file=path, hint="--format"
            )
    table = result.table()
    if form == "parquet":
        from gateway.mapreduce.parquet import write_parquet

        write_parquet(table, path)
        return
    text = table.csv() if form == "csv" else table.json_lines()
    _write(path, text.encode())


def check_plot(path: Path) -> None:
    """Raises InputError where no plot can be drawn into a file of that name."""
    if path.suffix not in PLOTS:
        raise InputError(f"a plot is {' or '.join(PLOTS)}", file=path)


def draw(outcome: Outcome, path: Path) -> None:
    """A plot of the result: lines over its windows, or bars of its keys."""
    check_plot(path)
    from topologies.reporting.job_chart import job_figure

    figure = job_figure(outcome.name, outcome.result.table(), outcome.result.window_s)
    if figure is None:
        raise InputError(f"{outcome.name} came to no numbers that could be drawn", file=path)
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)


class PlannedSplit(msgspec.Struct, frozen=True):
    """Where a part of the input would be read."""

    split: str
    size: int
    unit: str
    read_by: str


class JobPlan(msgspec.Struct, frozen=True):
    """How a job would run."""

    name: str
    does: str
    reads: str
    key: tuple[str, ...]
    reduces: int
    combines: bool
    crosses: str
    splits: tuple[PlannedSplit, ...]


def explained(source: JobSource, paths: Sequence[Path], at: str, token: str = "") -> JobPlan:
    """How a job would run, as far as that is known without running it."""
    job = load(source)
    _check_paths(paths)
    if paths:
        splits = tuple(
            PlannedSplit(str(each), each.size, "bytes", "any worker") for each in split_files(paths)
        )
    else:
        splits = _store_splits(gateway(at, token), job)
    operator = job.does
    return JobPlan(
        name=source.name,
        does=_does(job),
        reads=_reads(job, paths),
        key=job.key_names,
        reduces=job.reduces,
        combines=operator.combines,
        crosses=_crosses(job),
        splits=splits,
    )


# ---------------------------------------------------------------------------------------------------- helpers


def _does(job: Job) -> str:
    columns = getattr(job.operator, "columns", None)
    if columns is None:
        combiner = "a combiner" if job.combiner else "no combiner"
        return f"the file's own mapper and reducer, with {combiner}"
    return ", ".join(f"{column.name} = {column.aggregate!r}" for column in columns)


def _reads(job: Job, paths: Sequence[Path]) -> str:
    if paths:
        return ", ".join(str(path) for path in paths)
    selection = job.source
    return f"observations of kind {selection.kind!r} of devices {selection.device!r}"


def _crosses(job: Job) -> str:
    share = (
        "one pair for each key of a split" if job.does.combines else "one pair for each that the mapper emits"
    )
    return (
        "nothing while records are read where a reader has a replica; then, over the links between storage "
        f"hosts, {share} to the {job.reduces} reducers (what a worker reduces itself stays), and the rows to "
        "the hosts of their slots"
    )


def _store_splits(there: Gateway, job: Job) -> tuple[PlannedSplit, ...]:
    """As the gateway's coordinator would cut them now."""
    return tuple(
        PlannedSplit(
            each.split, each.keys, "keys", " or ".join(map(device_of, each.readers)) or "anybody, from afar"
        )
        for first, last in job.source.slots
        for each in there.splits(first, last)
    )


def _check_paths(paths: Iterable[Path]) -> None:
    for path in paths:
        if not path.is_file():
            raise InputError("there is no such file", file=path, key="--input")


def _write(path: Path, data: bytes) -> None:
    try:
        partial = path.with_name(f".{path.name}.part")
        partial.write_bytes(data)
        partial.replace(path)
    except OSError as error:
        raise InputError(f"cannot be written: {error.strerror}", file=path) from error
