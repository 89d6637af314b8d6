"""The engine in the simulation: its answer is the sequential one, whatever fails."""

from __future__ import annotations

from pathlib import Path
from random import Random

import msgspec
import pytest

from edge.observation import Observation
from gateway.mapreduce import JobSource
from gateway.mapreduce.coordinator import CoordinatorConfig
from gateway.mapreduce.messages import (
    AskJobs,
    AskPlan,
    AskRows,
    JobsTold,
    JobTold,
    PlanTold,
    RowsTold,
    Stop,
    Submit,
)
from gateway.mapreduce.schedule import Policy
from gateway.mapreduce.worker import WorkerConfig
from tests.gateway.mapreduce.scene import BY_KIND, HOURLY, IMPORT, Scene, observations, sequential
from underlay.faults import Crash, Heal, Partition, Pause, Restart, Resume

SLOW = WorkerConfig("", record_cost_s=0.02)
"""A record takes so long that faults find the job at work."""


def check(scene: Scene, job: str, source: JobSource, folder: Path, given: list[Observation]) -> None:
    state = scene.finished(job)
    assert state.state == "done", (state.state, state.problem)
    assert scene.result(job).data == sequential(source, given, folder).data


@pytest.mark.parametrize("kind", ["sharded", "paxos", "primary-backup"])
def test_a_job_gives_the_sequential_answer(kind: str, tmp_path: Path) -> None:
    scene = Scene(kind)  # type: ignore[arg-type]
    given = observations(1)
    scene.store(given)
    for source, records, counters in ((HOURLY, 312, {}), (BY_KIND, 480, {"seen": 480})):
        job = scene.submit(source)
        check(scene, job, source, tmp_path, given)
        state = scene.state(job)
        assert (state.records, state.counters) == (records, counters)
        assert state.local_maps == state.maps > 1


def test_a_plan_is_told_and_nothing_is_run() -> None:
    scene = Scene()
    scene.store(observations(1))
    told = scene.ask(AskPlan(0, ((0, 16_383),)))
    assert isinstance(told, PlanTold)
    assert sum(split.keys for split in told.splits) == 480
    assert all(len(split.readers) == 3 for split in told.splits)
    listed = scene.ask(AskJobs(0))
    assert isinstance(listed, JobsTold)
    assert listed.jobs == ()


def test_an_empty_store_gives_no_rows(tmp_path: Path) -> None:
    scene = Scene()
    job = scene.submit(HOURLY)
    state = scene.finished(job)
    assert (state.state, state.rows, state.maps) == ("done", 0, 0)


@pytest.mark.parametrize("at_s", [0.3, 1.5, 3.0])
def test_a_storage_host_dies_with_its_replica_and_its_worker(at_s: float, tmp_path: Path) -> None:
    scene = Scene(worker=SLOW)
    given = observations(2)
    scene.store(given)
    job = scene.submit(BY_KIND)
    scene.run(at_s)
    scene.world.apply(Crash("store2"))
    check(scene, job, BY_KIND, tmp_path, given)
    assert scene.state(job).counters == {"seen": 480}


@pytest.mark.parametrize("at_s", [0.05, 0.5, 1.5, 3.0, 4.5])
def test_the_coordinator_restarts(at_s: float, tmp_path: Path) -> None:
    scene = Scene(worker=SLOW)
    given = observations(3)
    scene.store(given)
    job = scene.submit(BY_KIND)
    scene.run(at_s)
    scene.world.apply(Crash("gw"))
    scene.run(6.0)
    scene.world.apply(Restart("gw"))
    check(scene, job, BY_KIND, tmp_path, given)
    assert scene.state(job).counters == {"seen": 480}


def test_maps_that_are_done_are_not_done_again_for_a_new_coordinator(tmp_path: Path) -> None:
    scene = Scene(worker=SLOW)
    given = observations(3)
    scene.store(given)
    job = scene.submit(BY_KIND)
    scene.until(lambda: scene.state(job).maps_done >= 4, 60.0, "the first maps")
    scene.world.apply(Crash("gw"))
    scene.run(3.0)
    scene.world.apply(Restart("gw"))
    scene.run(2.0)
    assert scene.state(job).maps_done >= 4
    check(scene, job, BY_KIND, tmp_path, given)


def test_workers_that_cannot_reach_each_other(tmp_path: Path) -> None:
    """store1 and store2 both reach the coordinator, and not each other: what one has mapped is mapped again
    where the other can fetch it."""
    scene = Scene(worker=SLOW)
    given = observations(4)
    scene.store(given)
    job = scene.submit(BY_KIND)
    scene.world.carrier.cut([("store1", "store2"), ("store2", "store1")])
    check(scene, job, BY_KIND, tmp_path, given)


