"""The primary's work, from its first view in office to its last.

Owns the order of new entries, when they are chosen, and the reads that wait. In a view whose backup is not
synced the primary is alone: what its own disk has is chosen. With a synced backup it is what both disks have.
That is all: who may decide alone follows from who may succeed (`succession`).
"""

from __future__ import annotations

from collections.abc import Sequence

from kv.operations import Outcome
from kv.paxos.batching import Batcher, Proposal, Shares
from kv.primary_backup.journal import Journal, encode_entry
from kv.primary_backup.messages import Entry, Flush, Logged, View
from kv.primary_backup.peer import Peer, Stage
from kv.primary_backup.settings import Settings
from kv.replication import Token
from underlay.node import Address, Context


class Primary:
    """Takes office with everything in the journal chosen: nobody else's disk counts when it begins."""

    def __init__(self, ctx: Context, view: View, journal: Journal, settings: Settings) -> None:
        self.peer: Peer | None = None
        self._journal = journal
        self._settings = settings
        self._office = view.number
        self._logged = self.chosen = journal.last
        self._batcher = Batcher(settings.entry_bytes_max)
        self._shares: dict[int, Shares] = {}
        self._flush_due = False
        while journal.applied < self.chosen:
            journal.execute_next()
        self.follow(ctx, view)

    def follow(self, ctx: Context, view: View) -> list[Token]:
        """Go on in another view, as primary again; returns the reads that waited for the backup of the last:
        nobody but this server can have answered anything."""
        self.view = view
        tokens = self.peer.lease.take() if self.peer is not None else []
        self.peer = None
        if view.backup is not None:
            self.peer = Peer(ctx, view.backup.address, view.number, self._journal, self._settings)
        self._journal.forget(self._needed_through())
        return tokens

    @property
    def synced(self) -> bool:
        """Whether nothing happens without the backup."""
        return self.peer is not None and self.peer.stage is Stage.SYNCED

    def backup(self, sender: Address, view: int) -> Peer | None:
        """The backup, if it is who sent something in that view."""
        backup = self.view.backup
        if backup is None or backup.address != sender or view != self.view.number:
            return None
        return self.peer

    # ------------------------------------------------------------------------------------ proposals and reads

    def propose(self, ctx: Context, proposal: Proposal) -> None:
        """Queue until the end of this turn, when everything queued becomes an entry."""
        self._batcher.add(proposal)
        if not self._flush_due:
            self._flush_due = True
            ctx.send(ctx.address, Flush())

    def flush(self, ctx: Context) -> Sequence[bytes]:
        """Entries of what is queued, as far as there is room for them."""
        self._flush_due = False
        journal, settings = self._journal, self._settings
        room = settings.in_flight_max - (journal.last - self.chosen)
        entries: list[bytes] = []
        while self._batcher and len(entries) < room and journal.size_bytes < settings.retained_bytes_max:
            operations, shares = self._batcher.take()
            entries.append(encode_entry(Entry(ctx.now, operations)))
            self._shares[journal.last + len(entries)] = shares
        return entries

    def append(self, ctx: Context, entries: Sequence[bytes]) -> int:
        """Log entries: they leave for the backup before the own disk syncs. Returns the first position, which
        is to be written."""
        first = self._journal.last + 1
        self._journal.add(entries)
        if self.peer is not None:
            self.peer.feed(ctx)
        return first

    def logged_message(self) -> Logged:
        """What to tell oneself when everything logged is durable."""
        return Logged(self._office, self._journal.last)

    def read(self, ctx: Context, token: Token) -> bool:
        """Whether a read may be answered now; otherwise the lease has it."""
        if self.peer is None or not self.synced or self.peer.lease.holds(ctx.now):
            return True
        self.peer.lease.wait(token)
        if not self.peer.lease.under_way:
            self.peer.ask(ctx)
        return False

    # ----------------------------------------------------------------------------------------- what is chosen

    def logged(self, message: Logged) -> None:
        """The own disk has more."""
        if message.office == self._office:
            self._logged = max(self._logged, message.through)

    def choose(self) -> None:
        """Find out what is chosen now, and whether the backup has everything that is."""
        peer = self.peer
        if peer is None or peer.stage is Stage.TRANSFER:
            self.chosen = max(self.chosen, self._logged)
            return
        self.chosen = max(self.chosen, min(self._logged, peer.through))
        if peer.through >= self.chosen:
            peer.stage = Stage.SYNCED

    def execute_next(self) -> list[tuple[Token, list[Outcome]]] | None:
        """Execute the next chosen entry; returns what was proposed and is done with it, or None if there is
        no such entry."""
        journal = self._journal
        if journal.applied >= self.chosen:
            return None
        outcomes = journal.execute_next()
        journal.forget(self._needed_through())
        start, done = 0, []
        for proposal, count in self._shares.pop(journal.applied, ()):
            proposal.outcomes += outcomes[start : start + count]
            start += count
            if proposal.done:
                done.append((proposal.token, proposal.outcomes))
        return done

    def _needed_through(self) -> int:
        """Entries above this position are still to be executed, or sent."""
        applied = self._journal.applied
        return applied if self.peer is None else min(applied, self.peer.through)
