"""The binding `@files`: JSON lines and images on the gateway's disk, durable before it says so.

Owns who waits for which file. Work is done in a thread, one write after another. Nothing half-written is ever
visible: a line that a crash cut off is removed at the next start, an image appears under its name when it is
whole. An observation is written once: what the end of a file holds is remembered by id, and a batch that is
written again after a crash can only be that end.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping
from hashlib import sha256
from pathlib import Path

import msgspec

from edge.observation import Observation
from gateway.destinations.columnar import ColumnarFolder
from gateway.destinations.files import ENDPOINT, FilesWritten, WriteFiles
from gateway.destinations.lines import LinesFile, sync
from gateway.routing.targets import Columnar, Images, Lines, OnDisk
from underlay.messages import Message
from underlay.node import Address, Context, Node
from underlay.plan import BindingHost, BindingPlan

JPEG_START = b"\xff\xd8"


class DiskBinding:
    """`underlay.plan.Binding` for files.

    Args:
        destinations: by name; relative paths are in the device's own folder.
    """

    def __init__(self, destinations: Mapping[str, OnDisk]) -> None:
        self._destinations = destinations
        self._busy = asyncio.Lock()
        self._tasks: dict[asyncio.Task[None], None] = {}

    async def start(self, host: BindingHost) -> None:
        self._host = host
        folder = host.folder / "files"
        self._open = {name: _opened(folder, each, host.now) for name, each in self._destinations.items()}
        self._gathered = {name: _Gathered(each) for name, each in self._destinations.items()}

    def send(self, node: str, message: Message) -> None:
        assert isinstance(message, WriteFiles)
        gathered = self._gathered[message.destination]
        gathered.take(node, message)
        if gathered.rows >= gathered.rows_max:
            self._flush(message.destination)
        elif gathered.due is None:
            later = asyncio.get_running_loop().call_later
            gathered.due = later(gathered.gather_s, self._flush, message.destination)

    async def close(self) -> None:
        for name, gathered in self._gathered.items():
            if gathered.requests:
                self._flush(name)
        await asyncio.gather(*self._tasks)

    def _flush(self, name: str) -> None:
        task = asyncio.get_running_loop().create_task(self._write(name, self._gathered[name].give()))
        self._tasks[task] = None
        task.add_done_callback(self._tasks.pop)

    async def _write(self, name: str, requests: list[tuple[str, WriteFiles]]) -> None:
        target = self._open[name]

        def work() -> None:
            target.write(
                [Observation.decode(data) for _, request in requests for data in request.observations]
            )

        problem = ""
        async with self._busy:
            try:
                await asyncio.to_thread(work)
            except OSError as error:
                problem = f"{name}: {error.strerror}"
        for node, request in requests:
            self._host.deliver(node, FilesWritten(request.token, problem))


class _Gathered:
    """What is written to a destination together: columns want many, lines are written as they come."""

    def __init__(self, destination: OnDisk) -> None:
        self.rows_max, self.gather_s = 0, 0.0
        if isinstance(destination, Columnar):
            self.rows_max, self.gather_s = destination.rows_max, destination.gather_s
        self.rows = 0
        self.due: asyncio.TimerHandle | None = None
        self.requests: list[tuple[str, WriteFiles]] = []

    def take(self, node: str, request: WriteFiles) -> None:
        """One more."""
        self.requests.append((node, request))
        self.rows += len(request.observations)

    def give(self) -> list[tuple[str, WriteFiles]]:
        """All of it."""
        if self.due is not None:
            self.due.cancel()
        requests, self.requests, self.rows, self.due = self.requests, [], 0, None
        return requests


class ImagesFolder:
    """Payloads by their content's hash, `ab/abcd….jpg`, and an index of which observation has which."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._index = LinesFile(folder / "index.jsonl")

    def write(self, observations: list[Observation]) -> None:
        """The images first, then the index."""
        for each in observations:
            name = sha256(each.payload).hexdigest()
            self._put(name, each.payload)
            stripped = msgspec.structs.replace(each, payload=b"")
            self._index.write([stripped], sha256=name)

    def _put(self, name: str, data: bytes) -> None:
        suffix = ".jpg" if data.startswith(JPEG_START) else ".bin"
        path = self._folder / name[:2] / (name + suffix)
        if path.exists():
            return
        path.parent.mkdir(exist_ok=True)
        fresh = path.with_name(path.name + ".new")
        with fresh.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)
        sync(path.parent)
        sync(self._folder)


class FilesModel(Node):
    """What stands for the binding in the simulation: keeps what it is given in its store."""

    def on_message(self, ctx: Context, sender: Address, message: Message) -> None:
        match message:
            case WriteFiles(token, destination, observations):
                for data in observations:
                    ctx.store.put(destination.encode() + b"/" + Observation.decode(data).key(), data)
                ctx.when_durable(_Kept(sender, token))
            case _Kept(to, token):
                ctx.send(to, FilesWritten(token))


class _Kept(Message, frozen=True, array_like=True, tag=3):
    transport = "local"
    to: Address
    token: int


def files_binding(destinations: Mapping[str, OnDisk]) -> BindingPlan:
    """For the gateway's `DevicePlan`."""
    return BindingPlan(ENDPOINT, FilesModel, lambda: DiskBinding(destinations), 0)


def _opened(
    folder: Path, destination: OnDisk, now: Callable[[], float]
) -> LinesFile | ImagesFolder | ColumnarFolder:
    match destination:
        case Lines(file, rotate_bytes, rotate_s):
            return LinesFile(folder / file, rotate_bytes, rotate_s, now)
        case Images(name):
            (folder / name).mkdir(parents=True, exist_ok=True)
            return ImagesFolder(folder / name)
        case Columnar(name):
            return ColumnarFolder(folder / name)