def test_a_slow_worker_is_overtaken(tmp_path: Path) -> None:
    scene = Scene(worker=SLOW, cpu={"store3": 0.1})
    given = observations(5)
    scene.store(given)
    job = scene.submit(BY_KIND)
    check(scene, job, BY_KIND, tmp_path, given)
    state = scene.state(job)
    assert state.backups >= 1
    assert state.counters == {"seen": 480}


def test_a_worker_that_stands_still_is_taken_for_dead_and_comes_back(tmp_path: Path) -> None:
    scene = Scene(worker=SLOW)
    given = observations(6)
    scene.store(given)
    job = scene.submit(BY_KIND)
    scene.run(1.0)
    scene.world.apply(Pause("store1"))
    scene.run(8.0)
    scene.world.apply(Resume("store1"))
    check(scene, job, BY_KIND, tmp_path, given)


def test_slots_move_in_the_middle_of_a_job(tmp_path: Path) -> None:
    scene = Scene(worker=SLOW)
    given = observations(7)
    scene.store(given)
    job = scene.submit(BY_KIND)
    scene.do((b"BH.MOVE", b"0-16383", b"g2"))
    check(scene, job, BY_KIND, tmp_path, given)


FAILING = JobSource(
    "failing",
    "failing.py",
    IMPORT
    + """
def mapper(record):
    count("called")
    yield record.kind, 1
    if record.sequence == 7:
        yield record.kind, 1 // 0

def reducer(key, values):
    return sum(values)

job = Job(mapper, reducer, reducer, bad_records_max=12)
""",
)


def test_bad_records_are_left_out_and_told(tmp_path: Path) -> None:
    scene = Scene()
    given = observations(8)
    scene.store(given)
    job = scene.submit(FAILING)
    check(scene, job, FAILING, tmp_path, given)
    state = scene.state(job)
    assert state.bad_records == 12
    assert state.counters == {"called": 480 - 12}
    assert "failing.py:7: ZeroDivisionError" in state.bad[0].error
    assert state.bad[0].record.endswith(":7")


def test_one_bad_record_too_many_fails_the_job() -> None:
    scene = Scene()
    scene.store(observations(8))
    source = msgspec.structs.replace(FAILING, text=FAILING.text.replace("max=12", "max=11"))
    state = scene.finished(scene.submit(source))
    assert state.state == "failed"
    assert "failing.py:7: ZeroDivisionError" in state.problem
    assert state.chunks == ()


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        pytest.param("job = 3", "`job` is a Job", id="something else"),
        pytest.param("x = 1", "defines no `job`", id="nothing"),
        pytest.param("import nosuch", "bad.py:2: ModuleNotFoundError", id="an import that is missing"),
        pytest.param("job = Job(", "bad.py:2: SyntaxError", id="no Python"),
        pytest.param("job = Job(1, 2)", "mapper is a function", id="no functions"),
        pytest.param("raise SystemExit(3)", "ends the process", id="an exit"),
        pytest.param(
            'job = Observations().key("device").aggregate(x=3)', "such as Mean()", id="no aggregate"
        ),
    ],
)
def test_a_job_that_is_none_is_refused_when_it_is_submitted(text: str, problem: str) -> None:
    scene = Scene()
    told = scene.ask(Submit(0, JobSource("bad", "bad.py", IMPORT + text)))
    assert isinstance(told, JobTold)
    assert told.state is None
    assert problem in told.problem
    assert "bad.py" in told.problem or "job bad" in told.problem


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        pytest.param(
            "job = Job(lambda r: [(r.kind, r.nosuch)], lambda k, v: 1)",
            "bad.py:2: AttributeError: 'Record' object has no attribute 'nosuch', in the mapper, at",
            id="a mapper that fails on everything",
        ),
        pytest.param(
            "job = Job(lambda r: [(r.kind, 1)], lambda k, v: 1 / 0)",
            "bad.py:2: ZeroDivisionError: division by zero, in the reducer, at the key",
            id="a reducer that fails",
        ),
        pytest.param(
            "job = Job(lambda r: [({1: 2}, 1)], lambda k, v: 1)", "is no key", id="a key that does not pack"
        ),
        pytest.param(
            "job = Job(lambda r: [(r.kind, object())], lambda k, v: 1)",
            "cannot be packed",
            id="a value that does not",
        ),
        pytest.param(
            "job = Job(lambda r: [(r.kind, b'x' * 100_000)], lambda k, v: 1)",
            "a value of 100005 bytes",
            id="a huge value",
        ),
        pytest.param(
            "job = Job(lambda r: [(r.kind, 1)], lambda k, v: 1, partition=lambda k, n: 7)",
            "the partition of",
            id="a partition that is not there",
        ),
        pytest.param(
            "job = Job(lambda r: [(r.kind, 1)], lambda k, v: len(list(v)), lambda k, v: len(list(v)))",
            "the combiner changes the answer",
            id="a combiner that counts",
        ),
    ],
)
def test_a_job_that_fails_says_where_and_leaves_nothing(text: str, problem: str) -> None:
    scene = Scene()
    scene.store(observations(9, devices=4, each=20))
    job = scene.submit(JobSource("bad", "bad.py", IMPORT + text))
    state = scene.finished(job)
    assert state.state == "failed"
    assert problem in state.problem, state.problem
    told = scene.ask(AskRows(0, job))
    assert isinstance(told, RowsTold)
    assert "the job is failed" in told.problem
    assert scene.finished(scene.submit(BY_KIND)).state == "done"


