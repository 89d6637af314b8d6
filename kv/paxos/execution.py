"""Execution: the machine, and how far it has come; checkpoints of it, and snapshots that replace it.

Owns the records under `m` and the state around them: position, log time, who votes. A checkpoint writes what
changed since the last one, so its cost follows the changes and not the size. A snapshot from a peer is
written beside the records in use, under a generation of its own, and takes their place in one step.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import msgspec

from kv.operations import Outcome
from kv.paxos.log import Log
from kv.paxos.messages import Entry, Members
from kv.paxos.settings import Settings
from kv.replication import Machine
from underlay.store import Store, prefix_end

_STATE = b"ps"
_RECORDS = b"m"
_SWEEP_RECORDS = 500


class State(msgspec.Struct, frozen=True, array_like=True):
    """What a checkpoint says beside the machine's records, and a snapshot too."""

    applied: int
    """Position through which the records hold what was executed."""
    time_s: float
    members: Members
    """Who votes on everything after `applied`."""
    founders: Members
    generation: int = 0
    stored_from: int = 1
    """First position in the log."""


class Execution:
    """Executes entries in order. `state` is None where there is no group yet."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.applied = 0
        self.time_s = 0.0
        self.members: Members = ()
        self.founders: Members = ()
        self.operations = 0
        """Executed since the last checkpoint."""
        self.checkpointed = 0
        self._generation = 0

    def found(self, store: Store, members: Members) -> None:
        """Begin at position 0 with an empty machine."""
        self._adopt(State(0, 0.0, members, members))
        self._write_state(store, 1)

    def load(self, store: Store) -> int | None:
        """Recover the last checkpoint; returns where the log begins, or None if there is no group here."""
        data = store.get(_STATE)
        if data is None:
            return None
        state = msgspec.msgpack.decode(data, type=State)
        self._adopt(state)
        self.machine.restore(self._records(store))
        return state.stored_from

    def execute(self, entry: Entry) -> Sequence[Outcome]:
        """Execute the entry after the last; returns an outcome for each of its operations."""
        self.applied += 1
        self.time_s = time_s = max(self.time_s, entry.time_s)
        self.operations += len(entry.operations)
        if entry.members:
            self.members = entry.members
        execute = self.machine.execute
        return [execute(operation, time_s) for operation in entry.operations]

    def checkpoint_is_due(self, settings: Settings, log: Log) -> bool:
        """Whether there is enough to write, or too much log before it."""
        entries = self.applied - self.checkpointed
        return entries > 0 and (
            self.operations >= settings.checkpoint_operations
            or entries >= settings.checkpoint_entries
            or log.size_bytes >= 2 * settings.retained_bytes
        )

    def checkpoint(self, store: Store, stored_from: int) -> None:
        """Write what changed; the log then begins at `stored_from`."""
        prefix = _prefix(self._generation)
        for key, value in self.machine.take_changes().items():
            if value is None:
                store.delete(prefix + key)
            else:
                store.put(prefix + key, value)
        self._write_state(store, stored_from)

    def state(self) -> State:
        """As a snapshot taken now must say it."""
        return State(self.applied, self.time_s, self.members, self.founders)

    # ------------------------------------------------------------------------------------ snapshots, received

    def stage(self, store: Store, records: Iterable[tuple[bytes, bytes]]) -> None:
        """Write some records of a snapshot beside those in use."""
        prefix = _prefix(self._generation + 1)
        for key, value in records:
            store.put(prefix + key, value)

    def install(self, store: Store, state: State) -> None:
        """What was staged takes the place of what was in use; `sweep` deletes that."""
        generation = self._generation + 1
        self._adopt(msgspec.structs.replace(state, generation=generation))
        self._write_state(store, state.applied + 1)
        self.machine.restore(self._records(store))

    def sweep(self, store: Store, *, staged: bool = False) -> bool:
        """Delete some records that are not in use (those being staged are, unless said otherwise); whether
        there may be more."""
        keep = range(self._generation, self._generation + (1 if staged else 2))
        swept = 0
        for key, _ in list(_first(store, _RECORDS, _prefix(keep[0]), _SWEEP_RECORDS)):
            store.delete(key)
            swept += 1
        after = _prefix(keep[-1] + 1)
        for key, _ in list(_first(store, after, prefix_end(_RECORDS), _SWEEP_RECORDS - swept)):
            store.delete(key)
            swept += 1
        return swept >= _SWEEP_RECORDS

    # ------------------------------------------------------------------------------------------------ helpers

    def _adopt(self, state: State) -> None:
        self.applied = self.checkpointed = state.applied
        self.time_s = state.time_s
        self.members, self.founders = state.members, state.founders
        self._generation = state.generation
        self.operations = 0

    def _write_state(self, store: Store, stored_from: int) -> None:
        self.operations = 0
        self.checkpointed = self.applied
        state = msgspec.structs.replace(self.state(), generation=self._generation, stored_from=stored_from)
        store.put(_STATE, msgspec.msgpack.encode(state))

    def _records(self, store: Store) -> Iterator[tuple[bytes, bytes]]:
        prefix = _prefix(self._generation)
        for key, value in store.scan(prefix, prefix_end(prefix)):
            yield key[len(prefix) :], value


def _prefix(generation: int) -> bytes:
    return _RECORDS + generation.to_bytes(4, "big")


def _first(store: Store, start: bytes, end: bytes | None, limit: int) -> Iterator[tuple[bytes, bytes]]:
    if limit > 0:
        for _, item in zip(range(limit), store.scan(start, end), strict=False):
            yield item
