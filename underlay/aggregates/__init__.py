"""Aggregates: what can be made of many values without keeping them, piece by piece and in any order.

    mean = Mean()
    state = mean.zero()
    for value in (1, 2.5):
        state = mean.add(state, value)
    mean.finish(state)

Every aggregate is a commutative monoid with a beginning and an end: merging is associative and commutative,
so a value may be added on a worker, in a cache on the way, or at the end, and the answer is the same; packed
states are the same bytes whatever the order was (`aggregate`, `laws`).
"""

from underlay.aggregates.aggregate import Aggregate, Unsuitable
from underlay.aggregates.distinct import Distinct
from underlay.aggregates.extremes import First, Last, Max, Min, MinMax
from underlay.aggregates.gaps import Gaps
from underlay.aggregates.histogram import Histogram
from underlay.aggregates.moments import Count, Mean, Sum, Variance
from underlay.aggregates.quantile import Quantile
from underlay.aggregates.topk import TopK

__all__ = [
    "Aggregate",
    "Count",
    "Distinct",
    "First",
    "Gaps",
    "Histogram",
    "Last",
    "Max",
    "Mean",
    "Min",
    "MinMax",
    "Quantile",
    "Sum",
    "TopK",
    "Unsuitable",
    "Variance",
]
