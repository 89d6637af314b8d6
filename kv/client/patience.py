"""How long a client waits for what."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from random import Random

DEADLINE_S_MAX = 3600.0
"""Replicas remember a session for a day after its last use, so that no repetition can outlive the memory."""


class Patience(msgspec.Struct, frozen=True):
    """Times in seconds of the client's own clock."""

    deadline_s: float = 30.0
    """From the call to the reply, whatever it is; at most an hour."""
    try_s: float = 1.0
    """How long one replica may be silent before another is asked: more than an election takes, and several
    round trips, since a repetition costs the replicas as much as the first."""
    pause_s: float = 0.02
    """Before a second try, and doubled for each further one..."""
    pause_s_max: float = 0.25
    """...up to this much, which is what an outage may last longer for the client than for the store."""
    hops_max: int = 4
    """Redirections that are followed at once, before one is followed after a pause."""

    def __post_init__(self) -> None:
        if not 0.0 < self.deadline_s <= DEADLINE_S_MAX:
            raise ValueError(f"deadline_s = {self.deadline_s} is not within 0..{DEADLINE_S_MAX}")

    def pause(self, failures: int, rng: Random) -> float:
        """Before the try after so many failed ones: exponential, and spread over half its length, so that
        clients who failed together do not come back together."""
        longest_s = min(self.pause_s_max, self.pause_s * 2.0 ** min(failures - 1, 30))
        return longest_s * (0.5 + 0.5 * rng.random())
