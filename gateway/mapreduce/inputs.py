"""Where records come from: what a job selects, the splits that its map tasks read, and the readers.

A split is of the store (some slots of one group, as of one revision) or of a file (the lines that begin
within some bytes of it). What a worker reads of the store it first lays down as a run of encoded
observations (`runs`); files are read where they are, by every worker under the same name.

Files by their names: `.csv` with the columns `device`, `kind`, `t_event` and `value` (or those of the
gateway's export, whose `payload` it is then), `.jsonl` and `.ndjson` with one observation in JSON a line
(the gateway's export, and its JSON-lines destination), any other a text of which each line is a record.
"""

from __future__ import annotations

import csv
import os
from base64 import b64decode
from collections.abc import Callable, Iterator, Sequence
from fnmatch import translate
from itertools import pairwise
from math import inf
from pathlib import Path
from re import Pattern
from re import compile as pattern_of
from typing import Any, BinaryIO

import msgspec

from edge.observation import Observation
from gateway.mapreduce.errors import JobFailed
from gateway.mapreduce.records import AnyRecord, Line, Record, Row
from kv.slots import SLOTS, slot_of
from underlay.node import Address

BLOCK_BYTES = 1 << 18
SPLIT_BYTES = 16 << 20
"""Of a file that is read by several workers, unless somebody says otherwise."""


class Selection(msgspec.Struct, frozen=True):
    """Which observations a job is about."""

    kind: str = "*"
    """Glob patterns."""
    device: str = "*"
    since_s: float = -inf
    """Of `t_event`: from here..."""
    until_s: float = inf
    """...until before here."""

    def takes(self) -> Callable[[Record], bool]:
        """A test of one record, compiled."""
        kind, device = _matcher(self.kind), _matcher(self.device)
        since_s, until_s = self.since_s, self.until_s

        def test(record: Record) -> bool:
            return (
                since_s <= record.t_event < until_s
                and (kind is None or kind(record.kind) is not None)
                and (device is None or device(record.device) is not None)
            )

        return test

    @property
    def pattern(self) -> bytes:
        """Of the keys in the store, for the tier to choose by (`Observation.key`)."""
        return f"obs:{{{self.device}}}:{self.kind}:*".encode()

    @property
    def slots(self) -> tuple[tuple[int, int], ...]:
        """Where these can be: one slot if the device is named, else all of them."""
        if any(sign in self.device for sign in "*?["):
            return ((0, SLOTS - 1),)
        slot = slot_of(self.device.encode())
        return ((slot, slot),)


class StoreSplit(msgspec.Struct, frozen=True, array_like=True, tag=1):
    """Some slots of a group, as of one revision of it."""

    group: str
    replicas: tuple[Address, ...]
    slots: tuple[tuple[int, int], ...]
    """Ranges, both ends included."""
    revision: int
    keys: int
    """About how many are in them, of all kinds."""

    @property
    def size(self) -> int:
        """In the split's own unit."""
        return self.keys

    def __str__(self) -> str:
        first, last = self.slots[0][0], self.slots[-1][1]
        return f"slots {first}-{last} of {self.group}"


class FileSplit(msgspec.Struct, frozen=True, array_like=True, tag=2):
    """The lines of a file that begin at `start <= byte < end`."""

    path: str
    start: int
    end: int

    @property
    def size(self) -> int:
        """In the split's own unit."""
        return self.end - self.start

    def __str__(self) -> str:
        return f"{os.path.basename(self.path)} bytes {self.start}-{self.end}"


Split = StoreSplit | FileSplit


