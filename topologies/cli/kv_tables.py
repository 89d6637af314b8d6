"""What `birdhouse kv status` shows, once or for as long as somebody looks."""

from __future__ import annotations

from time import sleep

import msgspec
from rich import box
from rich.console import Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from kv.slots import SLOTS
from topologies.cli.tables import console, print_json
from topologies.kv_service import GroupStatus, ReplicaStatus, StoreStatus, Where, status

_RANGES_SHOWN = 3
_STYLES = {"leader": "bold green", "primary": "bold green", "silent": "red", "candidate": "yellow"}


def show(where: Where, *, as_json: bool) -> bool:
    """Once; whether all slots are served."""
    now = status(where)
    if as_json:
        print_json(now)
    else:
        console().print(picture(now))
    return now.slots == SLOTS


def watch_live(where: Where, every_s: float) -> None:
    """Until Ctrl-C, in place."""
    with Live(console=console(), auto_refresh=False) as live:
        while True:
            live.update(picture(status(where)), refresh=True)
            sleep(every_s)


def watch_lines(where: Where, every_s: float) -> None:
    """Until Ctrl-C, a JSON document on each line."""
    while True:
        print(msgspec.json.encode(status(where)).decode(), flush=True)
        sleep(every_s)


def picture(now: StoreStatus) -> RenderableType:
    """A table of groups and one of replicas."""
    return Group(_groups(now), _replicas(now))


# ---------------------------------------------------------------------------------------------------- helpers


def _groups(now: StoreStatus) -> Table:
    table = Table(box=box.SIMPLE_HEAD, title=f"{now.slots} of {SLOTS} slots are served", title_justify="left")
    for heading in ("group", "leader", "members"):
        table.add_column(heading)
    for heading in ("slots", "keys", "configuration"):
        table.add_column(heading, justify="right")
    table.add_column("ranges of slots")
    for group in now.groups:
        table.add_row(
            group.group,
            group.leader or Text("nobody", "red"),
            " ".join(group.members),
            f"{group.slots:,}",
            f"{group.keys:,}",
            _or_dash(group.configuration),
            _ranges(group),
        )
    return table


def _replicas(now: StoreStatus) -> Table:
    table = Table(box=box.SIMPLE_HEAD)
    for heading in ("group", "host", "role", "ballot"):
        table.add_column(heading)
    for heading in ("chosen", "applied", "log from", "lag", "keys"):
        table.add_column(heading, justify="right")
    last = ""
    for replica in now.replicas:
        if last and replica.group != last:
            table.add_section()
        table.add_row("" if replica.group == last else replica.group, *_cells(replica))
        last = replica.group
    return table


def _cells(replica: ReplicaStatus) -> list[str | Text]:
    role = Text(replica.role, _STYLES.get(replica.role, ""))
    if replica.role == "silent":
        return [replica.host, role]
    numbers = (replica.chosen, replica.applied, replica.log_from)
    counts = [f"{number:,}" for number in numbers]
    return [replica.host, role, replica.ballot, *counts, _or_dash(replica.lag), f"{replica.keys:,}"]


def _ranges(group: GroupStatus) -> str:
    shown = [f"{first}-{last}" if first < last else f"{first}" for first, last in group.ranges]
    if len(shown) > _RANGES_SHOWN:
        shown[_RANGES_SHOWN:] = [f"and {len(shown) - _RANGES_SHOWN} more"]
    moving = [f"{count} {state}" for state, count in group.moving.items()]
    return ", ".join([*shown, *moving])


def _or_dash(number: int | None) -> str:
    return "-" if number is None else f"{number:,}"
