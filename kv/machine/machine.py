"""`KeyValueMachine`: the state machine of the store, on which every replication executes.

Owns what surrounds a command: its lookup, its slot, its session. The commands themselves are in
`kv.machine.strings`, `keys` and `reading`, the state in `keyspace`, its records in `records`.

Exactly once: an operation with a session that writes is executed if its sequence number is above the
session's last in that slot. A repetition of the last gets the same outcome, an older one a STALE failure.
Reads are executed whenever they come, and change nothing. The session's record moves with its slot.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator

from kv.machine import keys, reading, records, strings
from kv.machine.commands import COMMANDS, Refused, malformed, slot_of_keys
from kv.machine.keyspace import HISTORY, Keyspace
from kv.machine.slot import Slot
from kv.operations import OK, Command, Operation, Outcome
from underlay.store import Batch

IMPLEMENTED_IN = (strings, keys, reading)
"""Modules that enter their commands into the table when they are imported."""


class KeyValueMachine:
    """Implements `kv.replication.Machine`, and what `kv.sharding` needs of slots.

    Args:
        history: revisions that can still be read after they are past.

    >>> machine = KeyValueMachine()
    >>> machine.execute(Operation((b"SET", b"a", b"1")), time_s=1.0), machine.query((b"GET", b"a")).value
    (Outcome(value='OK', failure=''), b'1')
    """

    def __init__(self, history: int = HISTORY) -> None:
        self._space = Keyspace(history)

    @property
    def revision(self) -> int:
        return self._space.revision

    def execute(self, operation: Operation, time_s: float) -> Outcome:
        space = self._space
        space.begin(time_s)
        command = operation.command
        spec = COMMANDS.get(command[0]) if command else None
        if spec is None or not spec.writes:
            return OK if command == TICK else self.query(command)
        if (failed := malformed(command)) is not None:
            return failed
        try:
            number = slot_of_keys(command)
            assert number is not None, "every write has a key"
            slot = space.writable(number)
            if operation.session and (known := space.repeated(slot, operation)) is not None:
                return known
        except Refused as refused:
            return Outcome(failure=str(refused))
        try:
            outcome = spec.execute(space, slot, command)
        except Refused as refused:
            outcome = Outcome(failure=str(refused))
        if operation.session:
            space.remember(slot, operation, outcome)
        return outcome

    def is_read(self, command: Command) -> bool:
        """Whether `query` can answer: reads, and commands that are wrong whatever the data are."""
        spec = COMMANDS.get(command[0]) if command else None
        return spec is None or not spec.writes or malformed(command) is not None

    def query(self, command: Command) -> Outcome:
        if (failed := malformed(command)) is not None:
            return failed
        spec = COMMANDS[command[0]]
        if spec.writes:
            return Outcome(failure=f"ERR '{spec.name.lower()}' writes, and this was asked as a read")
        try:
            number = slot_of_keys(command)
            slot = NO_SLOT if number is None else self._space.slot(number)
            return spec.execute(self._space, slot, command)
        except Refused as refused:
            return Outcome(failure=str(refused))

    @property
    def wakes_at_s(self) -> float | None:
        return self._space.expires_next_s

    def take_changes(self) -> Batch:
        return records.take_changes(self._space)

    def freeze(self) -> Iterator[tuple[bytes, bytes]]:
        """All records in key order as of this call, which costs O(slots + history) and no copy of a value. A
        slot that is written afterwards is copied once: pointers to its keys and versions."""
        return records.freeze(self._space)

    def restore(self, source: Iterable[tuple[bytes, bytes]]) -> None:
        records.restore(self._space, source)

    # ------------------------------------------------------------------------------------ slots that move

    def slot_of(self, command: Command) -> int | None:
        """The slot that a command is about; None where it has no keys, or is wrong (`query` says how)."""
        try:
            return None if malformed(command) else slot_of_keys(command)
        except Refused:
            return None

    def show_slots(self, serves: Callable[[int], bool]) -> None:
        """Which slots SCAN, KEYS and DBSIZE tell of (all, unless this is called). It is asked whenever one of
        them is executed, so its answer must follow from the log."""
        self._space.serves = serves

    def slot_size(self, slot: int) -> int:
        """Keys in a slot."""
        return self._space.slot(slot).live

    def slot_records(self, slot: int, after: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        """The records of a slot with keys above `after`, in key order: its keys, their versions, and the
        sessions that changed them. To be read before the next operation is executed."""
        return records.slot_records(self._space, slot, after)

    def install(self, source: Iterable[tuple[bytes, bytes]], revision: int) -> None:
        """Take over records of a slot, in key order, in one call or several; `revision` (of the machine that
        they come from, when it gave them) becomes this machine's unless its own is higher."""
        records.install(self._space, source, revision)

    def drop(self, slot: int, records_max: int) -> int:
        """Delete records of a slot until so many are gone; fewer means that nothing is left."""
        return self._space.drop(self._space.writable(slot), records_max)

    # ----------------------------------------------------------------------------------------- large objects

    def referenced(self) -> Collection[bytes]:
        return self._space.referenced()

    def is_referenced(self, digest: bytes) -> bool:
        """Whether any version, old ones and remembered outcomes too, names this object."""
        return self._space.is_referenced(digest)

    def take_unreferenced(self) -> list[bytes]:
        """Digests that lost their last reference since the last call, and have none now, ascending. Not part
        of the records: after a restart, ask `is_referenced` of what is stored."""
        return self._space.take_unreferenced()


TICK = (b"@tick",)
"""Does nothing but let time pass: what is due happens at the beginning of every operation."""

NO_SLOT = Slot(-1, 0)
"""What a command without keys is given."""
