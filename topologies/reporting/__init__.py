"""The report: one self-contained page over several runs, made from their folders alone.

`answer` finds the words, `charts` and `drawing` the pictures, `page` puts them together; `report.html.j2` and
`report.css` are the page. Nothing in it is fetched from anywhere, and it has no script.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec

from topologies.captures import read_analysis
from topologies.job_results import read_jobs
from topologies.manifest import Manifest
from topologies.metrics.summary import read_summary
from underlay.errors import InputError


def write(folders: Sequence[Path], target: Path, names: Sequence[str] = ()) -> None:
    """Write the page over the runs in `folders` (one of each architecture and seed) to the file `target`.

    Args:
        names: of the runs, where their architectures' do not tell them apart.

    Raises InputError where there is no run, or where a folder is none.
    """
    from topologies.reporting.page import render

    if not folders:
        raise InputError("there is no run to report on")
    runs = [(Manifest.read(folder), read_summary(folder)) for folder in folders]
    if names:
        runs = [
            (msgspec.structs.replace(manifest, architecture=name), summary.called(name))
            for name, (manifest, summary) in zip(names, runs, strict=True)
        ]
    captures = {
        manifest.architecture: analysis
        for (manifest, _), folder in zip(runs, folders, strict=True)
        if (analysis := read_analysis(folder)) is not None
    }
    jobs = [
        (manifest.architecture, read_jobs(folder))
        for (manifest, _), folder in zip(runs, folders, strict=True)
    ]
    target.write_text(render(runs, captures, jobs), encoding="utf-8")
