"""The leader: Phase 2 of one ballot, from the votes that Phase 1 found to the day another ballot is heard of.

Owns the order of new entries, who has accepted how much, the reads that wait, and changes of the membership.
It proposes at consecutive positions, several of which may be under way; its Accept leaves before its own disk
syncs, and its own vote counts when that is done.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from kv.paxos.acceptor import Acceptor
from kv.paxos.batching import Batcher, Proposal, Shares
from kv.paxos.execution import Execution
from kv.paxos.follower import Follower
from kv.paxos.lease import Lease
from kv.paxos.log import Slot, decode_entry, encode_entry
from kv.paxos.messages import Ballot, Entry, Flush, Heartbeat, Member, Synced
from kv.paxos.quorum import reached_by_majority
from kv.paxos.settings import Settings
from kv.records import Checked
from kv.replication import Token
from underlay.node import Address, Context

_HOLE = encode_entry(Entry(0.0))
_NEARLY = 16
"""Entries that a newcomer may lack when it is admitted: it gets them like everybody else."""


class Leader:
    """This replica, leading in `ballot`."""

    def __init__(
        self,
        ctx: Context,
        ballot: Ballot,
        acceptor: Acceptor,
        execution: Execution,
        settings: Settings,
    ) -> None:
        self.ballot = ballot
        self.members = execution.members
        self.lease = Lease(self.members, Member(ctx.address, ballot.disk), ctx.now)
        self.in_office = False
        """Everything that was chosen before is executed: it may be asked."""
        self._acceptor = acceptor
        self._execution = execution
        self._settings = settings
        self._me = Member(ctx.address, ballot.disk)
        self._followers: dict[Address, Follower] = {}
        for member in self.members:
            if member != self._me:
                self._follow(member)
        self._last = acceptor.chosen
        """The last position proposed in this ballot."""
        self._synced = acceptor.chosen
        self._in_office_at: int | None = None
        self._batcher = Batcher(settings.entry_bytes_max)
        self._shares: dict[int, Shares] = {}
        self._flush_due = False
        self._reads: deque[tuple[int, Token]] = deque()
        """Reads, and the heartbeat round that must be confirmed for each."""
        self._newcomer: tuple[Member, Address] | None = None
        self._draining = False
        """A newcomer is ready: nothing new is proposed until nothing is under way."""
        self._changing = False
        """A Reconfigure is under way: nothing new is proposed until it is chosen, and then by Phase 1
        anew."""

    def open(self, ctx: Context, found: Sequence[bytes | None], promised: dict[Member, int]) -> None:
        """Propose what Phase 1 found, no-ops in the holes, and one more entry; once that is executed,
        everything is that any leader before can have had chosen."""
        for member, chosen in promised.items():
            if member != self._me:
                self._followers[member.address].reached(ctx, chosen)
        entries = []
        for data in found:
            entries.append(_HOLE if data is None else data)
            if data is not None and decode_entry(data).members:
                self._changing = True  # what follows it is not for these members to decide
                break
        if not self._changing:
            entries.append(_HOLE)
            self._in_office_at = self._last + len(entries)
        self._append(ctx, entries)
        self.send_heartbeats(ctx)

    def take_office(self) -> bool:
        """Whether that has just become due."""
        if self.in_office or self._in_office_at is None or self._execution.applied < self._in_office_at:
            return False
        self.in_office = True
        return True

    # ------------------------------------------------------------------------------------ proposals and reads

    def propose(self, ctx: Context, proposal: Proposal) -> None:
        """Queue until the end of this turn, when everything queued becomes an entry."""
        self._batcher.add(proposal)
        if not self._flush_due:
            self._flush_due = True
            ctx.send(ctx.address, Flush())

    def flush(self, ctx: Context) -> None:
        """Make entries of what is queued, as far as the pipeline has room."""
        self._flush_due = False
        room = self._settings.in_flight_max - (self._last - self._acceptor.chosen)
        entries: list[bytes] = []
        while self._batcher and len(entries) < room and not self._changing and not self._draining:
            operations, shares = self._batcher.take()
            entries.append(encode_entry(Entry(ctx.now, operations)))
            self._shares[self._last + len(entries)] = shares
        if entries:
            self._append(ctx, entries)

    def shares(self, position: int) -> Shares:
        """Whose operations were proposed at a position, which is now executed."""
        return self._shares.pop(position, [])

    def read(self, ctx: Context, token: Token) -> bool:
        """Whether a read may be answered now; otherwise `confirmed_reads` has it when a majority has heard a
        heartbeat that leaves after this call."""
        lease = self.lease
        if lease.holds(ctx.now, self._settings.lease_s):
            return True
        self._reads.append((lease.round + 1, token))
        if lease.round == lease.confirmed:
            self.send_heartbeats(ctx)
        return False

    def confirmed_reads(self, ctx: Context) -> list[Token]:
        """The reads that may be answered now."""
        tokens = []
        while self._reads and self._reads[0][0] <= self.lease.confirmed:
            tokens.append(self._reads.popleft()[1])
        if self._reads and self.lease.round == self.lease.confirmed:
            self.send_heartbeats(ctx)
        return tokens

    # ------------------------------------------------------------------------------------------ what it hears

    def send_heartbeats(self, ctx: Context) -> None:
        """Begin a round."""
        heartbeat = Heartbeat(self.ballot, self.lease.begin_round(ctx.now), self._acceptor.chosen)
        for address in self._followers:
            ctx.send(address, heartbeat)

    def has_majority(self, now_s: float) -> bool:
        """Whether a majority answers still."""
        return now_s - self.lease.confirmed_at_s <= self._settings.election_timeout_s

    def synced(self, through: int) -> None:
        """The own disk has everything through that position."""
        self._synced = max(self._synced, through)

    def heard(self, ctx: Context, member: Member, round_: int, through: int) -> None:
        """The answer to a heartbeat."""
        self.lease.heard(member, round_)
        follower = self._follower(member)
        if follower is not None:
            follower.reached(ctx, through)
            follower.send_again_if_stuck(ctx)
            follower.feed(ctx, self._last)

    def accepted(self, ctx: Context, member: Member, through: int, gap: bool) -> None:
        """The answer to an Accept."""
        follower = self._follower(member)
        if follower is not None:
            follower.reached(ctx, through)
            if gap:
                follower.missed()
            follower.feed(ctx, self._last)

    def stored(self, ctx: Context, member: Member, position: int, next_: int) -> None:
        """The answer to a chunk of a snapshot."""
        follower = self._follower(member)
        if follower is not None:
            follower.stored(ctx, position, next_)
            follower.feed(ctx, self._last)

    def lost(self, peer: Address) -> None:
        """The stream to a peer was reset."""
        follower = self._followers.get(peer)
        if follower is not None:
            follower.lost()

    def chosen(self) -> int:
        """Through which position a majority has accepted everything. Only what was proposed in this ballot is
        counted, so nothing can be chosen against it (Lamport 2001, section 2.2)."""
        return min(reached_by_majority(map(self._reached, self.members)), self._last)

    def needed_from(self) -> int:
        """First position of the log that a snapshot under way needs."""
        snapshots = [follower.snapshot for follower in self._followers.values()]
        return min((s.position + 1 for s in snapshots if s is not None), default=self._last + 1)

    # --------------------------------------------------------------------------------------------- membership

    def admit(self, ctx: Context, newcomer: Member, replaces: Address, *, empty: bool) -> None:
        """Catch a newcomer up, and then have it take a member's place."""
        in_the_way = [member for member in self.members if member.address in (newcomer.address, replaces)]
        if not in_the_way:
            return
        known = self._followers.get(newcomer.address)
        if known is None or known.member != newcomer:
            known = self._follow(newcomer)
        if empty and known.snapshot is None:
            known.reached(ctx, 0)
            known.begin_snapshot(ctx)
        known.send_again_if_stuck(ctx)  # the empty do not answer heartbeats
        if not empty and (self._newcomer is None or self._newcomer[0].address == newcomer.address):
            self._newcomer = (newcomer, replaces)

    def change_members(self, ctx: Context) -> None:
        """Propose the change when the newcomer is ready and nothing is under way."""
        if self._newcomer is None or self._changing or not self.in_office:
            return
        newcomer, replaces = self._newcomer
        follower, chosen = self._follower(newcomer), self._acceptor.chosen
        ready = follower is not None and follower.snapshot is None and follower.through is not None
        near = follower is not None and (follower.through or 0) >= chosen - _NEARLY
        self._draining = ready and (self._draining or near)  # one that went away holds nobody up
        if self._draining and self._last == chosen:
            staying = [m for m in self.members if m.address not in (newcomer.address, replaces)]
            self._newcomer = None
            self._changing = True
            self._append(ctx, [encode_entry(Entry(ctx.now, members=tuple(sorted([*staying, newcomer]))))])

    # ------------------------------------------------------------------------------------------------ helpers

    def _append(self, ctx: Context, entries: Sequence[bytes]) -> None:
        acceptor, first = self._acceptor, self._last + 1
        self._last += len(entries)
        for position, entry in enumerate(entries, first):
            acceptor.log.add(position, Slot(self.ballot, entry, acceptor.chosen))
        for follower in self._followers.values():
            follower.feed(ctx, self._last)
        store = Checked(ctx.store)
        for position in range(first, self._last + 1):
            acceptor.log.write(store, position)
        acceptor.through = self._last
        ctx.when_durable(Synced(self.ballot, self._last))

    def _follow(self, member: Member) -> Follower:
        follower = Follower(member, self.ballot, self._acceptor, self._execution, self._settings)
        self._followers[member.address] = follower
        return follower

    def _follower(self, member: Member) -> Follower | None:
        follower = self._followers.get(member.address)
        return follower if follower is not None and follower.member == member else None

    def _reached(self, member: Member) -> int:
        if member == self._me:
            return self._synced
        follower = self._follower(member)
        return follower.through or 0 if follower is not None else 0
