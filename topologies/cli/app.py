"""The commands of `birdhouse`. Each is one call of the Python API; what is here is arguments and printing.

Nothing heavy is imported before a command needs it: `birdhouse --help` takes less than 0.3 s.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from topologies.cli import job, kv, routes
from topologies.cli.group import Commands

app = typer.Typer(
    name="birdhouse",
    cls=Commands,
    help="Compare edge networks of IoT devices: star, caching and gossip, under failures, on emulated links.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(kv.app, name="kv")
app.add_typer(routes.app, name="routes")
app.add_typer(job.app, name="job")


class FabricName(StrEnum):
    """Where a run runs."""

    auto = "auto"
    simulation = "simulation"
    mininet = "mininet"


class Topic(StrEnum):
    """What there is to list."""

    architectures = "architectures"
    profiles = "profiles"
    shapes = "shapes"
    devices = "devices"
    faults = "faults"
    examples = "examples"


SpecFile = Annotated[Path, typer.Argument(metavar="SPEC", help="A TOML file; `birdhouse new` writes one.")]
FabricOption = Annotated[
    FabricName | None, typer.Option(help="Default: the spec's, which is auto unless it says otherwise.")
]
SeedOption = Annotated[int | None, typer.Option(min=0, help="Instead of the spec's.")]
OutOption = Annotated[Path | None, typer.Option(help="A new folder; default runs/<name>-<n>.")]
JsonOption = Annotated[bool, typer.Option("--json", help="One JSON document on standard output.")]
PcapOption = Annotated[bool, typer.Option("--pcap", help="Keep a capture of every link.")]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="A key of the spec, such as links.radio.loss_ratio=0.05."
    ),
]
ArchitectureOption = Annotated[
    str | None, typer.Option("--architecture", "-a", help="Default: the spec's first.")
]
NodeArgument = Annotated[str, typer.Argument(metavar="NODE", help="A device of the network that is up.")]
RunOption = Annotated[str | None, typer.Option("--run", help="Which one, where several networks are up.")]


@app.command()
def doctor(as_json: JsonOption = False) -> None:
    """Say what this machine can run, and what would make the rest possible."""
    from topologies.cli.machine import print_doctor

    raise typer.Exit(print_doctor(as_json))


@app.command()
def new(path: Annotated[Path, typer.Argument(metavar="FILE")] = Path("experiment.toml")) -> None:
    """Write a commented spec that runs."""
    import topologies

    print(f"wrote {topologies.new(path)}")


@app.command()
def check(spec: SpecFile, settings: SetOption = None, as_json: JsonOption = False) -> None:
    """Say what a spec means, and what its links cannot carry; nothing is run."""
    import topologies
    from topologies.cli.settings import single_settings
    from topologies.cli.tables import check_table, console, print_json

    checked = topologies.check(spec, settings=single_settings(settings or []))
    if as_json:
        print_json(checked)
        return
    console().print(check_table(checked))
    for warning in checked.warnings:
        print(f"warning: {warning}")


@app.command("list")
def list_(what: Annotated[Topic, typer.Argument()], as_json: JsonOption = False) -> None:
    """Name what a spec can name."""
    from topologies.catalogue import catalogue
    from topologies.cli.tables import console, print_json, rows_table

    rows = catalogue(what.value)
    if as_json:
        print_json(rows)
    else:
        console().print(rows_table(rows))


@app.command()
def run(
    spec: SpecFile,
    architecture: ArchitectureOption = None,
    fabric: FabricOption = None,
    seed: SeedOption = None,
    out: OutOption = None,
    settings: SetOption = None,
    pcap: PcapOption = False,
    as_json: JsonOption = False,
) -> None:
    """Run one architecture of a spec."""
    import topologies
    from topologies.cli.settings import single_settings
    from topologies.cli.tables import console, print_json
    from topologies.table import comparison as table_of

    result = topologies.run(
        spec,
        architecture,
        fabric=fabric,
        seed=seed,
        settings=single_settings(settings or []),
        pcap=pcap,
        out=out,
        command=_command(),
        say=_say,
    )
    if as_json:
        print_json({"folder": str(result.folder), **result.table()[0]})
        return
    console().print(table_of([result.summary]))
    _print_protocols([result.folder])
    _point_to(result.folder)


@app.command()
def compare(
    spec: Annotated[
        Path | None,
        typer.Argument(metavar="[SPEC]", help="Default: a bundled quickstart.", show_default=False),
    ] = None,
    architectures: Annotated[
        list[str] | None, typer.Option("--architecture", "-a", help="Repeatable; instead of the spec's.")
    ] = None,
    fabric: FabricOption = None,
    seed: SeedOption = None,
    seeds: Annotated[int, typer.Option(min=1, help="So many runs of each.")] = 1,
    out: OutOption = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE[,VALUE]...", help="Repeatable; several values make a sweep."
        ),
    ] = None,
    kill: Annotated[
        int | None,
        typer.Option(
            metavar="K", min=1, help="Survivability: let 0 to K machines fail, instead of the faults."
        ),
    ] = None,
    targeted: Annotated[
        bool, typer.Option("--targeted", help="The busiest fail first, not random ones.")
    ] = False,
    pcap: PcapOption = False,
    as_json: JsonOption = False,
) -> None:
    """Run all architectures of a spec on the same network, and set them side by side."""
    import topologies
    from topologies.cli.settings import parse_settings
    from topologies.cli.tables import comparison_tables, console, print_json, survival_table

    comparison = topologies.compare(
        spec,
        architectures=architectures or (),
        fabric=fabric,
        seed=seed,
        seeds=seeds,
        settings=parse_settings(settings or []),
        kill=kill,
        targeted=targeted,
        pcap=pcap,
        out=out,
        command=_command(),
        say=_say,
    )
    if as_json:
        print_json({"folder": str(comparison.folder), "runs": comparison.table()})
        return
    if kill is None:
        for table in comparison_tables(comparison):
            console().print(table)
        _print_protocols([run.folder for run in comparison.runs])
        _print_jobs([(run.folder, run.summary.run.architecture) for run in comparison.runs])
    else:
        console().print(survival_table(comparison.survivability()))
    _point_to(comparison.folder)


@app.command()
def up(
    spec: Annotated[
        Path | None,
        typer.Argument(metavar="[SPEC]", help="Default: a bundled quickstart.", show_default=False),
    ] = None,
    architecture: ArchitectureOption = None,
    seed: SeedOption = None,
    settings: SetOption = None,
    cli: Annotated[bool, typer.Option("--cli", help="Open Mininet's command line on it.")] = False,
    port: Annotated[
        list[str] | None,
        typer.Option("--port", metavar="NAME=PORT", help="Of 127.0.0.1, such as http=9000; repeatable."),
    ] = None,
    token: Annotated[
        str,
        typer.Option(
            envvar="BIRDHOUSE_TOKEN", help="For HTTP clients on other devices, who are refused without one."
        ),
    ] = "",
    as_json: JsonOption = False,
) -> None:
    """Bring a spec's whole system up on Mininet, with ways in from this machine, until Ctrl-C."""
    import topologies
    from topologies.cli.settings import parse_ports, single_settings
    from topologies.cli.tables import console, print_json, reach_table

    topologies.up(
        spec,
        architecture,
        seed=seed,
        settings=single_settings(settings or []),
        cli=cli,
        ports=parse_ports(port or []),
        token=token,
        ready=lambda ways: print_json(ways) if as_json else console().print(reach_table(ways)),
        say=_say,
    )


