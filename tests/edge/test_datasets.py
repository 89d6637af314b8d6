"""The shipped data is what its tables say, its gaps are real, and tracks through it are pure and ordered."""

from __future__ import annotations

import csv
import doctest
import io
import itertools
import random
from collections import Counter
from pathlib import Path
from statistics import mean, pvariance

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import edge.datasets
from edge.datasets import (
    BURST_LENGTH_MEAN,
    BURST_RATE,
    CLIP_MS,
    HOUR_S,
    KINDS,
    REPLAY_START_S,
    SILENCE_LENGTH_MEAN,
    STATIONS,
    YEAR_S,
    Measurement,
    Motion,
    motion_events,
    photographs,
    track,
    weather,
)
from underlay.errors import InputError

DATA = Path(edge.datasets.__file__).parent / "data"


# ------------------------------------------------------------------------------------------ the shipped files


def test_every_shipped_file_has_its_licence_stated() -> None:
    licences = (DATA / "LICENCES.md").read_text(encoding="utf-8")
    shipped = {path.name for path in DATA.rglob("*.*") if "__pycache__" not in path.parts}
    assert [name for name in sorted(shipped - {"LICENCES.md"}) if f"`{name}`" not in licences] == []


def test_the_package_stays_small() -> None:
    weather_bytes = sum(path.stat().st_size for path in DATA.glob("weather-*.csv"))
    picture_bytes = sum(path.stat().st_size for path in DATA.glob("photographs/*.jpg"))
    assert weather_bytes < 500 * 1024
    assert picture_bytes < 500 * 1024


def test_the_folder_of_photographs_holds_exactly_the_pictures_of_its_table() -> None:
    assert {path.stem for path in DATA.glob("photographs/*.jpg")} == {
        picture.name for picture in photographs()
    }


def test_photographs_are_jpegs_of_5_to_60_kb_spread_over_the_range() -> None:
    sizes = [len(picture.data) for picture in photographs()]
    assert sizes == sorted(sizes)
    assert 5_000 <= sizes[0] < 10_000
    assert 50_000 < sizes[-1] <= 60_000
    assert max(b - a for a, b in itertools.pairwise(sizes)) < 12_000
    assert {picture.data[:3] for picture in photographs()} == {b"\xff\xd8\xff"}


def test_photographs_decode_to_the_size_their_table_gives() -> None:
    with (DATA / "photographs" / "photographs.csv").open(encoding="ascii") as table:
        stated = {row["name"]: (int(row["width_px"]), int(row["height_px"])) for row in csv.DictReader(table)}
    decoded = {}
    for picture in photographs():
        with Image.open(io.BytesIO(picture.data)) as image:
            image.load()
            decoded[picture.name] = image.size
    assert decoded == stated


def test_a_damaged_photograph_is_refused() -> None:
    with pytest.raises(InputError, match=r"01-cat-eyes\.jpg.*not the shipped picture"):
        edge.datasets._photograph("01-cat-eyes", "0" * 64)


# ---------------------------------------------------------------------------------------------------- weather


@pytest.mark.parametrize(
    ("station", "rows", "jumps_by_hours"),
    [
        ("ewr", 8703, {1: 8685, 2: 13, 3: 2, 6: 2}),
        ("jfk", 8706, {1: 8691, 2: 10, 3: 2, 6: 2}),
        ("lga", 8706, {1: 8691, 2: 10, 3: 2, 6: 2}),
    ],
)
def test_weather_is_in_order_and_keeps_the_gaps_of_its_source(
    station: str, rows: int, jumps_by_hours: dict[int, int]
) -> None:
    readings = weather(station)
    assert len(readings) == rows
    assert readings[0].t_s == REPLAY_START_S
    jumps = Counter((b.t_s - a.t_s) / HOUR_S for a, b in itertools.pairwise(readings))
    assert jumps == jumps_by_hours


def test_one_row_of_the_source_has_no_values_and_none_are_invented() -> None:
    empty = [
        (station, reading.t_s)
        for station in STATIONS
        for reading in weather(station)
        if reading.temperature_hundredths_c is None or reading.humidity_hundredths_percent is None
    ]
    assert empty == [("ewr", 1_377_176_400)]  # 2013-08-22T13:00Z


