"""Scratch space: where a worker keeps what will be made again if it is lost.

Inputs that were read, map outputs until every reducer has them, what a reducer has fetched. A crash of the
worker ends it all; the coordinator has lost maps executed again. On Mininet and on loopback it is a folder of
the device, in the simulation memory. The node asks the binding `@scratch` for it when it starts.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from io import BufferedReader, BytesIO
from pathlib import Path
from typing import BinaryIO, ClassVar, Protocol, cast

from gateway.mapreduce.isolation import drop_rights, invoker
from underlay.messages import Message
from underlay.messages import Protocol as MessageProtocol
from underlay.node import Address, Context, Node
from underlay.plan import Binding, BindingHost, BindingPlan

NAME = "@scratch"
PORT = 7095
"""Nothing listens there: a binding has a port."""


class Scratch(Protocol):
    """A flat space of files. Names are made by the worker and are plain."""

    isolated: bool
    """Whether work on it runs in a process of its own, on which limits may be set."""

    def enter(self) -> None:
        """In a process of its own: it works in here, without rights that it does not need."""

    @contextmanager
    def writing(self, name: str) -> Iterator[BinaryIO]:
        """A new file, or an old one emptied; it is there under its name when the block ends without an
        error."""

    @contextmanager
    def reading(self, name: str) -> Iterator[BinaryIO]:
        """Raises FileNotFoundError."""

    def append(self, name: str, data: bytes) -> None:
        """To the file's end; makes it."""

    def piece(self, name: str, offset: int, limit_bytes: int) -> tuple[bytes, int]:
        """Some bytes of the file, and its whole size. Raises FileNotFoundError."""

    def remove(self, prefix: str) -> None:
        """All files whose names begin so."""

    def path(self, name: str) -> Path | None:
        """Where the file is for other processes; None: nowhere."""


class MemoryScratch:
    """Files in memory.

    >>> scratch = MemoryScratch()
    >>> with scratch.writing("a") as file:
    ...     _ = file.write(b"123")
    >>> scratch.piece("a", 1, 10)
    (b'23', 3)
    """

    isolated = False

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}

    def enter(self) -> None:
        pass

    @contextmanager
    def writing(self, name: str) -> Iterator[BinaryIO]:
        file = BytesIO()
        yield file
        self.files[name] = file.getvalue()

    @contextmanager
    def reading(self, name: str) -> Iterator[BinaryIO]:
        yield BytesIO(self._file(name))

    def append(self, name: str, data: bytes) -> None:
        self.files[name] = self.files.get(name, b"") + data

    def piece(self, name: str, offset: int, limit_bytes: int) -> tuple[bytes, int]:
        data = self._file(name)
        return data[offset : offset + limit_bytes], len(data)

    def remove(self, prefix: str) -> None:
        for name in [name for name in self.files if name.startswith(prefix)]:
            del self.files[name]

    def path(self, name: str) -> Path | None:
        return None

    def _file(self, name: str) -> bytes:
        if name not in self.files:
            raise FileNotFoundError(name)
        return self.files[name]


class DiskScratch:
    """Files in a folder, which is emptied first."""

    def __init__(self, folder: Path, *, isolated: bool = True) -> None:
        self.isolated = isolated
        self._folder = folder
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True, exist_ok=True)
        who = invoker()
        if who is not None:
            os.chown(folder, *who)

    def enter(self) -> None:
        if self.isolated:
            os.chdir(self._folder)  # the invoker may not pass the folders above
            self._folder = Path()
            drop_rights()

    @contextmanager
    def writing(self, name: str) -> Iterator[BinaryIO]:
        partial_path = self._folder / f"{name}.part"
        with open(partial_path, "wb", buffering=1 << 16) as file:
            yield file
        os.replace(partial_path, self._folder / name)

    @contextmanager
    def reading(self, name: str) -> Iterator[BinaryIO]:
        with open(self._folder / name, "rb", buffering=1 << 16) as file:
            yield cast("BufferedReader", file)

    def append(self, name: str, data: bytes) -> None:
        with open(self._folder / name, "ab") as file:
            file.write(data)

    def piece(self, name: str, offset: int, limit_bytes: int) -> tuple[bytes, int]:
        with open(self._folder / name, "rb", buffering=0) as file:
            size_bytes = os.fstat(file.fileno()).st_size
            file.seek(offset)
            return file.read(limit_bytes), size_bytes

    def remove(self, prefix: str) -> None:
        for path in sorted(self._folder.iterdir()):
            if path.name.startswith(prefix):
                with suppress(FileNotFoundError):
                    path.unlink()

    def path(self, name: str) -> Path | None:
        return self._folder / name


# -------------------------------------------------------------------------------------------- how a node
# gets it


class AskScratch(Message, frozen=True, array_like=True, tag=390):
    """The worker to `@scratch`: where may I keep my files? Answered with `ScratchIs`."""

    transport = "local"


class ScratchIs(Message, frozen=True, array_like=True, tag=391):
    """There; empty: in memory."""

    transport = "local"
    folder: str

    def open(self) -> Scratch:
        """The space, emptied."""
        return DiskScratch(Path(self.folder)) if self.folder else MemoryScratch()


class ScratchModel(Node):
    """In the simulation."""

    protocol: ClassVar[MessageProtocol] = MessageProtocol("scratch")

    def on_message(self, ctx: Context, sender: Address, message: Message) -> None:
        ctx.send(sender, ScratchIs(""))


class ScratchBinding:
    """In a device's process: a folder beside its disk."""

    async def start(self, host: BindingHost) -> None:
        self._host = host

    def send(self, node: str, message: Message) -> None:
        self._host.deliver(node, ScratchIs(str(self._host.folder / "scratch" / node)))

    async def close(self) -> None:
        """Nothing to release: what is left there is removed at the next start."""


def scratch_binding() -> BindingPlan:
    """For every device that runs a worker."""
    return BindingPlan(NAME, ScratchModel, partial(_binding), PORT)


def _binding() -> Binding:
    return ScratchBinding()
