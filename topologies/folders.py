"""Folders of results: built aside, put in place whole, or not at all.

A folder under construction is `<folder>.partial`, recorded for `birdhouse clean` before it is made. It is
renamed when all is in it. After an error only its log is left, as `<folder>.failed`; after an interrupt,
nothing.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from underlay.errors import BirdhouseError, InputError, RunFailed

DEFAULT_PARENT = Path("runs")


def new_folder(name: str, out: Path | None) -> Path:
    """Where results go: `out`, or the first free `runs/<name>-<n>`. Raises InputError rather than
    overwrite."""
    if out is not None:
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise InputError(
                "is already there; results are never overwritten", file=out, hint="choose another --out"
            )
        return out
    number = 1
    while any(
        (DEFAULT_PARENT / f"{name}-{number}{suffix}").exists() for suffix in ("", ".partial", ".failed")
    ):
        number += 1
    return DEFAULT_PARENT / f"{name}-{number}"


@contextmanager
def building(folder: Path) -> Iterator[Path]:
    """Gives the folder to fill, which becomes `folder` at the end of the block."""
    partial = folder.with_name(folder.name + ".partial")
    with _recorded(partial):
        try:
            made = [above for above in (partial, *partial.parents) if not above.exists()]
            partial.mkdir(parents=True)
        except OSError as error:
            raise InputError(
                f"cannot make the folder: {error.strerror}", file=folder, hint="choose another --out"
            ) from error
        try:
            yield partial
            if folder.exists():
                folder.rmdir()
            partial.rename(folder)
        except BaseException as error:
            _give_up(partial, folder, error)
            _remove_empty(made[1:])
            if isinstance(error, OSError) and not isinstance(error, BirdhouseError):
                raise RunFailed(f"the results could not be written: {error}") from error
            raise
        for path in (folder, *made[1:]):
            _hand_over(path)


def _give_up(partial: Path, folder: Path, error: BaseException) -> None:
    """Keep the log of what failed, and nothing of what was given up by the user."""
    if isinstance(error, Exception) and not isinstance(error, InputError):
        failed = folder.with_name(folder.name + ".failed")
        shutil.rmtree(failed, ignore_errors=True)
        try:
            failed.mkdir()
            for logs in sorted(partial.rglob("logs")):
                shutil.copytree(logs, failed / logs.relative_to(partial))
            (failed / "error.log").write_text(f"{type(error).__name__}: {error}\n", encoding="utf-8")
        except OSError:  # a full disk has no room for a log either
            shutil.rmtree(failed, ignore_errors=True)
        else:
            _hand_over(failed)
    shutil.rmtree(partial, ignore_errors=True)


def _remove_empty(folders: list[Path]) -> None:
    for folder in folders:
        try:
            folder.rmdir()
        except OSError:
            return


@contextmanager
def _recorded(path: Path) -> Iterator[None]:
    """Known to `birdhouse clean` while the block runs, should it be killed."""
    if not sys.platform.startswith("linux"):
        yield  # whose a record is, is told by /proc
        return
    from underlay.emulation.cleanup import Journal

    with Journal.open() as journal:
        journal.record("scratch", path)
        yield


def _hand_over(path: Path) -> None:
    """Under sudo, everything belongs to who called it."""
    if "SUDO_UID" in os.environ:
        from underlay.emulation.cleanup import hand_over

        hand_over(path)
