"""What caches did for the sensors: hits, requests that never reached an origin, and how old the answers were.

Freshness, validation and staleness are those of RFC 7252 §5.6 (CoAP). Every cache that answered counts, those
that asked another cache themselves included.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import msgspec

from topologies.metrics.delivery import percentile
from topologies.metrics.reading import Answer


class CacheUse(msgspec.Struct, frozen=True, kw_only=True):
    """Answers of all caches after the first counted observation."""

    requests: int
    outcomes: dict[str, int]
    """`hit`, `validated`, `miss`, `joined`, `stale`, `error`."""
    hit_ratio: float
    """Fresh hits / requests."""
    origin_requests: int
    """Requests that a sensor answered itself."""
    origin_load_reduction: float
    """1 - origin requests / requests."""
    age_mean_s: float | None
    """Staleness: age of what was served, errors left out."""
    age_p99_s: float | None
    violations: int
    """Served older than its Max-Age without being declared stale."""


def cache_use(answers: Sequence[Answer], origin_requests: int) -> CacheUse | None:
    """None where no cache was asked anything."""
    if not answers:
        return None
    outcomes = Counter(answer.outcome for answer in answers)
    ages_s = sorted(answer.age_s for answer in answers if answer.outcome != "error")
    return CacheUse(
        requests=len(answers),
        outcomes=dict(sorted(outcomes.items())),
        hit_ratio=round(outcomes["hit"] / len(answers), 6),
        origin_requests=origin_requests,
        origin_load_reduction=round(1 - origin_requests / len(answers), 6),
        age_mean_s=round(sum(ages_s) / len(ages_s), 6) if ages_s else None,
        age_p99_s=percentile(ages_s, 0.99),
        violations=sum(
            answer.age_s > answer.max_age_s for answer in answers if answer.outcome not in ("stale", "error")
        ),
    )
