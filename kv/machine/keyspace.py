"""The state of a machine, and every way in which it changes.

Owns slots, revisions, the bounded history, expiry, sessions' memory and the count of references to objects.
Commands (`kv.machine.strings` and its neighbours) change it through `put` and `remove` only, so that none of
them can forget one of these. It knows no record's encoding (`kv.machine.records`).

Time is log time. Work that is due (expiry, forgetting) is done at the beginning of an operation, in an order
that depends on the records alone, and bounded: what is left is done by the next operation.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator
from heapq import heapify, heappop, heappush
from itertools import islice

from kv.machine.slot import Reference, Session, Slot, Value, Version
from kv.operations import Operation, Outcome

HISTORY = 1_000
"""Revisions that can still be read after they are past. Bounds the memory of old values: at most as many
versions as the last 1,000 changing operations wrote."""

SESSION_MEMORY_MS = 86_400_000
"""Log time after which an unused session is forgotten. Clients give an operation up after at most an hour."""

DUE_AT_ONCE = 500
"""Keys, and sessions, that one operation deletes at most because they are due: a handler stays short."""

NEVER_MS = 1 << 63
_64_BITS = (1 << 64) - 1


class Keyspace:
    """Slots, and one revision counter over all of them."""

    def __init__(self, history: int = HISTORY) -> None:
        self.history = history
        self.serves: Callable[[int], bool] = lambda slot: True
        """Whether commands without keys tell of a slot."""
        self.clear()

    def clear(self) -> None:
        """Become empty, as on the first day."""
        self.revision = 0
        self.now_ms = 0
        """Log time, in whole milliseconds: what is due at a time must not depend on how it is rounded."""
        self.slots: dict[int, Slot] = {}
        self._numbers: list[int] = []
        """Of `slots`, in order."""
        self.marked = (0, 0)
        """Revision and log time when changes were last taken."""
        self.changed_slots: dict[int, None] = {}
        """Slots whose `changed` is not empty."""
        self.generation = 0
        self.due_ms = NEVER_MS
        """Nothing has to be done before; it may be earlier than what is really due."""
        self._changing = False
        self._expiring: list[tuple[int, int, bytes]] = []
        self._expiring_max = 1024
        self._forgetting: list[tuple[int, int, int]] = []
        self._superseded: deque[tuple[int, int]] = deque()
        """(revision, slot) for each item of a slot's `superseded`, in order."""
        self._references: dict[bytes, int] = {}
        self._unreferenced: dict[bytes, None] = {}

    # ------------------------------------------------------------------------------------------ slots

    def slot(self, number: int) -> Slot:
        """A slot for reading; one that was never written is empty, and not kept."""
        return self.slots.get(number) or Slot(number, self.generation)

    def writable(self, number: int) -> Slot:
        """A slot that no frozen copy shares. Every change begins here."""
        slot = self.slots.get(number)
        if slot is None:
            insort(self._numbers, number)
            slot = self.slots[number] = Slot(number, self.generation)
        elif slot.generation != self.generation:
            slot = self.slots[number] = slot.shared(self.generation)
        return slot

    def from_slot(self, number: int) -> Iterator[Slot]:
        """The slots in use from that number on, in order."""
        for at in range(bisect_left(self._numbers, number), len(self._numbers)):
            yield self.slots[self._numbers[at]]

    @property
    def oldest(self) -> int:
        """The oldest revision that can be read."""
        return max(0, self.revision - self.history)

    # ------------------------------------------------------------------------------------ an operation

    def begin(self, time_s: float) -> None:
        """An operation begins at that log time: do what is due before it."""
        now_ms = int(time_s * 1000 + 0.5)
        if now_ms > self.now_ms:
            self.now_ms = now_ms
        self._changing = False
        if self.now_ms >= self.due_ms:
            self._expire()
            self._forget_sessions()
            self._find_due()
            self._changing = False

    def put(self, slot: Slot, key: bytes, value: Value | None, expires_ms: int = 0) -> None:
        """Give a key a new value (None: delete it), as of the operation's own revision. Not twice to the same
        key in one operation."""
        if not self._changing:
            self._changing = True
            self.revision += 1
            if self._superseded and self._superseded[0][0] <= self.revision - self.history:
                self._compact()
        revision = self.revision
        previous = slot.versions.get(key)
        version = Version(revision, value, expires_ms, previous)
        slot.put(key, version)
        slot.changed[key] = None
        if previous is not None:
            slot.changed[key, previous.revision] = None
            self._supersedes(slot, key, version)
        if expires_ms:
            self._schedule_expiry(expires_ms, slot.number, key)
        if type(value) is Reference:
            self.retain(value)
        self.changed_slots[slot.number] = None

    def remove(self, slot: Slot, key: bytes) -> bool:
        """Delete a key; whether it was there."""
        if slot.get(key) is None:
            return False
        self.put(slot, key, None)
        return True

    # --------------------------------------------------------------------------------------- sessions

    def repeated(self, slot: Slot, operation: Operation) -> Outcome | None:
        """The outcome of an operation whose session has already had it executed; None: it is new."""
        last = slot.sessions.get(operation.session & _64_BITS)
        if last is None or operation.sequence > last.sequence:
            return None
        if operation.sequence == last.sequence:
            return last.outcome
        return Outcome(failure=f"STALE operation {operation.sequence}: the session is at {last.sequence}")

    def remember(self, slot: Slot, operation: Operation, outcome: Outcome) -> None:
        """Keep the outcome, in place of the session's last in this slot."""
        session = operation.session & _64_BITS
        last = slot.sessions.get(session)
        if last is None:
            self._schedule_session(self.now_ms + SESSION_MEMORY_MS, slot.number, session)
        elif type(last.outcome.value) is Reference:
            self.release(last.outcome.value)
        if type(outcome.value) is Reference:
            self.retain(outcome.value)
        slot.sessions[session] = Session(operation.sequence, outcome, self.now_ms)
        slot.changed[session] = None
        self.changed_slots[slot.number] = None

    # -------------------------------------------------------------------------------------- references

    def retain(self, reference: Reference) -> None:
        """One more version or outcome names the object."""
        self._references[reference.digest] = self._references.get(reference.digest, 0) + 1

    def release(self, reference: Reference) -> None:
        """One fewer does."""
        count = self._references[reference.digest] - 1
        if count:
            self._references[reference.digest] = count
        else:
            del self._references[reference.digest]
            self._unreferenced[reference.digest] = None

    def referenced(self) -> Collection[bytes]:
        """Digests of all objects that a version or an outcome names."""
        return self._references.keys()

    def is_referenced(self, digest: bytes) -> bool:
        """Whether any version, old ones and remembered outcomes too, names this object."""
        return digest in self._references

    def take_unreferenced(self) -> list[bytes]:
        """Digests that lost their last reference since the last call and have none now."""
        taken = [digest for digest in sorted(self._unreferenced) if digest not in self._references]
        self._unreferenced = {}
        return taken

    # --------------------------------------------------------------------- what records say (see `records`)

    def adopt(self, slot: Slot, key: bytes, newest: Version) -> None:
        """Take over a key's newest version. `adopted` follows when all is there."""
        slot.put(key, newest)
        if newest.value is None:
            self._supersedes(slot, key, newest)
        if newest.expires_ms:
            self._expiring.append((newest.expires_ms, slot.number, key))
        if type(newest.value) is Reference:
            self.retain(newest.value)

    def adopt_older(self, slot: Slot, key: bytes, older: Version) -> bool:
        """Take over an older version, after the newest and in ascending order; False where that is not here
        any more, because the key expired on the way and was forgotten."""
        after = newest = slot.versions.get(key)
        if after is None:
            return False
        while after.previous is not None and after.previous.revision > older.revision:
            after = after.previous
        if after.previous is None and (after is not newest or after.value is not None):
            self._supersedes(slot, key, after)
        older.previous, after.previous = after.previous, older
        if older.previous is not None:
            self._supersedes(slot, key, older)
        if type(older.value) is Reference:
            self.retain(older.value)
        return True

    def _supersedes(self, slot: Slot, key: bytes, version: Version) -> None:
        slot.superseded.append((version.revision, key, version))
        self._superseded.append((version.revision, slot.number))

    def adopt_session(self, slot: Slot, session: int, last: Session) -> None:
        """Take over what a session did last in this slot."""
        slot.sessions[session] = last
        self._forgetting.append((last.time_ms + SESSION_MEMORY_MS, slot.number, session))
        if type(last.outcome.value) is Reference:
            self.retain(last.outcome.value)

    def adopted(self, slots: Iterable[Slot]) -> None:
        """All is there: bring in order what is to be done later."""
        for slot in slots:
            slot.superseded = deque(sorted(slot.superseded))
        self._superseded = deque(sorted(self._superseded))
        heapify(self._expiring)
        heapify(self._forgetting)
        self._find_due()

    def drop(self, slot: Slot, records_max: int) -> int:
        """Delete sessions and whole keys until so many records are gone, or all; how many are gone."""
        dropped = 0
        for session in list(islice(slot.sessions, records_max)):
            self._forget_session(slot, session)
            dropped += 1
        while slot.keys and dropped < records_max:
            key = slot.keys[-1]
            slot.changed[key] = None
            version: Version | None = slot.versions[key]
            slot.forget(key)
            while version is not None:
                if type(version.value) is Reference:
                    self.release(version.value)
                previous, version.previous = version.previous, None
                if previous is not None:
                    slot.changed[key, previous.revision] = None
                version = previous
                dropped += 1
        if not slot.keys:
            slot.superseded.clear()
        self.changed_slots[slot.number] = None
        return dropped

    # --------------------------------------------------------------------------------- what falls due

    @property
    def expires_next_s(self) -> float | None:
        """Log time at which the next key expires."""
        heap = self._expiring
        while heap and not self._expires(*heap[0]):
            heappop(heap)
        return heap[0][0] / 1000 if heap else None

    def _expires(self, expires_ms: int, number: int, key: bytes) -> bool:
        """Whether that is still so. The heap keeps deadlines that were replaced."""
        slot = self.slots.get(number)
        version = slot.versions.get(key) if slot is not None else None
        return version is not None and version.expires_ms == expires_ms

    def _expire(self) -> None:
        now_ms, heap = self.now_ms, self._expiring
        for _ in range(DUE_AT_ONCE):
            while heap and heap[0][0] <= now_ms and not self._expires(*heap[0]):
                heappop(heap)
            if not heap or heap[0][0] > now_ms:
                break
            _, number, key = heappop(heap)
            self.put(self.writable(number), key, None)

    def _forget_sessions(self) -> None:
        heap, forgotten = self._forgetting, 0
        while heap and heap[0][0] <= self.now_ms and forgotten < DUE_AT_ONCE:
            due_ms, number, session = heappop(heap)
            slot = self.slots.get(number)
            last = slot.sessions.get(session) if slot is not None else None
            if last is None:
                continue
            if last.time_ms + SESSION_MEMORY_MS == due_ms:
                self._forget_session(self.writable(number), session)
                forgotten += 1
            else:
                # It was used since. Back in line even if it is due, so that the order is that of the records.
                heappush(heap, (last.time_ms + SESSION_MEMORY_MS, number, session))

    def _forget_session(self, slot: Slot, session: int) -> None:
        value = slot.sessions.pop(session).outcome.value
        if type(value) is Reference:
            self.release(value)
        slot.changed[session] = None
        self.changed_slots[slot.number] = None

    def _schedule_expiry(self, expires_ms: int, number: int, key: bytes) -> None:
        heap = self._expiring
        heappush(heap, (expires_ms, number, key))
        self.due_ms = min(self.due_ms, expires_ms)
        if len(heap) > self._expiring_max:
            # Most deadlines may have been replaced. Twice what remains makes this O(1) a deadline on average.
            self._expiring = heap = sorted({due for due in heap if self._expires(*due)})
            self._expiring_max = max(1024, 2 * len(heap))

    def _schedule_session(self, due_ms: int, number: int, session: int) -> None:
        heappush(self._forgetting, (due_ms, number, session))
        self.due_ms = min(self.due_ms, due_ms)

    def _find_due(self) -> None:
        expires_ms = self._expiring[0][0] if self._expiring else NEVER_MS
        forgets_ms = self._forgetting[0][0] if self._forgetting else NEVER_MS
        self.due_ms = min(expires_ms, forgets_ms)

    def _compact(self) -> None:
        """Forget the versions that no readable revision shows."""
        horizon = self.revision - self.history
        while self._superseded and self._superseded[0][0] <= horizon:
            _, number = self._superseded.popleft()
            slot = self.slots.get(number)
            if slot is not None and slot.superseded and slot.superseded[0][0] <= horizon:
                slot = self.writable(number)
                _, key, version = slot.superseded.popleft()
                self._cut(slot, key, version)

    def _cut(self, slot: Slot, key: bytes, version: Version) -> None:
        previous = version.previous
        if previous is not None:
            version.previous = None
            mark = (key, previous.revision)
            # A mark that is still there means that the record never was written: it need not be deleted.
            if mark in slot.changed:
                del slot.changed[mark]
            else:
                slot.changed[mark] = None
            if type(previous.value) is Reference:
                self.release(previous.value)
        if version.value is None and slot.versions.get(key) is version:
            slot.forget(key)
            slot.changed[key] = None
        self.changed_slots[slot.number] = None
