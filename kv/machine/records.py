"""A keyspace as a map of byte records: for checkpoints, snapshots, and slots on the move.

| record | key | value (msgpack, after one byte `FORMAT`) |
|---|---|---|
| machine | `m` | (revision, log time in ms) |
| newest version | `s` slot `k` key | (revision, expires_ms, value) |
| older version | `s` slot `o` key revision | (revision, expires_ms, value) |
| session | `s` slot `s` session | (sequence, log time in ms, value, status, failure) |

Slots are 2 bytes, revisions and sessions 8, most significant first. In key order the newest versions of a
slot come first and older ones ascend, so that records can be taken over as they come. A value is bytes, a
`Reference`, or nothing where the key was deleted and that is still part of the history. A session's outcome
is a status ("OK"), or else a value.

Owns the encoding and the order; what a change means is in `kv.machine.keyspace`.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator

import msgspec

from kv.machine.keyspace import Keyspace
from kv.machine.slot import Mark, Reference, Session, Slot, Version
from kv.operations import Outcome
from underlay.store import Batch

FORMAT = b"\x01"
"""First byte of every value."""

Record = tuple[bytes, bytes]

_MACHINE = b"m"
_SLOT = b"s"
_NEWEST, _OLDER, _SESSION = b"k", b"o", b"s"
_KIND_AT, _REST_AT = 3, 4

_encode = msgspec.msgpack.Encoder().encode
_machine = msgspec.msgpack.Decoder(tuple[int, int])
_version = msgspec.msgpack.Decoder(tuple[int, int, bytes | Reference | None])
_session = msgspec.msgpack.Decoder(tuple[int, int, bytes | Reference | int | None, str, str])


def take_changes(space: Keyspace) -> Batch:
    """The records that changed since the last call; None for those that are gone. O(changes)."""
    changes: Batch = {}
    if space.changed_slots or space.marked != (space.revision, space.now_ms):
        changes[_MACHINE] = _machine_record(space)
        space.marked = (space.revision, space.now_ms)
    for number in space.changed_slots:
        slot = space.slots[number]
        prefix = _SLOT + number.to_bytes(2, "big")
        older: dict[bytes, dict[int, None]] = {}
        for mark in slot.changed:
            if isinstance(mark, bytes):
                version = slot.versions.get(mark)
                changes[prefix + _NEWEST + mark] = None if version is None else _version_record(version)
            elif isinstance(mark, int):
                last = slot.sessions.get(mark)
                changes[_session_key(prefix, mark)] = None if last is None else _session_record(last)
            else:
                older.setdefault(mark[0], {})[mark[1]] = None
        for key, revisions in older.items():
            changes.update(_old_records(slot, prefix, key, revisions))
        slot.changed.clear()
    space.changed_slots.clear()
    return changes


def freeze(space: Keyspace) -> Iterator[Record]:
    """All records in key order as of this call.

    The call costs O(slots + history). A slot that is written afterwards is copied once, O(its keys) pointers.
    """
    machine = _MACHINE, _machine_record(space)
    slots = [(slot, _history(slot)) for slot in space.from_slot(0)]
    space.generation += 1
    return _frozen(machine, slots)


def slot_records(space: Keyspace, number: int, after: bytes = b"") -> Iterator[Record]:
    """The records of one slot with keys above `after`, in key order. To be read before the next operation."""
    slot = space.slots.get(number)
    return iter(()) if slot is None else _slot_records(slot, _history(slot), after)


def restore(space: Keyspace, records: Iterable[Record]) -> None:
    """Become the state of these records, which come in any order of slots but each slot's in key order."""
    space.clear()
    slots = _adopt(space, records)
    space.adopted(slots.values())
    space.marked = (space.revision, space.now_ms)


def install(space: Keyspace, records: Iterable[Record], revision: int) -> None:
    """Take over records of slots that arrive, in key order, in one call or several."""
    space.revision = max(space.revision, revision)
    slots = _adopt(space, records, changed=True)
    space.adopted(slots.values())
    space.changed_slots.update(dict.fromkeys(slots))


