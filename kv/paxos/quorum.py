"""Majorities: any two of them have a member in common, which is all that Paxos asks of them."""

from __future__ import annotations

from collections.abc import Iterable


def majority(members: int) -> int:
    """The fewest that are more than half.

    >>> [majority(members) for members in (1, 2, 3, 4, 5)]
    [1, 2, 2, 3, 3]
    """
    return members // 2 + 1


def reached_by_majority(positions: Iterable[int]) -> int:
    """The highest position that a majority has reached, given everybody's.

    >>> reached_by_majority([7, 3, 5]), reached_by_majority([9, 9, 2, 1])
    (5, 2)
    """
    ordered = sorted(positions)
    return ordered[(len(ordered) - 1) // 2]
