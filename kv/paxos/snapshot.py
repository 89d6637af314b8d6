"""Snapshots on their way: cut into chunks by the leader, put together by who lags too far behind for the log.

A chunk is sent when the one before it is stored, so neither side ever holds more than one in memory, and
other work comes in between.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from kv.paxos.execution import Execution, State
from kv.paxos.messages import Ballot, Chunk
from underlay.store import Store


class Snapshot:
    """The machine of one moment, cut into chunks; `chunk` is the one to be stored now."""

    def __init__(self, ballot: Ballot, execution: Execution, chunk_bytes_max: int) -> None:
        state = execution.state()
        self.position = state.applied
        self._ballot = ballot
        self._chunk_bytes_max = chunk_bytes_max
        self._records: Iterator[tuple[bytes, bytes]] = execution.machine.freeze()
        self._ahead = next(self._records, None)
        self.chunk = self._cut(0, msgspec.msgpack.encode(state))

    def advance(self) -> None:
        """The chunk is stored: cut the next."""
        self.chunk = self._cut(self.chunk.number + 1, b"")

    def _cut(self, number: int, state: bytes) -> Chunk:
        records: list[tuple[bytes, bytes]] = []
        room_bytes = self._chunk_bytes_max - len(state)
        while self._ahead is not None:
            key, value = self._ahead
            room_bytes -= len(key) + len(value) + 10
            if room_bytes < 0 and records:
                break
            records.append((key, value))
            self._ahead = next(self._records, None)
        return Chunk(self._ballot, self.position, number, tuple(records), self._ahead is None, state)


class Arrival:
    """A snapshot that is being received; what an earlier one left unfinished is gone first."""

    def __init__(self, execution: Execution, store: Store, first: Chunk) -> None:
        while execution.sweep(store, staged=True):
            """It must not mix with this one."""
        self.next = 0
        """Number of the chunk that is missing."""
        self.of = (first.ballot, first.position)
        self._execution = execution
        self._state = first.state

    def take(self, store: Store, chunk: Chunk) -> bool:
        """Store a chunk if it is the next; whether that was the last, and the machine is as the leader's
        was."""
        if chunk.number != self.next:
            return False
        self._execution.stage(store, chunk.records)
        self.next += 1
        if chunk.last:
            self._execution.install(store, msgspec.msgpack.decode(self._state, type=State))
        return chunk.last