@app.command("exec", context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
def exec_(
    node: NodeArgument,
    command: Annotated[list[str], typer.Argument(metavar="COMMAND...")],
    in_run: RunOption = None,
) -> None:
    """Run a command inside a device of the network that is up."""
    from topologies.live import execute

    command = command[command[0] == "--" :]  # typer hands the separator over
    raise typer.Exit(execute(node, command, in_run))


@app.command()
def logs(node: NodeArgument, in_run: RunOption = None) -> None:
    """Print the output of a device's processes in the network that is up."""
    from topologies.live import log_files

    for path in log_files(node, in_run):
        print(f"==> {path.name} <==")
        sys.stdout.write(path.read_text(encoding="utf-8", errors="replace"))


@app.command()
def report(
    folders: Annotated[list[Path], typer.Argument(metavar="DIR...", help="Runs or comparisons.")],
    out: Annotated[Path | None, typer.Option(help="Default: report.html in the first folder.")] = None,
) -> None:
    """Write the report of runs anew, from their folders alone."""
    import topologies

    print(topologies.report(folders, out or folders[0] / "report.html"))


@app.command()
def diff(
    a: Annotated[Path, typer.Argument(metavar="RUN")],
    b: Annotated[Path, typer.Argument(metavar="RUN")],
    as_json: JsonOption = False,
) -> None:
    """Set two runs side by side, metric by metric."""
    import topologies
    from topologies.cli.tables import console, print_json
    from topologies.table import difference as table_of

    found = topologies.diff(a, b)
    if as_json:
        print_json(found)
    else:
        console().print(table_of(found))


@app.command()
def clean() -> None:
    """Remove what killed runs left behind; runs that live are not touched."""
    from topologies.live import clean as clean_up

    for removed in clean_up():
        print(f"removed {removed}")


def _print_protocols(folders: Sequence[Path]) -> None:
    """What the captures of these runs were, if there are any."""
    from topologies.captures import read_analysis
    from topologies.cli.tables import console
    from topologies.table import protocols

    analyses = {folder.name: read_analysis(folder) for folder in folders}
    found = {name: analysis for name, analysis in analyses.items() if analysis is not None}
    if found:
        console().print(protocols(found))


def _print_jobs(runs: Sequence[tuple[Path, str]]) -> None:
    """What the jobs of these runs came to, if there were any."""
    from topologies.cli.job_tables import print_run_jobs
    from topologies.job_results import read_jobs

    print_run_jobs([(folder, name, read_jobs(folder)) for folder, name in runs])


def _say(text: str) -> None:
    """Progress goes to stderr: standard output is for results."""
    print(f"birdhouse: {text}", file=sys.stderr, flush=True)


def _command() -> str:
    return shlex.join(["birdhouse", *sys.argv[1:]])


def _point_to(folder: Path) -> None:
    print()
    for page in sorted(folder.glob("report*.html")):
        print(f"report: {page}")
