"""The seven cases of the well-known course test of MapReduce, on this engine, in the simulation.

They are: word count, indexer, map parallelism, reduce parallelism, each map runs once though it is slow,
nobody exits early, and workers that crash and stall (MIT 6.5840, lab 1, `test-mr.sh`).
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from random import Random
from re import findall

import pytest

from gateway.mapreduce import JobSource
from gateway.mapreduce.coordinator import CoordinatorConfig
from gateway.mapreduce.jobs import ready_made
from gateway.mapreduce.schedule import Policy
from gateway.mapreduce.worker import WorkerConfig
from tests.gateway.mapreduce.scene import IMPORT, Scene
from underlay.faults import Crash, Pause, Restart, Resume

WORDS = ("bird", "house", "nest", "wren", "robin", "finch", "hub", "sink")


@pytest.fixture
def texts(tmp_path: Path) -> list[Path]:
    """Eight files of words."""
    rng = Random(1)
    paths = []
    for n in range(8):
        path = tmp_path / f"book{n}.txt"
        chosen = rng.sample(WORDS, 5)
        path.write_text("\n".join(" ".join(rng.choices(chosen, k=8)) for _ in range(60)) + "\n")
        paths.append(path)
    return paths


def words_of(path: Path) -> list[str]:
    return findall(r"\w+", path.read_text())


def scene(record_cost_s: float = 1e-6, **policy: float) -> Scene:
    """Four workers, one file a split."""
    return Scene(
        config=CoordinatorConfig((), policy=Policy(**policy), split_bytes=1 << 20),  # type: ignore[arg-type]
        worker=WorkerConfig("", record_cost_s=record_cost_s),
    )


def test_word_count(texts: list[Path]) -> None:
    made = scene()
    job = made.submit(ready_made("wordcount"), *texts)
    assert made.finished(job).maps == 8
    right = Counter(word for path in texts for word in words_of(path))
    assert dict(made.result(job).rows()) == right


def test_indexer(texts: list[Path]) -> None:
    made = scene()
    job = made.submit(ready_made("index"), *texts)
    made.finished(job)
    for word, row in made.result(job).rows():
        assert row["where"] == [path.name for path in texts if word in words_of(path)]
        assert row["files"] == len(row["where"])


def test_maps_run_beside_each_other(texts: list[Path]) -> None:
    """Eight maps of some four seconds each, four workers: two rounds, not eight."""
    made = scene(record_cost_s=4.0 / texts[0].stat().st_size)
    began_s = made.world.now
    job = made.submit(ready_made("wordcount"), *texts)
    made.run(1.0)
    working = [task.worker for task in made.state(job).tasks if task.state == "in progress"]
    assert sorted(working) == made.hosts
    made.finished(job)
    assert 7.0 < made.world.now - began_s < 12.0


def test_reduces_run_beside_each_other(texts: list[Path]) -> None:
    made = scene()
    source = ready_made("wordcount")
    job = made.submit(
        JobSource("slow", "slow.py", source.text.replace('("word",)', '("word",), reduces=4')), *texts
    )
    made.finished(job)
    reducers = [task.worker for task in made.state(job).tasks if task.kind == "reduce"]
    assert sorted(reducers) == made.hosts


def test_each_map_runs_once_though_it_is_slow(texts: list[Path]) -> None:
    """Every map takes ten seconds, longer than a silent worker is waited for: nobody is taken for dead, and
    nothing is mapped twice."""
    made = scene(record_cost_s=10.0 / texts[0].stat().st_size)
    job = made.submit(ready_made("wordcount"), *texts)
    state = made.finished(job)
    assert [task.attempts for task in state.tasks if task.kind == "map"] == [1] * 8
    assert (state.lost_attempts, state.backups) == (0, 0)


def test_nothing_is_shown_early(texts: list[Path]) -> None:
    """While any part is missing there is no result, not of the parts that are done either."""
    made = scene(record_cost_s=2.0 / texts[0].stat().st_size)
    job = made.submit(ready_made("wordcount"), *texts)
    seen = set()
    while (state := made.state(job)).state != "done":
        seen.add(state.reduces_done)
        assert state.chunks == ()
        made.run(0.05)
    assert state.reduces_done == state.reduces


@pytest.mark.timeout(120)
@pytest.mark.sweep(4)
def test_workers_crash_and_stall(seed: int, texts: list[Path]) -> None:
    rng = Random(seed)
    made = scene(record_cost_s=3.0 / texts[0].stat().st_size)
    job = made.submit(ready_made("wordcount"), *texts)
    for _ in range(6):
        made.run(rng.uniform(0.3, 2.0))
        host = rng.choice(made.hosts)
        if rng.random() < 0.5:
            made.world.apply(Crash(host))
            made.run(rng.uniform(0.2, 3.0))
            made.world.apply(Restart(host))
        else:
            made.world.apply(Pause(host))
            made.run(rng.uniform(0.2, 8.0))
            made.world.apply(Resume(host))
    state = made.finished(job)
    assert state.state == "done", state.problem
    right = Counter(word for path in texts for word in words_of(path))
    assert dict(made.result(job).rows()) == right


def test_counters_of_attempts_that_lost_do_not_count(texts: list[Path]) -> None:
    made = Scene(
        config=CoordinatorConfig((), policy=Policy(backup_min_s=0.1), split_bytes=1 << 20),
        worker=WorkerConfig("", record_cost_s=1.0 / texts[0].stat().st_size),
        cpu={"store2": 0.05},
    )
    source = JobSource(
        "counting",
        "counting.py",
        IMPORT
        + """
def mapper(line):
    count("lines")
    yield line.file, 1

def reducer(file, ones):
    count("files")
    return sum(ones)

job = Job(mapper, reducer)
""",
    )
    job = made.submit(source, *texts)
    state = made.finished(job)
    assert state.backups >= 1
    assert state.counters == {"lines": 480, "files": 8}
