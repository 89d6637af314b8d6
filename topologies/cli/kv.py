"""`birdhouse kv`: the commands of the storage tier. Each is one call of `topologies.kv_service`; what is here
is arguments and printing."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterable
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from topologies.kv_service import Where

app = typer.Typer(
    name="kv",
    help="A replicated key-value store on this machine: serve it, use it, look at it, break it.",
    no_args_is_help=True,
)

DEFAULT_FOLDER = Path("birdhouse-kv")
WATCH_S = 0.5


class KindName(StrEnum):
    """The three kinds of service."""

    primary_backup = "primary-backup"
    paxos = "paxos"
    sharded = "sharded"


DirOption = Annotated[Path, typer.Option("--dir", metavar="DIR", help="The store's folder.")]
AtOption = Annotated[
    list[str] | None,
    typer.Option(
        "--at", metavar="HOST=IP", help="Repeatable, instead of --dir: storage hosts of a network that is up."
    ),
]
DeadlineOption = Annotated[float, typer.Option("--deadline", metavar="S", min=0.1, max=3600.0)]
KeyArgument = Annotated[str, typer.Argument(metavar="KEY")]
GroupArgument = Annotated[str, typer.Argument(metavar="GROUP", help="Such as g2.")]


@app.command()
def serve(
    kind: Annotated[KindName | None, typer.Option(help="Of a new store; default sharded.")] = None,
    hosts: Annotated[
        int | None, typer.Option(min=1, help="Processes; default 5, or 3 where there is one group.")
    ] = None,
    groups: Annotated[int | None, typer.Option(min=1, help="Of a sharded store; default 3.")] = None,
    replicas: Annotated[
        int | None, typer.Option(min=1, help="Of each group; default 3, of primary and backup 2.")
    ] = None,
    folder: DirOption = DEFAULT_FOLDER,
    port: Annotated[
        int | None, typer.Option(help="Redis port of the first host; the others have the next. Default 7001.")
    ] = None,
    host: Annotated[str, typer.Option(metavar="HOST", help="Serve this one alone.")] = "",
    respawn: Annotated[bool, typer.Option("--respawn", help="Start hosts again that have ended.")] = False,
) -> None:
    """Serve a store until Ctrl-C, a process for each host, no root. The same folder finds its data again."""
    from topologies import kv_service

    kv_service.serve(
        folder,
        kind=kind.value if kind else None,
        hosts=hosts,
        groups=groups,
        replicas=replicas,
        port=port,
        only=host,
        respawn=respawn,
        say=_say,
    )


@app.command()
def status(
    watch: Annotated[bool, typer.Option("--watch", help="Go on looking, until Ctrl-C.")] = False,
    folder: DirOption = DEFAULT_FOLDER,
    at: AtOption = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON document; with --watch, one on each line.")
    ] = False,
) -> None:
    """Say how every replica is: who leads, how far the logs are, who has which slots. Exit code 1 if some
    slots are not served."""
    from topologies.cli.kv_tables import show, watch_lines, watch_live

    where = _where(folder, at)
    if watch:
        (watch_lines if as_json else watch_live)(where, WATCH_S)
    elif not show(where, as_json=as_json):
        raise typer.Exit(1)


@app.command()
def get(
    key: KeyArgument,
    folder: DirOption = DEFAULT_FOLDER,
    at: AtOption = None,
    stale: Annotated[bool, typer.Option("--stale", help="What any replica has, perhaps old.")] = False,
    deadline_s: DeadlineOption = 10.0,
) -> None:
    """Print a value, as it is. Exit code 1 if there is none."""
    from topologies import kv_service
    from underlay.errors import RunFailed

    value = kv_service.get(_where(folder, at), _bytes(key), stale=stale, deadline_s=deadline_s)
    if value is None:
        raise RunFailed(f"there is no {key}")
    sys.stdout.flush()
    sys.stdout.buffer.write(value + b"\n" if sys.stdout.isatty() else value)
    sys.stdout.buffer.flush()


@app.command()
def put(
    key: KeyArgument,
    value: Annotated[str, typer.Argument(metavar="VALUE|@FILE", help="@- is standard input.")],
    folder: DirOption = DEFAULT_FOLDER,
    at: AtOption = None,
    deadline_s: DeadlineOption = 10.0,
) -> None:
    """Write a value; done when a majority's disks have it."""
    from topologies import kv_service

    kv_service.put(_where(folder, at), _bytes(key), _value(value), deadline_s=deadline_s)


