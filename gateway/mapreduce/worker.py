"""A worker: runs map and reduce tasks on a storage host, for the coordinator.

Owns the attempts on its device: reading the split, running the user's functions in a process of their own,
serving maps' outputs to reducers, fetching them, writing a part's rows into the storage tier. Decides
nothing: what is done, and whether it counts, is the coordinator's. How an attempt ended is repeated until the
coordinator has noted it. All that is here is lost when the worker restarts, and made again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import ClassVar

import msgspec

from gateway.mapreduce.errors import JobFailed
from gateway.mapreduce.fetching import Fetcher
from gateway.mapreduce.inputs import FileSplit, StoreSplit
from gateway.mapreduce.job import JobSource, load
from gateway.mapreduce.messages import (
    BOSS_TO_WORKER,
    PIECE_BYTES,
    WORKER_TO_BOSS,
    AskJob,
    AskPiece,
    Attempt,
    Cancel,
    CannotFetch,
    DoMap,
    DoReduce,
    Failed,
    Forget,
    Here,
    JobIs,
    MapDone,
    Noted,
    Piece,
    Place,
    Places,
    ReduceDone,
    Watermark,
    Welcome,
    result_key,
)
from gateway.mapreduce.progress import reported
from gateway.mapreduce.reading import Reader
from gateway.mapreduce.scratch import NAME as SCRATCH
from gateway.mapreduce.scratch import AskScratch, Scratch, ScratchIs
from gateway.mapreduce.tasks import (
    BUDGET_BYTES,
    MapOrder,
    Mapped,
    Reduced,
    ReduceOrder,
    map_task,
    reduce_task,
)
from kv.client import Client, Reply
from kv.messages import CLIENT_MESSAGES
from underlay.messages import Message, Protocol
from underlay.node import Address, Context, Node, Timer, Work, WorkFailed, device_of

CHUNK_BYTES = 24 * 1024
"""Of a part's rows in one value of the store."""
LANES = 4
WRITE_DEADLINE_S = 30.0
_HERE: Timer = "here"
_AGAIN_S = 2.0
_AGAIN: Timer = "again"
_SOON_S = 0.2
"""Where the stream to the coordinator has ended."""


class WorkerConfig(msgspec.Struct, frozen=True):
    """How a worker behaves."""

    boss: Address
    here_s: float = 0.5
    """Between two signs of life."""
    budget_bytes: int = BUDGET_BYTES
    """Of what a map task holds in memory before it writes."""
    near: Mapping[str, int] = {}
    """Hops to other devices; one that is not here is far."""
    record_cost_s: float = 2e-6
    """What the simulation charges for a record or a row."""


@dataclass
class _Task:
    """An attempt under way."""

    attempt: Attempt
    order: DoMap | DoReduce
    began_s: float
    said_s: float
    """When the coordinator was asked last for what it needs."""
    reader: Reader | None = None
    fetcher: Fetcher | None = None
    watermark: Watermark | None = None
    places: list[Place] = field(default_factory=list)
    """That came before the job's file."""
    reducing: bool = False
    reduced: Reduced | None = None
    to_write: int = 0


