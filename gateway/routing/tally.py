"""What became of what each route took: counters since the gateway's process started."""

from __future__ import annotations

from collections.abc import Iterable


class Counts:
    """Of one route."""

    def __init__(self) -> None:
        self.matched = 0
        """Acknowledged, and this route's to a destination; to `drop`, that is the end of it."""
        self.written = 0
        """The destination has it durably."""
        self.dropped = 0
        """Acknowledged and given up, as `overflow = "drop-oldest"` asks for."""
        self.dead_lettered = 0
        """The destination will never take it."""
        self.refused = 0
        """Answered with `busy` because of this route: its rate, its share, or no room for it."""


class Tally:
    """Counters by route. What was spooled under a route that a changed spec lacks counts as `other`'s."""

    def __init__(self, names: Iterable[str], other: str) -> None:
        self._counts = {name: Counts() for name in names}
        self._other = self._counts[other]

    def of(self, route: str) -> Counts:
        return self._counts.get(route, self._other)
