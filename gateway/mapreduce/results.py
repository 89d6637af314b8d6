"""The result of a job: its parts as bytes, and as rows, a table, CSV, JSON lines.

Parts are runs (`runs`) of packed keys and rows, in the order of their keys; `data` is all of them, one after
the other, and the same whichever executor made it and whatever went wrong on the way.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any

import msgspec

from gateway.mapreduce import keys
from gateway.mapreduce.operators import unpack_value
from gateway.mapreduce.runs import merged, pairs_of
from gateway.mapreduce.tasks import Bad


class Result(msgspec.Struct, frozen=True):
    """What a job came to."""

    key_names: tuple[str, ...]
    window_s: float
    """0: there are no windows; else the key's last part is a window's start, Unix seconds."""
    parts: tuple[bytes, ...]
    records: int = 0
    bad_records: int = 0
    bad: tuple[Bad, ...] = ()
    counters: dict[str, int] = {}

    @property
    def data(self) -> bytes:
        """All parts."""
        return b"".join(self.parts)

    @property
    def digest(self) -> str:
        """SHA-256 of `data`, in hex."""
        return sha256(self.data).hexdigest()

    def rows(self) -> Iterator[tuple[Any, Any]]:
        """Keys and rows, in the order of the keys over all parts."""
        for key, value in merged([pairs_of(part) for part in self.parts]):
            yield keys.unpack(key), unpack_value(value)

    def table(self) -> Table:
        """As columns."""
        return table_of(self.key_names, self.window_s, list(self.rows()))


class Table(msgspec.Struct, frozen=True):
    """Named columns and rows of plain values."""

    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]
    keys: int
    """How many of the columns are the key's."""

    def csv(self) -> str:
        """RFC 4180; what is no plain value as JSON."""
        text = io.StringIO()
        writer = csv.writer(text)
        writer.writerow(self.columns)
        writer.writerows([_cell(value) for value in row] for row in self.rows)
        return text.getvalue()

    def json_lines(self) -> str:
        """One object a line."""
        lines = (msgspec.json.encode(dict(zip(self.columns, row, strict=True))) for row in self.rows)
        return "".join(line.decode() + "\n" for line in lines)


def table_of(key_names: tuple[str, ...], window_s: float, rows: list[tuple[Any, Any]]) -> Table:
    """Keys and rows as a table: a row that is a dict of names gives a column for each, and so does a value in
    it that is one (`numbers.missing`)."""
    cells = [_flat(row) for _, row in rows]
    names = list(dict.fromkeys(name for row in cells for name in row))
    expanded = [
        (*_key_cells(key, len(key_names), window_s), *(row.get(name) for name in names))
        for (key, _), row in zip(rows, cells, strict=True)
    ]
    return Table((*key_names, *names), tuple(expanded), len(key_names))


# ---------------------------------------------------------------------------------------------------- helpers


def _is_record(row: Any) -> bool:
    return isinstance(row, dict) and bool(row) and all(isinstance(name, str) for name in row)


def _flat(row: Any) -> dict[str, Any]:
    if not _is_record(row):
        return {"value": row}
    found: dict[str, Any] = {}
    for name, value in row.items():
        if _is_record(value):
            found.update({f"{name}.{inner}": each for inner, each in value.items()})
        else:
            found[name] = value
    return found


def _key_cells(key: Any, width: int, window_s: float) -> tuple[Any, ...]:
    cells = key if isinstance(key, tuple) and len(key) == width else (key,)
    if len(cells) != width:
        cells = (*cells, *(None for _ in range(width - len(cells))))
    if window_s:
        cells = (*cells[:-1], datetime.fromtimestamp(cells[-1], UTC).isoformat().replace("+00:00", "Z"))
    return tuple(_plain(cell) for cell in cells)


def _plain(cell: Any) -> Any:
    if isinstance(cell, bytes):
        return cell.hex()
    return list(cell) if isinstance(cell, tuple) else cell


def _cell(value: Any) -> Any:
    if value is None:
        return ""
    if isinstance(value, list | dict | bool):
        return msgspec.json.encode(value).decode()
    return value.hex() if isinstance(value, bytes) else value
