"""Who does what next: pure decisions over the tasks of all jobs.

Owns the order of preference and nothing that happens. For a worker with a free slot:

1. the job with the fewest attempts under way (fair share), of those that have something for it;
2. of its tasks one whose data are on the worker's own host; one whose data are elsewhere only after it has
   waited `locality_wait_s` for such a worker (delay scheduling), the nearest first;
3. a reduce task once none of the job's maps is idle, so that reducers fetch while the last maps run;
4. when nothing is idle, a backup of an attempt that takes `backup_factor` times as long as half of its kind
   took, once half of these are done.

A worker with an attempt that is overdue in this sense is slow, and gets nothing while there is another one.

Sources: OSDI 2004, §3.1, §3.4 (locality), §3.6 (backup tasks); Zaharia et al., "Delay Scheduling" (EuroSys
2010).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from statistics import median

import msgspec

from gateway.mapreduce.inputs import Split, StoreSplit
from gateway.mapreduce.messages import Attempt
from underlay.node import Address, device_of


class Policy(msgspec.Struct, frozen=True):
    """The knobs."""

    map_slots: int = 1
    """Of each worker."""
    reduce_slots: int = 1
    locality_wait_s: float = 2.0
    backup_factor: float = 1.5
    backup_min_s: float = 1.0
    """No backup of what has not run for so long: a second process is not cheaper than a little patience."""


@dataclass
class Run:
    """An attempt under way."""

    attempt: Attempt
    worker: Address
    began_s: float
    told_s: float
    """When the worker was told last."""
    backup: bool = False
    progress: int = 0


@dataclass
class Task:
    """One task of a job."""

    kind: str
    number: int
    split: Split | None = None
    state: str = "idle"
    idle_since_s: float = 0.0
    runs: list[Run] = field(default_factory=list)
    failures: int = 0
    attempts: int = 0
    suspects: frozenset[int] = frozenset()
    skip: frozenset[int] = frozenset()
    avoid: tuple[Address, ...] = ()
    """Workers from which somebody could not fetch its output."""
    done_by: Address = ""
    done: Attempt | None = None
    seconds: float = 0.0
    local: bool = False
    backup: bool = False

    def is_local_to(self, worker: Address) -> bool:
        """Whether what it reads is on the worker's host; a file is everywhere."""
        if not isinstance(self.split, StoreSplit):
            return True
        return any(device_of(replica) == device_of(worker) for replica in self.split.replicas)


@dataclass
class Work:
    """What there is to do of one job."""

    id: str
    since_s: float
    maps: list[Task]
    reduces: list[Task]

    @property
    def running(self) -> int:
        """Attempts under way."""
        return sum(len(task.runs) for task in (*self.maps, *self.reduces))

    def tasks(self, kind: str) -> list[Task]:
        """Of that kind."""
        return self.maps if kind == "map" else self.reduces

    def overdue_s(self, kind: str, policy: Policy) -> float:
        """From when on an attempt takes too long; infinite where too few are done to tell."""
        tasks = self.tasks(kind)
        taken = [task.seconds for task in tasks if task.state == "completed"]
        if not taken or 2 * len(taken) < len(tasks):
            return float("inf")
        return max(policy.backup_min_s, policy.backup_factor * median(taken))


@dataclass
class Choice:
    """Give this task to this worker."""

    worker: Address
    job: str
    task: Task
    backup: bool


def choose(
    now: float,
    works: Iterable[Work],
    workers: Iterable[Address],
    policy: Policy,
    hops: Callable[[Address, Split], int],
) -> Choice | None:
    """The next thing to hand out; None: there is nothing, or nobody free.

    Args:
        works: jobs that run.
        workers: that live, in any order.
        hops: from a worker to the nearest replica of a split.
    """
    works = sorted(works, key=lambda work: (work.running, work.since_s, work.id))
    busy = _busy(works)
    slow = _slow(now, works, policy)
    free = sorted(workers, key=lambda worker: (worker in slow, sum(busy.get(worker, {}).values()), worker))
    spared = slow if any(worker not in slow for worker in free) else {}
    for kind, slots in (("map", policy.map_slots), ("reduce", policy.reduce_slots)):
        able = [worker for worker in free if busy.get(worker, {}).get(kind, 0) < slots]
        for worker in able:
            if worker in spared:
                continue
            for work in works:
                task = _idle(now, work, kind, worker, policy, hops)
                if task is not None:
                    return Choice(worker, work.id, task, backup=False)
        for worker in able:
            if worker in slow:
                continue
            for work in works:
                task = _straggler(now, work, kind, worker, policy)
                if task is not None:
                    return Choice(worker, work.id, task, backup=True)
    return None


# ---------------------------------------------------------------------------------------------------- helpers


def _busy(works: Iterable[Work]) -> dict[Address, dict[str, int]]:
    found: dict[Address, dict[str, int]] = {}
    for work in works:
        for task in (*work.maps, *work.reduces):
            for run in task.runs:
                kinds = found.setdefault(run.worker, {})
                kinds[task.kind] = kinds.get(task.kind, 0) + 1
    return found


def _slow(now: float, works: Iterable[Work], policy: Policy) -> dict[Address, None]:
    found: dict[Address, None] = {}
    for work in works:
        for kind in ("map", "reduce"):
            limit_s = work.overdue_s(kind, policy)
            for task in work.tasks(kind):
                found.update({run.worker: None for run in task.runs if now - run.began_s > limit_s})
    return found


def _idle(
    now: float,
    work: Work,
    kind: str,
    worker: Address,
    policy: Policy,
    hops: Callable[[Address, Split], int],
) -> Task | None:
    if kind == "reduce":
        if any(task.state == "idle" for task in work.maps):
            return None
        return next((task for task in work.reduces if task.state == "idle"), None)
    idle = [task for task in work.maps if task.state == "idle"]
    here = [task for task in idle if task.is_local_to(worker)]
    if not here:
        here = [task for task in idle if now - task.idle_since_s >= policy.locality_wait_s]
        here.sort(key=lambda task: (hops(worker, task.split) if task.split else 0, task.number))
    return min(here, key=lambda task: worker in task.avoid, default=None)


def _straggler(now: float, work: Work, kind: str, worker: Address, policy: Policy) -> Task | None:
    tasks = work.tasks(kind)
    if any(task.state == "idle" for task in (*work.maps, *tasks)):
        return None
    limit_s = work.overdue_s(kind, policy)
    late = [
        task
        for task in tasks
        if len(task.runs) == 1 and task.runs[0].worker != worker and now - task.runs[0].began_s > limit_s
    ]
    return min(late, key=lambda task: (not task.is_local_to(worker), task.runs[0].began_s), default=None)
