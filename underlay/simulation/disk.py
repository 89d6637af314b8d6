"""A device's disk: what is durable, and group commit.

One sync at a time takes a fixed time; every batch that is written while one is under way shares the next.
What waits for a commit (sends, messages to oneself) is let go when its batch is durable. A power cut forgets
the rest.
"""

from __future__ import annotations

from collections.abc import Callable

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
    """The durable items of each node of a device."""

    __slots__ = ("_agenda", "_durable", "_later", "_next", "_sync_s", "_syncing")

    def __init__(self, agenda: Agenda, sync_s: float, later: Callable[[Call, object, object], bool]) -> None:
        """`later` takes a call for when the device's programs run again, or says that they do."""
        self._agenda = agenda
        self._later = later
        self._sync_s = sync_s
        self._durable: dict[str, dict[bytes, bytes]] = {}
        self._syncing: Commit | None = None
        self._next: Commit | None = None

    def durable(self, node: str) -> dict[bytes, bytes]:
        """What a power cut would leave of the node's store."""
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

    def lose_power(self) -> None:
        """Forget what is not durable yet."""
        self._syncing = self._next = None

    def _begin(self, commit: Commit, _: object) -> None:
        if self._next is commit:
            self._syncing, self._next = commit, None
            self._agenda.at(self._agenda.now + self._sync_s, self._end, commit)

    def _end(self, commit: Commit, _: object) -> None:
        if self._syncing is not commit:
            return
        self._syncing = None
        for node, batch in commit.batches:
            items = self._durable.setdefault(node, {})
            for key, value in batch.items():
                if value is None:
                    items.pop(key, None)
                else:
                    items[key] = value
        if self._next is not None:
            self._begin(self._next, None)
        for call, a, b in commit.waiting:
            if not self._later(call, a, b):
                call(a, b)
