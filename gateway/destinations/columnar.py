"""Parquet files by kind and day, for those who ask questions of everything at once (DuckDB, pandas, Spark).

`folder/kind=temperature/day=2024-05-01/part-0000000042.parquet`: partitioned as Hive does it, so that a
reader of the folder gets `kind` and `day` as columns and skips what it does not need. A file is written by
DuckDB under another name, synced, and renamed: what has its name is whole and durable. An observation is
written once: the ids in the newest files are remembered, also across restarts, and a batch that is written
again after a crash can only be in these.

DuckDB is the extra `[columnar]`, imported when the first such destination is opened.
"""

from __future__ import annotations

import errno
from collections import OrderedDict
from collections.abc import Iterable
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import msgspec

from edge.observation import Observation, ObservationId
from gateway.destinations.lines import sync
from gateway.readings import meaning

REMEMBERED_MAX = 200_000
"""Ids; three times what can be under way to such a destination."""
_UNFINISHED = ".new"
_WRITE = """
COPY (
    SELECT
        unnest($1::VARCHAR[]) AS device,
        unnest($2::BIGINT[]) AS sequence,
        unnest($3::DOUBLE[]) AS t_event,
        unnest($4::DOUBLE[]) AS t_gen,
        unnest($5::VARCHAR[]) AS value,
        unnest($6::BLOB[]) AS payload
) TO '{path}' (FORMAT parquet, COMPRESSION zstd)
"""


def installed() -> bool:
    """Whether DuckDB is there."""
    return find_spec("duckdb") is not None


class ColumnarFolder:
    """One such folder.

    Args:
        folder: made where there is none.
    """

    def __init__(self, folder: Path) -> None:
        import duckdb

        # One thread: the machine is a gateway's. Nothing is fetched from anywhere.
        config: dict[str, Any] = {
            "threads": 1,
            "autoinstall_known_extensions": False,
            "autoload_known_extensions": False,
        }
        self._database = duckdb.connect(":memory:", config=config)
        self._failure = duckdb.Error
        self._folder = folder
        self._recent: OrderedDict[ObservationId, None] = OrderedDict()
        self._number = 0
        folder.mkdir(parents=True, exist_ok=True)
        sync(folder.parent)
        self._recover()

    def write(self, observations: list[Observation]) -> None:
        """Those that are not there yet, a file for each kind and day; raises OSError, and then some of the
        files may be there."""
        fresh = {each.id: each for each in observations if each.id not in self._recent}
        parts: dict[Path, list[Observation]] = {}
        for each in fresh.values():
            parts.setdefault(self._part_of(each), []).append(each)
        self._number += 1
        for part, its in parts.items():
            self._put(part / f"part-{self._number:010d}.parquet", its)
            self._remember(each.id for each in its)

    def _part_of(self, observation: Observation) -> Path:
        day = datetime.fromtimestamp(observation.t_event, UTC).date().isoformat()
        return self._folder / f"kind={observation.kind}" / f"day={day}"

    def _put(self, path: Path, observations: list[Observation]) -> None:
        if not path.parent.exists():
            path.parent.mkdir(parents=True)
            sync(path.parent.parent)
            sync(self._folder)
        unfinished = path.with_name(path.name + _UNFINISHED)
        columns: tuple[list[Any], ...] = (
            [each.id.device for each in observations],
            [each.id.sequence for each in observations],
            [each.t_event for each in observations],
            [each.t_gen for each in observations],
            [_value(each) for each in observations],
            [each.payload for each in observations],
        )
        try:
            self._database.execute(_WRITE.format(path=_quoted(unfinished)), columns)
            sync(unfinished)
        except (OSError, self._failure) as error:
            unfinished.unlink(missing_ok=True)
            if isinstance(error, OSError):
                raise
            raise OSError(errno.EIO, str(error).splitlines()[0]) from error
        unfinished.replace(path)
        sync(path.parent)

    def _recover(self) -> None:
        """Forget what a crash left unfinished, and learn what the newest files hold."""
        for unfinished in self._folder.rglob(f"part-*{_UNFINISHED}"):
            unfinished.unlink()
        found = sorted(self._folder.rglob("part-*.parquet"), key=lambda path: path.name, reverse=True)
        if found:
            self._number = int(found[0].stem.removeprefix("part-"))
        newest: list[list[ObservationId]] = []
        for path in found:
            query = f"SELECT device, sequence FROM read_parquet('{_quoted(path)}')"
            newest.append([ObservationId(*row) for row in self._database.execute(query).fetchall()])
            if sum(map(len, newest)) >= REMEMBERED_MAX:
                break
        for ids in reversed(newest):
            self._remember(ids)

    def _remember(self, ids: Iterable[ObservationId]) -> None:
        for id_ in ids:
            self._recent[id_] = None
        while len(self._recent) > REMEMBERED_MAX:
            self._recent.popitem(last=False)


def _value(observation: Observation) -> str | None:
    """What a reading says, as JSON; nothing for an image, whose payload is there as it is."""
    said = meaning(observation.kind, observation.payload)
    return None if isinstance(said, str) else msgspec.json.encode(said).decode()


def _quoted(path: Path) -> str:
    return str(path).replace("'", "''")
