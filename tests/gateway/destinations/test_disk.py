"""Files as destinations: whole, once, in order, whatever happens to the process."""

from __future__ import annotations

import errno
import json
import os
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.datasets import Measurement
from edge.observation import Observation, ObservationId
from gateway.destinations.disk import ImagesFolder, LinesFile


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
