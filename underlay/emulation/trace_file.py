"""Where a device's process writes its trace: a file that grows with the run, or the recent past only.

Owns the files; what is in them is `underlay.trace`'s.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from underlay.trace import TraceFile

if TYPE_CHECKING:
    from underlay.emulation.driver import Incarnation


class RecentFile:
    """A file of at most `bytes_max`; one that is full becomes `<name>.1` and takes the place of the last."""

    def __init__(self, path: Path, bytes_max: int) -> None:
        self._path = path
        self._bytes_max = bytes_max
        self._file = path.open("ab")
        self._size_bytes = self._file.tell()

    def write(self, data: bytes, /) -> None:
        """Append whole lines."""
        if self._size_bytes and self._size_bytes + len(data) > self._bytes_max:
            self._file.close()
            self._path.replace(self._path.with_name(self._path.name + ".1"))
            self._file = self._path.open("ab")
            self._size_bytes = 0
        self._file.write(data)
        self._size_bytes += len(data)

    def flush(self) -> None:
        """Hand them to the operating system."""
        self._file.flush()

    def close(self) -> None:
        """No more will come."""
        self._file.close()


@contextmanager
def open_trace(life: Incarnation) -> Iterator[TraceFile | None]:
    """The file that `life` wants its trace in, or None."""
    if life.trace is None:
        yield None
    elif life.trace_bytes_max is None:
        with life.trace.open("ab") as file:
            yield file
    else:
        recent = RecentFile(life.trace, life.trace_bytes_max)
        try:
            yield recent
        finally:
            recent.close()
