"""Reads of many keys, and of other revisions: SCAN, KEYS, DBSIZE, and our own BH.RANGE, BH.GETAT,
BH.VERSION, and of whole slots, for jobs: BH.SLOTS, BH.READ.

A scan's cursor is `slot * 2^32 + CRC-32`: the place of the next key in an order that no write changes, so
nothing has to be remembered between two pages, and any replica can answer the next one.
"""

from __future__ import annotations

from collections.abc import Iterator

from kv.machine.commands import SYNTAX, Refused, command, integer
from kv.machine.keyspace import Keyspace
from kv.machine.patterns import Pattern
from kv.machine.slot import Reference, Slot, Value
from kv.operations import Command, Outcome
from kv.slots import SLOTS, slot_of

RANGE_BYTES_MAX = 32 * 1024
"""Of keys and values in one page of BH.RANGE, so that it fits a message; one item is always given."""

LOOKED_AT_MAX = 2000
"""Keys that one page of BH.READ looks at, whether they match or not, so that it does not take long."""

KEYS_MAX = 10_000
"""Keys beyond which KEYS is refused: it would hold everybody up. SCAN has no limit."""


@command("DBSIZE", 1, keys=(0, 0, 0))
def dbsize(space: Keyspace, slot: Slot, command: Command) -> Outcome:
    return Outcome(sum(slot.live for slot in _served(space)))


@command("BH.COUNT", 2, keys=(0, 0, 0))
def count(space: Keyspace, slot: Slot, command: Command) -> Outcome:
    """`BH.COUNT slot`: the keys in a slot, if it is served."""
    number = integer(command[1])
    present = space.slots.get(number)
    return Outcome(present.live if present is not None and space.serves(number) else 0)


@command("KEYS", 2, keys=(0, 0, 0))
def keys(space: Keyspace, slot: Slot, command: Command) -> Outcome:
    if sum(len(slot.keys) for slot in _served(space)) > KEYS_MAX:
        raise Refused(f"ERR KEYS is for at most {KEYS_MAX} keys; use SCAN")
    matches = Pattern(command[1]).matches
    live = (key for slot in _served(space) for key in slot.keys if slot.get(key) is not None)
    return Outcome([key for key in live if matches(key)])


@command("SCAN", -2, keys=(0, 0, 0))
def scan(space: Keyspace, slot: Slot, command: Command) -> Outcome:
    cursor, pattern, count = _scan_arguments(command)
    found: list[bytes] = []
    following = 0
    for present in space.from_slot(cursor >> 32):
        if not space.serves(present.number):
            continue
        if len(found) >= count:
            following = present.number << 32
            break
        place = cursor & 0xFFFF_FFFF if present.number == cursor >> 32 else 0
        page, onwards = present.page(place, count - len(found))
        found += page
        if onwards is not None:
            following = present.number << 32 | onwards
            break
    return Outcome([b"%d" % following, [key for key in found if pattern is None or pattern.matches(key)]])


def _scan_arguments(command: Command) -> tuple[int, Pattern | None, int]:
    if not command[1].isdigit() or len(command[1]) > 20:
        raise Refused("ERR invalid cursor")
    pattern, count, known = None, 10, True
    options = command[2:]
    if len(options) % 2:
        raise Refused(SYNTAX)
    for option, argument in zip(options[::2], options[1::2], strict=True):
        match option.upper():
            case b"MATCH":
                pattern = Pattern(argument)
            case b"COUNT":
                count = integer(argument)
            case b"TYPE":
                known = argument.lower() == b"string"
            case _:
                raise Refused(SYNTAX)
    if count < 1:
        raise Refused(SYNTAX)
    return int(command[1]), pattern if known else Pattern.nothing(), min(count, 1000)


def _served(space: Keyspace) -> Iterator[Slot]:
    return (slot for slot in space.from_slot(0) if space.serves(slot.number))


# ------------------------------------------------------------------------------------------ as of a revision


@command("BH.RANGE", -4)
def range_(space: Keyspace, slot: Slot, command: Command) -> Outcome:
    """`BH.RANGE start end limit [revision]`: [revision, keys, values, whether there is more (0 or 1)]."""
    if len(command) > 5:
        raise Refused(SYNTAX)
    _, start, end, limit = command[:4]
    limit_keys = integer(limit)
    if limit_keys < 1:
        raise Refused("ERR limit must be positive")
    revision = _readable(space, command[4]) if len(command) == 5 else space.revision
    keys: list[bytes] = []
    values: list[Value] = []
    size_bytes = 0
    for key in slot.between(start, end):
        version = slot.versions[key].as_of(revision)
        if version is None or version.value is None:
            continue
        size_bytes += len(key) + (0 if isinstance(version.value, Reference) else len(version.value))
        if len(keys) == limit_keys or (keys and size_bytes > RANGE_BYTES_MAX):
            return Outcome([revision, keys, values, 1])
        keys.append(key)
        values.append(version.value)
    return Outcome([revision, keys, values, 0])


