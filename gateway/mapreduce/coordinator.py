"""The coordinator: takes jobs, hands tasks to workers, and knows what is final.

Owns the jobs' log in its store, the register of workers, and the conversation with both. What is next is
decided in `schedule`, what an event means for a job in `running`, how the store is cut in `planning`, what a
job's file says in `submission`; results are read and removed by `chunks`.

What survives a crash: every job with its splits, and each part of a result once it is final. Workers say
again which maps' outputs they have; what was under way begins anew. A part of a result becomes final by one
write here, whatever attempts at it have written into the storage tier, and a result is shown when all of its
parts are final. Source: OSDI 2004, §3.2, §3.3 (master data structures, atomic commits, master failure).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import ClassVar

import msgspec

from gateway.mapreduce.chunks import Chunks
from gateway.mapreduce.events import AttemptEnded, JobEnded, JobSubmitted, WorkerLost
from gateway.mapreduce.inputs import Split, StoreSplit
from gateway.mapreduce.job import JobSource
from gateway.mapreduce.messages import (
    BOSS_TO_WORKER,
    WORKER_TO_BOSS,
    AskJob,
    AskJobs,
    AskOne,
    AskPlan,
    AskRows,
    Attempt,
    Cancel,
    CannotFetch,
    DoMap,
    DoReduce,
    Failed,
    Forget,
    Here,
    JobIs,
    JobState,
    JobsTold,
    JobTold,
    MapDone,
    Noted,
    Places,
    PlanTold,
    ReduceDone,
    RowsTold,
    SplitPlan,
    Stop,
    Submit,
    Watermark,
    Welcome,
)
from gateway.mapreduce.planning import plan
from gateway.mapreduce.running import JobLog, JobRun
from gateway.mapreduce.schedule import Policy, Run, Task, choose
from gateway.mapreduce.scratch import NAME as SCRATCH
from gateway.mapreduce.scratch import AskScratch, ScratchIs
from gateway.mapreduce.submission import Loaded, log_of, look_at, refusal
from kv.client import Client
from kv.messages import CLIENT_MESSAGES
from underlay.messages import Message, Protocol
from underlay.node import Address, Context, Node, Timer, Work, WorkFailed, device_of

LANES = 4
KEPT_MAX = 50
"""Jobs that have ended, and are remembered."""
_PREFIX = b"job:"
_TICK: Timer = "tick"
_PLAN_AGAIN_S = 0.5
_PLANS_MAX = 40
_AGAIN_S = 0.2
"""So long after its stream has ended a worker is told again."""
_ASSIGN_AGAIN_S = 3.0
"""A worker that does not name an attempt among what it is doing for so long has not heard of it."""


class CoordinatorConfig(msgspec.Struct, frozen=True):
    """How a coordinator behaves."""

    workers: tuple[Address, ...]
    policy: Policy = Policy()
    dead_after_s: float = 4.0
    """Of silence."""
    tick_s: float = 0.25
    hops: Mapping[str, Mapping[str, int]] = {}
    """From device to device; what is not here is far."""
    split_bytes: int = 16 << 20
    """Of files."""
    scheduled: tuple[tuple[float, JobSource], ...] = ()
    """Jobs to submit by itself, and when, by its own clock."""


@dataclass
class _Seat:
    """A worker."""

    life: int = 0
    heard_s: float = 0.0
    alive: bool = False
    progress: dict[Attempt, int] = field(default_factory=dict)


class Coordinator(Node):
    """One coordinator.

    Args:
        connect: makes a client of the storage tier, with so many lanes; None: jobs read files only.
        config: how to behave.
    """

    protocol: ClassVar[Protocol] = Protocol("jobs", *CLIENT_MESSAGES, *WORKER_TO_BOSS, *BOSS_TO_WORKER)

    def __init__(self, connect: Callable[[int], Client[Context]] | None, config: CoordinatorConfig) -> None:
        self._config = config
        self._client = None if connect is None else connect(LANES)
        self._chunks = Chunks(self._client)
        self._jobs: dict[str, JobRun] = {}
        """In the order of their submission."""
        self._seats = {worker: _Seat() for worker in config.workers}
        self._life = 0
        self._loading: dict[int, tuple[Address, Submit]] = {}
        self._plans: dict[str, int] = {}
        """How often the planning of a job was begun."""
        self._ticking = False
        self._isolated = False
        """Whether work runs in a process of its own."""

    # --------------------------------------------------------------------------------------------- as a node

    def on_start(self, ctx: Context) -> None:
        self._life = ctx.rng.getrandbits(48) + 1
        ctx.send(SCRATCH, AskScratch())
        logs = [
            msgspec.msgpack.decode(data, type=JobLog)
            for _, data in ctx.store.scan(_PREFIX, _PREFIX[:-1] + b";")
        ]
        for log in sorted(logs, key=lambda log: (log.submitted_s, log.id)):
            job = self._jobs[log.id] = JobRun(log)
            for _, data in ctx.store.scan(*_maps_range(log.id)):
                job.recall(msgspec.msgpack.decode(data, type=MapDone))
            if log.state == "planning":
                self._plan(ctx, self._jobs[log.id])
        for number, (at_s, _) in enumerate(self._config.scheduled):
            if ctx.now <= at_s:
                ctx.set_timer(("scheduled", number), at_s - ctx.now)
        self._tick(ctx)

    def on_message(self, ctx: Context, sender: Address, message: Message) -> None:
        match message:
            case Here():
                self._on_here(ctx, sender, message)
            case AskJob(job):
                if job in self._jobs and self._jobs[job].runs:
                    ctx.send(sender, JobIs(job, self._jobs[job].source))
                else:
                    ctx.send(sender, Forget(job))
            case MapDone(attempt) | ReduceDone(attempt) | Failed(attempt):
                ctx.send(sender, Noted(attempt))
                self._on_report(ctx, sender, message)
            case CannotFetch():
                self._on_cannot_fetch(ctx, message)
            case ScratchIs(folder):
                self._isolated = bool(folder)
            case Submit():
                self._on_submit(ctx, sender, message)
            case Loaded():
                self._on_loaded(ctx, message)
            case WorkFailed(key, reason):
                self._on_loaded(ctx, Loaded(int(key), f"its process {reason}"))
            case AskJobs(number):
                states = tuple(job.state(ctx.now) for job in reversed(self._jobs.values()))
                ctx.send(sender, JobsTold(number, states, self._seats_told()))
            case AskOne(number, job):
                self._tell(ctx, sender, number, job)
            case Stop(number, job):
                self._on_stop(ctx, sender, number, job)
            case AskPlan():
                self._on_ask_plan(ctx, sender, message)
            case AskRows():
                self._on_ask_rows(ctx, sender, message)
            case _:
                if self._client is not None:
                    self._client.on_message(ctx, sender, message)

    def on_timer(self, ctx: Context, timer: Timer) -> None:
        match timer:
            case "tick":
                self._ticking = False
                self._tick(ctx)
            case ("again", str(worker)):
                self._order_again(ctx, worker)
            case ("plan", str(id_)):
                if id_ in self._jobs and self._jobs[id_].log.state == "planning":
                    self._plan(ctx, self._jobs[id_])
            case ("moved", str(id_), int(number)):
                if id_ in self._jobs and self._jobs[id_].runs:
                    self._plan_moved(ctx, self._jobs[id_], self._jobs[id_].work.maps[number])
            case ("scheduled", int(number)):
                self._on_submit(ctx, "", Submit(0, self._config.scheduled[number][1], trace=True))
            case _:
                if self._client is not None:
                    self._client.on_timer(ctx, timer)

    def on_peer_down(self, ctx: Context, peer: Address) -> None:
        if peer in self._seats:
            ctx.set_timer(("again", peer), _AGAIN_S)
        if self._client is not None:
            self._client.on_peer_down(ctx, peer)

    # --------------------------------------------------------------------------------------------- for
    # clients

    def _on_submit(self, ctx: Context, sender: Address, submit: Submit) -> None:
        """Look at the file first, in a process of its own."""
        problem = refusal(submit, has_store=self._client is not None)
        if problem:
            ctx.send(sender, JobTold(submit.number, None, problem))
            return
        key = ctx.rng.getrandbits(48) + 1
        self._loading[key] = (sender, submit)
        look = partial(look_at, key, submit, self._config.split_bytes, self._isolated)
        ctx.run(str(key), Work(look, (), 0.01))

    def _on_loaded(self, ctx: Context, loaded: Loaded) -> None:
        sender, submit = self._loading.pop(loaded.number, ("", None))
        if submit is None:
            return
        if loaded.problem and sender:
            ctx.send(sender, JobTold(submit.number, None, loaded.problem))
            return
        id_ = f"j{ctx.rng.getrandbits(32):08x}"
        job = self._jobs[id_] = JobRun(log_of(id_, submit, loaded, ctx.now))
        ctx.emit(JobSubmitted(id_, submit.source.name))
        if loaded.problem:
            self._end(ctx, job, "failed", loaded.problem)
            return
        if submit.paths:
            job.plan(loaded.splits, ctx.now)
        else:
            self._plan(ctx, job)
        self._save(ctx, job)
        if sender:
            self._tell(ctx, sender, submit.number, id_)
        self._tick(ctx)

    def _tell(self, ctx: Context, sender: Address, number: int, id_: str) -> None:
        job = self._jobs.get(id_)
        if job is None:
            ctx.send(sender, JobTold(number, None, f"there is no job {id_!r}"))
        else:
            ctx.send(sender, JobTold(number, job.state(ctx.now, tasks=True)))

    def _on_stop(self, ctx: Context, sender: Address, number: int, id_: str) -> None:
        job = self._jobs.get(id_)
        if job is not None and job.runs:
            self._end(ctx, job, "cancelled", "")
        self._tell(ctx, sender, number, id_)

    def _on_ask_rows(self, ctx: Context, sender: Address, ask: AskRows) -> None:
        job = self._jobs.get(ask.job)
        done = None if job is None or job.log.state != "done" else job.commits.get(ask.part)
        if job is None or done is None or not 0 <= ask.chunk < done.chunks:
            state = "not known" if job is None else job.log.state
            problem = "" if done is not None and done.chunks == 0 else f"no such rows: the job is {state}"
            ctx.send(sender, RowsTold(ask.number, b"", problem))
            return

        def got(ctx: Context, data: bytes | None, problem: str) -> None:
            ctx.send(sender, RowsTold(ask.number, data or b"", problem))

        self._chunks.read(ctx, done, ask.chunk, got)

    def _on_ask_plan(self, ctx: Context, sender: Address, ask: AskPlan) -> None:
        if self._client is None:
            ctx.send(sender, PlanTold(ask.number, (), "there is no storage tier here"))
            return

        def planned(ctx: Context, splits: list[StoreSplit], problem: str) -> None:
            told = tuple(SplitPlan(str(split), split.keys, self._readers(split)) for split in splits)
            ctx.send(sender, PlanTold(ask.number, told, problem))

        plan(ctx, self._client, len(self._config.workers), planned, ask.slots)

    def _readers(self, split: StoreSplit) -> tuple[Address, ...]:
        hosts = [device_of(replica) for replica in split.replicas]
        return tuple(
            worker for worker, seat in self._seats.items() if seat.alive and device_of(worker) in hosts
        )

    def _seats_told(self) -> dict[str, str]:
        told = {}
        for worker, seat in self._seats.items():
            doing = ", ".join(f"{attempt.kind} {attempt.task} of {attempt.job}" for attempt in seat.progress)
            told[worker] = (doing or "idle") if seat.alive else "silent"
        return told

    # ------------------------------------------------------------------------------------------------
    # planning

    def _plan(self, ctx: Context, job: JobRun) -> None:
        if self._client is None:
            self._end(ctx, job, "failed", "there is no storage tier here: a job reads files")
            return
        self._plans[job.id] = self._plans.get(job.id, 0) + 1

        def planned(ctx: Context, splits: list[StoreSplit], problem: str) -> None:
            if job.log.state != "planning":
                return
            if problem and self._plans[job.id] < _PLANS_MAX:
                ctx.set_timer(("plan", job.id), _PLAN_AGAIN_S)
            elif problem:
                self._end(ctx, job, "failed", problem)
            else:
                job.plan(splits, ctx.now)
                self._save(ctx, job)
                self._go_on(ctx, job)

        plan(ctx, self._client, len(self._config.workers), planned, job.log.slots)

    def _plan_moved(self, ctx: Context, job: JobRun, task: Task) -> None:
        """The slots of a split are another group's: find out whose, and read them there."""
        split = task.split
        if self._client is None or not isinstance(split, StoreSplit):
            return
        task.state = "moving"

        def planned(ctx: Context, splits: list[StoreSplit], problem: str) -> None:
            if task.state != "moving" or not job.runs:
                return
            if problem:
                ctx.set_timer(("moved", job.id, task.number), _PLAN_AGAIN_S)
                return
            task.state = "idle"
            if not splits:  # nothing is in them any more
                splits = [msgspec.structs.replace(split, slots=(), keys=0)]
            job.add_splits(task, splits, ctx.now)
            self._save(ctx, job)
            self._tick(ctx)

        plan(ctx, self._client, len(self._config.workers), planned, split.slots)

    # -------------------------------------------------------------------------------------------------
    # workers

    def _on_here(self, ctx: Context, worker: Address, here: Here) -> None:
        seat = self._seats.get(worker)
        if seat is None:
            return
        if seat.alive and seat.life != here.life:
            self._lose(ctx, worker, "restarted")
        if not seat.alive or here.boss != self._life:
            ctx.send(worker, Welcome(self._life))
        seat.life, seat.heard_s, seat.alive = here.life, ctx.now, True
        seat.progress = dict(here.progress)
        for job in self._jobs.values():
            if job.runs:
                self._compare(ctx, worker, job, seat)
        for attempt in seat.progress:
            if attempt.job not in self._jobs or not self._jobs[attempt.job].runs:
                ctx.send(worker, Forget(attempt.job))
            elif self._jobs[attempt.job].run_of(attempt) is None:
                ctx.send(worker, Cancel(attempt))
        self._tick(ctx)

    def _compare(self, ctx: Context, worker: Address, job: JobRun, seat: _Seat) -> None:
        """What it says that it does, and what it has been told to do: an order may have been lost."""
        for task in (*job.work.maps, *job.work.reduces):
            for run in task.runs:
                if run.worker != worker:
                    continue
                if run.attempt in seat.progress:
                    run.progress = seat.progress[run.attempt]
                    run.told_s = ctx.now
                elif ctx.now - run.told_s > _ASSIGN_AGAIN_S:
                    self._order(ctx, job, task, run)

    def _order_again(self, ctx: Context, worker: Address) -> None:
        """What it was told last may not have arrived."""
        if not self._seats[worker].alive:
            return
        for job in self._jobs.values():
            for task in (*job.work.maps, *job.work.reduces) if job.runs else ():
                for run in task.runs:
                    if run.worker == worker:
                        self._order(ctx, job, task, run)

    def _lose(self, ctx: Context, worker: Address, why: str) -> None:
        seat = self._seats[worker]
        seat.alive = False
        seat.progress = {}
        ctx.give_up(worker)
        ctx.emit(WorkerLost(worker, why))
        for job in self._jobs.values():
            if job.runs:
                job.on_worker_lost(worker, ctx.now)

    def _on_report(self, ctx: Context, worker: Address, report: MapDone | ReduceDone | Failed) -> None:
        job = self._jobs.get(report.attempt.job)
        if job is None or not job.runs:
            ctx.send(worker, Forget(report.attempt.job))
            return
        problem = ""
        match report:
            case MapDone():
                others = job.on_map_done(worker, report, ctx.now)
                if others is None:
                    task = job.task(report.attempt)
                    if task is None or task.done != report.attempt:
                        ctx.send(worker, Cancel(report.attempt))
                    return
                ctx.store.put(_map_key(report.attempt), msgspec.msgpack.encode(report))
                self._stop_runs(ctx, others)
                self._tell_reducers(ctx, job, report.attempt.task)
                problem = job.too_many_bad()
            case ReduceDone():
                others = job.on_reduce_done(report)
                if others is None:
                    return
                self._stop_runs(ctx, others)
                self._save(ctx, job)
            case Failed():
                task = job.task(report.attempt)
                problem = job.on_failed(report, ctx.now)
                if report.moved and task is not None and task.state == "idle":
                    self._plan_moved(ctx, job, task)
        outcome = report.reason if isinstance(report, Failed) else "done"
        ctx.emit(AttemptEnded(str(report.attempt), device_of(worker), outcome))
        if problem:
            self._end(ctx, job, "failed", problem)
        else:
            self._go_on(ctx, job)

    def _on_cannot_fetch(self, ctx: Context, cannot: CannotFetch) -> None:
        job = self._jobs.get(cannot.attempt.job)
        if job is None or not job.runs:
            return
        place = cannot.place
        task = job.work.maps[place.task]
        if task.state == "completed" and task.done == place.attempt:
            job.lose_output(task, ctx.now)
            self._go_on(ctx, job)
        elif task.state == "completed":
            run = job.run_of(cannot.attempt)
            if run is not None:
                ctx.send(run.worker, Places(run.attempt, (job.place(task, cannot.attempt.task),)))

    def _tell_reducers(self, ctx: Context, job: JobRun, number: int) -> None:
        task = job.work.maps[number]
        for part, reduce in enumerate(job.work.reduces):
            for run in reduce.runs:
                ctx.send(run.worker, Places(run.attempt, (job.place(task, part),)))
                if job.maps_completed:
                    ctx.send(run.worker, Watermark(run.attempt, len(job.work.maps), job.watermark_s))

    def _stop_runs(self, ctx: Context, runs: list[Run]) -> None:
        for run in runs:
            ctx.send(run.worker, Cancel(run.attempt))

    # ------------------------------------------------------------------------------------------------ going
    # on

    def _tick(self, ctx: Context) -> None:
        """Notice who is silent, and hand out what can be handed out."""
        for worker, seat in self._seats.items():
            if seat.alive and ctx.now - seat.heard_s > self._config.dead_after_s:
                self._lose(ctx, worker, "silent")
        running = [job for job in self._jobs.values() if job.log.state == "running"]
        while running:
            works = [job.work for job in running]
            living = [worker for worker, seat in self._seats.items() if seat.alive]
            choice = choose(ctx.now, works, living, self._config.policy, self._hops)
            if choice is None:
                break
            job = self._jobs[choice.job]
            attempt = Attempt(job.id, choice.task.kind, choice.task.number, ctx.rng.getrandbits(48))
            run = job.begin(choice.task, attempt, choice.worker, ctx.now, backup=choice.backup)
            self._order(ctx, job, choice.task, run)
        if not self._ticking and any(job.runs for job in self._jobs.values()):
            self._ticking = True
            ctx.set_timer(_TICK, self._config.tick_s)

    def _order(self, ctx: Context, job: JobRun, task: Task, run: Run) -> None:
        run.told_s = ctx.now
        deadline_s = job.log.deadline_s
        if task.kind == "map":
            assert task.split is not None
            suspects, skip = tuple(sorted(task.suspects)), tuple(sorted(task.skip))
            checks = task.number == 0
            ctx.send(run.worker, DoMap(run.attempt, task.split, suspects, skip, checks, deadline_s))
            return
        places = job.places(task.number)
        ctx.send(run.worker, DoReduce(run.attempt, places, deadline_s))
        if job.maps_completed:
            ctx.send(run.worker, Watermark(run.attempt, len(job.work.maps), job.watermark_s))

    def _go_on(self, ctx: Context, job: JobRun) -> None:
        if job.log.state == "running" and (job.completed or not job.work.maps):
            self._end(ctx, job, "done", "")
        self._tick(ctx)

    def _end(self, ctx: Context, job: JobRun, state: str, problem: str) -> None:
        job.end(state, problem, ctx.now)
        self._save(ctx, job)
        ctx.emit(_ended(job.state(ctx.now)))
        if state == "done" and job.log.trace:
            self._chunks.trace(ctx, job)
        for worker, seat in self._seats.items():
            if seat.alive:
                ctx.send(worker, Forget(job.id))
        for key, _ in list(ctx.store.scan(*_maps_range(job.id))):
            ctx.store.delete(key)
        self._chunks.tidy(ctx, job)
        self._plans.pop(job.id, None)
        ended = [each for each in self._jobs.values() if not each.runs]
        for old in ended[: max(0, len(ended) - KEPT_MAX)]:
            del self._jobs[old.id]
            ctx.store.delete(_PREFIX + old.id.encode())
            self._chunks.remove(ctx, old)

    def _save(self, ctx: Context, job: JobRun) -> None:
        ctx.store.put(_PREFIX + job.id.encode(), msgspec.msgpack.encode(job.log))

    def _hops(self, worker: Address, split: Split) -> int:
        if not isinstance(split, StoreSplit):
            return 0
        near = self._config.hops.get(device_of(worker), {})
        return min((near.get(device_of(replica), 1000) for replica in split.replicas), default=1000)


def _map_key(attempt: Attempt) -> bytes:
    return f"map:{attempt.job}:{attempt.task:06d}".encode()


def _maps_range(job: str) -> tuple[bytes, bytes]:
    return f"map:{job}:".encode(), f"map:{job};".encode()


def _ended(told: JobState) -> JobEnded:
    return JobEnded(
        job=told.id,
        name=told.name,
        state=told.state,
        problem=told.problem,
        key_names=told.key_names,
        window_s=told.window_s,
        seconds=told.seconds,
        maps=told.maps,
        local_maps=told.local_maps,
        records=told.records,
        rows=told.rows,
        read_bytes=told.read_bytes,
        read_far_bytes=told.read_far_bytes,
        shuffled_bytes=told.shuffled_bytes,
        result_bytes=told.result_bytes,
        backups=told.backups,
        lost_attempts=told.lost_attempts,
        bad_records=told.bad_records,
    )