def test_the_first_reading_is_the_source_s_39_02_fahrenheit_and_59_37_percent() -> None:
    first = weather("ewr")[0]
    assert (first.temperature_hundredths_c, first.humidity_hundredths_percent) == (390, 5937)


def test_values_are_those_of_new_york_s_weather() -> None:
    for reading in itertools.chain.from_iterable(map(weather, STATIONS)):
        assert reading.temperature_hundredths_c is None or -2000 < reading.temperature_hundredths_c < 4000
        assert (
            reading.humidity_hundredths_percent is None or 0 < reading.humidity_hundredths_percent <= 10_000
        )


def test_an_unknown_station_is_an_input_error_that_names_the_known_ones() -> None:
    with pytest.raises(InputError, match=r"'LHR'.*ewr, jfk, lga"):
        weather("LHR")


def test_a_weather_track_never_falls_into_a_gap_and_shows_all_of_them_in_a_year() -> None:
    hours = [reading.t_s for reading in weather("ewr") if reading.temperature_hundredths_c is not None]
    replay = track("temperature", 0, random.Random(0))
    assert [replay.sample(k, HOUR_S).t_event for k in range(len(hours))] == hours
    assert replay.sample(len(hours), HOUR_S).t_event == hours[0] + YEAR_S


def test_a_reading_holds_for_its_hour() -> None:
    replay = track("humidity", 1, random.Random(0))
    values = [Measurement.decode(replay.sample(k, 900.0).payload).value_hundredths for k in range(8)]
    first, second = (reading.humidity_hundredths_percent for reading in weather("jfk")[:2])
    assert values == [first] * 4 + [second] * 4


def test_devices_differ_by_station_and_then_by_an_hour() -> None:
    starts = [track("temperature", index, random.Random(0)).sample(0, 60.0).t_event for index in range(6)]
    assert starts == [REPLAY_START_S] * 3 + [REPLAY_START_S + HOUR_S] * 3
    replays = [track("humidity", index, random.Random(0)) for index in range(6)]
    days = {tuple(replay.sample(k, HOUR_S).payload for k in range(24)) for replay in replays}
    assert len(days) == 6


# ----------------------------------------------------------------------------------------------------- motion


def test_motion_events_lie_in_the_clip_and_in_the_picture_in_order_of_their_end() -> None:
    events = motion_events()
    assert len(events) == 85
    assert [event.end_ms for event in events] == sorted(event.end_ms for event in events)
    for event in events:
        assert 0 < event.t_ms < event.end_ms <= CLIP_MS
        assert event.motion.duration_ms >= 300
        assert 0 < event.motion.area_ppm <= 1_000_000
        assert event.motion.left_permille + event.motion.width_permille <= 1000
        assert event.motion.top_permille + event.motion.height_permille <= 1000


def test_a_motion_track_at_the_clip_s_own_pace_repeats_the_clip() -> None:
    events = motion_events()
    step_s = CLIP_MS / len(events) / 1000
    replay = track("motion", 0, random.Random(0))
    since_first_s = [(event.end_ms - events[0].end_ms) / 1000 for event in events]
    assert [replay.elapsed_s(k, step_s) for k in range(85)] == pytest.approx(since_first_s)
    assert replay.elapsed_s(85, step_s) == pytest.approx(CLIP_MS / 1000)
    assert replay.sample(85, step_s).payload == replay.sample(0, step_s).payload
    assert Motion.decode(replay.sample(3, step_s).payload) == events[3].motion


def test_motion_of_two_devices_is_not_the_same() -> None:
    one, other = (track("motion", index, random.Random(0)) for index in (0, 1))
    assert [one.sample(k, 1.0) for k in range(20)] != [other.sample(k, 1.0) for k in range(20)]


