"""Leases: a leader may answer reads alone while a majority has promised to promise nobody else.

`Lease` is the leader's side: which of its heartbeats a majority has heard. `Restraint` is the follower's. The
leader counts from when it sent, the follower from when it heard, and the leader counts less by the drift that
clocks may have (`Settings.lease_s`): so the lease ends before the restraint does, whatever the network did.
Without a lease a read waits for a heartbeat round that began after it (ReadIndex; Ongaro 2014, section 6.4).
"""

from __future__ import annotations

from math import inf

from kv.paxos.messages import Member, Members
from kv.paxos.quorum import reached_by_majority
from underlay.node import Address


class Lease:
    """Rounds of heartbeats, and who has heard which."""

    def __init__(self, members: Members, me: Member, now_s: float) -> None:
        self.round = 0
        """The last round sent."""
        self.confirmed = 0
        """The last round that a majority has heard."""
        self.confirmed_at_s = now_s
        """When that was sent, by the leader's clock; at first, when it came to lead."""
        self._me = me
        self._heard = dict.fromkeys(members, 0)
        self._sent_s: dict[int, float] = {}

    def begin_round(self, now_s: float) -> int:
        """Number a round that is sent now; the leader hears itself."""
        self.round += 1
        self._sent_s[self.round] = now_s
        self.heard(self._me, self.round)
        return self.round

    def heard(self, member: Member, round_: int) -> bool:
        """A member heard a round; whether that makes a majority for a newer one than before."""
        if member not in self._heard or not self._heard[member] < round_ <= self.round:
            return False
        self._heard[member] = round_
        confirmed = reached_by_majority(self._heard.values())
        if confirmed <= self.confirmed:
            return False
        self.confirmed_at_s = self._sent_s[confirmed]
        for past in range(self.confirmed, confirmed):
            self._sent_s.pop(past, None)
        self.confirmed = confirmed
        return True

    def holds(self, now_s: float, lease_s: float) -> bool:
        """Whether nobody else can have been elected yet."""
        return self.confirmed > 0 and now_s < self.confirmed_at_s + lease_s


class Restraint:
    """A follower's promise to promise nobody but its leader anything for a while."""

    def __init__(self) -> None:
        self._leader: Address | None = None
        self._until_s = -inf

    def restarted(self, now_s: float, restraint_s: float) -> None:
        """Whoever led before the restart may count on this replica still."""
        self._leader, self._until_s = None, now_s + restraint_s

    def heard(self, leader: Address, now_s: float, restraint_s: float) -> None:
        """A heartbeat came."""
        self._leader, self._until_s = leader, now_s + restraint_s

    def hinders(self, candidate: Address, now_s: float) -> bool:
        """Whether `candidate` must not be promised anything now."""
        return now_s < self._until_s and candidate != self._leader
