"""The journal: entries in order, the machine that executes them, and both on disk.

An entry is logged first, and executed when it is known to be chosen: on every disk that it must be on. So
the machine never shows what may still be lost. Owns the records under `l` (entries), `m` (checkpoint of the
machine) and `ps` (the state around it). A state that is transferred is written beside the records in use,
under a generation of its own, and takes their place in one step.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

import msgspec

from kv.operations import Outcome
from kv.primary_backup.messages import Entry
from kv.replication import Machine
from underlay.store import Store, prefix_end

_STATE = b"ps"
_ENTRIES = b"l"
_RECORDS = b"m"
_SWEEP_RECORDS = 500

_encode = msgspec.msgpack.Encoder().encode
_decode_entry = msgspec.msgpack.Decoder(Entry).decode


class State(msgspec.Struct, frozen=True, array_like=True):
    """What is known beside the machine's records."""

    applied: int = 0
    """Position through which the records hold what was executed."""
    time_s: float = 0.0
    generation: int = 0


class Journal:
    """Positions count from 1.

    Args:
        machine: executes.
        checkpoint_operations: between two checkpoints.
    """

    def __init__(self, machine: Machine, checkpoint_operations: int) -> None:
        self.machine = machine
        self.last = 0
        """The last position logged."""
        self.applied = 0
        """Executed through here."""
        self.checkpointed = 0
        self.size_bytes = 0
        """Of the entries in memory."""
        self._first = 1
        """The first position in memory."""
        self._entries: dict[int, bytes] = {}
        self._time_s = 0.0
        self._generation = 0
        self._checkpoint_operations = checkpoint_operations
        self._operations = 0

    def load(self, store: Store) -> None:
        """Recover the last checkpoint, and what was logged since."""
        data = store.get(_STATE)
        self._adopt(msgspec.msgpack.decode(data, type=State) if data is not None else State())
        self.machine.restore(self._records(store))
        for key, entry in store.scan(_key(self.applied + 1), prefix_end(_ENTRIES)):
            if key != _key(self.last + 1):
                break
            self.add([entry])

    # ------------------------------------------------------------------------------------------------ entries

    def add(self, entries: Sequence[bytes]) -> None:
        """Append in memory; `write` makes it durable."""
        for entry in entries:
            self.last += 1
            self._entries[self.last] = entry
            self.size_bytes += len(entry)

    def write(self, store: Store, first: int) -> None:
        """Log everything from `first` on."""
        for position in range(first, self.last + 1):
            store.put(_key(position), self._entries[position])

    def entries(self, first: int, size_bytes_max: int) -> tuple[bytes, ...]:
        """Some entries from `first` on: as many as fit, and at least one, if there is one."""
        found: list[bytes] = []
        for position in range(first, self.last + 1):
            entry = self._entries[position]
            size_bytes_max -= len(entry) + 5
            if found and size_bytes_max < 0:
                break
            found.append(entry)
        return tuple(found)

    def forget(self, through: int) -> None:
        """Nobody needs the entries through that position in memory any more."""
        for position in range(self._first, min(through, self.applied) + 1):
            self.size_bytes -= len(self._entries.pop(position))
            self._first = position + 1

    def execute_next(self) -> list[Outcome]:
        """Execute the entry after the last; returns an outcome for each of its operations."""
        self.applied += 1
        entry = _decode_entry(self._entries[self.applied])
        self._time_s = time_s = max(self._time_s, entry.time_s)
        self._operations += len(entry.operations)
        return [self.machine.execute(operation, time_s) for operation in entry.operations]

    def checkpoint_if_due(self, store: Store) -> None:
        """Write the records that changed, and delete the entries that made the changes."""
        if self._operations < self._checkpoint_operations:
            return
        prefix = _prefix(self._generation)
        for key, value in self.machine.take_changes().items():
            if value is None:
                store.delete(prefix + key)
            else:
                store.put(prefix + key, value)
        for position in range(self.checkpointed + 1, self.applied + 1):
            store.delete(_key(position))
        self.checkpointed, self._operations = self.applied, 0
        store.put(_STATE, _encode(self.state()))

    # ----------------------------------------------------------------------------------------------- transfer

    def state(self) -> State:
        """As of now."""
        return State(self.applied, self._time_s, self._generation)

    def stage(self, store: Store, records: Iterable[tuple[bytes, bytes]], *, first: bool) -> None:
        """Write some records of a transferred state beside those in use; `first`: instead of whatever an
        earlier transfer has left there."""
        if first:
            while self._sweep(store, (self._generation,)):
                """Records of two transfers must not mix."""
        prefix = _prefix(self._generation + 1)
        for key, value in records:
            store.put(prefix + key, value)

    def install(self, store: Store, state: State) -> None:
        """What was staged takes the place of what was in use, and the log is empty; `sweep` deletes the
        rest."""
        for key, _ in list(store.scan(_ENTRIES, prefix_end(_ENTRIES))):
            store.delete(key)
        self._adopt(State(state.applied, state.time_s, self._generation + 1))
        store.put(_STATE, _encode(self.state()))
        self.machine.restore(self._records(store))

    def sweep(self, store: Store) -> bool:
        """Delete some records that are not in use; whether there may be more."""
        return self._sweep(store, (self._generation, self._generation + 1))

    # ------------------------------------------------------------------------------------------------ helpers

    def _adopt(self, state: State) -> None:
        self.last = self.applied = self.checkpointed = state.applied
        self._first = state.applied + 1
        self._time_s, self._generation = state.time_s, state.generation
        self._entries.clear()
        self.size_bytes = self._operations = 0

    def _records(self, store: Store) -> Iterator[tuple[bytes, bytes]]:
        prefix = _prefix(self._generation)
        for key, value in store.scan(prefix, prefix_end(prefix)):
            yield key[len(prefix) :], value

    def _sweep(self, store: Store, keep: tuple[int, ...]) -> bool:
        before = store.scan(_RECORDS, _prefix(keep[0]))
        after = store.scan(_prefix(keep[-1] + 1), prefix_end(_RECORDS))
        gone = [key for scan in (before, after) for key, _ in islice(scan, _SWEEP_RECORDS)]
        for key in gone:
            store.delete(key)
        return bool(gone)


def encode_entry(entry: Entry) -> bytes:
    """As entries are logged and travel."""
    return _encode(entry)


def _key(position: int) -> bytes:
    return _ENTRIES + position.to_bytes(8, "big")


def _prefix(generation: int) -> bytes:
    return _RECORDS + generation.to_bytes(4, "big")