def split_files(paths: Sequence[Path], split_bytes: int = SPLIT_BYTES) -> list[FileSplit]:
    """Splits of about the same size. Raises JobFailed where a file cannot be read."""
    splits = []
    for path in paths:
        try:
            size_bytes = path.stat().st_size
            with open(path, "rb"):
                pass
        except OSError as error:
            raise JobFailed(f"{path}: {error.strerror}") from error
        pieces = max(1, round(size_bytes / split_bytes))
        edges = [size_bytes * n // pieces for n in range(pieces + 1)]
        splits += [FileSplit(str(path.absolute()), a, b) for a, b in pairwise(edges)]
    return splits


def records_of(data: BinaryIO, selection: Selection) -> Iterator[Record]:
    """The records of encoded observations, one after the other, each after its length in 4 bytes."""
    takes = selection.takes()
    while header := data.read(4):
        record = Record.of(Observation.decode(data.read(int.from_bytes(header, "big"))))
        if takes(record):
            yield record


def records_of_file(split: FileSplit, selection: Selection) -> Iterator[AnyRecord]:
    """The records of a part of a file. Raises JobFailed for a file that is not what its name says."""
    path = Path(split.path)
    with open(path, "rb", buffering=1 << 18) as file:
        match path.suffix:
            case ".csv":
                return (yield from _selected(_csv_rows(file, split), selection))
            case ".jsonl" | ".ndjson":
                return (yield from _selected(_documents(file, split), selection))
        for offset, line in _lines(file, split):
            yield Line(line.decode(errors="replace").rstrip("\r\n"), path.name, offset)


# ---------------------------------------------------------------------------------------------------- helpers


def _matcher(pattern: str) -> Callable[[str], Any] | None:
    compiled: Pattern[str] = pattern_of(translate(pattern))
    return None if pattern == "*" else compiled.match


def _selected(records: Iterator[Record], selection: Selection) -> Iterator[Record]:
    return records if selection == Selection() else filter(selection.takes(), records)


def _lines(file: BinaryIO, split: FileSplit) -> Iterator[tuple[int, bytes]]:
    """Each line that begins in the split, with its offset."""
    at = split.start
    file.seek(max(0, at - 1))
    if at > 0:
        at += len(file.readline()) - 1
    while at < split.end and (line := file.readline()):
        yield at, line
        at += len(line)


def _csv_rows(file: BinaryIO, split: FileSplit) -> Iterator[Record]:
    header = _csv_header(file, split)
    places = {name: header.index(name) for name in header}
    device_at, kind_at, t_event_at = places["device"], places["kind"], places["t_event"]
    sequence_at, t_gen_at = places.get("sequence", -1), places.get("t_gen", -1)
    payload_at = places.get("payload", -1)
    fixed = (device_at, kind_at, t_event_at, sequence_at, t_gen_at)
    others = [(name, at) for at, name in enumerate(header) if at not in fixed]
    width = len(header)
    numbered = split.start
    offset = split.start
    line = ""
    try:
        for offset, line in _text_lines(file, split):  # noqa: B007 - an error names the line
            cells = line.split(",") if '"' not in line else next(csv.reader([line]))
            if len(cells) != width:
                if cells == [""]:
                    continue
                raise ValueError(f"{len(cells)} columns, and the header has {width}")
            numbered += 1
            sequence = int(cells[sequence_at]) if sequence_at >= 0 else numbered
            t_event = float(cells[t_event_at])
            t_gen = float(cells[t_gen_at]) if t_gen_at >= 0 else t_event
            if payload_at >= 0:
                cell = cells[payload_at]
                payload = _packed(msgspec.json.decode(cell) if cell[:1] in ("{", "[") else cell)
                yield Record(cells[device_at], sequence, cells[kind_at], t_event, t_gen, payload)
            else:
                fields = {name: _plain(cells[at]) for name, at in others}
                yield Row(cells[device_at], sequence, cells[kind_at], t_event, t_gen, fields)
    except (ValueError, msgspec.DecodeError) as error:
        raise JobFailed(f"{split.path}: the line at byte {offset} is no record: {error}") from error


def _text_lines(file: BinaryIO, split: FileSplit) -> Iterator[tuple[int, str]]:
    """Each line but the file's first, without its end, and its offset."""
    at = split.start
    file.seek(max(0, at - 1))
    at += len(file.readline()) - (1 if at else 0)
    while at < split.end and (lines := file.readlines(min(BLOCK_BYTES, split.end - at))):
        for line in lines:
            if at >= split.end:
                break
            yield at, line.decode(errors="replace").rstrip("\r\n")
            at += len(line)


def _csv_header(file: BinaryIO, split: FileSplit) -> list[str]:
    file.seek(0)
    header: list[str] = next(csv.reader([file.readline().decode(errors="replace")]), [])
    missing = [name for name in ("device", "kind", "t_event") if name not in header]
    if missing:
        raise JobFailed(
            f"{split.path}: a CSV file of records has the column {missing[0]!r}, and this has {header}"
        )
    return header


class _Document(msgspec.Struct, frozen=True):
    """One line of the gateway's exports: with the payload, or with what it means."""

    device: str
    sequence: int
    kind: str
    t_event: float
    t_gen: float | None = None
    payload: Any = None
    value: Any = None

    def record(self) -> Record:
        t_gen = self.t_event if self.t_gen is None else self.t_gen
        if isinstance(self.value, dict):
            return Row(self.device, self.sequence, self.kind, self.t_event, t_gen, self.value)
        return Record(self.device, self.sequence, self.kind, self.t_event, t_gen, _packed(self.payload))


def _packed(payload: Any) -> bytes:
    """The bytes of a payload as exports show it: base64 of them, or what they say."""
    if isinstance(payload, str):
        return b64decode(payload, validate=True)
    return msgspec.msgpack.encode(payload)


def _plain(cell: str) -> object:
    """A number where it is one, None where there is nothing."""
    try:
        return float(cell) if "." in cell or "e" in cell or "n" in cell else int(cell)
    except ValueError:
        return cell or None


def _documents(file: BinaryIO, split: FileSplit) -> Iterator[Record]:
    decode = msgspec.json.Decoder(_Document).decode
    for offset, line in _lines(file, split):
        if not line.strip():
            continue
        try:
            yield decode(line).record()
        except (msgspec.DecodeError, ValueError) as error:
            raise JobFailed(f"{split.path}: the line at byte {offset} is no observation: {error}") from error
