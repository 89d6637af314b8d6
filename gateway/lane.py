"""What waits of one device in a spool: entries in the order in which they came, and where the device queues.

A plain structure: whose turn it is, the spool decides.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from itertools import islice

import msgspec

Queue = OrderedDict[str, None]
"""Of devices."""


class Entry(msgspec.Struct, frozen=True):
    """One that waits."""

    spool_key: bytes
    """Where it is in the node's store."""
    device: str
    key: bytes
    """Where the storage tier will keep it."""
    id: str
    size_bytes: int
    since_s: float
    """When it came; after a restart: when the gateway started."""
    route: str
    """By which it came here."""
    hops: int = 0
    """Gateways that it came through before."""


class Lane:
    """One device's."""

    def __init__(self, device: str) -> None:
        self.device = device
        self.queue: Queue | None = None
        """The one it stands in; None: a batch of it is under way, or it is new."""
        self.under_way = 0
        """So many of its first are."""
        self.size_bytes = 0
        self._entries: OrderedDict[bytes, Entry] = OrderedDict()
        self._priorities: dict[int, int] = {}
        """How many there are of each."""

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[Entry]:
        return iter(self._entries.values())

    @property
    def first(self) -> Entry:
        return next(iter(self))

    @property
    def priority(self) -> int:
        """The highest: what is before it has to leave first."""
        return max(self._priorities)

    def batch(self) -> list[Entry]:
        """Those that are under way."""
        return list(islice(self, self.under_way))

    def add(self, entry: Entry, priority: int) -> None:
        """The last."""
        self._entries[entry.spool_key] = entry
        self.size_bytes += entry.size_bytes
        self._priorities[priority] = self._priorities.get(priority, 0) + 1

    def remove(self, entry: Entry, priority: int) -> None:
        """Any."""
        del self._entries[entry.spool_key]
        self.size_bytes -= entry.size_bytes
        self._priorities[priority] -= 1
        if not self._priorities[priority]:
            del self._priorities[priority]

    def wait_in(self, queue: Queue) -> None:
        """At its end, and in no other."""
        self.leave()
        queue[self.device] = None
        self.queue = queue

    def leave(self) -> None:
        """The queue it stands in."""
        if self.queue is not None:
            del self.queue[self.device]
            self.queue = None
