"""`birdhouse routes`: which way an observation would take through a gateway, and why."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from topologies.cli.group import Commands

app = typer.Typer(
    name="routes",
    cls=Commands,
    help="Say where a gateway would send an observation, and why.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.command()
def explain(
    spec: Annotated[Path, typer.Argument(metavar="SPEC", help="A spec with [[gateway.route]] in it.")],
    observation: Annotated[
        str,
        typer.Argument(metavar="OBSERVATION", help="In JSON (docs/api.md); @FILE, or - for standard input."),
    ],
    age_s: Annotated[float, typer.Option(min=0.0, help="How old it is when it comes.")] = 0.0,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on standard output.")] = False,
) -> None:
    """Say what each route makes of an observation."""
    from topologies.cli.tables import console, print_json, rows_table
    from topologies.routes import explained

    steps = explained(spec, _text(observation), age_s)
    if as_json:
        print_json(steps)
    else:
        rows = [
            {"route": step.route, "": "takes it" if step.takes else "no", "to": step.to, "why": step.why}
            for step in steps
        ]
        console().print(rows_table(rows))


def _text(given: str) -> bytes:
    if given == "-":
        return sys.stdin.buffer.read()
    if given.startswith("@"):
        from underlay.errors import InputError

        try:
            return Path(given[1:]).read_bytes()
        except OSError as error:
            raise InputError(f"cannot be read: {error.strerror}", file=Path(given[1:])) from error
    return given.encode()