def test_bursts_have_the_rate_and_the_dispersion_of_their_process() -> None:
    """Index of dispersion of the counts of an interrupted Poisson process (Heffes and Lucantoni 1986).

    On a window of many mean gaps it is 1 + 2 r a / (a + b)^2, a and b the rates of leaving burst and silence.
    """
    seed, windows, gaps_per_window = 20131, 3000, 200
    replay = track("motion-bursts", 0, random.Random(seed))
    stop = replay.first_due(windows * gaps_per_window, 1.0)
    counts = Counter(int(replay.elapsed_s(k, 1.0)) // gaps_per_window for k in range(stop))
    per_window = [counts[window] for window in range(windows)]
    leave_burst, leave_silence = 1 / BURST_LENGTH_MEAN, 1 / SILENCE_LENGTH_MEAN
    dispersion = 1 + 2 * BURST_RATE * leave_burst / (leave_burst + leave_silence) ** 2
    assert mean(per_window) / gaps_per_window == pytest.approx(1, rel=0.03), f"seed {seed}"
    assert pvariance(per_window) / mean(per_window) == pytest.approx(dispersion, rel=0.1), f"seed {seed}"


def test_bursts_of_the_same_seed_are_the_same_in_whatever_order_they_are_asked_for() -> None:
    forward, backward = (track("motion-bursts", 0, random.Random(7)) for _ in range(2))
    ahead = [forward.sample(k, 2.0) for k in range(50)]
    assert [backward.sample(k, 2.0) for k in reversed(range(50))] == ahead[::-1]
    assert [track("motion-bursts", 0, random.Random(8)).sample(k, 2.0) for k in range(50)] != ahead


# ---------------------------------------------------------------------------------------- tracks and payloads


@pytest.mark.parametrize("kind", KINDS)
@given(device_index=st.integers(0, 500), seed=st.integers(0, 2**32), step_s=st.floats(0.01, 7200))
def test_time_never_goes_back_along_a_track(kind: str, device_index: int, seed: int, step_s: float) -> None:
    replay = track(kind, device_index, random.Random(seed))
    times = [replay.sample(k, step_s).t_event for k in range(200)]
    assert times == sorted(times)
    assert times[0] >= REPLAY_START_S


@pytest.mark.parametrize("kind", KINDS)
@given(elapsed_s=st.floats(-10, 5000), step_s=st.floats(0.5, 7200))
def test_the_first_due_sample_is_the_first_that_is_not_over(
    kind: str, elapsed_s: float, step_s: float
) -> None:
    replay = track(kind, 1, random.Random(3))
    k = replay.first_due(elapsed_s, step_s)
    assert replay.elapsed_s(k, step_s) >= elapsed_s
    assert k == 0 or replay.elapsed_s(k - 1, step_s) < elapsed_s


@pytest.mark.parametrize("kind", KINDS)
def test_payloads_are_small_but_for_photographs(kind: str) -> None:
    replay = track(kind, 2, random.Random(1))
    samples = [replay.sample(k, HOUR_S) for k in range(1000)]
    sizes = [len(sample.payload) for sample in samples]
    if kind == "photograph":
        assert all(sample.is_large for sample in samples)
        assert 5_000 <= min(sizes) <= max(sizes) <= 60_000
    else:
        assert not any(sample.is_large for sample in samples)
        assert 10 <= min(sizes) <= max(sizes) <= 24


def test_photographs_come_in_turn_and_each_device_begins_with_another() -> None:
    pictures = [picture.data for picture in photographs()]
    replay = track("photograph", 3, random.Random(0))
    assert [replay.sample(k, 60.0).payload for k in range(14)] == pictures[3:] + pictures[:3]


@given(value=st.integers(-(2**31), 2**31), unit=st.sampled_from(["Cel", "%RH"]))
def test_a_measurement_survives_the_wire(value: int, unit: str) -> None:
    assert Measurement.decode(Measurement(value, unit).encode()) == Measurement(value, unit)


def test_an_unknown_kind_is_an_input_error_with_the_nearest_match() -> None:
    with pytest.raises(InputError, match=r"temprature.*did you mean 'temperature'"):
        track("temprature", 0, random.Random(0))


def test_the_examples_in_the_documentation_hold() -> None:
    outcome = doctest.testmod(edge.datasets)
    assert outcome.attempted > 0
    assert outcome.failed == 0
