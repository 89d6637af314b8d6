"""A file of JSON lines: appended to, synced, and put aside when it is large or old enough.

What was put aside has a number, `alarms.000001.jsonl`, and does not change any more; what is written goes to
`alarms.jsonl`. Putting aside is one rename between two writes, so a crash finds it done or not done. Ids in
the last files are remembered, also across restarts.
"""

from __future__ import annotations

import os
import re
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import msgspec

from edge.observation import Observation
from gateway.readings import document

TAIL_BYTES = 4 << 20
"""So much of the last files is read at a start: more than can be under way."""
REMEMBERED_MAX = 100_000


class LinesFile:
    """One JSON object a line.

    Args:
        path: of the file that is written.
        rotate_bytes: put it aside before it grows beyond that; None: never for its size.
        rotate_s: put it aside with the first write so long after its first, or after a restart; None: never
            for its age.
        now: the clock.
    """

    def __init__(
        self,
        path: Path,
        rotate_bytes: int | None = None,
        rotate_s: float | None = None,
        now: Callable[[], float] = lambda: 0.0,
    ) -> None:
        self._path = path
        self._rotate_bytes = rotate_bytes
        self._rotate_s = rotate_s
        self._now = now
        self._since_s = now()
        self._recent: OrderedDict[str, None] = OrderedDict()
        path.parent.mkdir(parents=True, exist_ok=True)
        self._aside = _put_aside(path)
        self._begin()
        _cut_to_whole_lines(path)
        self._recover()

    def write(self, observations: list[Observation], **more: str) -> None:
        """Append those that are not there yet, and sync; raises OSError, and then nothing was appended."""
        fresh = {str(each.id): each for each in observations if str(each.id) not in self._recent}
        if not fresh:
            return
        data = b"".join(msgspec.json.encode(document(each) | more) + b"\n" for each in fresh.values())
        self._rotate_for(len(data))
        self._append(data)
        for id_ in fresh:
            self._remember(id_)

    def _append(self, data: bytes) -> None:
        self._begin()
        with self._path.open("r+b") as file:
            end = file.seek(0, os.SEEK_END)
            if not end:
                self._since_s = self._now()
            try:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            except OSError:
                os.ftruncate(file.fileno(), end)
                raise

    def _begin(self) -> None:
        """There is a file to write to."""
        if not self._path.exists():
            self._path.touch()
            sync(self._path.parent)

    def _rotate_for(self, more_bytes: int) -> None:
        size = self._path.stat().st_size if self._path.exists() else 0
        large = self._rotate_bytes is not None and size + more_bytes > self._rotate_bytes
        old = self._rotate_s is not None and self._now() - self._since_s >= self._rotate_s
        if size and (large or old):
            number = self._aside[-1][0] + 1 if self._aside else 1
            aside = self._path.with_name(f"{self._path.stem}.{number:06d}{self._path.suffix}")
            self._path.replace(aside)
            self._aside.append((number, aside))
            sync(self._path.parent)

    def _recover(self) -> None:
        """Learn what the last files hold."""
        left = TAIL_BYTES
        tails = []
        for path in (self._path, *(path for _, path in reversed(self._aside))):
            if left > 0 and path.exists():
                tails.append(_tail(path, left))
                left -= len(tails[-1])
        for tail in reversed(tails):
            for line in tail.splitlines():
                known = msgspec.json.decode(line, type=_Id)
                self._remember(f"{known.device}:{known.sequence}")

    def _remember(self, id_: str) -> None:
        self._recent[id_] = None
        if len(self._recent) > REMEMBERED_MAX:
            self._recent.popitem(last=False)


class _Id(msgspec.Struct):
    device: str
    sequence: int


def sync(path: Path) -> None:
    """A file, or the names in a folder."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _put_aside(path: Path) -> list[tuple[int, Path]]:
    """Numbers and files, in order."""
    named = re.compile(rf"{re.escape(path.stem)}\.(\d{{6,}}){re.escape(path.suffix)}")
    matches = ((named.fullmatch(each.name), each) for each in path.parent.iterdir())
    return sorted((int(match[1]), each) for match, each in matches if match)


def _cut_to_whole_lines(path: Path) -> None:
    """A line that was being written when the power went away is written again, whole."""
    with path.open("r+b") as file:
        size = file.seek(0, os.SEEK_END)
        start = max(0, size - TAIL_BYTES)
        file.seek(start)
        whole = start + file.read().rfind(b"\n") + 1
        if whole < size:
            os.ftruncate(file.fileno(), whole)
            os.fsync(file.fileno())


def _tail(path: Path, bytes_max: int) -> bytes:
    """Whole lines of its end."""
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        start = max(0, size - bytes_max)
        file.seek(start)
        data = file.read()
    return data[data.index(b"\n") + 1 :] if start else data
