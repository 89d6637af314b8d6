"""Elections: when to stand, whom to promise, and Phase 1, once for all positions not known to be chosen.

Owns the timer, the current candidacy, and the restraint that leases rest on. A pre-vote comes before a ballot
is raised, so that a replica which alone cannot hear the leader does not depose it. What a leader does is in
`kv.paxos.leader`; the promise itself is the acceptor's.
"""

from __future__ import annotations

from typing import Protocol

from kv.paxos.acceptor import Acceptor
from kv.paxos.candidacy import Candidacy
from kv.paxos.execution import Execution
from kv.paxos.leader import Leader
from kv.paxos.lease import Restraint
from kv.paxos.messages import (
    Ballot,
    Member,
    Prepare,
    PreVote,
    PreVoteGranted,
    Promise,
    Refused,
    Vote,
)
from kv.paxos.settings import Settings
from underlay.messages import Message
from underlay.node import Address, Context, Timer
from underlay.store import Store

ELECTION: Timer = ("replication", "election")
_TRIES_MAX = 64


class Candidate(Protocol):
    """The replica that stands."""

    @property
    def me(self) -> Member:
        """Its identity."""

    @property
    def votes(self) -> bool:
        """Whether it is a member."""

    @property
    def leads(self) -> Leader | None:
        """Its leadership, if it leads."""

    def lead(self, ctx: Context, candidacy: Candidacy) -> None:
        """Lead: a majority has promised."""

    def resign(self, ctx: Context) -> None:
        """Lead no more, nor follow whom it followed."""

    def ask_others(self, ctx: Context, message: Message) -> None:
        """Send to all other members."""

    def disk(self, ctx: Context) -> Store:
        """Where promises go."""


