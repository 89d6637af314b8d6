"""A device's disk: what is durable, group commit, and what can happen to a disk.

One sync at a time takes a fixed time; every batch that is written while one is under way shares the next.
What waits for a commit (sends, messages to oneself) is let go when its batch is durable. A power cut forgets
the rest, but for the commit under way: that one had begun to reach the disk, and whether it is there as a
whole, not at all, or in part (which the next start finds out and discards) is drawn from the run's seed.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from underlay.simulation.agenda import Agenda, Call
from underlay.store import Batch

Waiting = tuple[Call, object, object]


class Commit:
    """Batches that become durable together, and the calls that wait for that, in order."""

    __slots__ = ("batches", "waiting")

    def __init__(self) -> None:
        self.batches: list[tuple[str, Batch]] = []
        self.waiting: list[Waiting] = []


class Disk:
    """The durable items of each node of a device.

    Args:
        rng: makes the random stream for what is left to chance here.
        sync_s: of one commit.
        later: takes a call for when the device's programs run again, or says that they do.
        failed: a commit failed.
    """

    __slots__ = (
        "_agenda", "_durable", "_failed", "_later", "_make_rng", "_next", "_rng", "_sync_s",
        "_syncing", "failing", "lost", "slowness", "torn",
    )  # fmt: skip

    def __init__(
        self,
        agenda: Agenda,
        rng: Callable[[], Random],
        sync_s: float,
        later: Callable[[Call, object, object], bool],
        failed: Callable[[], None],
    ) -> None:
        self.slowness = 1.0
        """By how much a sync takes longer."""
        self.failing = False
        """The next commit fails."""
        self.lost = False
        """The next start finds nothing."""
        self.torn = False
        """A commit that power failed in the middle of is waiting to be found."""
        self._agenda = agenda
        self._make_rng = rng
        self._rng: Random | None = None
        self._later = later
        self._failed = failed
        self._sync_s = sync_s
        self._durable: dict[str, dict[bytes, bytes]] = {}
        self._syncing: Commit | None = None
        self._next: Commit | None = None

    def durable(self, node: str) -> dict[bytes, bytes]:
        """What a power cut would leave of the node's store, if no commit is under way."""
        return dict(self._durable.get(node, ()))

    def write(self, node: str, batch: Batch) -> Commit:
        """Add a handler's writes to the next commit, which begins now or when the running sync is over."""
        commit = self._next
        if commit is None:
            commit = self._next = Commit()
            if self._syncing is None:
                # After the other handlers of this instant: they share the sync.
                self._agenda.soon(self._begin, commit)
        commit.batches.append((node, batch))
        return commit

    def stop(self) -> None:
        """The process that writes is gone: what is not durable is forgotten."""
        cut_short, self._syncing, self._next = self._syncing, None, None
        if cut_short is not None:
            match self._chance.randrange(3):
                case 0:
                    self._apply(cut_short)
                case 1:
                    self.torn = True

    def start(self) -> bool:
        """A process reads the disk: whether it finds a torn write, which it discards."""
        if self.lost:
            self._durable.clear()
        torn = self.torn and not self.lost
        self.failing = self.lost = self.torn = False
        return torn

    def rot(self) -> None:
        """Flip one bit of a durable value, if there are any."""
        found = [
            (items, key) for _, items in sorted(self._durable.items()) for key in sorted(items) if items[key]
        ]
        if found:
            items, key = self._chance.choice(found)
            value = bytearray(items[key])
            value[self._chance.randrange(len(value))] ^= 1 << self._chance.randrange(8)
            items[key] = bytes(value)

    @property
    def _chance(self) -> Random:
        if self._rng is None:
            self._rng = self._make_rng()
        return self._rng

    def _begin(self, commit: Commit, _: object) -> None:
        if self._next is commit:
            self._syncing, self._next = commit, None
            self._agenda.at(self._agenda.now + self._sync_s * self.slowness, self._end, commit)

    def _end(self, commit: Commit, _: object) -> None:
        if self._syncing is not commit:
            return
        if self.failing:
            self._failed()
            return
        self._syncing = None
        self._apply(commit)
        if self._next is not None:
            self._begin(self._next, None)
        for call, a, b in commit.waiting:
            if not self._later(call, a, b):
                call(a, b)

    def _apply(self, commit: Commit) -> None:
        for node, batch in commit.batches:
            items = self._durable.setdefault(node, {})
            for key, value in batch.items():
                if value is None:
                    items.pop(key, None)
                else:
                    items[key] = value
