"""What the nodes of one device keep durably: one SQLite file, one transaction for everything a turn wrote.

Owns the file and its transactions; `underlay.emulation.driver` decides when to commit. WAL with
synchronous=FULL: a commit returns once it is on the disk, and until then nothing is told to anybody. A crash
in the middle of a turn leaves a transaction without an end, which SQLite discards at the next start: what was
not synced is gone although the page cache of this machine still has it, as after a power cut.

Source: sqlite.org/wal.html, sqlite.org/pragma.html#pragma_synchronous.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

_PAGE_ITEMS = 256


class Disk:
    """The durable state of a device. The file is made with the first write."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._connection: sqlite3.Connection | None = None
        self.dirty = False
        """Whether there are writes that no commit has made durable."""
        if path.exists():
            self._open()

    def store(self, node: str) -> SqliteStore:
        """The part of the node of that name."""
        return SqliteStore(self, node)

    def commit(self) -> None:
        """Make all writes durable; blocks until the disk has them. A failed sync raises and must end the
        process.
        """
        if self.dirty and self._connection is not None:
            self._connection.execute("COMMIT")
            self.dirty = False

    def close(self) -> None:
        """Forget what was not committed."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def read(self, statement: str, *arguments: object) -> list[tuple[bytes, ...]]:
        """All rows of a query; none while there is no file."""
        return (
            self._connection.execute(statement, arguments).fetchall() if self._connection is not None else []
        )

    def write(self, statement: str, *arguments: object) -> None:
        """Part of the next commit."""
        connection = self._connection or self._open()
        if not self.dirty:
            connection.execute("BEGIN IMMEDIATE")
            self.dirty = True
        connection.execute(statement, arguments)

    def _open(self) -> sqlite3.Connection:
        connection = self._connection = sqlite3.connect(self._path, isolation_level=None)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA cache_size = -512")
        connection.execute(
            "CREATE TABLE IF NOT EXISTS item"
            " (node TEXT, key BLOB, value BLOB, PRIMARY KEY (node, key)) WITHOUT ROWID"
        )
        return connection


class SqliteStore:
    """One node's `underlay.store.Store`. Reads see its own uncommitted writes; a scan goes on while items
    change.
    """

    def __init__(self, disk: Disk, node: str) -> None:
        self._disk = disk
        self._node = node
        self.dirty = False
        """Whether this node wrote since the flag was last cleared: its sends must wait for the commit."""

    def get(self, key: bytes) -> bytes | None:
        rows = self._disk.read("SELECT value FROM item WHERE node = ? AND key = ?", self._node, key)
        return rows[0][0] if rows else None

    def scan(self, start: bytes = b"", end: bytes | None = None) -> Iterator[tuple[bytes, bytes]]:
        bounded = "" if end is None else " AND key < ?"
        which = f"node = ? AND key >= ?{bounded} ORDER BY key LIMIT {_PAGE_ITEMS}"
        statement = f"SELECT key, value FROM item WHERE {which}"
        while True:
            rows = self._disk.read(statement, self._node, start, *(() if end is None else (end,)))
            yield from ((key, value) for key, value in rows)
            if len(rows) < _PAGE_ITEMS:
                return
            start = rows[-1][0] + b"\0"

    def put(self, key: bytes, value: bytes) -> None:
        self._disk.write("INSERT OR REPLACE INTO item VALUES (?, ?, ?)", self._node, key, value)
        self.dirty = True

    def wipe(self) -> None:
        self._disk.write("DELETE FROM item WHERE node = ?", self._node)
        self.dirty = True

    def delete(self, key: bytes) -> None:
        if self.get(key) is not None:
            self._disk.write("DELETE FROM item WHERE node = ? AND key = ?", self._node, key)
            self.dirty = True
