"""The figures in which simulation and Mininet must agree, and how far apart they may be.

`python -m tests.parity.figures` runs both fabrics (as root, some seven minutes) and prints the table of
docs/parity.md. The bands are those of the project's design. A percentile is that of the readings of all runs
taken together: the 99th of a single run is decided by one or two lost packets, and so is a mean of seven such
numbers. Simulated runs are cheap, so there are more of them, and what is left of chance is in the emulated
ones.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from math import ceil, inf
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

import topologies
from topologies.metrics import Summary

SPEC = Path(__file__).with_name("parity.toml")
SEEDS = 7
"""Emulated ones. Of 3,000 times seven simulated runs, held against 120, the p99 of caching and of gossip was
outside its band 4 times each."""
SIMULATED_SEEDS = 40
VALID_MIN = 5
"""Of the emulated runs. The latencies of one that says of itself that the machine was late prove nothing,
neither agreement nor its lack; with fewer valid runs than these, latencies are not compared at all."""
LOSS_RATIO = {"star": 0.015, "caching": 0.02, "gossip": 0.05}
"""By architecture, so that the 99th percentile lies among the readings that were repaired once: TCP and CoAP
repair what was lost twice much later, and gossip needs more losses to have enough of them."""


class Figure(NamedTuple):
    """One compared number; differences within `ratio` of the simulated one or within `absolute` are fine."""

    name: str
    unit: str
    of: Callable[[Sequence[Summary]], float]
    """Of several runs."""
    ratio: float = 0.0
    absolute: float = 0.0
    of_valid: bool = False
    """Whether milliseconds matter to it, so that only valid runs count."""


def percentile_ms(summaries: Sequence[Summary], share: float) -> float:
    """Of the latencies of all runs' readings, from 201 quantiles of each run; inf where too many never
    came."""
    pooled = sorted(_ms(q) for summary in summaries for q in summary.delivery.quantiles_s)
    return pooled[ceil(share * len(pooled)) - 1]


FIGURES = (
    Figure(
        "delivery ratio",
        "%",
        lambda runs: fmean(100.0 * (run.delivery.ratio or 0.0) for run in runs),
        absolute=2.0,
    ),
    Figure(
        "latency p50", "ms", lambda runs: percentile_ms(runs, 0.5), ratio=0.1, absolute=5.0, of_valid=True
    ),
    Figure("latency p99", "ms", lambda runs: percentile_ms(runs, 0.99), ratio=0.2, of_valid=True),
    Figure(
        "bytes on air", "kB", lambda runs: fmean(run.traffic.bytes_on_air / 1000.0 for run in runs), ratio=0.1
    ),
)


class Pair(NamedTuple):
    """A figure of both fabrics."""

    figure: Figure
    simulated: float
    emulated: float

    @property
    def agrees(self) -> bool:
        allowed = max(self.figure.absolute, self.figure.ratio * self.simulated)
        return abs(self.emulated - self.simulated) <= allowed

    def __str__(self) -> str:
        name, unit = self.figure.name, self.figure.unit
        verdict = "" if self.agrees else ", outside its band"
        return (
            f"{name}: {self.simulated:.1f} {unit} simulated, {self.emulated:.1f} {unit} on Mininet{verdict}"
        )


def run(architecture: str, fabric: str, seeds: int, folder: Path) -> list[Summary]:
    """Summaries of the parity spec's runs, seeds 1 to `seeds`."""
    comparison = topologies.compare(
        SPEC,
        architectures=[architecture],
        fabric=fabric,
        seeds=seeds,
        settings={"links.radio.loss_ratio": [LOSS_RATIO[architecture]]},
        out=folder / f"{architecture}-{fabric}",
    )
    return [run.summary for run in comparison.runs]


def pairs(simulated: Sequence[Summary], emulated: Sequence[Summary]) -> list[Pair]:
    """Every figure of both that can be compared."""
    compared = []
    for figure in FIGURES:
        counted = valid(emulated) if figure.of_valid else list(emulated)
        if len(counted) >= VALID_MIN:
            compared.append(Pair(figure, figure.of(simulated), figure.of(counted)))
    return compared


def valid(summaries: Iterable[Summary]) -> list[Summary]:
    """The runs that count."""
    return [summary for summary in summaries if summary.run.validity == "valid"]


def invalid(summaries: Iterable[Summary]) -> list[str]:
    """What the runs that do not count say about themselves."""
    return [
        f"seed {summary.run.seed} is {summary.run.validity}: {summary.run.reason}"
        for summary in summaries
        if summary.run.validity != "valid"
    ]


def main() -> None:
    """Print docs/parity.md's table, of the architectures named on the command line or of all."""
    print("| architecture | figure | simulated | Mininet | difference |")
    print("|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for architecture in sys.argv[1:] or LOSS_RATIO:
            simulated = run(architecture, "simulation", SIMULATED_SEEDS, Path(folder))
            emulated = run(architecture, "mininet", SEEDS, Path(folder))
            for line in invalid(emulated):
                print(f"{architecture}, {line}", file=sys.stderr)
            for figure, ours, theirs in pairs(simulated, emulated):
                unit = figure.unit
                difference = f"{theirs - ours:+.1f} {unit}"
                if figure.ratio:
                    difference += f" ({100.0 * (theirs / ours - 1.0):+.0f} %)"
                cells = [architecture, figure.name, f"{ours:.1f} {unit}", f"{theirs:.1f} {unit}", difference]
                print("|", " | ".join(cells), "|", flush=True)


def _ms(seconds: float | None) -> float:
    return inf if seconds is None else 1000.0 * seconds


if __name__ == "__main__":
    main()
