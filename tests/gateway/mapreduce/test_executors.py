"""One answer from all executors, and DuckDB's where it can be asked; files, keys, results."""

from __future__ import annotations

from pathlib import Path

import duckdb
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.datasets import STATIONS, weather
from gateway.mapreduce import JobFailed, JobSource, keys
from gateway.mapreduce.executors.local import run_local
from gateway.mapreduce.executors.on_dask import run_on_dask
from gateway.mapreduce.jobs import about, names, ready_made
from tests.gateway.mapreduce.scene import BY_KIND, HOURLY, IMPORT


@pytest.fixture(scope="module")
def year(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The real weather of a year as readings: 26,000 temperatures and as many humidities."""
    path = tmp_path_factory.mktemp("year") / "weather.csv"
    with path.open("w") as file:
        file.write("device,sequence,kind,t_event,value\n")
        for station in STATIONS:
            for n, row in enumerate(weather(station)):
                if row.temperature_hundredths_c is not None:
                    file.write(
                        f"{station},{2 * n},temperature,{row.t_s},{row.temperature_hundredths_c / 100}\n"
                    )
                if row.humidity_hundredths_percent is not None:
                    file.write(
                        f"{station},{2 * n + 1},humidity,{row.t_s},{row.humidity_hundredths_percent / 100}\n"
                    )
    return path


@pytest.mark.parametrize("split_bytes", [1 << 40, 300_000])
@pytest.mark.parametrize("budget_bytes", [1 << 30, 100_000])
def test_splits_and_spills_do_not_change_the_answer(year: Path, split_bytes: int, budget_bytes: int) -> None:
    for source in (HOURLY, BY_KIND):
        plain = run_local(source, [year])
        other = run_local(source, [year], split_bytes=split_bytes, budget_bytes=budget_bytes)
        assert other.digest == plain.digest
        assert other.counters == plain.counters


@pytest.mark.timeout(120)
def test_dask_gives_the_same_bytes(year: Path) -> None:
    for source in (HOURLY, BY_KIND):
        plain = run_local(source, [year])
        assert run_on_dask(source, [year], split_bytes=400_000).digest == plain.digest


def test_daily_statistics_agree_with_duckdb(year: Path) -> None:
    made = run_local(ready_made("hourly", {"kind": "*", "window": "1d"}), [year])
    found = {tuple(row[:3]): row[3:] for row in made.table().rows}
    with duckdb.connect() as connection:
        asked = connection.execute(
            f"""
            select device, kind,
                   strftime(to_timestamp(t_event) at time zone 'UTC', '%Y-%m-%dT00:00:00Z') as day,
                   count(*), avg(value), min(value), max(value)
            from read_csv('{year}') group by all
            """
        ).fetchall()
    assert len(asked) == len(found) > 2000
    for device, kind, day, count, mean, low, high in asked:
        mine = found[device, kind, day]
        assert mine[0] == count
        assert mine[1] == pytest.approx(mean, rel=1e-12)
        assert (mine[2], mine[3]) == (low, high)


def test_quantiles_are_within_their_error_of_duckdbs(year: Path) -> None:
    made = run_local(ready_made("percentiles", {"kind": "humidity"}), [year])
    with duckdb.connect() as connection:
        for device, _, count, p50, p90, p99 in made.table().rows:
            right = connection.execute(
                f"""
                select count(*), quantile_disc(value, [0.5, 0.9, 0.99]) from read_csv('{year}')
                where device = '{device}' and kind = 'humidity'
                """
            ).fetchone()
            assert right is not None
            assert count == right[0]
            assert (p50, p90, p99) == pytest.approx(tuple(right[1]), rel=0.0101)


def test_every_ready_made_job_says_what_it_answers_and_loads() -> None:
    for name in names():
        assert about(name).endswith("?")
        assert ready_made(name).parameters == {}


def test_join_finds_the_temperature_at_each_motion(tmp_path: Path) -> None:
    path = tmp_path / "readings.csv"
    path.write_text(
        "device,kind,t_event,value\n"
        "cam1,motion,5,0.5\ncam1,temperature,10,3.5\ncam1,motion,20,1.5\ncam1,temperature,30,4.5\n"
        "cam1,motion,30,2\ncam2,motion,40,1\n"
    )
    made = run_local(ready_made("join"), [path])
    assert made.table().rows == (("cam1", 20, 1.5, 3.5), ("cam1", 30, 2, 4.5))
    assert made.counters == {"events before the first reading": 2}


def test_gaps_and_age_tell_what_was_lost(tmp_path: Path) -> None:
    path = tmp_path / "readings.csv"
    path.write_text(
        "device,sequence,kind,t_event,t_gen,value\n"
        "cam1,1,t,0,0,0\ncam1,2,t,1,1,0\ncam1,5,t,4,4,0\ncam1,5,t,4,4,0\n"
    )
    assert run_local(ready_made("gaps"), [path]).table().rows == (("cam1", 1, 5, 3, 2, 1),)
    ((_, _, readings, mean_s, peak_s),) = run_local(ready_made("age"), [path]).table().rows
    assert (readings, mean_s, peak_s) == (4, 10 / 8, 3)


def test_windows_that_more_may_come_into_are_held_back(tmp_path: Path) -> None:
    path = tmp_path / "readings.csv"
    path.write_text("device,kind,t_event,value\na,t,10,1\na,t,70,1\na,t,130,1\n")
    text = 'job = Observations().key("device").window(60, lateness=5).aggregate(n=Count())'
    made = run_local(JobSource("late", "late.py", IMPORT + text), [path])
    assert [key for key, _ in made.rows()] == [("a", 0), ("a", 60)]


@pytest.mark.parametrize(
    ("name", "text", "problem"),
    [
        pytest.param("a.csv", "x,y\n1,2\n", "has the column 'device'", id="no column"),
        pytest.param("a.csv", "device,kind,t_event,value\na,t,x,1\n", "the line at byte 26", id="no number"),
        pytest.param(
            "a.csv", "device,kind,t_event,value\na,t\n", "2 columns, and the header has 4", id="a short row"
        ),
        pytest.param("a.jsonl", '{"device": 3}\n', "is no observation", id="no observation"),
    ],
)
def test_files_that_are_not_what_their_name_says(tmp_path: Path, name: str, text: str, problem: str) -> None:
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(JobFailed, match=problem):
        run_local(HOURLY, [path])


def test_an_export_with_quotes_and_payloads_is_read(tmp_path: Path) -> None:
    path = tmp_path / "export.csv"
    path.write_text(
        'device,sequence,kind,t_event,t_gen,payload\r\ncam1,1,temperature,0.0,1.0,"{""h"":390,""u"":""Cel""}"\r\n'
    )
    assert run_local(HOURLY, [path]).table().rows[0][3] == 3.9


KEYS = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(2**63), 2**63 - 1),
        st.floats(allow_nan=False, allow_infinity=False),
        st.text(max_size=4),
        st.binary(max_size=4),
    ),
    lambda inner: st.lists(inner, max_size=3).map(tuple),
    max_leaves=5,
)


@given(KEYS, KEYS)
def test_packed_keys_are_equal_where_keys_are(a: object, b: object) -> None:
    assert (keys.pack(a) == keys.pack(b)) == (a == b)
    assert keys.unpack(keys.pack(a)) == a


@given(
    st.one_of(
        st.tuples(st.text(), st.text()), st.tuples(st.floats(-1e18, 1e18), st.integers(-(2**62), 2**62))
    )
)
def test_packed_keys_are_in_the_keys_order(pair: tuple[object, object]) -> None:
    a, b = pair
    if isinstance(a, str) and isinstance(b, str):
        assert (keys.pack(a) < keys.pack(b)) == (
            a.encode("utf-8", "surrogatepass") < b.encode("utf-8", "surrogatepass")
        )
    else:
        assert (keys.pack(a) < keys.pack(b)) == (a < b)  # type: ignore[operator]


@given(st.lists(KEYS, max_size=3).map(tuple), st.lists(KEYS, max_size=3).map(tuple))
def test_a_tuple_that_begins_another_comes_before_it(a: tuple[object, ...], b: tuple[object, ...]) -> None:
    assert keys.pack(a) <= keys.pack(a + b)


@given(st.binary(max_size=20))
def test_bytes_that_are_no_key_are_refused(data: bytes) -> None:
    try:
        key = keys.unpack(data)
    except ValueError:
        return
    keys.pack(key) if not _unpackable(key) else None


def _unpackable(key: object) -> bool:
    return isinstance(key, float) or (isinstance(key, tuple) and any(map(_unpackable, key)))


@pytest.mark.parametrize(
    "key", [float("nan"), float("inf"), [1], {"a": 1}, 1 << 70, int, ("a", [1])], ids=repr
)
def test_what_is_no_key_is_refused(key: object) -> None:
    with pytest.raises(keys.BadKey):
        keys.pack(key)


def test_a_value_that_is_a_record_gives_columns(tmp_path: Path) -> None:
    path = tmp_path / "readings.csv"
    path.write_text("device,kind,t_event,value\na,t,10,1\na,t,70,2\n")
    text = 'job = Observations().key("device").aggregate(v=MinMax(), n=Count())'
    table = run_local(JobSource("t", "t.py", IMPORT + text), [path]).table()
    assert table.columns == ("device", "v.min", "v.max", "n")
    assert table.rows == (("a", 1, 2, 2),)
    assert table.csv().splitlines()[1] == "a,1,2,2"
