"""Age of information against sums done by hand and against brute force."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.topologies.made_up_runs import arrived, made, manifest, write_run
from topologies.metrics import summarize
from topologies.metrics.age import AgeCurve

times = st.floats(0, 100, allow_nan=False)


def test_the_sawtooth_by_hand() -> None:
    """Made at 0, 1 and 4, known at 2 and 5: areas 2, 7.5 and 1.5 in six seconds."""
    curve = AgeCurve([(5.0, 4.0), (2.0, 1.0)], first_made_s=0.0)
    assert [curve.at(t) for t in (0.0, 1.9, 2.0, 4.9, 5.0)] == pytest.approx([0, 1.9, 1, 3.9, 1])
    assert curve.mean(0, 6) == pytest.approx(11 / 6)
    assert curve.peak(0, 6) == pytest.approx(4)
    assert curve.above(0, 6, threshold_s=3) == pytest.approx(1)


def test_what_arrives_after_something_newer_changes_nothing() -> None:
    in_order = AgeCurve([(3.0, 2.0)], first_made_s=0.0)
    overtaken = AgeCurve([(3.0, 2.0), (7.0, 1.0)], first_made_s=0.0)
    assert overtaken.mean(0, 20) == in_order.mean(0, 20)


def test_a_source_that_is_never_heard_grows_old_from_its_first_observation() -> None:
    curve = AgeCurve([], first_made_s=10.0)
    assert (curve.at(5.0), curve.at(30.0), curve.mean(10.0, 30.0)) == (0.0, 20.0, 10.0)


@given(st.lists(st.tuples(times, st.floats(0, 50)), max_size=12), times, st.floats(0.1, 50), st.floats(0, 30))
def test_mean_peak_and_time_above_agree_with_brute_force(
    sent: list[tuple[float, float]], start_s: float, length_s: float, threshold_s: float
) -> None:
    arrivals = [(made_s + late_s, made_s) for made_s, late_s in sent]
    curve = AgeCurve(arrivals, first_made_s=0.0)
    n = 4000
    ages = []
    for i in range(n):
        t = start_s + (i + 0.5) * length_s / n
        ages.append(t - max([0.0, *(m for a, m in arrivals if a <= t)]))
    end_s = start_s + length_s
    # Each step of the sawtooth may fall anywhere within one sample.
    grain = (len(sent) + 1) * length_s / n
    assert curve.mean(start_s, end_s) == pytest.approx(sum(ages) / n, abs=grain * 200 / length_s)
    assert max(ages) <= curve.peak(start_s, end_s) + 1e-9
    assert curve.above(start_s, end_s, threshold_s) == pytest.approx(
        sum(age > threshold_s for age in ages) * length_s / n, abs=2 * grain
    )


def test_warm_up_observations_are_knowledge_and_only_the_sink_counts(tmp_path: Path) -> None:
    """cam1 is known from 5 s on, and again from 50; what reaches the hub is of no use to the sink."""
    run = write_run(
        tmp_path,
        [made(4.0, "cam1:0"), arrived(5.0, "cam1:0"), made(48.0, "cam1:1"), arrived(49.0, "cam1:1", at="hub"),
         arrived(50.0, "cam1:1")],
        manifest(),
    )  # fmt: skip
    age = summarize(run).age
    # [10, 50): 6 to 46, mean 26; [50, 90): 2 to 42, mean 22.
    assert age.by_source["cam1"].mean_s == pytest.approx(24)
    assert age.by_source["cam1"].peak_s == pytest.approx(46)
    # Above 10 s from 14 to 50 and from 58 to 90.
    assert age.by_source["cam1"].share_above == pytest.approx(68 / 80)
    assert age.series.mean_s[0] == pytest.approx(6)
    assert age.series.mean_s[40] == pytest.approx(2)
