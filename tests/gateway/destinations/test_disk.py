"""Files as destinations: whole, once, in order, whatever happens to the process."""

from __future__ import annotations

import errno
import json
import os
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.datasets import Measurement
from edge.observation import Observation, ObservationId
from gateway.destinations.disk import ImagesFolder
from gateway.destinations.dispatch import bindings
from gateway.destinations.lines import LinesFile
from gateway.routing.routing import Routing
from gateway.routing.targets import Lines
from tests.gateway.destinations.rapid import DEVICES, MADE, rapid_gateway, until
from underlay.emulation.loopback import Hosts, Site, loopback_addresses


def seen(*sequences: int) -> list[Observation]:
    payload = Measurement(390, "Cel").encode()
    return [Observation(ObservationId("cam3", n), "temperature", 60.0 * n, 0.5, payload) for n in sequences]


def numbers(path: Path) -> list[int]:
    return [json.loads(line)["sequence"] for line in path.read_text().splitlines()]


def test_a_line_says_what_was_observed(tmp_path: Path) -> None:
    LinesFile(tmp_path / "a" / "all.jsonl").write(seen(1))
    assert json.loads((tmp_path / "a" / "all.jsonl").read_text()) == {
        "device": "cam3",
        "sequence": 1,
        "kind": "temperature",
        "t_event": 60.0,
        "t_gen": 0.5,
        "value": {"celsius": 3.9},
    }


def test_what_is_written_again_is_there_once_also_after_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "all.jsonl"
    lines = LinesFile(path)
    lines.write(seen(1, 2))
    lines.write(seen(2, 3))
    again = LinesFile(path)
    again.write(seen(3, 4))
    assert numbers(path) == [1, 2, 3, 4]


