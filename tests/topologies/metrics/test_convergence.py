"""Coverage over time, and when all hold the same set."""

from pathlib import Path

from tests.topologies.made_up_runs import arrived, broke, made, manifest, write_run
from topologies.manifest import DeviceInfo
from topologies.metrics import summarize
from underlay.faults import Crash

CAMS = tuple(f"cam{i}" for i in range(1, 5))
RUN = manifest(
    subscribers="all", birdhouses=CAMS, devices=tuple(DeviceInfo(name, "", "") for name in (*CAMS, "sink"))
)


def test_coverage_of_one_observation(tmp_path: Path) -> None:
    """Four receivers hear it after 1, 2, 3 and 9 s."""
    records = [made(20.0, "cam1:0")]
    records += [
        arrived(20.0 + t, "cam1:0", at) for t, at in ((1, "cam2"), (2, "cam3"), (3, "cam4"), (9, "sink"))
    ]
    found = summarize(write_run(tmp_path, records, RUN)).convergence
    assert (found.t50_s, found.t90_s, found.t100_s, found.same_set_s) == (2.0, 9.0, 9.0, 9.0)


def test_dead_nodes_need_not_hold_it_and_live_ones_must(tmp_path: Path) -> None:
    records = [made(20.0, "cam1:0"), broke(30.0, Crash("cam4"))]
    records += [arrived(21.0, "cam1:0", at) for at in ("cam2", "cam3")]
    assert summarize(write_run(tmp_path / "a", records, RUN)).convergence.same_set_s is None
    records.append(arrived(25.0, "cam1:0", "sink"))
    found = summarize(write_run(tmp_path / "b", records, RUN)).convergence
    assert found.same_set_s == 5.0
    assert found.t100_s is None


def test_what_no_live_node_holds_is_in_nobodys_set(tmp_path: Path) -> None:
    records = [made(20.0, "cam4:0"), broke(20.5, Crash("cam4")), made(30.0, "cam1:0")]
    records += [arrived(31.0, "cam1:0", at) for at in ("cam2", "cam3", "sink")]
    assert summarize(write_run(tmp_path, records, RUN)).convergence.same_set_s == 1.0
