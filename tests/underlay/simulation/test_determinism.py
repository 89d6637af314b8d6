"""Same plan, same seed: the same trace, byte for byte, in any process and under any PYTHONHASHSEED."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.underlay.simulation.actors import Actor, Letter, Note
from underlay.errors import RunFailed
from underlay.faults import Crash, Degrade, Heal, Partition, Pause, Restart, Resume
from underlay.link import LinkSpec
from underlay.network import Channel
from underlay.node import Context, Node, Timer
from underlay.plan import Plan
from underlay.simulation import Simulation, every_pair, plan_of
from underlay.trace import read_trace

NAMES = tuple(f"d{i}" for i in range(8))


class Restless(Actor):
    """Says something random to somebody random, by datagram and stream, and writes it down."""

    def on_start(self, ctx: Context) -> None:
        ctx.set_timer("again", ctx.rng.random())

    def on_timer(self, ctx: Context, timer: Timer) -> None:
        peer = f"{ctx.rng.choice(NAMES)}/x"
        ctx.store.put(b"peer", peer.encode())
        if peer != ctx.address:
            ctx.send(peer, Letter(1, bytes(ctx.rng.randrange(5000))))
        ctx.send("*/x", Note("anybody?"))
        ctx.set_timer("again", ctx.rng.expovariate(2.0))


def eventful_plan(seed: int) -> Plan:
    """Links, a channel, loss, jitter, and every kind of fault."""
    return plan_of(
        {name: {"x": Restless} for name in NAMES},
        every_pair(NAMES[:5]),
        link=LinkSpec(rate_kbps=500.0, delay_ms=20.0, jitter_ms=10.0, loss_ratio=0.05, burst_frames=2.0),
        channels=[
            Channel(
                "air", LinkSpec(rate_kbps=250.0, delay_ms=5.0, loss_ratio=0.1), tuple(every_pair(NAMES[4:]))
            )
        ],
        faults=[
            (2.0, Crash("d1")),
            (3.0, Partition((("d0", "d2"), ("d3",)))),
            (4.0, Degrade("d0", "d2", {"loss_ratio": 0.3})),
            (5.0, Restart("d1")),
            (6.0, Heal()),
            (7.0, Pause("d5")),
            (9.0, Resume("d5")),
        ],
        seed=seed,
        duration_s=12.0,
        route_convergence_s=1.0,
    )


def test_the_same_seed_gives_the_same_trace_and_another_seed_another(tmp_path: Path) -> None:
    traces = []
    for run, seed in enumerate((7, 7, 8)):
        folder = tmp_path / str(run)
        folder.mkdir()
        Simulation().run(eventful_plan(seed), folder)
        traces.append((folder / "trace.jsonl").read_bytes())
    assert len(traces[0]) > 20_000
    assert traces[0] == traces[1] != traces[2]


def test_checking_the_codec_changes_nothing(tmp_path: Path) -> None:
    traces = []
    for check_codec in (False, True):
        Simulation(check_codec=check_codec).run(eventful_plan(7), tmp_path)
        traces.append((tmp_path / "trace.jsonl").read_bytes())
    assert traces[0] == traces[1]


def test_the_hash_seed_changes_nothing() -> None:
    script = (
        "import sys, tempfile, pathlib, hashlib\n"
        "from tests.underlay.simulation.test_determinism import Simulation, eventful_plan\n"
        "with tempfile.TemporaryDirectory() as folder:\n"
        "    Simulation().run(eventful_plan(7), pathlib.Path(folder))\n"
        "    print(hashlib.sha256(pathlib.Path(folder, 'trace.jsonl').read_bytes()).hexdigest())\n"
    )
    digests = [
        subprocess.run(
            [sys.executable, "-c", script],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            cwd=Path(__file__).parents[3],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for hash_seed in ("0", "1", "4242")
    ]
    assert len(digests[0]) == 65
    assert digests[0] == digests[1] == digests[2]


def test_a_trace_begins_and_ends_and_its_times_ascend(tmp_path: Path) -> None:
    Simulation().run(eventful_plan(3), tmp_path)
    records = list(read_trace(tmp_path / "trace.jsonl"))
    assert (records[0]["event"], records[0]["fabric"], records[0]["seed"]) == ("run-started", "simulation", 3)
    assert (records[-1]["event"], records[-1]["t"]) == ("run-ended", 12.0)
    assert [record["t"] for record in records] == sorted(record["t"] for record in records)
    assert {record["event"] for record in records} >= {
        "link-usage", "messages-sent", "node-started", "fault-applied", "routes-changed"
    }  # fmt: skip


def test_a_trace_that_cannot_be_written_fails_the_run(tmp_path: Path) -> None:
    with pytest.raises(RunFailed, match="could not be written"):
        Simulation().run(plan_of({"a": {"x": Node}}), tmp_path / "missing")
