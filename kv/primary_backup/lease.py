"""The primary's lease: while it lasts, no backup takes office, and the primary may answer reads alone.

The backup that confirms a round takes nobody's place for `Settings.restraint_s` from when it heard; the
primary counts `Settings.lease_s` from when it asked, which ends earlier whatever the network did. A read that
finds no lease waits for a round that began after it.
"""

from __future__ import annotations

from collections import deque

from kv.replication import Token


class Lease:
    """Rounds of one backup, and the reads that wait for them."""

    def __init__(self, lease_s: float) -> None:
        self.round = 0
        """The last round that was begun."""
        self._confirmed = 0
        self._sent_s = 0.0
        """When the last round was begun."""
        self._until_s: float | None = None
        self._lease_s = lease_s
        self._reads: deque[tuple[int, Token]] = deque()

    @property
    def waiting(self) -> bool:
        """Whether reads wait."""
        return bool(self._reads)

    @property
    def under_way(self) -> bool:
        """Whether a round is not confirmed yet."""
        return self._confirmed < self.round

    def holds(self, now_s: float) -> bool:
        """Whether a read may be answered at once."""
        return self._until_s is not None and now_s < self._until_s

    def wait(self, token: Token) -> None:
        """A read waits for the round to be begun next."""
        self._reads.append((self.round + 1, token))

    def begin_round(self, now_s: float) -> int:
        """Number a round that is sent now."""
        self.round += 1
        self._sent_s = now_s
        return self.round

    def confirmed(self, round_: int) -> list[Token]:
        """The backup confirmed that round; returns the reads that may be answered."""
        if round_ != self.round or not self.under_way:
            return []
        self._confirmed = round_
        self._until_s = self._sent_s + self._lease_s
        return self.take(round_)

    def take(self, round_: int | None = None) -> list[Token]:
        """The reads that wait for no later round than that; None: all."""
        tokens = []
        while self._reads and (round_ is None or self._reads[0][0] <= round_):
            tokens.append(self._reads.popleft()[1])
        return tokens
