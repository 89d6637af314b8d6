"""The backup's work in one view: take the primary's state, then log what it forwards, in order.

It executes what the primary says is chosen, so that it shows nothing that may be lost, and is quick to take
over. It refuses whoever is not its view's primary by saying nothing: silence is what a deposed primary hears.
"""

from __future__ import annotations

import msgspec

from kv.primary_backup.journal import Journal, State
from kv.primary_backup.messages import Chunk, Forward, Forwarded, Member
from underlay.node import Address
from underlay.store import Store


class Backup:
    """One server in one view."""

    def __init__(self, view: int, primary: Member, journal: Journal) -> None:
        self._view = view
        self._primary = primary.address
        self._journal = journal
        self._expected = 0
        """Number of the next chunk."""
        self._state = b""
        self._installed = False

    def serves(self, sender: Address, view: int) -> bool:
        """Whether that is its primary, in its view."""
        return sender == self._primary and view == self._view

    def store_chunk(self, store: Store, chunk: Chunk) -> int:
        """Take a chunk; returns the number of the one to follow."""
        if chunk.number == self._expected and not self._installed:
            if chunk.number == 0:
                self._state = chunk.state
            self._journal.stage(store, chunk.records, first=chunk.number == 0)
            self._expected += 1
            if chunk.last:
                self._journal.install(store, msgspec.msgpack.decode(self._state, type=State))
                self._installed = True
        return self._expected

    @property
    def installed(self) -> bool:
        """Whether it has the state with which the view began."""
        return self._installed

    def log(self, store: Store, forward: Forward) -> Forwarded:
        """Log what is new of what was forwarded, and execute what is chosen."""
        journal = self._journal
        gap = forward.first > journal.last + 1
        if not gap:
            first = journal.last + 1
            journal.add(forward.entries[first - forward.first :])
            journal.write(store, first)
        while journal.applied < min(forward.chosen, journal.last):
            journal.execute_next()
        journal.forget(journal.applied)
        journal.checkpoint_if_due(store)
        return Forwarded(self._view, journal.last, gap)
