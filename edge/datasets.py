"""The real data that birdhouses observe, and its replay: tables, pictures, and tracks through them.

Owns the readers of `edge/data/` (each table says where it comes from; `docs/data.md` tells the whole
story), the payload each kind of observation carries, and how a device's sensor walks through a data set.
Not here: when a sensor fires, sequence numbers and device clocks (`edge.sensor`).

Everything is pure: a track's sample k depends on kind, device index, k, and the `Random` it was given, and
on nothing else, so a restarted device finds its place again. Time is data-set time, Unix seconds of the
year 2013.

Units are those of SenML (RFC 8428 §12.1). Bursts: Kuczura, "The Interrupted Poisson Process as an Overflow
Process", Bell System Technical Journal 52(3), 1973.
"""

from __future__ import annotations

import csv
import hashlib
from bisect import bisect_left
from collections.abc import Iterator
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, NamedTuple, Protocol

import msgspec

from underlay.errors import InputError, nearest

if TYPE_CHECKING:
    from random import Random

KINDS = ("temperature", "humidity", "photograph", "motion", "motion-bursts")
STATIONS = ("ewr", "jfk", "lga")
YEAR_START_S = 1_356_998_400
"""2013-01-01T00:00Z, from which the weather tables count their hours."""
REPLAY_START_S = YEAR_START_S + 6 * 3600
"""The weather's first hour (one o'clock in New York), where every track begins."""
YEAR_S = 365 * 24 * 3600
HOUR_S = 3600
CLIP_MS = 79_500
"""Length of the clip behind the motion events."""

# ---------------------------------------------------------------------------- the data sets, and the payloads


class WeatherReading(msgspec.Struct, frozen=True):
    """One hourly row of a weather station. None is a value that the source lacks."""

    t_s: int
    temperature_hundredths_c: int | None
    humidity_hundredths_percent: int | None


class Measurement(msgspec.Struct, frozen=True, rename={"value_hundredths": "h", "unit": "u"}):
    """Payload of `temperature` and `humidity`: an integer in hundredths of a SenML unit, `Cel` or `%RH`.

    Integers, because sums of them do not depend on the order in which a job adds them up.

    >>> Measurement(390, "Cel").encode()
    b'\\x82\\xa1h\\xcd\\x01\\x86\\xa1u\\xa3Cel'
    """

    value_hundredths: int
    unit: str

    def encode(self) -> bytes:
        """A msgpack map of 10 to 12 bytes."""
        return _encoder.encode(self)

    @staticmethod
    def decode(payload: bytes) -> Measurement:
        """Raises msgspec.DecodeError for anything that is no measurement."""
        return _measurement_decoder.decode(payload)


class Photograph(msgspec.Struct, frozen=True):
    """A JPEG of 5 to 60 kB, and its checksum in hex."""

    name: str
    data: bytes
    sha256: str


class Motion(msgspec.Struct, frozen=True, array_like=True):
    """Something moved in a part of the picture. Payload of `motion` and `motion-bursts`, an array."""

    duration_ms: int
    area_ppm: int
    """The largest share of the picture that changed from one frame to the next."""
    left_permille: int
    top_permille: int
    width_permille: int
    height_permille: int

    def encode(self) -> bytes:
        """A msgpack array of 10 to 24 bytes."""
        return _encoder.encode(self)

    @staticmethod
    def decode(payload: bytes) -> Motion:
        """Raises msgspec.DecodeError for anything that is no motion."""
        return _motion_decoder.decode(payload)


class MotionEvent(msgspec.Struct, frozen=True):
    """A motion and when it began, counted from the start of the clip."""

    t_ms: int
    motion: Motion

    @property
    def end_ms(self) -> int:
        """When a camera can report it: its duration is known only then."""
        return self.t_ms + self.motion.duration_ms


@cache
def weather(station: str) -> tuple[WeatherReading, ...]:
    """The readings of one of `STATIONS` in order of time; hours that the source lacks are absent.

    Raises InputError for a station that is not there.
    """
    if station not in STATIONS:
        raise InputError(f"no weather station {station!r}", hint=f"one of {', '.join(STATIONS)}")
    return tuple(
        WeatherReading(
            t_s=YEAR_START_S + int(row["hour"]) * HOUR_S,
            temperature_hundredths_c=_int_or_none(row["temperature_hundredths_c"]),
            humidity_hundredths_percent=_int_or_none(row["humidity_hundredths_percent"]),
        )
        for row in _rows(f"weather-{station}.csv")
    )