def test_a_job_is_cancelled_and_the_next_one_runs(tmp_path: Path) -> None:
    scene = Scene(worker=SLOW)
    given = observations(10)
    scene.store(given)
    first = scene.submit(BY_KIND)
    scene.run(1.0)
    told = scene.ask(Stop(0, first))
    assert isinstance(told, JobTold)
    assert told.state is not None
    assert told.state.state == "cancelled"
    check(scene, scene.submit(HOURLY), HOURLY, tmp_path, given)


def test_a_short_job_does_not_wait_for_a_long_one(tmp_path: Path) -> None:
    """Fair share: what was submitted last, and is short, is done first."""
    scene = Scene(worker=SLOW)
    given = observations(11, each=400)
    scene.store(given)
    long = scene.submit(BY_KIND)
    scene.run(1.0)
    short = scene.submit(
        JobSource(
            "short",
            "short.py",
            IMPORT + 'job = Observations("humidity", "cam1").key("device").aggregate(n=Count())',
        )
    )
    assert scene.finished(short).state == "done"
    assert scene.state(long).state == "running"
    check(scene, long, BY_KIND, tmp_path, given)
    told = scene.ask(AskJobs(0))
    assert isinstance(told, JobsTold)
    assert [state.id for state in told.jobs] == [short, long]


def test_more_than_the_memory_budget_is_spilled(tmp_path: Path) -> None:
    scene = Scene(worker=WorkerConfig("", budget_bytes=2000))
    given = observations(12)
    scene.store(given)
    for source in (HOURLY, BY_KIND):
        check(scene, scene.submit(source), source, tmp_path, given)


def test_files_are_read_where_they_are(tmp_path: Path) -> None:
    text = tmp_path / "words.txt"
    text.write_text("the cat and the dog\nthe end\n" * 500)
    source = JobSource(
        "words",
        "words.py",
        IMPORT
        + """
def mapper(line):
    for word in line.text.split():
        yield word, 1

def reducer(word, counts):
    return sum(counts)

job = Job(mapper, reducer, reducer)
""",
    )
    scene = Scene(config=CoordinatorConfig((), split_bytes=2000))
    job = scene.submit(source, text)
    state = scene.finished(job)
    assert state.maps == 7
    counts = dict(scene.result(job).rows())
    assert counts == {"the": 1500, "cat": 500, "and": 500, "dog": 500, "end": 500}


@pytest.mark.timeout(180)
@pytest.mark.sweep(6)
def test_any_schedule_of_failures_gives_the_sequential_answer(seed: int, tmp_path: Path) -> None:
    rng = Random(seed)
    scene = Scene(
        hosts=5,
        seed=seed,
        worker=WorkerConfig("", record_cost_s=rng.choice([0.005, 0.02])),
        config=CoordinatorConfig((), policy=Policy(map_slots=rng.choice([1, 2]), backup_min_s=0.5)),
        cpu={"store5": rng.choice([0.1, 1.0])},
    )
    given = observations(seed)
    scene.store(given)
    sources = [rng.choice([HOURLY, BY_KIND]) for _ in range(2)]
    jobs = [scene.submit(source) for source in sources]
    down: str | None = None
    for _ in range(rng.randint(3, 9)):
        scene.run(rng.uniform(0.1, 2.5))
        kind = rng.random()
        if down is not None and kind < 0.5:
            scene.world.apply(Restart(down))
            down = None
        elif down is None and kind < 0.5:
            down = rng.choice([*scene.hosts, "gw"])
            scene.world.apply(Crash(down))
        elif kind < 0.7:
            apart = rng.sample([*scene.hosts, "gw"], rng.choice([1, 2]))
            scene.world.apply(Partition((tuple(apart),)))
        elif kind < 0.85:
            a, b = rng.sample(scene.hosts, 2)
            scene.world.carrier.cut([(a, b), (b, a)])
        else:
            scene.world.apply(Heal())
    scene.world.apply(Heal())
    if down is not None:
        scene.world.apply(Restart(down))
    scene.run(1.0)
    for source, job in zip(sources, jobs, strict=True):
        check(scene, job, source, tmp_path, given)
        if source is BY_KIND:
            assert scene.state(job).counters == {"seen": 480}
