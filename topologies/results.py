"""Runs and comparisons as they lie on disk, loaded: manifest, summary, trace, and rows for a table."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import msgspec

from topologies.manifest import Manifest
from topologies.metrics import Summary, SurvivalCurve, read_summary, survivability
from underlay.errors import InputError
from underlay.trace import Record, read_trace

Row = dict[str, Any]
"""Column to value; a list of rows is what pandas, polars and csv take."""


class Run:
    """The folder of one run."""

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)

    def __repr__(self) -> str:
        return f"Run({str(self.folder)!r})"

    @cached_property
    def manifest(self) -> Manifest:
        """What was run; raises InputError where the folder is no run."""
        return Manifest.read(self.folder)

    @cached_property
    def summary(self) -> Summary:
        """The metrics."""
        return read_summary(self.folder)

    def trace(self) -> Iterator[Record]:
        """Every record, in order of time."""
        return read_trace(self.folder / "trace.jsonl")

    def table(self) -> list[Row]:
        """The headline numbers, as one row."""
        return [self.summary.row]


class CaseRecord(msgspec.Struct, frozen=True):
    """One run of a comparison."""

    folder: str
    """Relative to the comparison's."""
    architecture: str
    seed: int
    settings: dict[str, Any] = {}
    """What `--set` changed."""
    killed: tuple[str, ...] | None = None
    """Devices that `--kill` crashed; None where that was not asked."""


class Together(msgspec.Struct, frozen=True):
    """Runs that are set side by side, in one table and on one page."""

    settings: dict[str, Any]
    """What `--set` changed for all of them alike."""
    names: tuple[str, ...]
    """What each is called: those of one name differ in their seeds."""
    runs: tuple[Run, ...]

    @property
    def summaries(self) -> list[Summary]:
        """Theirs, under these names."""
        return [run.summary.called(name) for name, run in zip(self.names, self.runs, strict=True)]


class Comparison:
    """The folder of a comparison: several runs of one spec."""

    FILE = "comparison.json"

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)

    def __repr__(self) -> str:
        return f"Comparison({str(self.folder)!r})"

    @cached_property
    def cases(self) -> tuple[CaseRecord, ...]:
        """What was run; raises InputError where the folder is no comparison."""
        path = self.folder / self.FILE
        try:
            return msgspec.json.decode(path.read_bytes(), type=tuple[CaseRecord, ...])
        except (OSError, msgspec.DecodeError) as error:
            raise InputError(f"is no comparison: {error}", file=self.folder) from error

    @cached_property
    def runs(self) -> tuple[Run, ...]:
        """The runs, in the order of `cases`."""
        return tuple(Run(self.folder / case.folder) for case in self.cases)

    def together(self) -> list[Together]:
        """The runs for each combination of swept settings. Of one architecture alone, which has nothing else
        to be compared with, the settings stand side by side."""
        if len({case.architecture for case in self.cases}) == 1:
            return [Together({}, self.names(), self.runs)]
        found: dict[str, list[tuple[CaseRecord, Run]]] = {}
        for case, run in zip(self.cases, self.runs, strict=True):
            found.setdefault(", ".join(in_words(case.settings)), []).append((case, run))
        return [
            Together(
                members[0][0].settings,
                tuple(case.architecture for case, _ in members),
                tuple(run for _, run in members),
            )
            for members in found.values()
        ]

    def names(self) -> tuple[str, ...]:
        """What tells each run from the others but for its seed: its architecture, its settings, or both."""
        several = len({case.architecture for case in self.cases}) > 1
        return tuple(
            ", ".join(
                [*([case.architecture] if several or not case.settings else ()), *in_words(case.settings)]
            )
            for case in self.cases
        )

    def table(self) -> list[Row]:
        """One row a run: what distinguishes it, then its summary."""
        return [{**run.summary.row, **case.settings} for case, run in zip(self.cases, self.runs, strict=True)]

    def survivability(self) -> tuple[SurvivalCurve, ...]:
        """Delivery among survivors over the number of failures, for each architecture, with intervals."""
        return survivability(run.summary for run in self.runs)


def in_words(settings: Mapping[str, Any]) -> list[str]:
    """Swept settings, in brief: a word says by itself what it is.

    >>> in_words({"storage.kind": "paxos", "links.radio.loss_ratio": 0.05})
    ['paxos', 'loss_ratio=0.05']
    """
    return [
        value if isinstance(value, str) else f"{key.rpartition('.')[2]}={value}"
        for key, value in settings.items()
    ]


def load(folder: Path | str) -> Run | Comparison:
    """What lies in `folder`; raises InputError where it is neither a run nor a comparison."""
    folder = Path(folder)
    if (folder / Comparison.FILE).exists():
        return Comparison(folder)
    if (folder / "manifest.json").exists():
        return Run(folder)
    raise InputError("is neither a run nor a comparison", file=folder)


def write_csv(rows: Iterable[Row], path: Path) -> None:
    """Rows as CSV; columns in order of first mention."""
    rows = list(rows)
    columns = list(dict.fromkeys(column for row in rows for column in row))
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, restval="")
        writer.writeheader()
        writer.writerows(rows)
