"""What a leader knows of another replica, and what is under way to it: entries, or a snapshot.

Owns the pace: a bounded window of entries that were sent and not accepted, one chunk of a snapshot at a time,
and sending again what must have been lost. A follower's place is cumulative, so a lost answer costs nothing.
"""

from __future__ import annotations

from collections import deque
from math import inf

from kv.paxos.acceptor import Acceptor
from kv.paxos.execution import Execution
from kv.paxos.messages import Accept, Ballot, Member
from kv.paxos.settings import Settings
from kv.paxos.snapshot import Snapshot
from underlay.node import Context

_PATIENCE_S_MAX = 15.0


class Follower:
    """One replica as the leader of `ballot` sees it."""

    def __init__(
        self, member: Member, ballot: Ballot, acceptor: Acceptor, execution: Execution, settings: Settings
    ) -> None:
        self.member = member
        self.through: int | None = None
        """Through this position it has what the leader has; None until it says so."""
        self.snapshot: Snapshot | None = None
        self._sent = 0
        self._under_way: deque[tuple[int, int]] = deque()
        """Last position and bytes of each Accept that was sent and not accepted."""
        self._ballot = ballot
        self._acceptor = acceptor
        self._execution = execution
        self._settings = settings
        self._patience_s = settings.election_timeout_s
        self._moved_s = -inf
        self._rewound = False

    def feed(self, ctx: Context, last: int) -> None:
        """Send what it has not been sent, up to position `last` and as far as the window allows."""
        if self.through is None or self.snapshot is not None or self._sent >= last:
            return
        log, settings = self._acceptor.log, self._settings
        if self._sent == self.through:
            self._moved_s = ctx.now
        while self._sent < last and self._has_room():
            first = self._sent + 1
            if first < log.first:
                self.begin_snapshot(ctx)
                return
            entries: list[bytes] = []
            size_bytes = 0
            for position in range(first, min(last, self.through + settings.window_max) + 1):
                slot = log.get(position)
                assert slot is not None, f"a leader has no hole at {position}"
                size_bytes += len(slot.entry)
                if entries and size_bytes > settings.message_bytes_max:
                    size_bytes -= len(slot.entry)
                    break
                entries.append(slot.entry)
            accept = Accept(self._ballot, first, tuple(entries), self._acceptor.chosen)
            ctx.send(self.member.address, accept)
            self._sent += len(entries)
            self._under_way.append((self._sent, size_bytes))

    def reached(self, ctx: Context, through: int) -> None:
        """It said through which position it has everything."""
        if self.through is None:
            self.through = self._sent = through
        elif through > self.through:
            self.through = through
            self._sent = max(self._sent, through)
            self._rewound = False
            if self.snapshot is None:  # a word about the log says nothing of a chunk that was lost
                self._moved(ctx)
            while self._under_way and self._under_way[0][0] <= through:
                self._under_way.popleft()

    def rewind(self) -> None:
        """What was under way is lost: `feed` sends it again."""
        self._sent = self.through or 0
        self._under_way.clear()
        self._rewound = True

    def missed(self) -> None:
        """It reported a gap. What was under way then is reported too; what is sent now comes after all
        that."""
        if not self._rewound:
            self.rewind()

    def send_again_if_stuck(self, ctx: Context) -> None:
        """It answers, but has not moved for long: a stream that a cut has broken may wait ever longer before
        it tries again. Patience grows, for a link that is merely slow must not be filled with repetitions."""
        if self.through is None or (self.snapshot is None and self._sent == self.through):
            return
        if ctx.now - self._moved_s > self._patience_s:
            self._moved_s = ctx.now
            self._patience_s *= 2.0
            ctx.give_up(self.member.address)
            if self.snapshot is not None:
                ctx.send(self.member.address, self.snapshot.chunk)
            else:
                self.rewind()

    def lost(self) -> None:
        """The stream to it was reset: send again, once it is heard of."""
        if self.snapshot is not None:
            self._moved_s = -inf
        else:
            self.rewind()

    # ---------------------------------------------------------------------------------------------- snapshots

    def begin_snapshot(self, ctx: Context) -> None:
        """Send the machine as it is now; the log goes on from there."""
        self.snapshot = Snapshot(self._ballot, self._execution, self._settings.message_bytes_max)
        self._moved_s = ctx.now
        self._under_way.clear()
        ctx.send(self.member.address, self.snapshot.chunk)

    def stored(self, ctx: Context, position: int, next_: int) -> None:
        """It has stored the chunks of the snapshot of `position` before number `next_`."""
        snapshot = self.snapshot
        if snapshot is None or snapshot.position != position:
            return
        self._moved(ctx)
        if next_ == 0 and snapshot.chunk.number > 0:
            self.begin_snapshot(ctx)
        elif next_ == snapshot.chunk.number + 1:
            if snapshot.chunk.last:
                self.snapshot = None
                self.through = self._sent = max(self.through or 0, position)
            else:
                snapshot.advance()
                ctx.send(self.member.address, snapshot.chunk)

    def _moved(self, ctx: Context) -> None:
        took_s = min(ctx.now - self._moved_s, _PATIENCE_S_MAX)
        self._moved_s = ctx.now
        self._patience_s = max(self._settings.election_timeout_s, 2.0 * took_s)

    def _has_room(self) -> bool:
        assert self.through is not None
        settings = self._settings
        return (
            self._sent - self.through < settings.window_max
            and sum(size_bytes for _, size_bytes in self._under_way) < settings.window_bytes_max
        )
