"""What `birdhouse job` prints: progress while a job runs, results, lists, plans."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.table import Table as RichTable

from gateway.mapreduce.messages import JobState, TaskState
from topologies.cli.tables import console, print_json, rows_table
from topologies.job_results import JobResult, file_name
from topologies.job_runs import JobPlan, Outcome
from topologies.reporting.jobs import job_cells

Told = Callable[[JobState], None]
ROWS_OF_A_RUN = 12


@contextmanager
def following(*, quiet: bool) -> Iterator[Told]:
    """A view of a running job on standard error, drawn anew with each word about it."""
    if quiet:
        yield lambda _: None
        return
    screen = Console(stderr=True)
    with Live(console=screen, transient=True, refresh_per_second=8) as live:
        yield lambda state: live.update(_progress(state))


def print_outcome(outcome: Outcome, form: str, rows_max: int) -> None:
    """The result on standard output, and what there is to know about it on standard error."""
    table = outcome.result.table()
    if form == "csv":
        sys.stdout.write(table.csv())
    elif form == "jsonl":
        sys.stdout.write(table.json_lines())
    else:
        shown = [dict(zip(table.columns, map(_cell, row), strict=True)) for row in table.rows[:rows_max]]
        if shown:
            console().print(rows_table(shown))
        if len(table.rows) > rows_max:
            print(f"... and {len(table.rows) - rows_max} more rows (--rows, --format csv, --out FILE)")
    for line in summary_lines(outcome):
        print(line, file=sys.stderr)


def summary_lines(outcome: Outcome) -> list[str]:
    """How the job went, for people."""
    result, state = outcome.result, outcome.state
    lines = [f"{result.records} records, {sum(1 for _ in result.rows())} rows; sha256 {result.digest[:16]}"]
    if state is not None:
        lines.append(
            f"{state.maps} maps ({state.local_maps} where their data are), {state.reduces} reduces, "
            f"{state.seconds:.1f} s"
        )
        lines.append(
            f"read {_bytes(state.read_bytes)}, of which {_bytes(state.read_far_bytes)} from other hosts; "
            f"{_bytes(state.shuffled_bytes)} between workers; result {_bytes(state.result_bytes)}"
        )
    if result.counters:
        lines.append("counters: " + ", ".join(f"{name} {by}" for name, by in result.counters.items()))
    if result.bad_records:
        lines.append(f"{result.bad_records} records were left out, such as:")
        lines += [f"  {bad.error}" for bad in result.bad[:3]]
    return lines


def print_jobs(listed: dict[str, Any], *, as_json: bool) -> None:
    """A gateway's jobs and workers, and the ready-made jobs."""
    if as_json:
        print_json(listed)
        return
    jobs = [
        {
            "job": job["id"],
            "name": job["name"],
            "state": job["state"],
            "maps": f"{job['maps_done']}/{job['maps']}",
            "reduces": f"{job['reduces_done']}/{job['reduces']}",
            "records": job["records"],
            "rows": job["rows"],
            "seconds": f"{job['seconds']:.1f}",
            "problem": job["problem"],
        }
        for job in listed["jobs"]
    ]
    if jobs:
        console().print(rows_table(jobs))
    if listed["workers"]:
        workers = [{"worker": name, "is": doing} for name, doing in listed["workers"].items()]
        console().print(rows_table(workers))
    console().print(
        rows_table(
            [{"ready-made job": name, "answers": about} for name, about in listed["ready_made"].items()]
        )
    )
    if listed.get("problem"):
        print(f"birdhouse: {listed['problem']}", file=sys.stderr)


def print_state(state: JobState, *, as_json: bool) -> None:
    """A job and its tasks."""
    if as_json:
        print_json(msgspec.to_builtins(state))
        return
    console().print(_progress(state))
    tasks = [
        {
            "task": f"{task.kind} {task.task}",
            "state": task.state,
            "worker": task.worker,
            "local": "yes" if task.local else "",
            "attempts": task.attempts,
            "backup": "yes" if task.backup else "",
            "so far": task.progress,
            "seconds": f"{task.seconds:.2f}",
            "of": task.split,
        }
        for task in state.tasks
    ]
    if tasks:
        console().print(rows_table(tasks))
    if state.problem:
        print(state.problem)