class Worker(Node):
    """One worker.

    Args:
        connect: makes a client of the storage tier, with so many lanes; None: there is none, and jobs read
            files.
        config: how to behave.
    """

    protocol: ClassVar[Protocol] = Protocol(
        "work", *CLIENT_MESSAGES, *WORKER_TO_BOSS, *BOSS_TO_WORKER, AskPiece, Piece
    )

    def __init__(self, connect: Callable[[int], Client[Context]] | None, config: WorkerConfig) -> None:
        self._config = config
        self._client = None if connect is None else connect(LANES)
        self._scratch: Scratch | None = None
        self._life = 0
        self._boss_life = 0
        self._jobs: dict[str, JobSource | None] = {}
        self._tasks: dict[Attempt, _Task] = {}
        self._done: dict[Attempt, MapDone] = {}
        """Whose outputs are here."""
        self._reports: dict[Attempt, tuple[float, MapDone | ReduceDone | Failed]] = {}
        """That the coordinator has not noted yet, and when they were said last."""
        self._numbers: dict[int, Fetcher] = {}
        self._number = 0

    # --------------------------------------------------------------------------------------------- as a node

    def on_start(self, ctx: Context) -> None:
        self._life = ctx.rng.getrandbits(48) + 1
        self._number = ctx.rng.getrandbits(60)  # an answer to a former life is none to this one
        ctx.send(SCRATCH, AskScratch())

    def on_message(self, ctx: Context, sender: Address, message: Message) -> None:
        if self._scratch is None:
            if isinstance(message, ScratchIs):
                self._scratch = message.open()
                self._here(ctx)
            return
        match message:
            case Welcome(boss):
                self._on_welcome(ctx, boss)
            case JobIs(job, source):
                self._on_job(ctx, job, source)
            case DoMap() | DoReduce():
                self._on_order(ctx, message)
            case Places(attempt, places):
                self._on_places(ctx, attempt, places)
            case Watermark(attempt):
                if (task := self._tasks.get(attempt)) is not None:
                    task.watermark = message
                    self._reduce_if_complete(ctx, task)
            case Cancel(attempt):
                self._drop(ctx, attempt)
            case Forget(job):
                self._forget(ctx, job)
            case Noted(attempt):
                self._reports.pop(attempt, None)
            case AskPiece():
                self._on_ask_piece(ctx, sender, message)
            case Piece(number):
                fetcher = self._numbers.pop(number, None)
                if fetcher is not None:
                    fetcher.on_piece(ctx, message)
                    self._go_on_reducing(ctx, fetcher.attempt)
            case Mapped():
                self._on_mapped(ctx, message)
            case Reduced():
                self._on_reduced(ctx, message)
            case WorkFailed(key, reason):
                self._on_died(ctx, key, reason)
            case _:
                if self._client is not None:
                    self._client.on_message(ctx, sender, message)

    def on_timer(self, ctx: Context, timer: Timer) -> None:
        match timer:
            case "here":
                self._here(ctx)
            case "again":
                self._say_again(ctx, 0.0)
            case ("piece", int(number)):
                fetcher = self._numbers.pop(number, None)
                if fetcher is not None:
                    fetcher.on_silence(ctx, number)
            case ("deadline", Attempt() as attempt):
                if attempt in self._tasks:
                    died_at = self._progress(self._tasks[attempt])
                    self._drop(ctx, attempt)
                    self._report(ctx, Failed(attempt, "it took longer than its deadline", died_at=died_at))
            case _:
                if self._client is not None:
                    self._client.on_timer(ctx, timer)

    def on_peer_down(self, ctx: Context, peer: Address) -> None:
        if peer == self._config.boss and self._scratch is not None:
            ctx.set_timer(_AGAIN, _SOON_S)
        for task in list(self._tasks.values()):
            if task.fetcher is not None:
                task.fetcher.on_peer_down(ctx, peer)
        if self._client is not None:
            self._client.on_peer_down(ctx, peer)

    # ------------------------------------------------------------------------------------- with the
    # coordinator

    def _here(self, ctx: Context) -> None:
        progress = tuple((attempt, self._progress(task)) for attempt, task in self._tasks.items())
        ctx.send(self._config.boss, Here(self._life, self._boss_life, progress))
        self._say_again(ctx, _AGAIN_S)
        ctx.set_timer(_HERE, self._config.here_s)

    def _say_again(self, ctx: Context, after_s: float) -> None:
        """What the coordinator has not answered for so long may have been lost."""
        boss = self._config.boss
        for attempt, (said_s, report) in list(self._reports.items()):
            if ctx.now - said_s >= after_s:
                self._reports[attempt] = (ctx.now, report)
                ctx.send(boss, report)
        for task in self._tasks.values():
            if ctx.now - task.said_s < after_s:
                continue
            task.said_s = ctx.now
            if self._jobs.get(task.attempt.job) is None:
                ctx.send(boss, AskJob(task.attempt.job))
            elif task.fetcher is not None:
                for place in task.fetcher.missing.values():
                    ctx.send(boss, CannotFetch(task.attempt, place))

    def _on_welcome(self, ctx: Context, boss: int) -> None:
        """A coordinator that does not know what is here: what is under way has no place in its books."""
        if boss != self._boss_life:
            self._boss_life = boss
            for attempt in list(self._tasks):
                self._drop(ctx, attempt)
        self._reports.clear()
        for done in self._done.values():
            self._report(ctx, done)
        self._here(ctx)

    def _report(self, ctx: Context, report: MapDone | ReduceDone | Failed) -> None:
        self._reports[report.attempt] = (ctx.now, report)
        ctx.send(self._config.boss, report)

    def _on_order(self, ctx: Context, order: DoMap | DoReduce) -> None:
        attempt = order.attempt
        if attempt in self._tasks:
            if isinstance(order, DoReduce):
                self._on_places(ctx, attempt, order.places)
            return
        if attempt in self._done or attempt in self._reports:
            if attempt in self._done:
                self._report(ctx, self._done[attempt])
            return
        task = self._tasks[attempt] = _Task(attempt, order, ctx.now, ctx.now)
        ctx.set_timer(("deadline", attempt), order.deadline_s)
        source = self._jobs.get(attempt.job)
        if source is None:
            self._jobs[attempt.job] = None
            ctx.send(self._config.boss, AskJob(attempt.job))
        else:
            self._begin(ctx, task, source)

    def _on_job(self, ctx: Context, job: str, source: JobSource) -> None:
        if self._jobs.get(job) is not None:
            return
        self._jobs[job] = source
        for task in [task for task in self._tasks.values() if task.attempt.job == job]:
            self._begin(ctx, task, source)

    def _forget(self, ctx: Context, job: str) -> None:
        for attempt in [attempt for attempt in self._tasks if attempt.job == job]:
            self._drop(ctx, attempt)
        for attempt in [attempt for attempt in self._done if attempt.job == job]:
            del self._done[attempt]
        for attempt in [attempt for attempt in self._reports if attempt.job == job]:
            del self._reports[attempt]
        self._jobs.pop(job, None)
        self._space.remove(f"{job}-")

    def _begin(self, ctx: Context, task: _Task, source: JobSource) -> None:
        if isinstance(task.order, DoMap):
            self._begin_map(ctx, task, task.order, source)
        else:
            self._begin_reduce(ctx, task, task.order)

    def _fail(self, ctx: Context, attempt: Attempt, reason: str, *, moved: bool = False) -> None:
        self._drop(ctx, attempt)
        self._report(ctx, Failed(attempt, reason, moved=moved))

    def _drop(self, ctx: Context, attempt: Attempt) -> None:
        """Stop an attempt, or forget what it made."""
        task = self._tasks.pop(attempt, None)
        if task is not None:
            ctx.cancel_timer(("deadline", attempt))
            ctx.cancel_run(str(attempt))
            if task.reader is not None:
                task.reader.stopped = True
            if task.fetcher is not None:
                task.fetcher.stop(ctx)
        was_done = self._done.pop(attempt, None)
        self._reports.pop(attempt, None)
        self._space.remove(f"{attempt}.")
        if was_done is not None:
            for other in list(self._tasks.values()):
                if other.fetcher is not None and other.attempt.job == attempt.job:
                    other.fetcher.forget(ctx, attempt)

    # --------------------------------------------------------------------------------------------------- maps

    def _begin_map(self, ctx: Context, task: _Task, order: DoMap, source: JobSource) -> None:
        split = order.split
        if isinstance(split, FileSplit):
            self._map(ctx, task, order, source, split)
            return
        try:
            pattern = load(source).source.pattern
        except JobFailed as error:
            self._drop(ctx, order.attempt)
            self._report(ctx, Failed(order.attempt, str(error), fatal=True))
            return
        if self._client is None:
            self._fail(ctx, order.attempt, "this worker has no way to the store")
            return
        name = f"{order.attempt}.split"

        def read(ctx: Context, problem: str) -> None:
            if problem:
                self._fail(ctx, order.attempt, problem, moved=problem.startswith("GONE"))
            else:
                self._map(ctx, task, order, source, name)

        replicas = self._nearest(ctx, split)
        task.reader = Reader(self._client, split, replicas, pattern, self._space, name, read)
        task.reader.start(ctx)

    def _map(
        self, ctx: Context, task: _Task, order: DoMap, source: JobSource, given: str | FileSplit
    ) -> None:
        wanted = MapOrder(
            source,
            given,
            str(order.attempt),
            frozenset(order.suspects),
            frozenset(order.skip),
            self._config.budget_bytes,
            order.checks,
        )
        cost_s = order.split.size * self._config.record_cost_s
        ctx.run(str(order.attempt), Work(partial(map_task, wanted, self._space), (), cost_s))

    def _on_mapped(self, ctx: Context, mapped: Mapped) -> None:
        task = self._task_called(mapped.key)
        if task is None or not isinstance(task.order, DoMap):
            return
        attempt = task.attempt
        if mapped.failure:
            self._drop(ctx, attempt)
            self._report(ctx, Failed(attempt, mapped.failure, fatal=mapped.fatal, bad=mapped.bad))
            return
        del self._tasks[attempt]
        ctx.cancel_timer(("deadline", attempt))
        self._space.remove(f"{attempt}.split")
        reader, split = task.reader, task.order.split
        done = self._done[attempt] = MapDone(
            attempt=attempt,
            sizes=mapped.sizes,
            pairs=mapped.pairs,
            records=mapped.records,
            read_bytes=reader.read_bytes if reader else split.size,
            read_from=reader.read_from if reader else "",
            watermark_s=mapped.watermark_s,
            counters=mapped.counters,
            bad=mapped.bad,
            bad_count=mapped.bad_count,
            seconds=ctx.now - task.began_s,
        )
        self._report(ctx, done)

    def _on_ask_piece(self, ctx: Context, sender: Address, ask: AskPiece) -> None:
        if ask.attempt not in self._done:
            ctx.send(sender, Piece(ask.number, b"", -1))
            return
        data, size_bytes = self._space.piece(f"{ask.attempt}.{ask.part}", ask.offset, PIECE_BYTES)
        ctx.send(sender, Piece(ask.number, data, size_bytes))

    # -------------------------------------------------------------------------------------------------
    # reduces

    def _begin_reduce(self, ctx: Context, task: _Task, order: DoReduce) -> None:
        def cannot(ctx: Context, place: Place) -> None:
            ctx.send(self._config.boss, CannotFetch(task.attempt, place))

        task.fetcher = Fetcher(
            task.attempt, ctx.address, self._space, self._done.__contains__, cannot, self._numbered
        )
        task.fetcher.on_places(ctx, (*order.places, *task.places))
        self._reduce_if_complete(ctx, task)

    def _on_places(self, ctx: Context, attempt: Attempt, places: tuple[Place, ...]) -> None:
        task = self._tasks.get(attempt)
        if task is None:
            return
        if task.fetcher is None:
            task.places += places
        else:
            task.fetcher.on_places(ctx, places)
            self._reduce_if_complete(ctx, task)

    def _go_on_reducing(self, ctx: Context, attempt: Attempt) -> None:
        task = self._tasks.get(attempt)
        if task is not None:
            self._reduce_if_complete(ctx, task)

    def _reduce_if_complete(self, ctx: Context, task: _Task) -> None:
        fetcher, source = task.fetcher, self._jobs.get(task.attempt.job)
        if fetcher is None or source is None or task.reducing:
            return
        if task.watermark is None or not fetcher.has(task.watermark.maps):
            return
        task.reducing = True
        name = str(task.attempt)
        order = ReduceOrder(source, fetcher.runs, f"{name}.out", task.watermark.watermark_s)
        cost_s = fetcher.fetched_bytes / 50 * self._config.record_cost_s
        ctx.run(name, Work(partial(reduce_task, order, self._space), (), cost_s))

    def _on_reduced(self, ctx: Context, reduced: Reduced) -> None:
        task = self._task_called(reduced.key.removesuffix(".out"))
        if task is None or task.fetcher is None:
            return
        if reduced.failure:
            self._drop(ctx, task.attempt)
            self._report(ctx, Failed(task.attempt, reduced.failure, fatal=reduced.fatal))
            return
        task.reduced = reduced
        chunks = -(-reduced.size_bytes // CHUNK_BYTES)
        task.to_write = chunks
        if chunks == 0:
            self._reduce_done(ctx, task, 0)
        elif self._client is None:
            self._fail(ctx, task.attempt, "this worker has no way to the store")
        else:
            for chunk in range(min(chunks, LANES)):
                self._write(ctx, task, chunk, chunks)

    def _write(self, ctx: Context, task: _Task, chunk: int, chunks: int) -> None:
        attempt = task.attempt
        data, _ = self._space.piece(f"{attempt}.out", chunk * CHUNK_BYTES, CHUNK_BYTES)
        key = result_key(attempt.job, attempt.task, attempt.number, chunk)

        def written(ctx: Context, reply: Reply) -> None:
            if self._tasks.get(attempt) is not task:
                return
            if reply.outcome is None or reply.outcome.failure:
                self._fail(ctx, attempt, f"the result cannot be stored: {reply.trouble or reply.outcome}")
                return
            task.to_write -= 1
            if task.to_write == 0:
                self._reduce_done(ctx, task, chunks)
            elif chunk + LANES < chunks:
                self._write(ctx, task, chunk + LANES, chunks)

        assert self._client is not None
        self._client.call(ctx, (b"SET", key, data), written, deadline_s=WRITE_DEADLINE_S)

    def _reduce_done(self, ctx: Context, task: _Task, chunks: int) -> None:
        reduced, fetcher = task.reduced, task.fetcher
        assert reduced is not None
        assert fetcher is not None
        done = ReduceDone(
            attempt=task.attempt,
            rows=reduced.rows,
            size_bytes=reduced.size_bytes,
            chunks=chunks,
            fetched_bytes=fetcher.fetched_bytes,
            counters=reduced.counters,
            seconds=ctx.now - task.began_s,
        )
        self._drop(ctx, task.attempt)
        self._report(ctx, done)

    # -------------------------------------------------------------------------------------------------
    # helpers

    def _on_died(self, ctx: Context, key: str, reason: str) -> None:
        """The process of an attempt ended without an answer."""
        task = self._task_called(key)
        if task is None:
            return
        died_at = self._progress(task) if isinstance(task.order, DoMap) else -1
        where = f" at record {died_at} of its split" if died_at >= 0 else ""
        self._drop(ctx, task.attempt)
        self._report(ctx, Failed(task.attempt, f"its process {reason}{where}", died_at=died_at))

    def _task_called(self, key: str) -> _Task | None:
        return next((task for attempt, task in self._tasks.items() if str(attempt) == key), None)

    def _progress(self, task: _Task) -> int:
        suffix = "progress" if isinstance(task.order, DoMap) else "out.progress"
        return reported(self._space.path(f"{task.attempt}.{suffix}"))

    def _numbered(self, fetcher: Fetcher) -> int:
        self._number += 1
        self._numbers[self._number] = fetcher
        return self._number

    def _nearest(self, ctx: Context, split: StoreSplit) -> list[Address]:
        def hops(replica: Address) -> int:
            device = device_of(replica)
            return 0 if device == ctx.device else self._config.near.get(device, 1000)

        return sorted(split.replicas, key=hops)

    @property
    def _space(self) -> Scratch:
        assert self._scratch is not None
        return self._scratch
