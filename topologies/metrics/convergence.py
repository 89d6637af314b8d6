"""How fast knowledge spreads: coverage of each observation, and when all live nodes hold the same set."""

from __future__ import annotations

from collections.abc import Collection

import msgspec
import numpy as np

from topologies.metrics.delivery import Pairs, percentile


class Convergence(msgspec.Struct, frozen=True):
    """Spread of observations over their receivers.

    Coverage times are medians over the observations, in seconds from when each was made; None where the
    median observation never got so far.
    """

    t50_s: float | None
    """Half of its receivers had it."""
    t90_s: float | None
    t100_s: float | None
    same_set_s: float | None
    """From the last observation until all live subscribers held the same set (each its own included); None if
    they never did, or if there is only one."""


def convergence(pairs: Pairs, down_at_end: Collection[str]) -> Convergence:
    """`down_at_end`: devices without power at the end of the run, of which nothing is asked."""
    return Convergence(
        t50_s=_median_coverage_s(pairs, 0.5),
        t90_s=_median_coverage_s(pairs, 0.9),
        t100_s=_median_coverage_s(pairs, 1.0),
        same_set_s=_same_set_s(pairs, down_at_end),
    )


def _median_coverage_s(pairs: Pairs, share: float) -> float | None:
    covered_s = []
    for made_s, row in zip(pairs.made_s, pairs.arrived_s, strict=True):
        receivers = np.sort(row[~np.isnan(row)])
        if len(receivers):
            reached_s = percentile(receivers, share)
            covered_s.append(np.inf if reached_s is None else reached_s - made_s)
    return percentile(sorted(covered_s), 0.5)


def _same_set_s(pairs: Pairs, down_at_end: Collection[str]) -> float | None:
    live = np.array([name not in down_at_end for name in pairs.subscribers], dtype=bool)
    if np.count_nonzero(live) < 2 or not len(pairs.made):
        return None
    arrived_s = pairs.arrived_s[:, live]
    source_live = np.isnan(arrived_s).any(axis=1)
    # What no live node holds is in nobody's set: it does not hinder equality.
    held = np.isfinite(arrived_s).any(axis=1) | source_live
    last_s = np.max(np.nan_to_num(arrived_s[held], nan=0.0, posinf=np.inf), initial=0.0)
    if not np.isfinite(last_s):
        return None
    return round(max(0.0, float(last_s - pairs.made_s[-1])), 6)
