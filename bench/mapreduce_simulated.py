"""What `bench.mapreduce` measures in virtual time: the same engine on links and processors that are given."""

from __future__ import annotations

from dataclasses import dataclass

from gateway.mapreduce import JobSource
from gateway.mapreduce.coordinator import CoordinatorConfig
from gateway.mapreduce.schedule import Policy
from gateway.mapreduce.worker import WorkerConfig
from tests.gateway.mapreduce.scene import IMPORT, Scene, observations
from underlay.faults import Crash
from underlay.link import LinkSpec

MBIT = LinkSpec(rate_kbps=1000.0, delay_ms=5.0)
HOURLY = JobSource(
    "daily",
    "daily.py",
    IMPORT + 'job = Observations().key("kind").window("1d").aggregate(n=Count(), mean=Mean(), high=Max())',
)
"""Few rows of many records: 60 devices with 200 readings each."""


@dataclass
class Cost:
    """What a job took."""

    seconds: float
    bytes: int
    """Of records, pairs and rows that went from host to host."""
    digest: str


def thin(*, near: bool) -> Cost:
    """A job over links of 1 Mbit/s; not near: its only worker is on the gateway's device."""
    scene = Scene(hosts=5, link=MBIT, ship=not near)
    scene.store(observations(1, devices=60, each=200))
    job = scene.submit(HOURLY)
    state = scene.finished(job)
    moved = state.read_far_bytes + state.shuffled_bytes + state.result_bytes
    return Cost(state.seconds, moved, scene.result(job).digest)


def eight(*, slow: bool = False, kill: bool = False, backups: bool = True) -> float:
    """Seconds of a job of some 40 s on eight workers that have 64 maps between them."""
    policy = Policy() if backups else Policy(backup_factor=1e9)
    scene = Scene(
        hosts=8,
        groups=6,
        config=CoordinatorConfig((), policy=policy),
        worker=WorkerConfig("", record_cost_s=0.025),
        cpu={"store4": 0.1} if slow else None,
    )
    scene.store(observations(2, devices=128, each=100))
    job = scene.submit(HOURLY)
    if kill:
        scene.run(15.0)
        scene.world.apply(Crash("store4"))
    while (state := scene.state(job)).state in ("running", "planning"):
        scene.run(0.25)
    assert state.state == "done", state.problem
    return state.seconds
