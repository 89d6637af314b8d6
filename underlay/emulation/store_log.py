"""What the nodes of one device keep durably: everything in memory, and a log of commits on the disk.

Owns the meaning of the log's records; the file itself is `log_file`'s, and `underlay.emulation.driver`
decides when to commit. Everything that the nodes of the device wrote in a turn is one record, so it is there
after a crash as a whole or not at all. When most of the file is history, a new one is written beside it, a
piece with each commit, and takes its place.

Memory holds every value: what a device keeps must fit there.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import msgspec

from underlay.emulation.log_file import LogFile, Seal, flip_bit, read_log
from underlay.store import Batch, Damaged, OrderedMap

COMPACTED_BYTES_MIN = 8 << 20
"""Files smaller than this are not worth the trouble."""
STEP_BYTES = 256 << 10
"""How much of the new file is written with one commit, at least."""

_Record = list[tuple[str, bool, Batch]]
"""For each node: its name, whether it first wiped everything, what it wrote."""


class Disk:
    """The durable state of a device. The file is made with the first write.

    Raises OSError if the file cannot be read. `torn` says whether a commit was found that nobody had been
    told of, and only in part; it is discarded.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._log: LogFile | None = None
        self._seal: Seal | None = None
        self._stores: dict[str, OrderedMap | DamagedStore] = {}
        self._compaction: _Compaction | None = None
        self._compact_at = COMPACTED_BYTES_MIN
        self._encode = msgspec.msgpack.Encoder().encode
        self._damaged = False
        self.torn = False
        _new(path).unlink(missing_ok=True)
        if path.exists():
            self._recover()

    @property
    def dirty(self) -> bool:
        """Whether there are writes that no commit has made durable."""
        return any(store.dirty for store in self._stores.values())

    def store(self, node: str) -> OrderedMap | DamagedStore:
        """The part of the node of that name."""
        store = self._stores.get(node)
        if store is None:
            store = self._stores[node] = DamagedStore() if self._damaged else OrderedMap()
        return store

    def commit(self) -> None:
        """Make all writes durable; blocks until the disk has them. Raises OSError if that fails, which must
        end the process."""
        record: _Record = [
            (node, store.take_wiped() if isinstance(store, DamagedStore) else False, store.take_batch())
            for node, store in self._stores.items()
            if store.dirty
        ]
        if not record:
            return
        if self._log is None:
            self._create()
        assert self._log is not None
        assert self._seal is not None
        payload = self._encode(record)
        self._log.append(payload)
        self._seal.set(self._log.generation, self._log.end)
        if self._compaction is not None:
            self._compact(self._compaction, payload)
        elif self._log.end > self._compact_at and not self._any_damaged():
            self._compaction = _Compaction(_new(self._path), self._stores)

    def close(self) -> None:
        """Forget what was not committed."""
        if self._compaction is not None:
            self._compaction.log.close()
        if self._log is not None:
            self._log.close()
        if self._seal is not None:
            self._seal.close()
        self._log = self._seal = self._compaction = None

    def _create(self) -> None:
        self._seal = Seal(_seal(self._path))
        log = LogFile.create(_new(self._path))
        log.sync()
        self._put_in_place(log)

    def _recover(self) -> None:
        self._seal = Seal(_seal(self._path))
        contents = read_log(self._path, self._seal)
        items: dict[str, dict[bytes, bytes]] = {}
        whole: dict[str, None] = {}
        decode = msgspec.msgpack.Decoder(_Record).decode
        for payload in contents.records:
            if payload is None:
                self._damaged = True
                whole.clear()
                continue
            for node, wiped, batch in decode(payload):
                mine = items.setdefault(node, {})
                if wiped:
                    mine.clear()
                    whole[node] = None
                _replay(batch, mine)
        for node, mine in items.items():
            damaged = self._damaged and node not in whole
            self._stores[node] = DamagedStore() if damaged else OrderedMap(mine)
        self.torn = contents.torn
        self._log = LogFile(self._path, contents)
        live_bytes = sum(len(k) + len(v) for mine in items.values() for k, v in mine.items())
        self._compact_at = max(COMPACTED_BYTES_MIN, 2 * live_bytes)

    def _compact(self, compaction: _Compaction, payload: bytes) -> None:
        compaction.log.append(payload, sync=False)
        if compaction.step():
            return
        assert self._log is not None
        self._compaction = None
        self._log.close()
        self._put_in_place(compaction.log)
        self._compact_at = max(COMPACTED_BYTES_MIN, 2 * compaction.log.end)

    def _put_in_place(self, log: LogFile) -> None:
        """`log`, which is synced, is the file from now on, also after a crash."""
        assert self._seal is not None
        _new(self._path).replace(self._path)
        folder = os.open(self._path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
        self._log = log
        self._seal.set(log.generation, log.end)

    def _any_damaged(self) -> bool:
        return any(isinstance(store, DamagedStore) and store.damaged for store in self._stores.values())


class DamagedStore:
    """A node's `underlay.store.Store` of which something durable is lost; a `wipe` makes it one again."""

    def __init__(self) -> None:
        self.damaged = True
        self._fresh = OrderedMap()
        self._wiped = False

    @property
    def dirty(self) -> bool:
        """As `OrderedMap.dirty`."""
        return self._wiped or self._fresh.dirty

    def get(self, key: bytes) -> bytes | None:
        return self._readable().get(key)

    def scan(self, start: bytes = b"", end: bytes | None = None) -> Iterator[tuple[bytes, bytes]]:
        return self._readable().scan(start, end)

    def put(self, key: bytes, value: bytes) -> None:
        self._readable().put(key, value)

    def delete(self, key: bytes) -> None:
        self._readable().delete(key)

    def wipe(self) -> None:
        if self.damaged:
            self.damaged, self._wiped = False, True
        else:
            self._fresh.wipe()

    def take_wiped(self) -> bool:
        """Whether it was wiped since the last call."""
        wiped, self._wiped = self._wiped, False
        return wiped

    def take_batch(self) -> Batch:
        """As `OrderedMap.take_batch`."""
        return self._fresh.take_batch()

    def _readable(self) -> OrderedMap:
        if self.damaged:
            raise Damaged("a record on the disk that was durable cannot be read")
        return self._fresh


class _Compaction:
    """A new file with what the stores hold, written while they change: every commit is appended to it too,
    so a key's record is either that of its last change or younger."""

    def __init__(self, path: Path, stores: dict[str, OrderedMap | DamagedStore]) -> None:
        self.log = LogFile.create(path)
        self._encode = msgspec.msgpack.Encoder().encode
        self._stores = stores
        self._left = iter([(node, key) for node, store in stores.items() for key, _ in store.scan()])

    def step(self) -> bool:
        """Write some more; False if everything is written, and on the disk."""
        piece: dict[str, Batch] = {}
        size_bytes = 0
        for node, key in self._left:
            value = self._stores[node].get(key)
            if value is not None:  # else it was deleted meanwhile
                piece.setdefault(node, {})[key] = value
                size_bytes += len(key) + len(value)
                if size_bytes >= STEP_BYTES:
                    break
        if piece:
            self.log.append(self._encode([(node, False, batch) for node, batch in piece.items()]), sync=False)
        self.log.sync()
        return size_bytes >= STEP_BYTES


def lose(path: Path) -> None:
    """The disk is gone, with everything that was on it."""
    for file in (path, _new(path), _seal(path)):
        file.unlink(missing_ok=True)


def rot(path: Path, chance: int) -> None:
    """One bit of it flips; which, follows from the number `chance`."""
    if path.exists():
        flip_bit(path, chance)


def _replay(batch: Batch, items: dict[bytes, bytes]) -> None:
    for key, value in batch.items():
        if value is None:
            items.pop(key, None)
        else:
            items[key] = value


def _new(path: Path) -> Path:
    return path.with_name(path.name + ".new")


def _seal(path: Path) -> Path:
    return path.with_name(path.name + ".seal")
