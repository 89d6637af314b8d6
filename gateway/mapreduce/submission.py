"""From a job's file to its entry in the log: looked at in a process of its own, for it is somebody's program.

Owns what is found out before a job is taken on. Pure but for `look_at`, which is no handler's business.
"""

from __future__ import annotations

from pathlib import Path

from gateway.mapreduce.errors import JobFailed
from gateway.mapreduce.inputs import FileSplit, split_files
from gateway.mapreduce.isolation import drop_rights
from gateway.mapreduce.job import load
from gateway.mapreduce.messages import Submit
from gateway.mapreduce.running import JobLog
from underlay.messages import Message


class Loaded(Message, frozen=True, array_like=True, tag=380):
    """From `@run`: what a job's file says about the job, or what is wrong with it."""

    transport = "local"
    number: int
    problem: str = ""
    reduces: int = 1
    key_names: tuple[str, ...] = ()
    window_s: float = 0.0
    bad_records_max: int = 0
    deadline_s: float = 0.0
    slots: tuple[tuple[int, int], ...] = ()
    splits: tuple[FileSplit, ...] = ()
    """Of the files that it is to read, if it is."""


def look_at(number: int, submit: Submit, split_bytes: int, isolated: bool) -> Loaded:
    """Run a job's file, and split the files that it reads.

    Args:
        isolated: whether this process is there for it alone.
    """
    if isolated:
        drop_rights()
    try:
        job = load(submit.source)
        splits = split_files([Path(path) for path in submit.paths], split_bytes)
    except JobFailed as error:
        return Loaded(number, str(error))
    return Loaded(
        number,
        "",
        job.reduces,
        job.key_names,
        job.window_s,
        job.bad_records_max,
        float(job.deadline_s),
        job.source.slots,
        tuple(splits),
    )


def log_of(id_: str, submit: Submit, loaded: Loaded, now: float) -> JobLog:
    """A job that has been taken on."""
    return JobLog(
        id=id_,
        source=submit.source,
        paths=submit.paths,
        state="planning",
        problem="",
        submitted_s=now,
        ended_s=0.0,
        **{name: getattr(loaded, name) for name in _SAME},
        trace=submit.trace,
    )


_SAME = tuple(
    name
    for name in Loaded.__struct_fields__
    if name in JobLog.__struct_fields__ and name not in ("problem", "splits")
)


def refusal(submit: Submit, *, has_store: bool) -> str:
    """Why a job cannot even be looked at; empty: it can."""
    if not has_store and not submit.paths:
        return "there is no storage tier here: a job reads files"
    return ""
