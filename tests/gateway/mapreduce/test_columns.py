"""Columns are a faster way to the same bytes: held beside reading row by row."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.mapreduce import JobSource, columns
from gateway.mapreduce.executors.local import run_local
from gateway.mapreduce.inputs import FileSplit, split_files
from gateway.mapreduce.job import load
from gateway.mapreduce.operators import Grouping
from tests.gateway.mapreduce.scene import IMPORT

COLUMNS = "n=Count(), s=Sum(), m=Mean(), lo=Min(), hi=Max(), mm=MinMax()"
JOBS = [
    f'job = Observations().key("device").window("1h").aggregate({COLUMNS})',
    f'job = Observations("t*").key("kind", "device").aggregate({COLUMNS})',
    f'job = Observations("*", "cam1?", since=9, until=5000).key("device").window(0.5).aggregate({COLUMNS})',
    f"job = Observations().aggregate({COLUMNS})",
]
NUMBERS = st.one_of(
    st.integers(-(10**14), 10**14).map(str),
    st.decimals(-(10**6), 10**6, places=2).map(str),
    st.decimals(-1, 1, places=12).map(lambda d: f"{d:f}"),
    st.sampled_from(["0", "-0", "0.0", "-0.0", "007", "1.50", "-12.25"]),
)
TIMES = st.one_of(st.integers(0, 20_000).map(str), st.decimals(0, 9999, places=3).map(str))
ROWS = st.tuples(
    st.sampled_from(["cam1", "cam10", "cam12", "a-longer-name", "é"]),
    st.sampled_from(["t", "temp"]),
    TIMES,
    NUMBERS,
)


def sources() -> list[JobSource]:
    return [JobSource("j", "j.py", IMPORT + text) for text in JOBS]


def by_rows(source: JobSource, path: Path) -> str:
    """With a `where` that holds always, which columns do not allow."""
    text = source.text.replace("Observations(", "Observations(", 1)
    call, rest = text.rsplit(".aggregate(", 1)
    return run_local(JobSource("j", "j.py", f"{call}.where(lambda r: True).aggregate({rest}"), [path]).digest


@settings(max_examples=25)
@given(st.lists(ROWS, min_size=1, max_size=40), st.booleans(), st.booleans(), st.integers(40, 400))
def test_columns_give_the_bytes_of_rows(
    rows: list[tuple[str, str, str, str]], crlf: bool, ends: bool, split_bytes: int
) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder, "readings.csv")
        end = "\r\n" if crlf else "\n"
        text = end.join(["device,kind,t_event,value", *map(",".join, rows)]) + (end if ends else "")
        path.write_bytes(text.encode())
        for source in sources():
            operator = load(source).does
            assert isinstance(operator, Grouping)
            assert columns.allows(operator)
            plain = by_rows(source, path)
            assert run_local(source, [path]).digest == plain
            assert run_local(source, [path], split_bytes=split_bytes).digest == plain
            for split in split_files([path], split_bytes):
                columns.pairs_of(split, load(source).source, operator)  # none of these is read by rows


@pytest.mark.parametrize(
    "text",
    [
        pytest.param('device,kind,t_event,value\n"a",t,1,1\n', id="quotes"),
        pytest.param("device,kind,t_event,value\na,t,1,\n", id="no value"),
        pytest.param("device,kind,t_event,value\na,t,1,1e3\n", id="an exponent"),
        pytest.param("device,kind,t_event,value\na,t,1,1,2\n", id="a cell too many"),
        pytest.param("device,kind,t_event,value\na,t,1,12345678901234567\n", id="too many digits"),
        pytest.param("device,kind,t_event,value\na,t,1,1.2.3\n", id="two points"),
        pytest.param("device,kind,t_event,value\na,t,1,-\n", id="a sign alone"),
        pytest.param("device,kind,t_event,value\n\na,t,1,1\n", id="an empty line"),
        pytest.param(f"device,kind,t_event,value\n{'a' * 17},t,1,1\n", id="a long name"),
        pytest.param("device,kind,t_event,lux,value\na,t,1,3,1\n", id="another first field"),
    ],
)
def test_what_is_not_plain_is_left_to_the_rows(tmp_path: Path, text: str) -> None:
    path = tmp_path / "readings.csv"
    path.write_text(text)
    operator = load(sources()[0]).does
    assert isinstance(operator, Grouping)
    with pytest.raises(columns.NotPlain):
        columns.pairs_of(FileSplit(str(path), 0, len(text)), load(sources()[0]).source, operator)


@pytest.mark.parametrize(
    "text",
    [
        'job = Observations().key(lambda r: r.device).aggregate(n=Count())',
        'job = Observations().key("device").value("celsius").aggregate(m=Mean())',
        'job = Observations().key("device").window("1h", "30min").aggregate(n=Count())',
        'job = Observations().key("device").aggregate(p=Quantile(0.5))',
        'job = Observations().key("device").where(lambda r: True).aggregate(n=Count())',
        'job = Observations().key(device="kind").aggregate(n=Count())',
    ],
)  # fmt: skip
def test_jobs_that_need_more_are_run_by_rows(text: str) -> None:
    operator = load(JobSource("j", "j.py", IMPORT + text)).does
    assert isinstance(operator, Grouping)
    assert not columns.allows(operator)
