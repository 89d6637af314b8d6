"""One job while it runs: its tasks, what became of their attempts, and what it amounts to.

Owns the state of a job and its transitions; knows no network. The coordinator tells it what workers say and
asks it what to tell them. A task is idle, in progress (with one attempt, or two when there is a backup) or
completed; a completed map whose output is lost is idle again while a reducer needs it.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import inf
from typing import Any

import msgspec

from gateway.mapreduce.counting import added
from gateway.mapreduce.inputs import Split, StoreSplit
from gateway.mapreduce.job import JobSource, Plain
from gateway.mapreduce.messages import (
    Attempt,
    Failed,
    JobState,
    MapDone,
    Place,
    ReduceDone,
    TaskState,
)
from gateway.mapreduce.schedule import Run, Task, Work
from gateway.mapreduce.tasks import SAMPLES_MAX, Bad
from kv.slots import SLOTS
from underlay.node import Address, device_of

FAILURES_MAX = 4
"""Of one task; a worker that dies does not count."""


class Commit(msgspec.Struct, frozen=True, array_like=True):
    """A part of the result that is final."""

    part: int
    done: ReduceDone


class JobLog(msgspec.Struct, frozen=True, array_like=True):
    """What the coordinator must not forget of a job."""

    id: str
    source: JobSource
    paths: tuple[str, ...]
    state: str
    problem: str
    submitted_s: float
    ended_s: float
    reduces: int
    key_names: tuple[str, ...]
    window_s: float
    bad_records_max: int
    deadline_s: float
    slots: tuple[tuple[int, int], ...] = ((0, SLOTS - 1),)
    """Where its records can be."""
    trace: bool = False
    splits: tuple[Split, ...] = ()
    commits: tuple[Commit, ...] = ()
    summary: dict[str, Any] = {}
    """Of a job that has ended: what its maps came to."""


class JobRun:
    """A job, from its submission to its end."""

    def __init__(self, log: JobLog) -> None:
        self.log = log
        self.work = Work(log.id, log.submitted_s, [], [Task("reduce", n) for n in range(log.reduces)])
        self.maps_done: dict[int, MapDone] = {}
        """Whose outputs are there."""
        self.told: dict[int, MapDone] = {}
        """What maps came to, those too whose outputs were lost since: reducers may have had them before."""
        self.commits: dict[int, ReduceDone] = {commit.part: commit.done for commit in log.commits}
        for part in self.commits:
            self.work.reduces[part].state = "completed"
        self.attempts_made: list[Attempt] = []
        """All reduce attempts: what they wrote is to be removed, but for what was committed."""
        self.lost_attempts = 0
        self.backups = 0
        self.watermark_told = False
        if log.splits:
            self.plan(log.splits, log.submitted_s)

    @property
    def id(self) -> str:
        return self.log.id

    @property
    def source(self) -> JobSource:
        return self.log.source

    @property
    def runs(self) -> bool:
        """Whether it has not ended."""
        return self.log.state in ("planning", "running")

    def plan(self, splits: Sequence[Split], now: float) -> None:
        """The map tasks are these."""
        self.work.maps = [Task("map", n, split, idle_since_s=now) for n, split in enumerate(splits)]
        self.log = msgspec.structs.replace(self.log, state="running", splits=tuple(splits))

    def recall(self, done: MapDone) -> None:
        """What a former coordinator had heard of a map; its worker says if the output is still there."""
        self.told[done.attempt.task] = done

    def add_splits(self, task: Task, splits: Sequence[Split], now: float) -> None:
        """A split has moved: its task reads the first of these now, and new tasks the others."""
        task.split = splits[0]
        task.idle_since_s = now
        for split in splits[1:]:
            self.work.maps.append(Task("map", len(self.work.maps), split, idle_since_s=now))
        whole = tuple(each.split for each in self.work.maps if each.split is not None)
        self.log = msgspec.structs.replace(self.log, splits=whole)

    def task(self, attempt: Attempt) -> Task | None:
        """Whose attempt it is."""
        tasks = self.work.tasks(attempt.kind)
        return tasks[attempt.task] if attempt.task < len(tasks) else None

    def run_of(self, attempt: Attempt) -> Run | None:
        """The attempt, if it is under way."""
        task = self.task(attempt)
        return None if task is None else next((run for run in task.runs if run.attempt == attempt), None)

    @property
    def maps_completed(self) -> bool:
        return bool(self.work.maps) and all(task.state == "completed" for task in self.work.maps)

    @property
    def completed(self) -> bool:
        """Whether every part of the result is final."""
        return all(task.state == "completed" for task in self.work.reduces)

    # ------------------------------------------------------------------------------------------- what happens

    def begin(self, task: Task, attempt: Attempt, worker: Address, now: float, *, backup: bool) -> Run:
        """An attempt is handed out."""
        run = Run(attempt, worker, now, now, backup)
        task.runs.append(run)
        task.attempts += 1
        task.state = "in progress"
        if backup:
            self.backups += 1
        if attempt.kind == "reduce":
            self.attempts_made.append(attempt)
        return run

    def on_map_done(self, worker: Address, done: MapDone, now: float) -> list[Run] | None:
        """A map's output is there. The other attempts at it, which are to be stopped; None: it was known."""
        task = self.task(done.attempt)
        if task is None or task.state == "completed":
            return None
        run = self.run_of(done.attempt)
        others = [each for each in task.runs if each.attempt != done.attempt]
        task.runs = []
        task.state, task.done_by, task.done = "completed", worker, done.attempt
        task.seconds = done.seconds
        task.local = not done.read_from or device_of(done.read_from) == device_of(worker)
        task.backup = task.backup or bool(run and run.backup)
        self.maps_done[done.attempt.task] = self.told[done.attempt.task] = done
        if self.maps_completed:
            for reduce in self.work.reduces:
                for each in reduce.runs:
                    each.began_s = now  # from here on it is slow by its own fault
        return others

    def too_many_bad(self, sample: str = "") -> str:
        """Why the job fails, if more records are bad than it bears, or nothing."""
        most = self.log.bad_records_max
        if not sample:
            if self._bad_count() <= most:
                return ""
            sample = next(done.bad[0].error for done in self.told.values() if done.bad)
        return f"job {self.source.name}: more than {most} records fail: {sample}"

    def on_reduce_done(self, done: ReduceDone) -> list[Run] | None:
        """A part of the result is there, and final from now on; as `on_map_done`."""
        task = self.task(done.attempt)
        if task is None or task.state == "completed":
            return None
        run = self.run_of(done.attempt)
        others = [each for each in task.runs if each.attempt != done.attempt]
        task.runs = []
        task.state, task.done, task.seconds = "completed", done.attempt, done.seconds
        task.done_by = run.worker if run else ""
        task.backup = task.backup or bool(run and run.backup)
        self.commits[done.attempt.task] = done
        commits = tuple(Commit(part, self.commits[part]) for part in sorted(self.commits))
        self.log = msgspec.structs.replace(self.log, commits=commits)
        return others

    def on_failed(self, failed: Failed, now: float) -> str:
        """An attempt failed; the reason if the job does with it, else nothing."""
        task = self.task(failed.attempt)
        run = self.run_of(failed.attempt)
        if task is None or run is None:
            return ""
        self._end(task, run, now)
        if failed.fatal:
            return failed.reason
        if failed.moved:
            return ""
        task.failures += 1
        task.suspects |= {bad.index for bad in failed.bad}
        if failed.died_at >= 0:
            if failed.died_at in task.suspects:
                task.skip |= {failed.died_at}
                task.failures -= 1
            task.suspects |= {failed.died_at}
        elif failed.bad:
            task.failures -= 1  # the next attempt leaves them out
        if failed.bad and len(failed.bad) + self._bad_count() > self.log.bad_records_max:
            return self.too_many_bad(failed.reason)
        if task.failures >= FAILURES_MAX:
            return f"{task.kind} task {task.number} failed {task.failures} times: {failed.reason}"
        return ""

    def on_worker_lost(self, worker: Address, now: float) -> list[Task]:
        """All that it was doing is idle again, and so are the maps whose outputs it had, where they are
        needed. Returns those."""
        lost = []
        for task in (*self.work.maps, *self.work.reduces):
            for run in [run for run in task.runs if run.worker == worker]:
                self._end(task, run, now)
        if not self.completed:
            for task in self.work.maps:
                if task.state == "completed" and task.done_by == worker:
                    self.lose_output(task, now)
                    lost.append(task)
        return lost

    def lose_output(self, task: Task, now: float) -> None:
        """What a map made is gone, or out of reach."""
        task.state, task.idle_since_s = "idle", now
        task.avoid = (*task.avoid[-2:], task.done_by)
        task.done_by, task.done = "", None
        self.maps_done.pop(task.number, None)
        self.lost_attempts += 1

    def _end(self, task: Task, run: Run, now: float) -> None:
        task.runs.remove(run)
        self.lost_attempts += 1
        if not task.runs and task.state != "completed":
            task.state, task.idle_since_s = "idle", now

    # --------------------------------------------------------------------------------------------- what is
    # told

    def places(self, part: int) -> tuple[Place, ...]:
        """Where a reducer finds its part of every map's output."""
        return tuple(self.place(task, part) for task in self.work.maps if task.state == "completed")

    def place(self, task: Task, part: int) -> Place:
        """Of one map that is completed."""
        done = self.maps_done[task.number]
        return Place(task.number, task.done_by, done.attempt, done.sizes[part])

    @property
    def watermark_s(self) -> float:
        """The newest `t_event` of the maps that are done."""
        return max((done.watermark_s for done in self.told.values()), default=-inf)

    def summary(self) -> dict[str, Any]:
        """What its tasks came to, for `JobState`; what has ended keeps it."""
        if self.log.summary:
            return self.log.summary
        maps = [self.told[number] for number in sorted(self.told)]
        commits = [self.commits[part] for part in sorted(self.commits)]
        bad = [bad for done in maps for bad in done.bad]
        near = {task.number: task.local for task in self.work.maps}
        return {
            "maps": len(self.work.maps),
            "maps_done": len(self.told) if self.completed else len(self.maps_done),
            "records": sum(done.records for done in maps),
            "rows": sum(done.rows for done in commits),
            "bad_records": self._bad_count(),
            "bad": tuple(bad[:SAMPLES_MAX]),
            "counters": added(*(done.counters for done in maps), *(done.counters for done in commits)),
            "read_bytes": sum(done.read_bytes for done in maps),
            "read_far_bytes": sum(done.read_bytes for done in maps if not near.get(done.attempt.task, True)),
            "shuffled_bytes": sum(done.fetched_bytes for done in commits),
            "result_bytes": sum(done.size_bytes for done in commits),
            "watermark_s": self.watermark_s,
            "local_maps": sum(task.local for task in self.work.maps if task.state == "completed"),
            "backups": self.backups,
            "lost_attempts": self.lost_attempts,
        }

    def state(self, now: float, *, tasks: bool = False) -> JobState:
        """For people."""
        log = self.log
        parameters: dict[str, Plain] = log.source.parameters
        summary = dict(self.summary())
        summary["bad"] = tuple(msgspec.convert(each, Bad) for each in summary["bad"])
        return JobState(
            id=log.id,
            name=log.source.name,
            state=log.state,
            problem=log.problem,
            parameters=dict(parameters),
            key_names=log.key_names,
            window_s=log.window_s,
            reduces=log.reduces,
            reduces_done=len(self.commits),
            submitted_s=log.submitted_s,
            seconds=(now if self.runs else log.ended_s) - log.submitted_s,
            chunks=tuple(self.commits[part].chunks for part in sorted(self.commits))
            if log.state == "done"
            else (),
            tasks=tuple(map(_told, (*self.work.maps, *self.work.reduces))) if tasks else (),
            **summary,
        )

    def end(self, state: str, problem: str, now: float) -> None:
        """It is over."""
        summary: dict[str, Any] = msgspec.to_builtins(self.summary())
        self.log = msgspec.structs.replace(
            self.log, state=state, problem=problem, ended_s=now, summary=summary, splits=()
        )

    def _bad_count(self) -> int:
        return sum(done.bad_count for done in self.told.values())


def _told(task: Task) -> TaskState:
    run = task.runs[0] if task.runs else None
    return TaskState(
        kind=task.kind,
        task=task.number,
        state=task.state,
        worker=device_of(task.done_by or (run.worker if run else "")),
        attempts=task.attempts,
        local=task.local
        if task.state == "completed"
        else bool(run and isinstance(task.split, StoreSplit) and task.is_local_to(run.worker)),
        backup=task.backup or any(each.backup for each in task.runs),
        split="" if task.split is None else str(task.split),
        progress=max((each.progress for each in task.runs), default=0),
        seconds=task.seconds,
    )