@given(st.integers(0, 400))
def test_a_line_that_was_cut_off_is_written_whole_again(cut: int) -> None:
    """Wherever the power went away."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "all.jsonl"
        LinesFile(path).write(seen(1, 2, 3))
        with path.open("r+b") as file:
            file.truncate(min(cut, path.stat().st_size))
        LinesFile(path).write(seen(1, 2, 3))
        assert numbers(path) == [1, 2, 3]


def test_a_full_disk_leaves_nothing_half_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "all.jsonl"
    lines = LinesFile(path)
    lines.write(seen(1))
    before = path.read_bytes()

    def full(_fd: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space left"):
            lines.write(seen(2))
    assert path.read_bytes() == before
    lines.write(seen(2))
    assert numbers(path) == [1, 2]


# --------------------------------------------------------------------------------------------------- rotation


def all_lines(folder: Path) -> list[int]:
    """Of the files that were put aside, in their order, and of the one that is written."""
    paths = sorted(folder.glob("all.*.jsonl"))
    return [n for path in (*paths, folder / "all.jsonl") if path.exists() for n in numbers(path)]


def test_a_file_is_put_aside_before_it_grows_too_large(tmp_path: Path) -> None:
    path = tmp_path / "all.jsonl"
    LinesFile(path).write(seen(1))
    three = 3 * path.stat().st_size + 20  # numbers and times have more digits later
    lines = LinesFile(path, rotate_bytes=three)
    for n in range(2, 8):
        lines.write(seen(n))
    assert numbers(tmp_path / "all.000001.jsonl") == [1, 2, 3]
    assert numbers(tmp_path / "all.000002.jsonl") == [4, 5, 6]
    assert numbers(path) == [7]
    again = LinesFile(path, rotate_bytes=three)
    again.write(seen(*range(3, 11)))  # three of them are new, which is more than there is room for
    assert numbers(tmp_path / "all.000003.jsonl") == [7]
    assert all_lines(tmp_path) == list(range(1, 11))


def test_a_file_is_put_aside_with_the_first_line_after_its_time(tmp_path: Path) -> None:
    clock = [100.0]
    lines = LinesFile(tmp_path / "all.jsonl", rotate_s=10.0, now=lambda: clock[0])
    for n, clock[0] in enumerate(
        (150.0, 159.0, 160.0, 165.0, 171.0)
    ):  # until the first there is nothing in it
        lines.write(seen(n))
    assert numbers(tmp_path / "all.000001.jsonl") == [0, 1]
    assert numbers(tmp_path / "all.000002.jsonl") == [2, 3]
    assert numbers(tmp_path / "all.jsonl") == [4]


class Dead(BaseException):
    """The power is gone."""


@given(st.integers(0, 40), st.integers(100, 700))
def test_wherever_the_power_goes_away_every_line_is_there_once_and_in_order(
    calls: int, rotate_bytes: int
) -> None:
    """Before any call that opens, renames or syncs; afterwards the batch is written again."""
    left = calls
    real = {name: getattr(os, name) for name in ("fsync", "replace", "open", "rename")}

    def until_dead(name: str) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal left
            left -= 1
            if left < 0:
                raise Dead
            return real[name](*args, **kwargs)

        return call

    batches = [seen(n, n + 1) for n in range(0, 20, 2)]
    with TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        path = Path(name) / "all.jsonl"
        lines = LinesFile(path, rotate_bytes)
        done = 0
        for called in real:
            patch.setattr(os, called, until_dead(called))
        try:
            for batch in batches:
                lines.write(batch)
                done += 1
        except Dead:
            pass
        patch.undo()
        again = LinesFile(path, rotate_bytes)
        assert all_lines(Path(name))[: 2 * done] == list(range(2 * done))
        for batch in batches[done:]:
            again.write(batch)
        assert all_lines(Path(name)) == list(range(20))


def test_a_gateway_that_is_killed_under_load_has_written_every_line_once_and_in_order(tmp_path: Path) -> None:
    routing = Routing(destination={"all": Lines("all.jsonl", rotate_bytes=3000)}, unmatched="all")
    addresses = loopback_addresses(("gate", "store1"), "127.79.4.1")
    folder = tmp_path / "gate" / "files"
    with Hosts(
        Site(tmp_path, {"gate": rapid_gateway(routing, bindings(routing.destination))}, addresses)
    ) as hosts:
        hosts.start("gate")
        for some in (30, 120, 240):
            until(lambda some=some: len(said(folder)) >= some)  # type: ignore[misc] # the loop's
            hosts.kill("gate")
            hosts.start("gate")
        until(lambda: len(said(folder)) >= MADE * len(DEVICES))
        hosts.kill("gate")
    assert len(list(folder.glob("all.*.jsonl"))) > 5
    for device in DEVICES:
        assert [n for name, n in said(folder) if name == device] == list(range(MADE))


def said(folder: Path) -> list[tuple[str, int]]:
    """All whole lines."""
    paths = [*sorted(folder.glob("all.*.jsonl")), folder / "all.jsonl"]
    try:
        text = "".join(path.read_text() for path in paths)
    except FileNotFoundError:  # none yet, or it is put aside in this moment
        return []
    lines = map(json.loads, text[: text.rfind("\n") + 1].splitlines())
    return [(line["device"], line["sequence"]) for line in lines]


# ----------------------------------------------------------------------------------------------------- images


def test_an_image_is_kept_once_under_its_contents_hash(tmp_path: Path) -> None:
    picture = b"\xff\xd8" + b"picture" * 1000
    name = sha256(picture).hexdigest()
    some = [msgspec.structs.replace(each, kind="photograph", payload=picture) for each in seen(1, 2)]
    for _ in range(2):
        ImagesFolder(tmp_path).write(some)
    assert (tmp_path / name[:2] / f"{name}.jpg").read_bytes() == picture
    index = [json.loads(line) for line in (tmp_path / "index.jsonl").read_text().splitlines()]
    assert [(line["sequence"], line["sha256"]) for line in index] == [(1, name), (2, name)]
    assert len([path for path in tmp_path.rglob("*") if path.is_file()]) == 2