@cache
def photographs() -> tuple[Photograph, ...]:
    """The shipped pictures, smallest first. Raises InputError for one that is not as it was shipped."""
    return tuple(_photograph(row["name"], row["sha256"]) for row in _rows("photographs/photographs.csv"))


@cache
def motion_events() -> tuple[MotionEvent, ...]:
    """The events of the clip in order of their end, the order in which a camera reports them."""
    events = [_motion_event(row) for row in _rows("motion-events.csv")]
    return tuple(sorted(events, key=lambda event: (event.end_ms, event.t_ms)))


# ------------------------------------------------------------------------------------------------- the replay


class Sample(NamedTuple):
    """One thing observed: data-set time in Unix seconds, the payload, and whether it is a large object."""

    t_event: float
    payload: bytes
    is_large: bool


class Track(Protocol):
    """One device's endless way through a data set, by sample number.

    `step_s` is the data-set time between samples, on average: a period times a replay speed. It must be
    positive and stay the same for a track. `t_event` never goes back as k grows.
    """

    def sample(self, k: int, step_s: float) -> Sample:
        """Sample k, counted from 0."""

    def elapsed_s(self, k: int, step_s: float) -> float:
        """Data-set seconds from the track's start until sample k is due: k steps, or the events' pattern."""

    def first_due(self, elapsed_s: float, step_s: float) -> int:
        """The first k that is due `elapsed_s` or later: where a device that was off goes on."""


def track(kind: str, device_index: int, rng: Random) -> Track:
    """The track of a device through `kind`, one of `KINDS`; raises InputError for another.

    Devices differ by station and by an hour for every full round of stations, so that neighbours do not
    repeat each other and windows over data-set time still hold all of them. `rng` serves `motion-bursts`
    only, and only here: for a restarted device to find its old bursts again, pass one seeded as before.
    """
    match kind:
        case "temperature" | "humidity":
            return WeatherTrack(kind, device_index)
        case "photograph":
            return PhotographTrack(device_index)
        case "motion":
            return EventTrack(device_index, _clip_pattern(device_index))
        case "motion-bursts":
            return EventTrack(device_index, _burst_pattern(type(rng)(rng.getrandbits(64))))
    guess = nearest(kind, KINDS)
    hint = f"did you mean {guess!r}?" if guess else f"one of {', '.join(KINDS)}"
    raise InputError(f"no such kind of observation: {kind!r}", hint=hint)


class _RegularTrack:
    """Samples are due every step."""

    def elapsed_s(self, k: int, step_s: float) -> float:
        return k * step_s

    def first_due(self, elapsed_s: float, step_s: float) -> int:
        k = max(0, int(elapsed_s / step_s))
        return k if k * step_s >= elapsed_s else k + 1


class WeatherTrack(_RegularTrack):
    """Temperature or humidity of one station: a reading holds for its hour, and gaps are jumped over.

    So `t_event` never lies in an hour for which the station has no value. After the year's last reading the
    replay begins again, a year later.
    """

    def __init__(self, kind: str, device_index: int) -> None:
        self._unit = "Cel" if kind == "temperature" else "%RH"
        self._hours = _hourly_values(STATIONS[device_index % len(STATIONS)], kind)
        self._first = device_index // len(STATIONS)

    def sample(self, k: int, step_s: float) -> Sample:
        hours, into_hour_s = divmod(k * step_s, HOUR_S)
        year, row = divmod(self._first + int(hours), len(self._hours))
        t_s, value_hundredths = self._hours[row]
        payload = Measurement(value_hundredths, self._unit).encode()
        return Sample(t_s + year * YEAR_S + into_hour_s, payload, is_large=False)


class PhotographTrack(_RegularTrack):
    """The pictures in turn, each device beginning with another one; having no time, they are a step apart."""

    def __init__(self, device_index: int) -> None:
        self._first = device_index
        self._start_s = _start_s(device_index)

    def sample(self, k: int, step_s: float) -> Sample:
        pictures = photographs()
        picture = pictures[(self._first + k) % len(pictures)]
        return Sample(self._start_s + k * step_s, picture.data, is_large=True)


