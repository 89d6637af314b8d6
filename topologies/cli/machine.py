"""`birdhouse doctor`: what this machine can run."""

from __future__ import annotations

import sys

from rich import box
from rich.table import Table

from topologies.cli.tables import console, print_json


def print_doctor(as_json: bool) -> int:
    """Print the findings; 0 where Mininet runs are possible, else 1."""
    if not sys.platform.startswith("linux"):
        print(
            "Networks are emulated on Linux only: the simulation runs here, and `vagrant up` gives a Linux."
        )
        return 1
    from underlay.emulation.doctor import examine

    findings = examine()
    possible = all(finding.good or finding.need == "extra" for finding in findings)
    if as_json:
        print_json({"mininet": possible, "findings": findings})
        return 0 if possible else 1
    table = Table(box=box.SIMPLE_HEAD)
    for heading in ("", "what", "found", "what to do"):
        table.add_column(heading)
    for finding in findings:
        mark = "ok" if finding.good else "-" if finding.need == "extra" else "MISSING"
        table.add_row(mark, finding.name, finding.detail, "" if finding.good else finding.remedy)
    console().print(table)
    print(
        "Runs on Mininet are possible here."
        if possible
        else "Runs on Mininet are not possible here; the simulation (--fabric simulation) needs none of this."
    )
    return 0 if possible else 1
