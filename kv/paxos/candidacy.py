"""One attempt to lead: what a candidate was told in the pre-vote and in Phase 1, and what follows from it.

It sends nothing; `kv.paxos.election` carries its questions, and asks whether they are answered.
"""

from __future__ import annotations

from kv.paxos.messages import Ballot, Member, Members, Promise, Vote
from kv.paxos.quorum import majority


class Candidacy:
    """One attempt to lead in `ballot`."""

    def __init__(self, ballot: Ballot, members: Members) -> None:
        self.ballot = ballot
        self.preparing = False
        """The pre-vote is won: the ballot has been raised."""
        self.promised: dict[Member, int] = {}
        """Who has promised, completely, and through which position it knows what was chosen."""
        self._members = members
        self._granted: dict[Member, None] = {}
        self._parts: dict[Member, int] = {}
        self._votes: dict[int, Vote] = {}

    def grant(self, member: Member) -> bool:
        """A member would promise; whether that makes a majority."""
        if member in self._members:
            self._granted[member] = None
        return len(self._granted) >= majority(len(self._members))

    @property
    def prepared(self) -> bool:
        """A majority has promised, completely."""
        return len(self.promised) >= majority(len(self._members))

    def promise(self, member: Member, promise: Promise) -> None:
        """A part of a promise. A member that was asked twice answers twice, each time from part 0."""
        if member in self._members and promise.part in (0, self._parts.get(member, 0)):
            self._parts[member] = promise.part + 1
            for vote in promise.votes:
                self.count(vote)
            if promise.last:
                self.promised[member] = promise.chosen

    def count(self, vote: Vote) -> None:
        """At each position the vote of the highest ballot may have been chosen, and no other."""
        known = self._votes.get(vote.position)
        if known is None or known.ballot < vote.ballot:
            self._votes[vote.position] = vote

    def entries(self, after: int) -> list[bytes | None]:
        """What must be proposed above a position, in order; None where nobody voted."""
        last = max(self._votes, default=after)
        votes = [self._votes.get(position) for position in range(after + 1, last + 1)]
        return [vote.entry if vote is not None else None for vote in votes]
