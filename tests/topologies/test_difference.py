"""Two runs against each other."""

import io
from pathlib import Path

import pytest
from rich.console import Console

from tests.topologies.made_up_runs import arrived, made, manifest, write_run
from topologies import table
from topologies.difference import Setting, diff, within_band
from topologies.manifest import Chosen


def run(folder: Path, latency_s: float, fabric: str = "simulation", **changes: object) -> Path:
    chosen = Chosen(fabric, "ether" if fabric == "mininet" else "simulation", fabric, "asked for")  # type: ignore[arg-type]
    records = [made(20.0, "cam1:0"), arrived(20.0 + latency_s, "cam1:0")]
    return write_run(folder, records, manifest(chosen=chosen, **changes))


def test_what_was_set_and_what_came_of_it(tmp_path: Path) -> None:
    found = diff(run(tmp_path / "a", 2.0), run(tmp_path / "b", 3.0, architecture="gossip", seed=8))
    assert found.settings == (Setting("architecture", "star", "gossip"), Setting("seed", 7, 8))
    changes = {change.name: change for change in found.changes}
    assert changes["latency_p50_s"].relative == 0.5
    assert changes["delivery_ratio"].relative == 0.0
    assert changes["latency_p50_s"].within is None, "one fabric owes itself no parity"
    assert found.first_difference == 1


def test_the_same_run_twice_differs_in_nothing(tmp_path: Path) -> None:
    found = diff(run(tmp_path / "a", 2.0), run(tmp_path / "b", 2.0))
    assert found.same_trace
    assert found.settings == ()
    assert all(change.a == change.b for change in found.changes)


def test_across_fabrics_the_bands_are_applied_and_shown(tmp_path: Path) -> None:
    found = diff(run(tmp_path / "a", 2.0), run(tmp_path / "b", 2.3, fabric="mininet"))
    parity = {change.name: change.within for change in found.changes if change.within is not None}
    assert parity["delivery_ratio"]
    assert parity["latency_p99_s"]
    assert not parity["latency_p50_s"]
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(table.difference(found))
    (line,) = [line for line in console.export_text().splitlines() if "latency_p50_s" in line]
    assert "outside" in line
    assert "+15.0%" in line


@pytest.mark.parametrize(
    ("name", "a", "b", "expected"),
    [
        pytest.param("delivery_ratio", 0.90, 0.92, True, id="two points of delivery are within"),
        pytest.param("delivery_ratio", 0.90, 0.93, False, id="three are not"),
        pytest.param("latency_p50_s", 0.001, 0.0059, True, id="five milliseconds are always within"),
        pytest.param("latency_p99_s", 1.0, 1.2, True, id="a fifth of p99 is within"),
        pytest.param("latency_p99_s", None, None, True, id="both infinite agree"),
        pytest.param("latency_p99_s", None, 1.0, False, id="one infinite does not"),
        pytest.param("age_mean_s", 1.0, 9.0, None, id="age has no band"),
    ],
)
def test_bands(name: str, a: float | None, b: float | None, expected: bool | None) -> None:
    assert within_band(name, a, b) is expected
