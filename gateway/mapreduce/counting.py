"""Counters that a user's functions keep, such as `count("no value")`.

What a record's function counted before it failed does not count, nor does what an attempt counted that was
not the one whose output is used.
"""

from __future__ import annotations

from contextvars import ContextVar

_staged: ContextVar[dict[str, int] | None] = ContextVar("staged", default=None)


def count(name: str, by: int = 1) -> None:
    """Add to the job's counter of that name; outside of a job nothing happens."""
    staged = _staged.get()
    if staged is not None:
        staged[name] = staged.get(name, 0) + by


class Counters:
    """Of one attempt.

    >>> counters = Counters()
    >>> with counters:
    ...     count("seen"); counters.keep()
    ...     count("seen"); counters.discard()
    >>> counters.totals
    {'seen': 1}
    """

    def __init__(self) -> None:
        self.totals: dict[str, int] = {}
        self.now: dict[str, int] = {}
        """Since it was kept or discarded last."""

    def __enter__(self) -> Counters:
        self._token = _staged.set(self.now)
        return self

    def __exit__(self, *_: object) -> None:
        _staged.reset(self._token)

    def keep(self) -> None:
        """What was counted since counts."""
        if self.now:
            for name, by in self.now.items():
                self.totals[name] = self.totals.get(name, 0) + by
            self.now.clear()

    def discard(self) -> None:
        """What was counted since does not."""
        self.now.clear()


def added(*given: dict[str, int]) -> dict[str, int]:
    """Sums by name, in the order of the names."""
    names = sorted({name for each in given for name in each})
    return {name: sum(each.get(name, 0) for each in given) for name in names}
