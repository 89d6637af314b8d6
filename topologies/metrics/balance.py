"""How evenly something is spread over the nodes: Jain's index, Gini's coefficient, the largest share.

Jain, Chiu, Hawe: "A quantitative measure of fairness", DEC-TR-301, 1984. Gini: "Variabilità e
mutabilità", 1912.
"""

from __future__ import annotations

from collections.abc import Collection


def jain(values: Collection[float]) -> float | None:
    """(sum x)^2 / (n sum x^2): 1 is even, 1/n is all at one; None where nothing was spread.

    >>> jain([1, 1, 1, 1]), jain([4, 0, 0, 0])
    (1.0, 0.25)
    """
    squares = sum(value * value for value in values)
    return sum(values) ** 2 / (len(values) * squares) if squares else None


def gini(values: Collection[float]) -> float | None:
    """Mean absolute difference over twice the mean: 0 is even, (n-1)/n is all at one.

    >>> gini([1, 1, 1, 1]), gini([4, 0, 0, 0])
    (0.0, 0.75)
    """
    total = sum(values)
    if not total:
        return None
    n = len(values)
    weighted = sum((2 * rank - n - 1) * value for rank, value in enumerate(sorted(values), 1))
    return weighted / (n * total)


def max_over_mean(values: Collection[float]) -> float | None:
    """How many times the mean the most loaded bears.

    >>> max_over_mean([4, 0, 0, 0])
    4.0
    """
    total = sum(values)
    return max(values) * len(values) / total if total else None