class Election:
    """One replica's part in elections."""

    def __init__(
        self, replica: Candidate, acceptor: Acceptor, execution: Execution, settings: Settings
    ) -> None:
        self.candidacy: Candidacy | None = None
        self._replica = replica
        self._acceptor = acceptor
        self._execution = execution
        self._timeout_s = settings.election_timeout_s
        self._message_bytes_max = settings.message_bytes_max
        self._restraint = Restraint()
        self._due_s = 0.0
        self._highest_round = 0
        """Of the ballots that others refused this one for."""
        self._tries = 0
        """Questions asked since a leader was heard of."""
        self._asked_by: Address | None = None
        """Who was promised something last, and has not led since."""

    # ------------------------------------------------------------------------------------------ when to stand

    def restarted(self, ctx: Context) -> None:
        """This replica may have restrained itself for a leader before it crashed; whom, it does not know."""
        self._restraint.restarted(ctx.now, self._timeout_s)
        self.await_leader(ctx)

    def await_leader(self, ctx: Context) -> None:
        """Stand if no leader is heard of for an election timeout and up to half as long again."""
        self._put_off(ctx)
        ctx.set_timer(ELECTION, self._due_s - ctx.now)

    def stand_soon(self, ctx: Context, delay_s: float) -> None:
        """There is no leader to wait for."""
        self._due_s = ctx.now + delay_s
        ctx.set_timer(ELECTION, delay_s)

    def heard(self, ctx: Context, leader: Address) -> None:
        """A leader lives, and relies on being the only one for a while."""
        self.candidacy = self._asked_by = None
        self._tries = 0
        self._restraint.heard(leader, ctx.now, self._timeout_s)
        self._put_off(ctx)

    def on_timer(self, ctx: Context) -> None:
        """The timer was set when the leader was last silent; it may have spoken since."""
        if self._replica.leads is None:
            if self.candidacy is None and ctx.now < self._due_s:
                ctx.set_timer(ELECTION, self._due_s - ctx.now)
            else:
                self.stand(ctx)

    def stand(self, ctx: Context, *, at_once: bool = False) -> None:
        """Begin with a pre-vote, or `at_once` with Phase 1, which only who led until now may."""
        replica = self._replica
        replica.resign(ctx)
        self.candidacy = None
        self._wait_for_votes(ctx)
        if not replica.votes:
            return
        rounds = max(self._acceptor.promised.round, self._highest_round)
        ballot = Ballot(rounds + 1, replica.me.disk)
        self.candidacy = Candidacy(ballot, self._execution.members)
        if self.candidacy.grant(replica.me) or at_once:
            self._prepare(ctx, self.candidacy)
        else:
            replica.ask_others(ctx, PreVote(ballot, self._acceptor.chosen))

    # --------------------------------------------------------------------------------------------- candidates

    def on_pre_vote_granted(self, ctx: Context, sender: Address, granted: PreVoteGranted) -> None:
        candidacy = self.candidacy
        if candidacy is None or candidacy.preparing or candidacy.ballot != granted.ballot:
            return
        if candidacy.grant(Member(sender, granted.disk)):
            self._prepare(ctx, candidacy)

    def on_promise(self, ctx: Context, sender: Address, promise: Promise) -> None:
        candidacy = self.candidacy
        if candidacy is not None and candidacy.preparing and candidacy.ballot == promise.ballot:
            candidacy.promise(Member(sender, promise.disk), promise)
            self._lead_if_prepared(ctx, candidacy)

    def on_refused(self, ctx: Context, sender: Address, refused: Refused) -> None:
        """Somebody has promised a higher ballot, perhaps to one who never led: stand above it, and soon."""
        if not self._is_member(sender):
            return
        self._highest_round = max(self._highest_round, refused.promised.round)
        if refused.promised <= refused.ballot:
            return
        leader = self._replica.leads
        if leader is not None and leader.ballot == refused.ballot:
            self.stand(ctx)
        elif self.candidacy is not None and self.candidacy.ballot == refused.ballot:
            self.candidacy = None
            self.stand_soon(ctx, self._timeout_s * ctx.rng.random() / 4.0)

    def _prepare(self, ctx: Context, candidacy: Candidacy) -> None:
        acceptor, replica = self._acceptor, self._replica
        candidacy.preparing = True
        acceptor.promise(replica.disk(ctx), candidacy.ballot)
        for vote in acceptor.votes(acceptor.chosen):
            candidacy.count(vote)
        candidacy.promised[replica.me] = acceptor.chosen
        self._wait_for_votes(ctx)
        replica.ask_others(ctx, Prepare(candidacy.ballot, acceptor.chosen))
        self._lead_if_prepared(ctx, candidacy)

    def _lead_if_prepared(self, ctx: Context, candidacy: Candidacy) -> None:
        if candidacy.prepared:
            self.candidacy = None
            self._tries = 0
            ctx.cancel_timer(ELECTION)
            self._replica.lead(ctx, candidacy)

    # ------------------------------------------------------------------------------------------------- voters

    def on_pre_vote(self, ctx: Context, sender: Address, asked: PreVote) -> None:
        if self._may_promise(ctx, sender, asked.ballot, asked.chosen):
            ctx.send(sender, PreVoteGranted(asked.ballot, self._replica.me.disk))

    def on_prepare(self, ctx: Context, sender: Address, asked: Prepare) -> None:
        if not self._may_promise(ctx, sender, asked.ballot, asked.chosen):
            return
        acceptor = self._acceptor
        if asked.ballot > acceptor.promised:
            self._replica.resign(ctx)
            self.candidacy = None
            acceptor.promise(self._replica.disk(ctx), asked.ballot)
            self.await_leader(ctx)
        if self._asked_by == sender:  # again: the stream that carried the last answer may be stuck
            ctx.give_up(sender)
        self._asked_by = sender
        votes: list[Vote] = []
        room_bytes, part = self._message_bytes_max, 0
        for vote in acceptor.votes(asked.chosen):
            room_bytes -= len(vote.entry) + 32
            if votes and room_bytes < 0:
                ctx.send(sender, self._promise(votes, part, last=False))
                room_bytes, part = self._message_bytes_max - len(vote.entry), part + 1
                votes = []
            votes.append(vote)
        ctx.send(sender, self._promise(votes, part, last=True))

    def _promise(self, votes: list[Vote], part: int, *, last: bool) -> Promise:
        acceptor = self._acceptor
        disk = self._replica.me.disk
        return Promise(acceptor.promised, disk, acceptor.chosen, tuple(votes), part, last)

    def _may_promise(self, ctx: Context, sender: Address, ballot: Ballot, chosen: int) -> bool:
        """Whether nothing stands against promising `ballot` to `sender`, who knows what is chosen through
        `chosen`. Who is restrained keeps silent."""
        acceptor, leader = self._acceptor, self._replica.leads
        if not self._is_member(sender) or self._restraint.hinders(sender, ctx.now):
            return False
        if leader is not None and leader.has_majority(ctx.now):
            return False
        if ballot < acceptor.promised or not acceptor.reaches_back_to(chosen):
            ctx.send(sender, Refused(ballot, acceptor.promised))
            return False
        return True

    # ------------------------------------------------------------------------------------------------ helpers

    def _is_member(self, sender: Address) -> bool:
        return any(member.address == sender for member in self._execution.members)

    def _put_off(self, ctx: Context) -> None:
        self._due_s = ctx.now + self._timeout_s * (1.0 + 0.5 * ctx.rng.random())

    def _wait_for_votes(self, ctx: Context) -> None:
        """Ask again soon, for a question may get lost, and then ever later, for answers may be long."""
        self._tries += 1
        wait_s = self._timeout_s * (0.25 + 0.25 * ctx.rng.random())
        ctx.set_timer(ELECTION, wait_s * (1 + min(self._tries, _TRIES_MAX) // 4))
