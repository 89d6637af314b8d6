"""What jobs write to the trace."""

from __future__ import annotations

from underlay.trace import Event


class JobSubmitted(Event, frozen=True, tag="job-submitted"):
    """A job was taken on."""

    job: str
    name: str


class AttemptEnded(Event, frozen=True, tag="attempt-ended"):
    """An attempt at a task was told to be over."""

    attempt: str
    worker: str
    outcome: str
    """"done", or the reason why not."""


class WorkerLost(Event, frozen=True, tag="worker-lost"):
    """A worker is taken for dead; what it did is done again."""

    worker: str
    why: str


class JobRows(Event, frozen=True, tag="job-rows"):
    """A piece of the result of a job that the run itself submitted, in base64 (`gateway.mapreduce.runs`)."""

    job: str
    part: int
    chunk: int
    data: str


class CombinedRows(Event, frozen=True, tag="combined-rows"):
    """What was combined on the way of a job, as of now at the gateway: a piece of its rows, in base64."""

    job: int
    """Its number among those that are combined."""
    name: str
    key_names: tuple[str, ...]
    window_s: float
    records: int
    """Of which the rows are."""
    states_bytes: int
    """Of all keys and packed states at the gateway."""
    chunk: int
    data: str


class JobEnded(Event, frozen=True, tag="job-ended"):
    """A job is over. Bytes are of encoded observations and pairs, without what carries them."""

    job: str
    name: str
    state: str
    problem: str
    key_names: tuple[str, ...]
    window_s: float
    seconds: float
    maps: int
    local_maps: int
    records: int
    rows: int
    read_bytes: int
    read_far_bytes: int
    shuffled_bytes: int
    result_bytes: int
    backups: int
    lost_attempts: int
    bad_records: int
