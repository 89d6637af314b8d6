"""The summary as a file: stable, documented, and computed anew when it must be."""

import csv
import os
import re
from pathlib import Path

import msgspec
import pytest

from tests.topologies.made_up_runs import arrived, caricature, made, write_run
from topologies.metrics import read_summary, summarize, to_csv
from topologies.metrics.summary import Summary
from underlay.errors import InputError

DOCS = Path(__file__).parents[3] / "docs" / "summary.md"


def fields(kind: type, seen: set[type]) -> set[str]:
    """Names of all fields of a struct and of the structs in it."""
    names: set[str] = set()
    if kind not in seen:
        seen.add(kind)
        for field in msgspec.structs.fields(kind):
            names.add(field.encode_name)
            for inner in structs_in(field.type):
                names |= fields(inner, seen)
    return names


def structs_in(annotation: object) -> list[type]:
    if isinstance(annotation, type) and issubclass(annotation, msgspec.Struct):
        return [annotation]
    return [found for part in getattr(annotation, "__args__", ()) for found in structs_in(part)]


def test_every_field_and_every_column_is_documented(tmp_path: Path) -> None:
    text = DOCS.read_text(encoding="utf-8")
    told = set(re.findall(r"[a-z][a-z0-9_]*", text))
    assert fields(Summary, set()) - told - {"link", "source", "target", "max_s"} == set()
    columns = caricature_summary(tmp_path).row
    prefixes = (
        "delivery",
        "storage",
        "tier",
        "latency",
        "age",
        "energy",
        "battery",
        "cache",
        "load",
        "convergence",
        "survivors",
    )
    plain = {column for column in columns if not column.startswith(prefixes)} - {"failed"}
    assert plain - told == set()


def caricature_summary(folder: Path) -> Summary:
    return summarize(caricature(folder / "run", "caching"))


def test_what_is_written_is_what_is_returned(tmp_path: Path) -> None:
    summary = caricature_summary(tmp_path)
    written = (tmp_path / "run" / "summary.json").read_bytes()
    assert msgspec.json.decode(written, type=Summary) == summary
    assert b"NaN" not in written
    assert b"Infinity" not in written
    (row,) = csv.DictReader((tmp_path / "run" / "summary.csv").read_text().splitlines())
    assert row["architecture"] == "caching"
    assert float(row["delivery_ratio"]) == summary.delivery.ratio
    assert row["latency_p99_s"] == "", "infinite is empty"


def test_the_same_trace_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        summarize(caricature(tmp_path / name, "gossip"))
    assert (tmp_path / "a" / "summary.json").read_bytes() == (tmp_path / "b" / "summary.json").read_bytes()


def test_a_summary_older_than_its_trace_is_computed_anew(tmp_path: Path) -> None:
    run = write_run(tmp_path, [made(20.0, "cam1:0")])
    assert summarize(run).delivery.undelivered == 1
    write_run(tmp_path, [made(20.0, "cam1:0"), arrived(21.0, "cam1:0")])
    later = (run / "summary.json").stat().st_mtime_ns + 1_000_000
    os.utime(run / "trace.jsonl", ns=(later, later))
    assert read_summary(run).delivery.undelivered == 0


def test_a_summary_that_is_up_to_date_is_only_read(tmp_path: Path) -> None:
    run = write_run(tmp_path, [made(20.0, "cam1:0")])
    summarize(run)
    marked = (run / "summary.json").read_bytes().replace(b'"disconnects": 0', b'"disconnects": 77')
    (run / "summary.json").write_bytes(marked)
    assert read_summary(run).disconnects == 77
    (run / "summary.json").write_bytes(b"{}")
    assert read_summary(run).disconnects == 0


def test_a_trace_cut_short_is_summarised_up_to_there(tmp_path: Path) -> None:
    run = write_run(tmp_path, [made(20.0, "cam1:0"), arrived(21.0, "cam1:0"), made(30.0, "cam1:1")])
    whole = (run / "trace.jsonl").read_bytes()
    (run / "trace.jsonl").write_bytes(whole[: whole.rindex(b'{"t":30')] + b'{"t":30.0000')
    assert summarize(run).delivery.on_time == 1


def test_what_is_no_run_says_so(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no run is there"):
        summarize(tmp_path)
    with pytest.raises(InputError, match="no run"):
        to_csv([])
