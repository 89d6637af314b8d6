"""Batching: what was proposed while the log was busy becomes few large entries, and outcomes find their
askers.

Owns proposals from when they are made until they are executed. A proposal stays in order; where it is larger
than an entry it takes several.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from kv.operations import Operation, Outcome
from kv.replication import Token


class Proposal:
    """Operations proposed together, and what became of those that were executed."""

    __slots__ = ("operations", "outcomes", "taken", "token")

    def __init__(self, operations: Sequence[Operation], token: Token) -> None:
        self.operations = operations
        self.token = token
        self.taken = 0
        self.outcomes: list[Outcome] = []

    @property
    def done(self) -> bool:
        return len(self.outcomes) == len(self.operations)


Shares = list[tuple[Proposal, int]]
"""Whose operations an entry holds, in order, and how many of each."""


class Batcher:
    """A queue of proposals, cut into entries."""

    def __init__(self, entry_bytes_max: int) -> None:
        self._queue: deque[Proposal] = deque()
        self._entry_bytes_max = entry_bytes_max

    def __bool__(self) -> bool:
        return bool(self._queue)

    def add(self, proposal: Proposal) -> None:
        """Queue; proposals have at least one operation."""
        self._queue.append(proposal)

    def take(self) -> tuple[tuple[Operation, ...], Shares]:
        """The operations of the next entry: as many as fit, and at least one."""
        operations: list[Operation] = []
        shares: Shares = []
        room_bytes = self._entry_bytes_max
        while self._queue:
            proposal = self._queue[0]
            start = proposal.taken
            for operation in proposal.operations[start:]:
                room_bytes -= _size_bytes(operation)
                if room_bytes < 0 and operations:
                    break
                operations.append(operation)
                proposal.taken += 1
            if proposal.taken > start:
                shares.append((proposal, proposal.taken - start))
            if proposal.taken < len(proposal.operations):
                break
            self._queue.popleft()
        return tuple(operations), shares


def _size_bytes(operation: Operation) -> int:
    """An upper bound of its encoded size."""
    return 24 + sum(map(len, operation.command)) + 5 * len(operation.command)