def print_plan(plan: JobPlan, *, as_json: bool) -> None:
    """How a job would run."""
    if as_json:
        print_json(msgspec.to_builtins(plan))
        return
    print(f"{plan.name}: {plan.does}")
    print(f"reads   {plan.reads}")
    print(f"key     {', '.join(plan.key)}; {plan.reduces} reducers")
    print(f"crosses {plan.crosses}")
    splits = [
        {"split": each.split, "size": f"{each.size} {each.unit}", "read by": each.read_by}
        for each in plan.splits
    ]
    if splits:
        console().print(rows_table(splits))


def print_run_jobs(runs: Sequence[tuple[Path, str, Sequence[JobResult]]]) -> None:
    """Jobs of experiments: how each went in every run, and the first rows of one of them."""
    names = dict.fromkeys(job.name for _, _, found in runs for job in found)
    heads = (
        "records",
        "rows",
        "read",
        "from other hosts",
        "between workers",
        "result",
        "saved",
        "maps",
        "took",
        "on the way",
    )
    for name in names:
        told = [
            (folder, run, n, job)
            for folder, run, found in runs
            for n, job in enumerate(found)
            if job.name == name
        ]
        cells = [job_cells(job) for _, _, _, job in told]
        used = [at for at, _ in enumerate(heads) if any(row[at] for row in cells)]
        rows = [
            {"": run, **{heads[at]: row[at] for at in used}}
            for (_, run, _, _), row in zip(told, cells, strict=True)
        ]
        table = rows_table(rows)
        table.title = f"job {name}, over what the storage tier held, on its hosts"
        console().print(table)
        shown = next((each for each in told if each[3].table.rows), None)
        if shown is not None:
            folder, run, n, job = shown
            found = next(found for where, _, found in runs if where == folder)
            columns = job.table.columns
            first = rows_table(
                dict(zip(columns, map(_cell, row), strict=True)) for row in job.table.rows[:ROWS_OF_A_RUN]
            )
            more = len(job.table.rows) - ROWS_OF_A_RUN
            first.title = f"{name} in {run}" + (f", {more} more rows in its CSV" if more > 0 else "")
            console().print(first)
            print(f"plot: {folder / file_name(found, n, '.svg')}")


# ---------------------------------------------------------------------------------------------------- helpers


def _progress(state: JobState) -> RichTable:
    table = RichTable.grid(padding=(0, 2))
    running = [task for task in state.tasks if task.state == "in progress"]
    table.add_row("job", f"{escape(state.name)} ({state.id}), {state.state}, {state.seconds:.1f} s")
    table.add_row("maps", f"{_bar(state.maps_done, state.maps)} {state.local_maps} where their data are")
    table.add_row("reduces", _bar(state.reduces_done, state.reduces))
    table.add_row(
        "read", f"{_bytes(state.read_bytes)}, {_bytes(state.read_far_bytes)} of it from other hosts"
    )
    table.add_row("moved", f"{_bytes(state.shuffled_bytes)} between workers")
    if running:
        table.add_row("now", ", ".join(map(_doing, running[:6])))
    if state.backups or state.lost_attempts:
        table.add_row(
            "trouble", f"{state.lost_attempts} attempts lost, {state.backups} backups of stragglers"
        )
    if state.bad_records:
        table.add_row("bad", f"{state.bad_records} records left out")
    return table


def _doing(task: TaskState) -> str:
    backup = ", backup" if task.backup else ""
    return f"{task.kind} {task.task} on {task.worker} ({max(0, task.progress)} so far{backup})"


def _bar(done: int, of: int, width: int = 24) -> str:
    filled = width * done // of if of else 0
    return f"{'█' * filled}{'░' * (width - filled)} {done}/{of}"


def _bytes(count: int) -> str:
    if count < 10_000:
        return f"{count} B"
    return f"{count / 1000:.1f} kB" if count < 10_000_000 else f"{count / 1e6:.1f} MB"


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, dict | list):
        return msgspec.json.encode(value).decode()
    return str(value)
