"""What clients, coordinator and workers say to each other.

```
door --Submit--> coordinator --DoMap, DoReduce--> worker --AskPiece--> worker
     <-JobState-             <-MapDone, ReduceDone-       <--Piece----
                             <-------Here---------
```

All go over streams, or stay on their device. Tags: 300-329 here, 370-371 `tasks`, 390-391 `scratch`.
"""

from __future__ import annotations

from math import inf
from typing import Any

import msgspec

from gateway.mapreduce.inputs import FileSplit, StoreSplit
from gateway.mapreduce.job import JobSource
from gateway.mapreduce.tasks import Bad
from underlay.messages import Message
from underlay.node import Address

JOBS = "jobs"
"""The coordinator's node."""
WORKER = "work"
"""A worker's."""
PORTS = {JOBS: 7093, WORKER: 7094}

PIECE_BYTES = 48 * 1024
"""Of intermediate data in one message."""


class Attempt(msgspec.Struct, frozen=True, array_like=True, order=True):
    """One try at one task; the number is the coordinator's and comes only once."""

    job: str
    kind: str
    """"map" or "reduce"."""
    task: int
    number: int

    def __str__(self) -> str:
        return f"{self.job}-{self.kind[0]}{self.task}-{self.number:x}"


class Place(msgspec.Struct, frozen=True, array_like=True):
    """Where the output of a map task is."""

    task: int
    worker: Address
    attempt: Attempt
    size_bytes: int
    """Of the part in question."""


# ------------------------------------------------------------------------------------------ worker,
# coordinator


class Here(Message, frozen=True, array_like=True, tag=300):
    """A worker lives. Sent when it starts, then regularly."""

    transport = "stream"
    life: int
    """Of this incarnation of the worker: another one has lost everything."""
    boss: int
    """The incarnation of the coordinator that it has heard from last."""
    progress: tuple[tuple[Attempt, int], ...] = ()
    """Of what it is doing: records or rows so far."""


class Welcome(Message, frozen=True, array_like=True, tag=301):
    """The coordinator's answer to one that does not know it: forget what you are doing, tell me what you have
    done."""

    transport = "stream"
    boss: int


class AskJob(Message, frozen=True, array_like=True, tag=302):
    """A worker that has been given a task of a job that it does not know."""

    transport = "stream"
    job: str


class JobIs(Message, frozen=True, array_like=True, tag=303):
    """The job's file."""

    transport = "stream"
    job: str
    source: JobSource


class DoMap(Message, frozen=True, array_like=True, tag=304):
    """Run a map task."""

    transport = "stream"
    attempt: Attempt
    split: StoreSplit | FileSplit
    suspects: tuple[int, ...] = ()
    skip: tuple[int, ...] = ()
    checks: bool = False
    deadline_s: float = 600.0


class DoReduce(Message, frozen=True, array_like=True, tag=305):
    """Fetch this part of all maps' outputs; places that are missing follow in `Places`, and `Watermark` when
    all are known: then reduce it."""

    transport = "stream"
    attempt: Attempt
    places: tuple[Place, ...]
    deadline_s: float = 600.0


class Places(Message, frozen=True, array_like=True, tag=306):
    """To a reducer: outputs that were finished, or are elsewhere now."""

    transport = "stream"
    attempt: Attempt
    places: tuple[Place, ...]


class Watermark(Message, frozen=True, array_like=True, tag=307):
    """To a reducer, when all maps are done: how many they are, and the newest `t_event` of all."""

    transport = "stream"
    attempt: Attempt
    maps: int
    watermark_s: float


class Cancel(Message, frozen=True, array_like=True, tag=308):
    """Stop this attempt and forget it."""

    transport = "stream"
    attempt: Attempt


class Forget(Message, frozen=True, array_like=True, tag=309):
    """The job is over: nothing of it is needed any more."""

    transport = "stream"
    job: str


class MapDone(Message, frozen=True, array_like=True, tag=310):
    """A map task is done, and its output waits here for the reducers."""

    transport = "stream"
    attempt: Attempt
    sizes: tuple[int, ...]
    pairs: int
    records: int
    read_bytes: int
    """Of the split."""
    read_from: Address
    """The replica that it was read from; empty: from a file."""
    watermark_s: float
    counters: dict[str, int]
    bad: tuple[Bad, ...]
    bad_count: int
    seconds: float


class ReduceDone(Message, frozen=True, array_like=True, tag=311):
    """A reduce task is done, and its rows are in the storage tier under this attempt's name."""

    transport = "stream"
    attempt: Attempt
    rows: int
    size_bytes: int
    chunks: int
    fetched_bytes: int
    """From other devices."""
    counters: dict[str, int]
    seconds: float


class Failed(Message, frozen=True, array_like=True, tag=312):
    """An attempt failed."""

    transport = "stream"
    attempt: Attempt
    reason: str
    fatal: bool = False
    """Another attempt would end the same way."""
    bad: tuple[Bad, ...] = ()
    died_at: int = -1
    """The record that the process was working on when it died."""
    moved: bool = False
    """Its slots are another group's now."""


class CannotFetch(Message, frozen=True, array_like=True, tag=313):
    """A reducer cannot get a map's output; it waits for another place of it."""

    transport = "stream"
    attempt: Attempt
    place: Place


class Noted(Message, frozen=True, array_like=True, tag=314):
    """The coordinator has heard how this attempt ended; until then the worker says it again."""

    transport = "stream"
    attempt: Attempt


