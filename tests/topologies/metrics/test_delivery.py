"""Delivery and latency: undelivered ones stay in every percentile, and only counted observations count."""

from math import inf
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.topologies.made_up_runs import arrived, made, manifest, write_run
from topologies.metrics import summarize
from topologies.metrics.delivery import percentile


@pytest.mark.parametrize(
    ("values", "share", "expected"),
    [
        pytest.param([], 0.5, None, id="nothing has no percentile"),
        pytest.param([1.0, 2.0, 3.0, 4.0], 0.5, 2.0, id="the median of an even number is the lower middle"),
        pytest.param([1.0, 2.0, 3.0], 0.5, 2.0, id="the median of an odd number is the middle"),
        pytest.param([1.0] * 99 + [inf], 0.99, 1.0, id="one lost in a hundred leaves p99 finite"),
        pytest.param([1.0] * 98 + [inf] * 2, 0.99, None, id="two lost in a hundred make p99 infinite"),
        pytest.param([1.0, inf, inf], 0.5, None, id="most lost makes the median infinite"),
        pytest.param([float(n) for n in range(100)], 0.07, 6.0, id="rounding of the rank does not add one"),
    ],
)
def test_percentiles(values: list[float], share: float, expected: float | None) -> None:
    assert percentile(values, share) == expected


@given(st.lists(st.floats(0, 100) | st.just(inf), min_size=1), st.floats(0.01, 1))
def test_at_least_the_share_does_not_exceed_its_percentile(values: list[float], share: float) -> None:
    found = percentile(sorted(values), share)
    bound = inf if found is None else found + 1e-6
    assert sum(value <= bound for value in values) >= share * len(values) - 1e-6


def test_deadline_late_lost_and_uncounted(tmp_path: Path) -> None:
    """Of six observations four count: two in time (one on the stroke), one late, one lost."""
    run = write_run(
        tmp_path,
        [
            made(9.9, "cam1:0"), arrived(10.0, "cam1:0"),
            made(10.0, "cam1:1"), arrived(10.5, "cam1:1"), arrived(11.0, "cam1:1"),
            made(20.0, "cam1:2"), arrived(30.0, "cam1:2"),
            made(30.0, "cam2:0", kind="motion"), arrived(45.0, "cam2:0"),
            made(40.0, "cam2:1", kind="motion"),
            made(90.0, "cam2:2"),
        ],
    )  # fmt: skip
    summary = summarize(run)
    found = summary.delivery
    assert (found.observations, found.expected, found.on_time, found.late, found.undelivered) == (
        4,
        4,
        2,
        1,
        1,
    )
    assert (found.ratio, found.ratio_ever) == (0.5, 0.75)
    assert (found.p50_s, found.p99_s) == (10.0, None)
    assert found.quantiles_s[0] == 0.5
    assert found.quantiles_s[150] == 15.0
    assert found.quantiles_s[151:] == (None,) * 50
    assert {kind: each.ratio for kind, each in summary.by_kind.items()} == {"motion": 0.0, "temperature": 1.0}


def test_with_all_subscribing_the_receivers_are_everyone_but_the_source(tmp_path: Path) -> None:
    """Two birdhouses and the sink: each observation has two receivers; a hub that hears it is none."""
    run = write_run(
        tmp_path,
        [
            made(20.0, "cam1:0"), arrived(20.1, "cam1:0", "cam1"), arrived(21.0, "cam1:0", "cam2"),
            arrived(21.0, "cam1:0", "hub"), arrived(22.0, "cam1:0"),
            made(30.0, "cam2:0"), arrived(31.0, "cam2:0"),
        ],
        manifest(subscribers="all"),
    )  # fmt: skip
    summary = summarize(run)
    assert (summary.delivery.expected, summary.delivery.on_time) == (4, 3)
    assert (summary.storage.expected, summary.storage.on_time) == (2, 2)


def test_a_run_without_observations_has_no_ratios(tmp_path: Path) -> None:
    summary = summarize(write_run(tmp_path, []))
    assert summary.delivery.ratio is None
    assert summary.delivery.p50_s is None
    assert summary.age.mean_s is None
    assert summary.traffic.bytes_per_delivered is None