@command("BH.GETAT", 3)
def getat(space: Keyspace, slot: Slot, command: Command) -> Outcome:
    """`BH.GETAT key revision`: the value that the key had at that revision."""
    revision = _readable(space, command[2])
    newest = slot.versions.get(command[1])
    version = newest.as_of(revision) if newest is not None else None
    return Outcome(None if version is None else version.value)


@command("BH.VERSION", 2)
def version(space: Keyspace, slot: Slot, command: Command) -> Outcome:
    """`BH.VERSION key`: the revision of the key's last change; 0 where there is no such key."""
    present = slot.get(command[1])
    return Outcome(0 if present is None else present.revision)


# ------------------------------------------------------------------------------------------------ whole slots


@command("BH.SLOTS", 3, keys=(0, 0, 0))
def slots(space: Keyspace, slot: Slot, command: Command) -> Outcome:
    """`BH.SLOTS first last`: [revision, ends of the ranges of these slots that are served here, slots that
    hold keys, how many each]."""
    first, last = _slot_range(command[1], command[2])
    ends: list[int] = []
    for number in range(first, last + 1):
        if space.serves(number):
            if ends and ends[-1] == number - 1:
                ends[-1] = number
            else:
                ends += [number, number]
    held = [present for present in space.from_slot(first) if present.number <= last and present.live]
    served = [present for present in held if space.serves(present.number)]
    return Outcome(
        [
            space.revision,
            ends,
            [present.number for present in served],
            [present.live for present in served],
        ]
    )


@command("BH.READ", -6, keys=(0, 0, 0))
def read(space: Keyspace, slot: Slot, command: Command) -> Outcome:
    """`BH.READ first last pattern after limit [revision]`: a page of the keys of these slots, by slot and
    key, that match a glob pattern and come after one: [revision, keys, values, whether there is more (0 or
    1), the key to go on after].

    GONE where one of the slots is not served here: what it holds is to be asked for elsewhere.
    """
    if len(command) > 7:
        raise Refused(SYNTAX)
    first, last = _slot_range(command[1], command[2])
    pattern, after, limit_keys = Pattern(command[3]), command[4], integer(command[5])
    if limit_keys < 1:
        raise Refused("ERR limit must be positive")
    gone = next((number for number in range(first, last + 1) if not space.serves(number)), None)
    if gone is not None:
        raise Refused(f"GONE slot {gone} is not served here")
    revision = _readable(space, command[6]) if len(command) == 7 else space.revision
    begin = max(first, slot_of(after)) if after else first
    keys: list[bytes] = []
    values: list[Value] = []
    size_bytes = looked_at = 0
    reached = after
    for present in space.from_slot(begin):
        if present.number > last:
            break
        start = after + b"\0" if after and present.number == slot_of(after) else b""
        for key in present.between(start, b""):
            if looked_at == LOOKED_AT_MAX:
                return Outcome([revision, keys, values, 1, reached])
            looked_at += 1
            version = present.versions[key].as_of(revision) if pattern.matches(key) else None
            if version is not None and version.value is not None:
                value = version.value
                size_bytes += len(key) + (value.size_bytes if isinstance(value, Reference) else len(value))
                if len(keys) == limit_keys or (keys and size_bytes > RANGE_BYTES_MAX):
                    return Outcome([revision, keys, values, 1, reached])
                keys.append(key)
                values.append(value)
            reached = key
    return Outcome([revision, keys, values, 0, reached])


def _slot_range(first: bytes, last: bytes) -> tuple[int, int]:
    low, high = integer(first), integer(last)
    if not 0 <= low <= high < SLOTS:
        raise Refused(f"ERR slots are 0 to {SLOTS - 1}, the first before the last")
    return low, high


def _readable(space: Keyspace, argument: bytes) -> int:
    revision = integer(argument)
    if revision < space.oldest:
        raise Refused(f"COMPACTED revision {revision}: the oldest that can be read is {space.oldest}")
    if revision > space.revision:
        raise Refused(f"TRYAGAIN revision {revision}: this replica is at {space.revision}")
    return revision
