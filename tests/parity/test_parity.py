"""Simulation and Mininet give the same figures for the same spec, within the bands of `figures`."""

from pathlib import Path

import pytest

from tests.parity import figures


@pytest.mark.emulation
@pytest.mark.timeout(300)
@pytest.mark.parametrize("architecture", list(figures.LOSS_RATIO))
def test_both_fabrics_give_the_same_figures(architecture: str, tmp_path: Path) -> None:
    simulated = figures.run(architecture, "simulation", figures.SIMULATED_SEEDS, tmp_path)
    emulated = figures.run(architecture, "mininet", figures.SEEDS, tmp_path)
    compared = figures.pairs(simulated, emulated)
    print(*figures.invalid(emulated), *compared, sep="\n")
    assert len(compared) >= 2, "delivery and bytes can always be compared"
    assert all(pair.agrees for pair in compared), "\n".join(map(str, compared))
