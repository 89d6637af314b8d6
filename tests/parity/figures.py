"""The figures in which simulation and Mininet must agree, and how far apart they may be.

`python -m tests.parity.figures` runs both fabrics (as root, some four minutes) and prints the table of
docs/parity.md. The bands are those of the project's design; means are over seeds, and both fabrics get the
same ones. Only the 99th percentile, which a few lost packets decide, is taken from more simulated runs: they
are cheap, leave the emulated ones as the only source of chance, and show how large that is: its band is
widened by three standard errors of a mean over the emulated seeds.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Iterable
from math import inf, sqrt
from pathlib import Path
from statistics import fmean, stdev
from typing import NamedTuple

import topologies
from topologies.metrics import Summary

SPEC = Path(__file__).with_name("parity.toml")
SEEDS = 5
SIMULATED_SEEDS = 40
VALID_MIN = 3
"""Of the emulated runs. The latencies of one that says of itself that the machine was late prove nothing,
neither agreement nor its lack; with fewer valid runs than these, latencies are not compared at all."""
STANDARD_ERRORS = 3.0
LOSS_RATIO = {"star": 0.015, "caching": 0.02, "gossip": 0.05}
"""By architecture, so that the 99th percentile lies among the readings that were repaired once: TCP and CoAP
repair what was lost twice much later, and gossip needs more losses to have enough of them."""


class Figure(NamedTuple):
    """One compared number; differences within `ratio` of the simulated mean or within `absolute` are fine."""

    name: str
    unit: str
    of: Callable[[Summary], float]
    ratio: float = 0.0
    absolute: float = 0.0
    seeds: int = SEEDS
    """Simulated ones."""
    of_valid: bool = False
    """Whether milliseconds matter to it, so that only valid runs count."""


FIGURES = (
    Figure("delivery ratio", "%", lambda s: 100.0 * (s.delivery.ratio or 0.0), absolute=2.0),
    Figure("latency p50", "ms", lambda s: _ms(s.delivery.p50_s), ratio=0.1, absolute=5.0, of_valid=True),
    Figure(
        "latency p99", "ms", lambda s: _ms(s.delivery.p99_s), ratio=0.2, seeds=SIMULATED_SEEDS, of_valid=True
    ),
    Figure("bytes on air", "kB", lambda s: s.traffic.bytes_on_air / 1000.0, ratio=0.1),
)


class Pair(NamedTuple):
    """A figure of both fabrics: means over seeds."""

    figure: Figure
    simulated: float
    emulated: float
    chance: float = 0.0
    """Standard error of the emulated mean, as the simulated runs scatter; 0 where both had the same seeds."""

    @property
    def agrees(self) -> bool:
        allowed = max(self.figure.absolute, self.figure.ratio * self.simulated)
        return abs(self.emulated - self.simulated) <= allowed + STANDARD_ERRORS * self.chance

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


def pairs(simulated: list[Summary], emulated: list[Summary]) -> list[Pair]:
    """Every figure of both that can be compared."""
    compared = []
    for figure in FIGURES:
        counted = valid(emulated) if figure.of_valid else emulated
        if len(counted) < VALID_MIN:
            continue
        seeds = {summary.run.seed for summary in counted}
        theirs = [figure.of(summary) for summary in counted]
        if figure.seeds > SEEDS:
            ours = [figure.of(summary) for summary in simulated[: figure.seeds]]
            chance = stdev(ours) / sqrt(len(theirs))
        else:
            ours = [figure.of(summary) for summary in simulated if summary.run.seed in seeds]
            chance = 0.0
        compared.append(Pair(figure, fmean(ours), fmean(theirs), chance))
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
            for figure, ours, theirs, _ in pairs(simulated, emulated):
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
