"""The acceptor: the two rules on which everything rests (Lamport 2001, section 2.2), for a whole log.

P1: having promised a ballot, vote in no lower one. P2: tell who prepares a higher ballot all votes given,
above the position through which it knows the outcome. Owns the promise, the votes, and the knowledge of what
is chosen; leases and elections are others' business (they decide whether an acceptor is asked at all).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec

from kv.paxos.log import Log, Slot
from kv.paxos.messages import NO_BALLOT, Ballot, Vote
from underlay.store import Store

_PROMISED = b"pb"


class Acceptor:
    """One replica's promise and votes."""

    def __init__(self) -> None:
        self.log = Log()
        self.promised = NO_BALLOT
        self.chosen = 0
        """Through this position the log is known to hold what was chosen."""
        self.through = 0
        """Through this position it holds what was chosen, or what was accepted in the promised ballot: what
        the promised ballot's leader has there."""

    def load(self, store: Store, first: int, applied: int) -> None:
        """Recover; the log begins at `first`, and what it says up to `applied` is in the checkpoint."""
        promised = store.get(_PROMISED)
        self.promised, chosen = (
            msgspec.msgpack.decode(promised, type=tuple[Ballot, int]) if promised else (NO_BALLOT, 0)
        )
        self.chosen = max(applied, chosen, self.log.load(store, first))
        self._find_through(self.chosen)

    def promise(self, store: Store, ballot: Ballot) -> None:
        """Vote in no ballot below this one.

        With it goes what is known to be chosen. Its votes are of other ballots, so nothing else would tell a
        restarted acceptor that `through` was as far as it had told the new leader.
        """
        assert ballot >= self.promised, f"promised {self.promised} before {ballot}"
        if ballot > self.promised:
            self.promised = ballot
            self.through = self.chosen
            store.put(_PROMISED, msgspec.msgpack.encode((ballot, self.chosen)))

    def accept(self, store: Store, first: int, entries: Sequence[bytes]) -> bool:
        """Vote for entries of the promised ballot's leader; False if there is a gap before them."""
        if first > self.through + 1:
            return False
        for position, entry in enumerate(entries, first):
            if position > self.through:
                self.log.add(position, Slot(self.promised, entry, self.chosen))
                self.log.write(store, position)
        self.through = max(self.through, first + len(entries) - 1)
        return True

    def learn(self, chosen: int) -> None:
        """The promised ballot's leader says that everything through `chosen` is."""
        self.chosen = max(self.chosen, min(chosen, self.through))

    def votes(self, after: int) -> Iterator[Vote]:
        """All votes above a position."""
        for position in range(max(after + 1, self.log.first), self.log.last + 1):
            slot = self.log.get(position)
            if slot is not None:
                yield Vote(position, slot.ballot, slot.entry)

    def reaches_back_to(self, position: int) -> bool:
        """Whether `votes(position)` leaves nothing out."""
        return self.log.first <= position + 1

    def install(self, store: Store, position: int) -> None:
        """The machine's state as of `position` came from elsewhere."""
        self.log.truncate(store, position + 1)
        self.chosen = max(self.chosen, position)
        self._find_through(max(self.through, self.chosen))

    def _find_through(self, known: int) -> None:
        self.through = known
        while (slot := self.log.get(self.through + 1)) and slot.ballot == self.promised:
            self.through += 1