# ---------------------------------------------------------------------------------------------- worker,
# worker


class AskPiece(Message, frozen=True, array_like=True, tag=315):
    """Some bytes of the run of a part of a map's output."""

    transport = "stream"
    number: int
    attempt: Attempt
    part: int
    offset: int


class Piece(Message, frozen=True, array_like=True, tag=316):
    """The bytes."""

    transport = "stream"
    carries_payload = True
    number: int
    data: bytes
    size_bytes: int
    """Of the whole run; -1: there is no such run here."""


# ----------------------------------------------------------------------------------------- clients,
# coordinator


class Submit(Message, frozen=True, array_like=True, tag=320):
    """Run this; answered with `JobTold`."""

    transport = "local"
    number: int
    source: JobSource
    paths: tuple[str, ...] = ()
    """Files to read instead of the store; every worker has them under these names."""
    trace: bool = False
    """Write what it comes to into the trace."""


class AskJobs(Message, frozen=True, array_like=True, tag=321):
    """All jobs, newest first; answered with `JobsTold`."""

    transport = "local"
    number: int


class AskOne(Message, frozen=True, array_like=True, tag=322):
    """One job with its tasks; answered with `JobTold`."""

    transport = "local"
    number: int
    job: str


class Stop(Message, frozen=True, array_like=True, tag=323):
    """Cancel a job; answered with `JobTold`."""

    transport = "local"
    number: int
    job: str


class AskRows(Message, frozen=True, array_like=True, tag=324):
    """Rows of a finished job, a chunk of one part at a time; answered with `RowsTold`."""

    transport = "local"
    number: int
    job: str
    part: int = 0
    chunk: int = 0


class AskPlan(Message, frozen=True, array_like=True, tag=328):
    """How would a job over these slots be split? Nothing is run. Answered with `PlanTold`."""

    transport = "local"
    number: int
    slots: tuple[tuple[int, int], ...]


class SplitPlan(msgspec.Struct, frozen=True):
    """A split, and who would read it without anything crossing a link."""

    split: str
    keys: int
    readers: tuple[str, ...]
    """Workers on a host of one of its replicas that are alive; none: it is read over the network."""


class PlanTold(Message, frozen=True, array_like=True, tag=329):
    """The splits, or why not."""

    transport = "local"
    number: int
    splits: tuple[SplitPlan, ...]
    problem: str = ""


class TaskState(msgspec.Struct, frozen=True):
    """A task, for people."""

    kind: str
    task: int
    state: str
    """"idle", "in progress", "completed"."""
    worker: str = ""
    """Whose output it is, or who is at it."""
    attempts: int = 0
    local: bool = False
    """Whether what it read was on its own host."""
    backup: bool = False
    """Whether a backup is under way or was the first."""
    split: str = ""
    progress: int = 0
    """Records or rows so far."""
    seconds: float = 0.0


class JobState(msgspec.Struct, frozen=True):
    """How a job is."""

    id: str
    name: str
    state: str
    """"planning", "running", "done", "failed", "cancelled"."""
    problem: str = ""
    parameters: dict[str, Any] = {}
    key_names: tuple[str, ...] = ()
    window_s: float = 0.0
    maps: int = 0
    maps_done: int = 0
    reduces: int = 0
    reduces_done: int = 0
    records: int = 0
    rows: int = 0
    bad_records: int = 0
    bad: tuple[Bad, ...] = ()
    counters: dict[str, int] = {}
    read_bytes: int = 0
    """By map tasks, wherever from."""
    read_far_bytes: int = 0
    """Of these, from other hosts."""
    shuffled_bytes: int = 0
    """Of maps' outputs, between hosts."""
    result_bytes: int = 0
    watermark_s: float = -inf
    local_maps: int = 0
    backups: int = 0
    lost_attempts: int = 0
    """Attempts that failed, or died with their worker."""
    submitted_s: float = 0.0
    seconds: float = 0.0
    chunks: tuple[int, ...] = ()
    """Of each part of the result, once it is done."""
    tasks: tuple[TaskState, ...] = ()


class JobTold(Message, frozen=True, array_like=True, tag=325):
    """The job, or why not."""

    transport = "local"
    number: int
    state: JobState | None
    problem: str = ""


class JobsTold(Message, frozen=True, array_like=True, tag=326):
    """Jobs without their tasks."""

    transport = "local"
    number: int
    jobs: tuple[JobState, ...]
    workers: dict[str, str] = msgspec.field(default_factory=dict)
    """By address: what each is doing, for people; those that are silent included."""


class RowsTold(Message, frozen=True, array_like=True, tag=327):
    """A piece of a part's rows (`runs`), or why not."""

    transport = "local"
    number: int
    data: bytes
    problem: str = ""


CLIENT_MESSAGES = (Submit, AskJobs, AskOne, Stop, AskRows)
WORKER_TO_BOSS = (Here, AskJob, MapDone, ReduceDone, Failed, CannotFetch)
BOSS_TO_WORKER = (Welcome, JobIs, DoMap, DoReduce, Places, Watermark, Cancel, Forget, Noted)


def result_key(job: str, part: int, attempt: int, chunk: int) -> bytes:
    """Where the storage tier keeps a chunk of a result; a part's chunks are in one slot, in order."""
    return f"job:{{{job}/{part}}}:{attempt:012x}:{chunk:06d}".encode()
