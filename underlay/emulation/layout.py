"""Where things are in a run's folder, while it is filled and afterwards.

Owns the names, and making one trace of the shards that the processes of a run wrote.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from underlay.emulation.cleanup import Journal, Kind, hand_over
from underlay.emulation.health import RunVerdict
from underlay.trace import RunEnded, TraceWriter, merge_traces


class Layout:
    """The paths of one run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.trace = folder / "trace.jsonl"
        self.verdict = folder / "verdict.json"
        self.captures = folder / "captures"
        self.logs = folder / "logs"
        """Output of every process, one file each."""
        self.devices = folder / "devices"
        """Disks of the devices: stores and programs' folders."""
        self.shards = folder / "shards"
        """A trace for each process, until they are merged."""
        self.run_shard = self.shards / "0-run.jsonl"
        self.ether_shard = self.shards / "1-ether.jsonl"

    def make(self, journal: Journal) -> None:
        """Make the folders, each recorded before."""
        journal.make_folder(self.folder)
        for path in (self.trace, self.verdict, self.captures):
            journal.record("output", path)
        folders: tuple[tuple[Kind, Path], ...] = (
            ("log", self.logs),
            ("output", self.devices),
            ("scratch", self.shards),
        )
        for kind, path in folders:
            journal.record(kind, path)
            path.mkdir()

    def shard(self, device: str, incarnation: int) -> Path:
        """Trace of one life of a device."""
        return self.shards / f"2-{device}.{incarnation}.jsonl"

    def finish(self, t_s: float, verdict: RunVerdict) -> None:
        """The run ended at `t_s`: one trace, the verdict, no empty logs; everything is its invoker's."""
        # At equal times the run itself comes first, then the ether, then the devices.
        merge_traces(sorted(self.shards.iterdir()), self.trace)
        with self.trace.open("ab") as file:
            writer = TraceWriter(file)
            writer.write(t_s, RunEnded())
            writer.flush()
        self.verdict.write_bytes(msgspec.json.format(msgspec.json.encode(verdict)) + b"\n")
        for path in (*self.logs.iterdir(), *self.devices.iterdir()):
            if path.is_dir() and not any(path.iterdir()):
                path.rmdir()
            elif path.is_file() and not path.stat().st_size:
                path.unlink()
        hand_over(self.folder)
