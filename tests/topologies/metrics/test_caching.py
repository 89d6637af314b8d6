"""Cache metrics by hand, and against the closed form of one cache with Poisson requests."""

from random import Random

import pytest

from topologies.metrics.caching import cache_use
from topologies.metrics.reading import Answer


def test_by_hand() -> None:
    answers = [
        Answer("hit", 1.0, 5.0),
        Answer("hit", 6.0, 5.0),
        Answer("validated", 0.0, 5.0),
        Answer("stale", 9.0, 5.0),
        Answer("error", 0.0, 0.0),
    ]
    found = cache_use(answers, origin_requests=1)
    assert found is not None
    assert found.outcomes == {"error": 1, "hit": 2, "stale": 1, "validated": 1}
    assert (found.hit_ratio, found.origin_load_reduction) == (0.4, 0.8)
    assert (found.age_mean_s, found.age_p99_s) == (4.0, 9.0)
    assert found.violations == 1, "the stale answer said so"


def test_where_no_cache_was_asked_there_is_nothing_to_tell() -> None:
    assert cache_use([], origin_requests=3) is None


@pytest.mark.sweep(5)
def test_poisson_requests_at_one_cache(seed: int) -> None:
    """Hit ratio LT / (1 + LT), origin load 1 / (1 + LT), mean age served h T / 2."""
    rng, rate, lifetime_s = Random(seed), 2.0, 1.5
    t_s, fetched_s, answers = 0.0, -100.0, []
    for _ in range(40_000):
        t_s += rng.expovariate(rate)
        if t_s - fetched_s > lifetime_s:
            fetched_s = t_s
            answers.append(Answer("miss", 0.0, lifetime_s))
        else:
            answers.append(Answer("hit", t_s - fetched_s, lifetime_s))
    found = cache_use(answers, sum(answer.outcome == "miss" for answer in answers))
    assert found is not None
    ratio = rate * lifetime_s / (1 + rate * lifetime_s)
    assert found.hit_ratio == pytest.approx(ratio, abs=0.02)
    assert found.origin_load_reduction == pytest.approx(ratio, abs=0.02)
    assert found.age_mean_s == pytest.approx(ratio * lifetime_s / 2, abs=0.03)
    assert found.violations == 0
