"""A device's share of this machine: CPU and memory, by control groups where this process may make them.

Owns making and entering them; each is recorded in the run's journal, which removes it. Both generations are
known; memory and CPU are separate hierarchies in the first.

Source: cgroups(7), Linux Documentation/admin-guide/cgroup-v1 and cgroup-v2.rst.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")
PERIOD_US = 100_000


class Cgroup:
    """One device's groups, one directory in each hierarchy it needs."""

    def __init__(self, directories: list[Path]) -> None:
        self._directories = directories

    def add(self, pid: int) -> None:
        """Put a process, and what it will fork, inside."""
        for directory in self._directories:
            with suppress(ProcessLookupError):
                (directory / "cgroup.procs").write_text(str(pid))


def limit(
    run: str, device: str, cpu_share: float | None, memory_mb: int | None, record: Callable[[Path], None]
) -> Cgroup | None:
    """Groups `<hierarchy>/birdhouse-<run>/<device>` with those limits; None where they cannot be made.

    Args:
        record: is told each directory before it is made, parents first.
    """
    wanted: dict[str, dict[str, str]] = {}
    second = (ROOT / "cgroup.controllers").exists()
    if cpu_share is not None:
        quota_us = max(1000, round(cpu_share * PERIOD_US))
        wanted["cpu"] = (
            {"cpu.max": f"{quota_us} {PERIOD_US}"}
            if second
            else {"cpu.cfs_period_us": str(PERIOD_US), "cpu.cfs_quota_us": str(quota_us)}
        )
    if memory_mb is not None:
        wanted["memory"] = {("memory.max" if second else "memory.limit_in_bytes"): str(memory_mb << 20)}
    directories: list[Path] = []
    try:
        for controller, settings in wanted.items():
            top = ROOT if second else ROOT / controller
            if not top.is_dir():
                return None
            parent = top / f"birdhouse-{run}"
            _make(parent, record)
            if second:
                for above in (top, parent):
                    (above / "cgroup.subtree_control").write_text(f"+{controller}")
            directory = parent / device
            _make(directory, record)
            for name, value in settings.items():
                (directory / name).write_text(value)
            if directory not in directories:
                directories.append(directory)
    except OSError:
        return None
    return Cgroup(directories) if directories else None


def _make(directory: Path, record: Callable[[Path], None]) -> None:
    if not directory.exists():
        record(directory)
        os.mkdir(directory)