class EventTrack:
    """Motion events in a pattern of times whose mean gap is 1, stretched so that it is the step.

    The pattern stays (clusters, pauses); the pace is the experiment's, as for every other kind.
    """

    def __init__(self, device_index: int, pattern: Iterator[tuple[float, MotionEvent]]) -> None:
        self._start_s = _start_s(device_index)
        self._pattern = pattern
        self._at: list[float] = []
        self._payloads: list[bytes] = []

    def sample(self, k: int, step_s: float) -> Sample:
        t_event = self._start_s + self.elapsed_s(k, step_s)
        return Sample(t_event, self._payloads[k], is_large=False)

    def elapsed_s(self, k: int, step_s: float) -> float:
        while len(self._at) <= k:
            self._extend()
        return self._at[k] * step_s

    def first_due(self, elapsed_s: float, step_s: float) -> int:
        while not self._at or self._at[-1] * step_s < elapsed_s:
            self._extend()
        return bisect_left(self._at, elapsed_s, key=lambda at: at * step_s)

    def _extend(self) -> None:
        at, event = next(self._pattern)
        self._at.append(at)
        self._payloads.append(event.motion.encode())


# Interrupted Poisson process in units of the mean gap: bursts of ten events on average within one unit,
# then nine units of silence on average, so that the long-run rate is 1.
BURST_RATE = 10.0
BURST_LENGTH_MEAN = 1.0
SILENCE_LENGTH_MEAN = 9.0


def _burst_pattern(rng: Random) -> Iterator[tuple[float, MotionEvent]]:
    """The bursts; what each event looked like is drawn from the events of the clip."""
    events = motion_events()
    at = 0.0
    while True:
        at += rng.expovariate(1 / SILENCE_LENGTH_MEAN)
        end = at + rng.expovariate(1 / BURST_LENGTH_MEAN)
        while (at := at + rng.expovariate(BURST_RATE)) < end:
            yield at, rng.choice(events)
        at = end


def _clip_pattern(device_index: int) -> Iterator[tuple[float, MotionEvent]]:
    """The clip over and over; devices begin at different places of it (13 events apart)."""
    events = motion_events()
    gap_mean_ms = CLIP_MS / len(events)
    first = device_index * 13 % len(events)
    n = first
    while True:
        lap, i = divmod(n, len(events))
        at_ms = lap * CLIP_MS + events[i].end_ms - events[first].end_ms
        yield at_ms / gap_mean_ms, events[i]
        n += 1


@cache
def _hourly_values(station: str, kind: str) -> tuple[tuple[int, int], ...]:
    """(start of the hour, value in hundredths) for each hour that has one."""
    field = "temperature_hundredths_c" if kind == "temperature" else "humidity_hundredths_percent"
    values = ((reading.t_s, getattr(reading, field)) for reading in weather(station))
    return tuple((t_s, value) for t_s, value in values if value is not None)


def _start_s(device_index: int) -> float:
    """Where a track without times of its own begins: shifted by device as the weather is."""
    hours = device_index // len(STATIONS)
    return float(REPLAY_START_S + hours * HOUR_S)


def _motion_event(row: dict[str, str]) -> MotionEvent:
    t_ms, *motion = map(int, row.values())
    return MotionEvent(t_ms, Motion(*motion))


def _photograph(name: str, sha256: str) -> Photograph:
    data = _DATA.joinpath(f"photographs/{name}.jpg").read_bytes()
    if hashlib.sha256(data).hexdigest() != sha256:
        raise InputError("not the shipped picture", file=f"{name}.jpg", hint="reinstall birdhouse")
    return Photograph(name, data, sha256)


def _rows(path: str) -> Iterator[dict[str, str]]:
    lines = _DATA.joinpath(path).read_text(encoding="ascii").splitlines()
    return csv.DictReader(line for line in lines if not line.startswith("#"))


def _int_or_none(text: str) -> int | None:
    return int(text) if text else None


_DATA = files("edge") / "data"
_encoder = msgspec.msgpack.Encoder()
_measurement_decoder = msgspec.msgpack.Decoder(Measurement)
_motion_decoder = msgspec.msgpack.Decoder(Motion)
