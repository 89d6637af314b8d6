"""How far an attempt has come: a number in a file that its process writes and everybody may read.

It outlives the process, so that the record is known on which a crashed one died.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

_NUMBER = struct.Struct("<q")
NOT_BEGUN = -1


@contextmanager
def reporting(path: Path | None) -> Iterator[Callable[[int], None]]:
    """A function to be told the number of the record that is being worked on; None: nobody wants to know."""
    if path is None:
        yield lambda number: None
        return
    with open(path, "w+b") as file:
        file.write(_NUMBER.pack(NOT_BEGUN))
        file.flush()
        with mmap.mmap(file.fileno(), _NUMBER.size) as memory:
            pack_into = _NUMBER.pack_into
            yield lambda number: pack_into(memory, 0, number)


def reported(path: Path | None) -> int:
    """The last number that was told; NOT_BEGUN where there is none."""
    try:
        data = b"" if path is None else path.read_bytes()
    except OSError:
        return NOT_BEGUN
    return int(_NUMBER.unpack(data)[0]) if len(data) == _NUMBER.size else NOT_BEGUN