def _adopt(space: Keyspace, records: Iterable[Record], changed: bool = False) -> dict[int, Slot]:
    slots: dict[int, Slot] = {}
    for record_key, value in records:
        if value[:1] != FORMAT:
            raise ValueError(
                f"record {record_key!r} has format {value[:1]!r}, and this program reads {FORMAT!r}"
            )
        data = memoryview(value)[1:]
        if record_key == _MACHINE:
            space.revision, space.now_ms = _machine.decode(data)
            continue
        number = int.from_bytes(record_key[1:_KIND_AT], "big")
        kind, rest = record_key[_KIND_AT:_REST_AT], record_key[_REST_AT:]
        slot = slots.get(number)
        if slot is None:
            slot = slots[number] = space.writable(number)
        mark: Mark
        if kind == _SESSION:
            mark = int.from_bytes(rest, "big")
            sequence, time_ms, result, status, failure = _session.decode(data)
            space.adopt_session(slot, mark, Session(sequence, Outcome(status or result, failure), time_ms))
        else:
            revision, expires_ms, content = _version.decode(data)
            version = Version(revision, content, expires_ms, None)
            if kind == _NEWEST:
                mark = rest
                space.adopt(slot, rest, version)
            else:
                mark = rest[:-8], revision
                if not space.adopt_older(slot, rest[:-8], version):
                    continue
        if changed:
            slot.changed[mark] = None
    return slots


# ----------------------------------------------------------------------------------------- one record each


def _machine_record(space: Keyspace) -> bytes:
    return FORMAT + _encode((space.revision, space.now_ms))


def _version_record(version: Version) -> bytes:
    return FORMAT + _encode((version.revision, version.expires_ms, version.value))


def _session_key(prefix: bytes, session: int) -> bytes:
    return prefix + _SESSION + session.to_bytes(8, "big")


def _session_record(last: Session) -> bytes:
    value, failure = last.outcome.value, last.outcome.failure
    result, status = (None, value) if isinstance(value, str) else (value, "")
    return FORMAT + _encode((last.sequence, last.time_ms, result, status, failure))


def _old_key(prefix: bytes, key: bytes, revision: int) -> bytes:
    return prefix + _OLDER + key + revision.to_bytes(8, "big")


def _old_records(
    slot: Slot, prefix: bytes, key: bytes, revisions: dict[int, None]
) -> Iterator[tuple[bytes, bytes | None]]:
    """What these older versions of a key are now; one walk for all."""
    found: dict[int, Version] = {}
    version = slot.versions.get(key)
    while version is not None:
        found[version.revision] = version
        version = version.previous
    for revision in revisions:
        version = found.get(revision)
        yield _old_key(prefix, key, revision), None if version is None else _version_record(version)


# ------------------------------------------------------------------------------------------- many in order

History = list[tuple[bytes, Version]]
"""Older versions, by the key of their record without the slot's prefix. Collected at once, because versions
are cut while a frozen slot is read."""


def _history(slot: Slot) -> History:
    older = [
        (key + previous.revision.to_bytes(8, "big"), previous)
        for _, key, version in slot.superseded
        if (previous := version.previous) is not None
    ]
    older.sort(key=lambda item: item[0])
    return older


def _frozen(machine: Record, slots: list[tuple[Slot, History]]) -> Iterator[Record]:
    yield machine
    for slot, history in slots:
        yield from _slot_records(slot, history)


def _slot_records(slot: Slot, history: History, after: bytes = b"") -> Iterator[Record]:
    prefix = _SLOT + slot.number.to_bytes(2, "big")
    newest = prefix + _NEWEST
    low = 0
    if after.startswith(newest):
        low = bisect_right(slot.keys, after[len(newest) :])
    elif after > newest:
        low = len(slot.keys)
    for i in range(low, len(slot.keys)):
        yield newest + slot.keys[i], _version_record(slot.versions[slot.keys[i]])
    for suffix, version in history:
        if (key := prefix + _OLDER + suffix) > after:
            yield key, _version_record(version)
    for session, last in sorted(slot.sessions.items()):
        if (key := _session_key(prefix, session)) > after:
            yield key, _session_record(last)
