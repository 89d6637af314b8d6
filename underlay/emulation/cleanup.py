"""Nothing half-built is left behind: the journal of what a run makes, and removing it, also after a SIGKILL.

Owns the state directory, with one folder for each run in progress: its journal and its control socket.
Everything that the kernel does not remove by itself is recorded before it is made, by its path; whose it is,
is told by the runner's process id, start time and boot, never by a pattern of names. Processes, interfaces
and namespaces need no record: they end with the runner (`processes.fork_first`).
"""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from time import monotonic, sleep
from types import TracebackType
from typing import Literal

import msgspec

from underlay.emulation.processes import Identity
from underlay.errors import InputError

FAILED = "FAILED"
"""A file of this name in a run's folder says that the run failed, and why."""

Kind = Literal["runner", "cgroup", "scratch", "output", "log", "folder", "finished"]
"""`scratch` never outlives the run, `output` only one that finished, `log` also one that failed; a `folder`
goes when it is empty.
"""


class Entry(msgspec.Struct, frozen=True, omit_defaults=True):
    """One line of a journal."""

    kind: Kind
    path: str = ""
    runner: Identity | None = None


class Journal:
    """What one run makes. A context manager: on exit everything is removed but the outputs of a finished run.

    A run that failed keeps its logs, beside a file `FAILED` with the reason. After an interrupt, or where the
    input was wrong, nothing is left.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.file = directory / "journal.jsonl"
        self.failed_folder: Path | None = None
        """Where `FAILED` is put: the run's folder."""

    @classmethod
    def open(cls) -> Journal:
        """A new one, for this process."""
        runner = Identity.of(os.getpid())
        root = state_directory()
        root.mkdir(mode=0o755, parents=True, exist_ok=True)
        number = 0
        while True:
            # The name alone says whose it is, should the process be killed before the first line is written.
            directory = root / f"{runner.pid}-{runner.started}-{number}"
            try:
                directory.mkdir(mode=0o755)
                break
            except FileExistsError:
                number += 1
        journal = cls(directory)
        journal._append(Entry("runner", runner=runner))
        return journal

    @property
    def run(self) -> str:
        """Identifies the run on this machine."""
        return self.directory.name

    def record(self, kind: Kind, path: Path) -> None:
        """`path` is about to be made."""
        self._append(Entry(kind, str(path.absolute())))

    def make_folder(self, path: Path) -> None:
        """Make a run's folder and those above it that do not exist yet."""
        missing = [folder for folder in (path, *path.parents) if not folder.exists()]
        for folder in reversed(missing):
            self.record("folder", folder)
            folder.mkdir()
            hand_over(folder)
        self.failed_folder = path

    def finish(self) -> None:
        """From now on the outputs are kept, whatever happens."""
        self._append(Entry("finished"))

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        failed = isinstance(error, Exception) and not isinstance(error, InputError)
        if failed and self.failed_folder is not None and self.failed_folder.is_dir():
            with suppress(OSError):  # a full disk has no room for it
                (self.failed_folder / FAILED).write_text(f"{error}\n")
        remove(self.directory, keep_logs=failed)

    def _append(self, entry: Entry) -> None:
        with self.file.open("ab") as file:
            file.write(msgspec.json.encode(entry) + b"\n")


def state_directory() -> Path:
    """Where running runs are known: `/run/birdhouse` for root."""
    if os.geteuid() == 0:
        return Path("/run/birdhouse")
    runtime = os.environ.get("XDG_RUNTIME_DIR") or os.path.expanduser("~/.local/state")
    return Path(runtime) / "birdhouse"


def clean() -> list[str]:
    """Remove what killed runs left; runs whose runner lives are not touched. Returns what was removed."""
    removed: list[str] = []
    for directory in sorted(state_directory().glob("*")):
        if directory.is_dir() and not _in_use(directory):
            removed += remove(directory)
    return removed


def remove(directory: Path, *, keep_logs: bool = False) -> list[str]:
    """Remove what a journal records and then the journal; returns the paths that were still there."""
    entries = list(_entries(directory))
    finished = any(entry.kind == "finished" for entry in entries)
    unwanted = {"scratch"} | (set() if finished else {"output"} | (set() if keep_logs else {"log"}))
    removed: list[str] = []
    for entry in reversed(entries):  # what was made last goes first
        path = Path(entry.path)
        if entry.kind == "cgroup":
            gone = _remove_cgroup(path)
        elif entry.kind in unwanted:
            gone = _remove_tree(path)
        elif entry.kind == "folder" and not finished:
            gone = _remove_empty(path)
        else:
            gone = False
        if entry.kind in ("folder", "output", "log") and path.exists():
            hand_over(path)
        if gone:
            removed.append(str(path))
    shutil.rmtree(directory, ignore_errors=True)
    return removed


def hand_over(path: Path) -> None:
    """Give `path`, and everything in it, to who called sudo; nothing happens without sudo."""
    user = os.environ.get("SUDO_UID")
    if user is None or os.geteuid() != 0:
        return
    group = os.environ.get("SUDO_GID", "-1")
    paths = [path, *path.rglob("*")] if path.is_dir() and not path.is_symlink() else [path]
    for each in paths:
        with suppress(OSError):
            os.chown(each, int(user), int(group), follow_symlinks=False)


def _in_use(directory: Path) -> bool:
    for entry in _entries(directory):
        if entry.kind == "runner" and entry.runner is not None:
            return entry.runner.alive
    pid, _, rest = directory.name.partition("-")
    started = rest.partition("-")[0]
    if not (pid.isdigit() and started.isdigit()):
        return True  # none of ours
    try:
        return Identity.of(int(pid)).started == int(started)
    except ProcessLookupError:
        return False


def _entries(directory: Path) -> Iterator[Entry]:
    with suppress(FileNotFoundError), (directory / "journal.jsonl").open("rb") as file:
        for line in file:
            with suppress(msgspec.DecodeError):  # the last one, torn
                yield msgspec.json.decode(line, type=Entry)


def _remove_tree(path: Path) -> bool:
    if not path.exists() and not path.is_symlink():
        return False
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
    return True


def _remove_empty(path: Path) -> bool:
    try:
        path.rmdir()
    except OSError:
        return False
    return True


def _remove_cgroup(path: Path) -> bool:
    """Its processes died with the run; the kernel may need a moment to see that."""
    deadline_s = monotonic() + 5.0
    while path.is_dir():
        with suppress(OSError):
            path.rmdir()
            return True
        if monotonic() > deadline_s:
            return False
        with suppress(OSError):
            for pid in (path / "cgroup.procs").read_text().split():
                os.kill(int(pid), signal.SIGKILL)
        sleep(0.02)
    return False
