"""The columns of a CSV file, parsed as arrays: a faster way to the same states, where a job allows it.

A job allows it if it groups by attributes as they are stored, over tumbling windows or none, with aggregates
that take whole columns (`underlay.aggregates.columns`). A part of a file allows it if its rows are plain: no
quotes, as many cells as the header has, times and values that are short decimal numbers. Whatever is not so
is read row by row, as if this module were not there; what comes out is the same bytes (a test holds them
beside each other).
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gateway.mapreduce import keys
from gateway.mapreduce.inputs import FileSplit, Selection
from gateway.mapreduce.operators import Grouping
from gateway.mapreduce.runs import Pair
from underlay.aggregates.columns import Grouped, states_of

Bytes = NDArray[np.uint8]
Places = NDArray[np.int64]

CHUNK_BYTES = 8 << 20
SAMPLE_ROWS = 4096
DIGITS_MAX = 15
"""More than that do not fit a double exactly."""
NAME_BYTES_MAX = 16
_COMMA, _NEWLINE, _RETURN, _QUOTE, _MINUS, _POINT, _ZERO = b',\n\r"-.0'
_FINEST = 22
"""The largest power of ten that a double holds exactly: a quotient by it is rounded once."""


class NotPlain(Exception):
    """This is to be read row by row."""


@dataclass(frozen=True)
class Names:
    """A column of names: the different ones, and which each row has."""

    different: list[str]
    codes: NDArray[np.int64]


@dataclass(frozen=True)
class Batch:
    """Some rows."""

    device: Names
    kind: Names
    t_event: NDArray[np.float64]
    value: NDArray[np.float64]


def allows(grouping: Grouping) -> bool:
    """Whether a job can be run on columns."""
    plain = all(
        part in ("device", "kind") for part in (("?",) if grouping.plain_key is None else grouping.plain_key)
    )
    windows = grouping.windows
    tumbling = windows is None or windows.slide_s == windows.size_s
    columns = grouping.plain_values and all(
        states_of(column.aggregate, _NOTHING) is not None for column in grouping.columns
    )
    return plain and tumbling and columns and grouping.where is None


def pairs_of(split: FileSplit, selection: Selection, grouping: Grouping) -> tuple[list[Pair], int, float]:
    """All pairs of a part of a file, in order; how many records, and the newest time. Raises NotPlain."""
    batches = list(_batches(split))
    states: dict[bytes, list[Any]] = {}
    records, watermark_s = 0, float("-inf")
    for batch in batches:
        chosen = _chosen(batch, selection)
        count = len(batch.value) if chosen is None else int(chosen.sum())
        if count == 0:
            continue
        records += count
        times = batch.t_event if chosen is None else batch.t_event[chosen]
        watermark_s = max(watermark_s, float(times.max()))
        for key, fresh in _grouped(batch, chosen, times, grouping):
            before = states.get(key)
            if before is None:
                states[key] = fresh
            else:
                for n, column in enumerate(grouping.columns):
                    before[n] = column.aggregate.merge(before[n], fresh[n])
    return [(key, grouping.pack(states[key])) for key in sorted(states)], records, watermark_s


def _grouped(
    batch: Batch, chosen: NDArray[np.bool_] | None, times: NDArray[np.float64], grouping: Grouping
) -> Iterator[tuple[bytes, list[Any]]]:
    """Each key of a batch with the states of its rows."""
    windows = grouping.windows
    values = batch.value if chosen is None else batch.value[chosen]
    parts: list[NDArray[np.int64]] = []
    sizes = []
    named: list[Names] = []
    for name in grouping.plain_key or ():
        names = batch.device if name == "device" else batch.kind
        parts.append(names.codes if chosen is None else names.codes[chosen])
        sizes.append(len(names.different))
        named.append(names)
    if windows is not None:
        index = np.floor(times / windows.slide_s)
        index -= index * windows.slide_s > times
        first = int(index.min())
        parts.append(index.astype(np.int64) - first)
        sizes.append(int(index.max()) - first + 1)
    else:
        first = 0
    code = np.zeros(len(values), np.int64)
    for part, size in zip(parts, sizes, strict=True):
        code = code * size + part
    if prod(sizes) <= 1 << 16:
        code = code.astype(np.uint16)  # which are sorted by radix
    order = np.argsort(code, kind="stable")
    code = code[order].astype(np.int64)
    starts = np.flatnonzero(np.diff(code, prepend=-1))
    grouped = Grouped(values[order], starts)
    columns = [states_of(column.aggregate, grouped) or [] for column in grouping.columns]
    for n, number in enumerate(code[starts].tolist()):
        key: list[Any] = []
        if windows is not None:
            number, at = divmod(number, sizes[-1])
            start = (at + first) * windows.slide_s
            key.append(int(start) if start == int(start) else start)
        for names in reversed(named):
            number, at = divmod(number, len(names.different))
            key.append(names.different[at])
        yield keys.pack(tuple(reversed(key))), [states[n] for states in columns]


def _chosen(batch: Batch, selection: Selection) -> NDArray[np.bool_] | None:
    if selection == Selection():
        return None
    chosen = (selection.since_s <= batch.t_event) & (batch.t_event < selection.until_s)
    for names, pattern in ((batch.device, selection.device), (batch.kind, selection.kind)):
        if pattern != "*":
            fits = np.array([fnmatchcase(name, pattern) for name in names.different], dtype=bool)
            chosen &= fits[names.codes]
    return chosen


# ---------------------------------------------------------------------------------------------------- parsing


def _batches(split: FileSplit) -> Iterator[Batch]:
    with open(Path(split.path), "rb", buffering=0) as file:
        line = file.read(1 << 16).split(b"\n", 1)[0]
        header = next(csv.reader([line.decode(errors="replace").rstrip("\r")]), [])
        if b'"' in line or not {"device", "kind", "t_event", "value"} <= set(header) or "payload" in header:
            raise NotPlain
        others = [name for name in header if name not in ("device", "kind", "t_event", "sequence", "t_gen")]
        if others[0] != "value":  # `record.value` is the first of the others
            raise NotPlain
        at, end = split.start, split.end
        if at == 0:
            at = len(line) + 1
        else:
            file.seek(at - 1)
            at += _length_of_line(file, at - 1) - 1
        while at < end:
            file.seek(at)
            data = file.read(min(CHUNK_BYTES, end - at))
            cut = data.rfind(b"\n") + 1
            if cut == 0 or at + cut < end <= at + len(data):
                data += _rest_of_line(file, at + len(data))  # the last line ends beyond
                cut = len(data)
            yield _batch(np.frombuffer(data, np.uint8, cut), header)
            at += cut


def _length_of_line(file: Any, at: int) -> int:
    return len(_rest_of_line(file, at))


def _rest_of_line(file: Any, at: int) -> bytes:
    file.seek(at)
    found = b""
    while more := file.read(1 << 12):
        place = more.find(b"\n")
        if place >= 0:
            return bytes(found + more[: place + 1])
        found += more
    return found


def _batch(data: Bytes, header: list[str]) -> Batch:
    if len(data) and data[-1] != _NEWLINE:
        data = np.append(data, np.uint8(_NEWLINE))
    if (data == _QUOTE).any():
        raise NotPlain
    width = len(header)
    ends = np.flatnonzero((data == _COMMA) | (data == _NEWLINE))
    if len(ends) % width:
        raise NotPlain
    cells = ends.reshape(-1, width)
    if (data[cells[:, -1]] != _NEWLINE).any() or (data[cells[:, :-1]] != _COMMA).any():
        raise NotPlain
    begins = np.empty_like(cells)
    begins[:, 1:] = cells[:, :-1] + 1
    begins[1:, 0] = cells[:-1, -1] + 1
    begins[0, 0] = 0
    last = cells[:, -1]
    returns = data[np.maximum(last - 1, 0)] == _RETURN
    cells = cells.copy()
    cells[:, -1] -= returns

    def column(name: str) -> tuple[Places, Places]:
        n = header.index(name)
        return begins[:, n], cells[:, n]

    return Batch(
        _names(data, *column("device")),
        _names(data, *column("kind")),
        _numbers(data, *column("t_event")),
        _numbers(data, *column("value")),
    )


def _names(data: Bytes, begins: Places, ends: Places) -> Names:
    """By their bytes, eight to a word."""
    lengths = ends - begins
    longest = int(lengths.max())
    if longest > NAME_BYTES_MAX or int(lengths.min()) == 0:
        raise NotPlain
    padded = np.append(data, np.zeros(NAME_BYTES_MAX, np.uint8))
    words = []
    for first in range(0, longest, 8):
        word = np.zeros(len(begins), np.uint64)
        for k in range(first, min(first + 8, longest)):
            cell = np.where(k < lengths, padded[begins + k], 0).astype(np.uint64)
            word = word << np.uint64(8) | cell
        words.append(word << np.uint64(8 * max(0, first + 8 - longest)) if longest < first + 8 else word)
    found = [_codes(word) for word in words]
    codes = found[0][1]
    table: list[tuple[int, ...]] = [(int(word),) for word in found[0][0]]
    for different, more in found[1:]:
        pairs = codes * len(different) + more
        present = np.flatnonzero(np.bincount(pairs, minlength=len(table) * len(different)))
        table = [(*table[pair // len(different)], int(different[pair % len(different)])) for pair in present]
        codes = np.searchsorted(present, pairs)
    try:
        names = [b"".join(word.to_bytes(8, "big") for word in row).rstrip(b"\0").decode() for row in table]
    except UnicodeDecodeError as error:
        raise NotPlain from error
    return Names(names, codes.astype(np.int64))


def _codes(words: NDArray[np.uint64]) -> tuple[NDArray[np.uint64], NDArray[np.intp]]:
    """The different ones in order, and the place of each: there are few, and the first rows have most of
    them, so that few have to be sorted."""
    different = np.unique(words[:SAMPLE_ROWS])
    codes = np.minimum(np.searchsorted(different, words), len(different) - 1)
    unknown = different[codes] != words
    if unknown.any():
        different = np.unique(np.append(different, np.unique(words[unknown])))
        codes = np.searchsorted(different, words)
    return different, codes


def _numbers(data: Bytes, begins: Places, ends: Places) -> NDArray[np.float64]:
    """Decimal numbers: at most a sign, digits, and a point among them. The mantissa and the power of ten are
    exact, and so their quotient is what `float` gives."""
    negative = data[begins] == _MINUS
    begins = begins + negative
    lengths = ends - begins
    longest = int(lengths.max())
    if int(lengths.min()) < 1 or longest > DIGITS_MAX + 1:
        raise NotPlain
    padded = np.append(data, np.zeros(DIGITS_MAX + 2, np.uint8))
    mantissa = np.zeros(len(begins), np.int64)
    decimals = np.zeros(len(begins), np.int64)
    points = np.zeros(len(begins), np.int64)
    for k in range(longest):
        cell = padded[begins + k]
        inside = k < lengths
        is_point = inside & (cell == _POINT)
        digit = cell - np.uint8(_ZERO)
        is_digit = inside & (digit <= 9)
        if (inside & ~is_point & ~is_digit).any():
            raise NotPlain
        mantissa = np.where(is_digit, mantissa * 10 + digit, mantissa)
        decimals += is_digit & (points > 0)
        points += is_point
    digits = lengths - points
    if (points > 1).any() or (digits < 1).any() or (digits > DIGITS_MAX).any() or (decimals > _FINEST).any():
        raise NotPlain
    numbers = mantissa / np.power(10.0, decimals)
    return np.where(negative, -numbers, numbers)


_NOTHING = Grouped(np.zeros(1), np.zeros(1, np.intp))
