"""Parquet files: whole, each observation once, whatever happens to the process, and read by anybody."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import topologies
from edge.datasets import Measurement
from edge.observation import Observation, ObservationId
from gateway.destinations.columnar import ColumnarFolder
from gateway.destinations.dispatch import bindings, paced
from gateway.routing.routes import Route
from gateway.routing.routing import Routing
from gateway.routing.targets import Columnar, Lines
from tests.gateway.destinations.rapid import DEVICES, MADE, rapid_gateway, until
from underlay.emulation.loopback import Hosts, Site, loopback_addresses
from underlay.errors import InputError

DAY_S = 86_400.0
MAY_S = 1_714_521_600.0
"""1 May 2024."""


def seen(*sequences: int, kind: str = "temperature", device: str = "cam3") -> list[Observation]:
    payload = Measurement(390, "Cel").encode() if kind == "temperature" else b"\xff\xd8 ' \0"
    return [
        Observation(ObservationId(device, n), kind, MAY_S + n * DAY_S / 4, 0.5, payload) for n in sequences
    ]


def read(folder: Path, columns: str = "sequence") -> list[Any]:
    """All rows, in the order of devices and numbers."""
    if not any(folder.rglob("part-*.parquet")):
        return []
    query = (
        f"SELECT {columns} FROM read_parquet('{folder}/*/*/part-*.parquet', hive_partitioning = true) "
        "ORDER BY device, sequence"
    )
    rows = duckdb.connect().execute(query).fetchall()
    return [row[0] for row in rows] if "," not in columns else rows


def test_a_row_says_what_was_observed_and_its_file_is_that_of_its_kind_and_day(tmp_path: Path) -> None:
    ColumnarFolder(tmp_path / "all").write([*seen(1, 5), *seen(6, kind="photograph")])
    assert read(
        tmp_path / "all", "device, sequence, kind, day::VARCHAR, t_event, t_gen, value->>'celsius'"
    ) == [
        ("cam3", 1, "temperature", "2024-05-01", MAY_S + DAY_S / 4, 0.5, "3.9"),
        ("cam3", 5, "temperature", "2024-05-02", MAY_S + DAY_S * 5 / 4, 0.5, "3.9"),
        ("cam3", 6, "photograph", "2024-05-02", MAY_S + DAY_S * 6 / 4, 0.5, None),
    ]
    assert read(tmp_path / "all", "payload, device")[2][0] == b"\xff\xd8 ' \0"
    names = sorted(str(path.relative_to(tmp_path / "all")) for path in tmp_path.rglob("*.parquet"))
    assert names[1] == "kind=temperature/day=2024-05-01/part-0000000001.parquet"


def test_what_is_written_again_is_there_once_also_after_a_restart(tmp_path: Path) -> None:
    folder = ColumnarFolder(tmp_path)
    folder.write(seen(1, 2, 2))
    folder.write(seen(2, 3))
    again = ColumnarFolder(tmp_path)
    again.write(seen(1, 3, 4))
    assert read(tmp_path) == [1, 2, 3, 4]
    assert sorted(path.name for path in tmp_path.rglob("part-*"))[-1] == "part-0000000003.parquet"


class Dead(BaseException):
    """The power is gone."""


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 40), st.lists(st.integers(1, 9), min_size=1, max_size=4))
def test_wherever_the_power_goes_away_nothing_is_half_there_or_twice(calls: int, sizes: list[int]) -> None:
    """Before any of the calls that make something durable; afterwards the batch is written again."""
    left = calls
    real = {name: getattr(os, name) for name in ("fsync", "replace", "open")}

    def until_dead(name: str) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal left
            left -= 1
            if left < 0:
                raise Dead
            return real[name](*args, **kwargs)

        return call

    batches = [seen(*range(10 * n, 10 * n + size)) for n, size in enumerate(sizes)]
    with TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        folder = ColumnarFolder(Path(name))
        done = 0
        for called in real:
            patch.setattr(os, called, until_dead(called))
        try:
            for batch in batches:
                folder.write(batch)
                done += 1
        except Dead:
            pass
        patch.undo()
        written = [each.id.sequence for batch in batches[:done] for each in batch]
        assert set(written) <= set(read(Path(name)))
        again = ColumnarFolder(Path(name))
        assert not list(Path(name).rglob("*.new"))
        for batch in batches[done:]:
            again.write(batch)
        assert read(Path(name)) == [each.id.sequence for batch in batches for each in batch]


def test_a_full_disk_is_an_error_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = ColumnarFolder(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr("gateway.destinations.columnar._quoted", lambda path: "/dev/full")
        with pytest.raises(OSError, match="No space left"):
            folder.write(seen(1))
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
    folder.write(seen(1))
    assert read(tmp_path) == [1]


def test_a_gateway_that_is_killed_under_load_has_written_everything_once(tmp_path: Path) -> None:
    """kill -9, again and again; files are gathered meanwhile."""
    columnar = Columnar("columns", rows_max=40, gather_s=0.1)
    routing = Routing(destination={"columns": columnar}, unmatched="columns")
    plan = rapid_gateway(routing, bindings(routing.destination))
    addresses = loopback_addresses(("gate", "store1"), "127.79.3.1")
    folder = tmp_path / "gate" / "files" / "columns"
    with Hosts(Site(tmp_path, {"gate": plan}, addresses)) as hosts:
        hosts.start("gate")
        for some in (30, 120, 240):
            until(lambda some=some: len(read(folder)) >= some)  # type: ignore[misc] # the loop's
            hosts.kill("gate")
            hosts.start("gate")
        until(lambda: len(read(folder)) >= MADE * len(DEVICES))
        hosts.kill("gate")
    rows = read(folder, "device, sequence")
    assert rows == [(device, n) for device in DEVICES for n in range(MADE)]


@pytest.mark.parametrize(
    ("given", "burst"),
    [
        pytest.param({"rate_limit_per_s": 2.0}, 10, id="what comes while others gather"),
        pytest.param({"rate_limit_per_s": 0.1}, 1, id="one at least"),
        pytest.param({"rate_limit_per_s": 2.0, "rate_burst": 3}, 3, id="as the user says"),
        pytest.param({}, None, id="no rate"),
    ],
)
def test_a_rate_has_a_burst_of_what_comes_while_a_file_gathers(
    given: dict[str, Any], burst: int | None
) -> None:
    route = Route("columns", **given)
    assert paced(route, Columnar("columns", gather_s=5.0)).rate_burst == burst
    assert paced(route, Lines("all.jsonl")) == route


def test_without_duckdb_a_spec_that_wants_it_is_one_clear_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "s.toml"
    path.write_text(
        """
        [gateway]
        unmatched = "columns"
        [gateway.destination.columns]
        type = "columnar"
        folder = "columns"
        [storage]
        kind = "paxos"
        """
    )
    topologies.check(path)
    monkeypatch.setitem(sys.modules, "duckdb", None)
    with pytest.raises(InputError) as error:
        topologies.check(path)
    assert error.value.exit_code == 2
    assert "s.toml: gateway.destination.columns.type" in str(error.value)
    assert "birdhouse[columnar]" in str(error.value)
