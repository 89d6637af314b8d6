"""The backup as its primary sees it: what it has, what is under way to it, and how long it has been silent.

Owns the pace: one chunk of the state at a time, then a bounded window of entries, and sending again what must
have been lost. The backup's answers are cumulative, so that a lost one costs nothing.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from enum import Enum

import msgspec

from kv.primary_backup.journal import Journal
from kv.primary_backup.lease import Lease
from kv.primary_backup.messages import Chunk, Confirm, Forward
from kv.primary_backup.settings import Settings
from underlay.node import Address, Context


class Stage(Enum):
    """How far the backup has come."""

    TRANSFER = "transfer"
    """It is sent the state; the primary answers alone."""
    CATCHING_UP = "catching up"
    """It is sent what was logged meanwhile; what is logged now is answered when it has that too."""
    SYNCED = "synced"
    """It has all that was ever answered: it may take the primary's place."""


class Peer:
    """The backup of one view. Its state is under way to it as soon as this is made."""

    def __init__(
        self, ctx: Context, address: Address, view: int, journal: Journal, settings: Settings
    ) -> None:
        self.stage = Stage.TRANSFER
        self.lease = Lease(settings.lease_s)
        self.through = journal.applied
        """Through this position it has logged everything; while the state is sent, where that will end."""
        self._address = address
        self._view = view
        self._journal = journal
        self._settings = settings
        self._sent = self.through
        self._told = self.through
        """It knows that everything through this position is chosen."""
        self._under_way: deque[tuple[int, int]] = deque()
        """Last position and bytes of each Forward that was sent and not confirmed."""
        self._rewound = False
        self._moved_s = ctx.now
        self._patience_s = settings.dead_s
        self._waits_since_s: float | None = ctx.now
        """Since when it owes an answer."""
        self._records: Iterator[tuple[bytes, bytes]] = journal.machine.freeze()
        self._ahead = next(self._records, None)
        self._chunk = self._cut(0, msgspec.msgpack.encode(journal.state()))
        ctx.send(address, self._chunk)

    def silent(self, now_s: float) -> bool:
        """Whether it has owed an answer for too long."""
        return self._waits_since_s is not None and now_s - self._waits_since_s > self._settings.silent_s

    # ------------------------------------------------------------------------------------------ what is sent

    def feed(self, ctx: Context) -> None:
        """Send what was logged and not sent, as far as the window allows."""
        if self.stage is Stage.TRANSFER:
            return
        journal, settings = self._journal, self._settings
        while self._sent < journal.last and self._under_way_bytes() < settings.window_bytes_max:
            entries = journal.entries(self._sent + 1, settings.message_bytes_max)
            self._forward(ctx, entries)
            self._sent += len(entries)
            self._under_way.append((self._sent, sum(map(len, entries))))
            self._owes(ctx)

    def ask(self, ctx: Context) -> None:
        """Begin a round of the lease."""
        ctx.send(self._address, Confirm(self._view, self.lease.begin_round(ctx.now)))
        self._owes(ctx)

    def tick(self, ctx: Context) -> None:
        """Now and then: send again what must have been lost, on a new stream, because one that a cut has
        broken may wait ever longer before it tries again. Patience grows, for a link that is merely slow must
        not be filled with repetitions. And tell what was chosen last."""
        if self.lease.waiting:
            self.ask(ctx)
        owes = self.stage is Stage.TRANSFER or self._sent > self.through
        if owes and ctx.now - self._moved_s > self._patience_s:
            self._moved_s = ctx.now
            self._patience_s *= 2.0
            ctx.give_up(self._address)
            if self.stage is Stage.TRANSFER:
                ctx.send(self._address, self._chunk)
            else:
                self._rewind()
        self.feed(ctx)
        if self._sent == self.through and self._told < self._journal.applied:
            self._forward(ctx, ())

    def lost(self) -> None:
        """The stream to it was reset: send again at the next tick."""
        self._moved_s = float("-inf")

    # ------------------------------------------------------------------------------------ what it is answered

    def stored(self, ctx: Context, next_: int) -> None:
        """It has stored the chunks before number `next_`."""
        if self.stage is not Stage.TRANSFER or next_ != self._chunk.number + 1:
            return
        self._answered(ctx)
        if self._chunk.last:
            self.stage = Stage.CATCHING_UP
            self._waits_since_s = None
            self.feed(ctx)
        else:
            self._chunk = self._cut(next_, b"")
            ctx.send(self._address, self._chunk)

    def forwarded(self, ctx: Context, through: int, gap: bool) -> None:
        """It has logged everything through that position. A gap is repaired once: what is sent now comes
        after everything that was under way when it was found."""
        if self.stage is Stage.TRANSFER:
            return
        if through > self.through:
            self.through = through
            self._sent = max(self._sent, through)
            self._rewound = False
            while self._under_way and self._under_way[0][0] <= through:
                self._under_way.popleft()
            self._answered(ctx)
        if gap and not self._rewound:
            self._rewind()
            self._rewound = True
        self.feed(ctx)

    def confirmed(self, ctx: Context) -> None:
        """It answered a round of the lease."""
        self._answered(ctx)

    # ------------------------------------------------------------------------------------------------ helpers

    def _forward(self, ctx: Context, entries: tuple[bytes, ...]) -> None:
        self._told = self._journal.applied
        ctx.send(self._address, Forward(self._view, self._sent + 1, entries, self._told))

    def _rewind(self) -> None:
        self._sent = self.through
        self._under_way.clear()

    def _under_way_bytes(self) -> int:
        return sum(size_bytes for _, size_bytes in self._under_way)

    def _owes(self, ctx: Context) -> None:
        if self._waits_since_s is None:
            self._waits_since_s = self._moved_s = ctx.now

    def _answered(self, ctx: Context) -> None:
        self._moved_s, self._patience_s = ctx.now, self._settings.dead_s
        owes = self.stage is Stage.TRANSFER or self._sent > self.through or self.lease.under_way
        self._waits_since_s = ctx.now if owes else None

    def _cut(self, number: int, state: bytes) -> Chunk:
        records: list[tuple[bytes, bytes]] = []
        room_bytes = self._settings.message_bytes_max - len(state)
        while self._ahead is not None:
            key, value = self._ahead
            room_bytes -= len(key) + len(value) + 10
            if records and room_bytes < 0:
                break
            records.append((key, value))
            self._ahead = next(self._records, None)
        return Chunk(self._view, number, tuple(records), self._ahead is None, state)