@app.command()
def delete(
    keys: Annotated[list[str], typer.Argument(metavar="KEY...")],
    folder: DirOption = DEFAULT_FOLDER,
    at: AtOption = None,
    deadline_s: DeadlineOption = 10.0,
) -> None:
    """Delete keys, and print how many were there."""
    from topologies import kv_service

    print(kv_service.delete(_where(folder, at), *map(_bytes, keys), deadline_s=deadline_s))


@app.command()
def scan(
    prefix: Annotated[str, typer.Argument(metavar="[PREFIX]", show_default=False)] = "",
    folder: DirOption = DEFAULT_FOLDER,
    at: AtOption = None,
) -> None:
    """Print all keys that begin so, one on each line."""
    from topologies import kv_service

    _print_lines((key,) for key in kv_service.scan(_where(folder, at), _bytes(prefix)))


@app.command("range")
def range_(
    start: Annotated[str, typer.Argument(metavar="START")],
    end: Annotated[str, typer.Argument(metavar="END", help="Not included.")],
    limit: Annotated[int | None, typer.Option(min=1, help="So many at most.")] = None,
    folder: DirOption = DEFAULT_FOLDER,
    at: AtOption = None,
) -> None:
    """Print the keys of one slot from START to END with their values, as of one moment, in order. Braces put
    keys into one slot: obs:{cam3}:17."""
    from topologies import kv_service

    _print_lines(kv_service.range_(_where(folder, at), _bytes(start), _bytes(end), limit=limit))


@app.command()
def move(
    slots: Annotated[str, typer.Argument(metavar="SLOTS", help="Such as 0-99,512.")],
    group: GroupArgument,
    folder: DirOption = DEFAULT_FOLDER,
    at: AtOption = None,
    deadline_s: DeadlineOption = 60.0,
) -> None:
    """Have a group take over slots, and wait until it has them."""
    from topologies import kv_service

    print(f"configuration {kv_service.move(_where(folder, at), slots, group, deadline_s=deadline_s)}")


@app.command()
def join(
    group: GroupArgument,
    hosts: Annotated[list[str], typer.Argument(metavar="HOST...", help="Such as store6; new ones are made.")],
    folder: DirOption = DEFAULT_FOLDER,
    at: AtOption = None,
    deadline_s: DeadlineOption = 60.0,
) -> None:
    """Have a further group take its share of the slots, and wait until it has them."""
    from topologies import kv_service

    print(f"configuration {kv_service.join(_where(folder, at), group, hosts, deadline_s=deadline_s)}")


@app.command()
def leave(
    group: GroupArgument,
    folder: DirOption = DEFAULT_FOLDER,
    at: AtOption = None,
    deadline_s: DeadlineOption = 60.0,
) -> None:
    """Have a group give all its slots to the others, and wait until they have them."""
    from topologies import kv_service

    print(f"configuration {kv_service.leave(_where(folder, at), group, deadline_s=deadline_s)}")


@app.command()
def replace(
    old: Annotated[str, typer.Argument(metavar="HOST", help="Which is dead, or is to go.")],
    new: Annotated[str | None, typer.Argument(metavar="[NEW]", show_default=False)] = None,
    folder: DirOption = DEFAULT_FOLDER,
    deadline_s: DeadlineOption = 60.0,
) -> None:
    """Put a new host in the place of another, and wait until it has caught up and votes."""
    from topologies import kv_service

    print(kv_service.replace(folder, old, new, deadline_s=deadline_s))


# ---------------------------------------------------------------------------------------------------- helpers


def _where(folder: Path, at: list[str] | None) -> Where:
    """The folder, or addresses: `store1=10.0.0.7`, or a name that can be looked up."""
    from underlay.errors import InputError

    if not at:
        return folder
    hosts = {}
    for text in at:
        host, _, ip = text.partition("=")
        try:
            hosts[host] = socket.gethostbyname(ip or host)
        except OSError as error:
            raise InputError(f"{text!r} has no address", key="--at", hint="HOST=IP") from error
    return hosts


def _bytes(text: str) -> bytes:
    """What was typed, whatever the terminal's encoding."""
    return os.fsencode(text)


def _value(text: str) -> bytes:
    from underlay.errors import InputError

    if text == "@-":
        return sys.stdin.buffer.read()
    if not text.startswith("@"):
        return _bytes(text)
    try:
        return Path(text[1:]).read_bytes()
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", file=text[1:]) from error


def _print_lines(rows: Iterable[Iterable[bytes]]) -> None:
    """Fields with tabs between them; what is not text is escaped."""
    for row in rows:
        print("\t".join(field.decode(errors="backslashreplace") for field in row))


def _say(text: str) -> None:
    print(f"birdhouse: {text}", file=sys.stderr, flush=True)
