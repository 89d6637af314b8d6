"""`birdhouse job`: aggregation jobs, on a network that is up, in this process, or on Dask.

Each command is one call of `topologies.job_runs`; what is here is arguments and printing.
"""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from topologies.cli.group import Commands

app = typer.Typer(
    name="job",
    cls=Commands,
    help="Aggregate the birdhouses' data: run jobs where the data are, follow them, fetch what they came to.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)


class Executor(StrEnum):
    """Where a job runs."""

    birdhouse = "birdhouse"
    local = "local"
    dask = "dask"


class Format(StrEnum):
    """How its result is printed."""

    table = "table"
    csv = "csv"
    jsonl = "jsonl"
    parquet = "parquet"


AtOption = Annotated[
    str, typer.Option("--at", metavar="URL", help="The gateway of a network that is up (`birdhouse up`).")
]
TokenOption = Annotated[
    str,
    typer.Option("--token", envvar="BIRDHOUSE_TOKEN", help="Where the gateway wants one.", show_envvar=True),
]
IdArgument = Annotated[str, typer.Argument(metavar="ID")]
JobArgument = Annotated[
    str,
    typer.Argument(metavar="JOB", help="A job file, or the name of a ready-made job (`birdhouse job list`)."),
]
SetOption = Annotated[
    list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="A parameter of the job; repeatable.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="One JSON document on standard output.")]
AT = "http://127.0.0.1:8080"


@app.command()
def run(
    job: JobArgument,
    settings: SetOption = None,
    executor: Annotated[
        Executor | None,
        typer.Option(
            help="Default: birdhouse, on the network that is up; with --input local, in this process."
        ),
    ] = None,
    given: Annotated[
        list[Path] | None,
        typer.Option("--input", metavar="FILE", help="Read this instead of the store; repeatable."),
    ] = None,
    at: AtOption = AT,
    token: TokenOption = "",
    workers: Annotated[int, typer.Option(min=1, help="Of a Dask cluster of this machine's own.")] = 2,
    scheduler: Annotated[
        str, typer.Option(metavar="ADDRESS", help="Of a Dask scheduler that is there.")
    ] = "",
    form: Annotated[Format, typer.Option("--format", help="Of the result.")] = Format.table,
    out: Annotated[Path | None, typer.Option(help="Write it there instead of printing it.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Draw it into this .svg or .png too.")] = None,
    rows: Annotated[int, typer.Option(min=1, help="Of a table, at most.")] = 40,
) -> None:
    """Run a job to its end and print what it came to."""
    from topologies import job_runs
    from topologies.cli.job_tables import following, print_outcome

    source = job_runs.source_of(job, _parameters(settings))
    if plot is not None:
        job_runs.check_plot(plot)
    paths = given or []
    kind = executor or (Executor.local if paths else Executor.birdhouse)
    with following(quiet=not sys.stderr.isatty()) as told:
        outcome = job_runs.run(
            source, kind.value, paths, at=at, token=token, workers=workers, scheduler=scheduler, told=told
        )
    if out is not None:
        job_runs.write(outcome.result, out, form.value)
    elif form is Format.parquet:
        raise typer.BadParameter("a Parquet file needs --out FILE")
    else:
        print_outcome(outcome, form.value, rows)
    if plot is not None:
        job_runs.draw(outcome, plot)
        print(f"plot: {plot}", file=sys.stderr)


@app.command("list")
def list_(at: AtOption = AT, token: TokenOption = "", as_json: JsonOption = False) -> None:
    """Say which jobs a gateway knows, and which are ready-made."""
    from topologies import job_runs
    from topologies.cli.job_tables import print_jobs

    print_jobs(job_runs.listed(at, token), as_json=as_json)


@app.command()
def status(id_: IdArgument, at: AtOption = AT, token: TokenOption = "", as_json: JsonOption = False) -> None:
    """Say how a job is, task by task."""
    from topologies import job_runs
    from topologies.cli.job_tables import print_state

    print_state(job_runs.gateway(at, token).job(id_), as_json=as_json)


@app.command()
def result(
    id_: IdArgument,
    at: AtOption = AT,
    token: TokenOption = "",
    form: Annotated[Format, typer.Option("--format", help="Of the result.")] = Format.table,
    out: Annotated[Path | None, typer.Option(help="Write it there instead of printing it.")] = None,
    rows: Annotated[int, typer.Option(min=1, help="Of a table, at most.")] = 40,
) -> None:
    """Fetch what a job came to."""
    from topologies import job_runs
    from topologies.cli.job_tables import print_outcome

    outcome = job_runs.fetched(id_, at, token)
    if out is not None:
        job_runs.write(outcome.result, out, form.value)
    elif form is Format.parquet:
        raise typer.BadParameter("a Parquet file needs --out FILE")
    else:
        print_outcome(outcome, form.value, rows)


@app.command()
def cancel(id_: IdArgument, at: AtOption = AT, token: TokenOption = "") -> None:
    """Stop a job; nothing of its result is ever seen."""
    from topologies import job_runs

    state = job_runs.gateway(at, token).cancel(id_)
    print(f"job {state.id} is {state.state}")


@app.command()
def explain(
    job: JobArgument,
    settings: SetOption = None,
    given: Annotated[list[Path] | None, typer.Option("--input", metavar="FILE")] = None,
    at: AtOption = AT,
    token: TokenOption = "",
    as_json: JsonOption = False,
) -> None:
    """Say how a job would run, without running it: its splits, who reads them, what crosses the network."""
    from topologies import job_runs
    from topologies.cli.job_tables import print_plan

    source = job_runs.source_of(job, _parameters(settings))
    print_plan(job_runs.explained(source, given or [], at, token), as_json=as_json)


def _parameters(settings: list[str] | None) -> dict[str, str]:
    found = {}
    for setting in settings or []:
        name, equals, value = setting.partition("=")
        if not equals or not name:
            raise typer.BadParameter(f"--set is NAME=VALUE, and this is {setting!r}")
        found[name] = value
    return found
