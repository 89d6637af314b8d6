"""Commands that read and write values: SET and its relatives, counters, APPEND.

Source: Redis 7's documentation of each command. Differences are in docs/kv-commands.md.
"""

from __future__ import annotations

from kv.machine.commands import NOT_AN_INTEGER, SYNTAX, Refused, command, integer
from kv.machine.keyspace import Keyspace
from kv.machine.slot import KEY_BYTES_MAX, REFERENCE_BYTES, VALUE_BYTES_MAX, Reference, Slot, Value, Version
from kv.operations import OK, Command, Outcome

TOO_LONG = "ERR string exceeds maximum allowed size (proto-max-bulk-len)"
OUT_OF_RANGE = "ERR increment or decrement would overflow"
LARGE = "ERR the value is a large object, which can only be read or replaced as a whole"

# ------------------------------------------------------------------------------------------------------ reads


@command("GET", 2)
def get(space: Keyspace, slot: Slot, command: Command) -> Outcome:
    version = slot.versions.get(command[1])
    return Outcome(None if version is None else version.value)


@command("MGET", -2, keys=(1, -1, 1))
def mget(space: Keyspace, slot: Slot, command: Command) -> Outcome:
    return Outcome([_value(slot.versions.get(key)) for key in command[1:]])


@command("STRLEN", 2)
def strlen(space: Keyspace, slot: Slot, command: Command) -> Outcome:
    value = _value(slot.versions.get(command[1]))
    return Outcome(value.size_bytes if isinstance(value, Reference) else len(value or b""))


@command("GETRANGE", 4)
def getrange(space: Keyspace, slot: Slot, command: Command) -> Outcome:
    start, end = integer(command[2]), integer(command[3])
    value = _inline(slot.get(command[1]))
    if start < 0:
        start = max(0, start + len(value))
    if end < 0:
        end += len(value)
    return Outcome(value[start : max(0, end + 1)])


# -------------------------------------------------------------------------------------------------------- SET


@command("SET", -3, writes=True)
def set_(space: Keyspace, slot: Slot, command: Command) -> Outcome:
    value = command[2]
    if len(value) > VALUE_BYTES_MAX:
        raise Refused(TOO_LONG)
    if len(command) == 3:
        if len(command[1]) > KEY_BYTES_MAX:
            raise Refused(TOO_LONG)
        space.put(slot, command[1], value)
        return OK
    return _set(space, slot, command, value)


@command("@SET", -3, writes=True)
def set_reference(space: Keyspace, slot: Slot, command: Command) -> Outcome:
    """SET of a large object: in place of the value an encoded `Reference`."""
    if len(command[2]) != REFERENCE_BYTES:
        raise Refused("ERR not a reference to an object")
    return _set(space, slot, command, Reference.decode(command[2]))


@command("SETNX", 3, writes=True)
def setnx(space: Keyspace, slot: Slot, command: Command) -> Outcome:
    return Outcome(int(_set(space, slot, (*command, b"NX"), _fitting(command[2])).value is not None))


@command("SETEX", 4, writes=True)
def setex(space: Keyspace, slot: Slot, command: Command) -> Outcome:
    name, key, seconds, value = command
    return _set(space, slot, (name, key, value, b"EX", seconds), _fitting(value))


@command("PSETEX", 4, writes=True)
def psetex(space: Keyspace, slot: Slot, command: Command) -> Outcome:
    name, key, milliseconds, value = command
    return _set(space, slot, (name, key, value, b"PX", milliseconds), _fitting(value))


@command("GETSET", 3, writes=True)
def getset(space: Keyspace, slot: Slot, command: Command) -> Outcome:
    return _set(space, slot, (*command, b"GET"), _fitting(command[2]))


@command("MSET", -3, writes=True, keys=(1, -1, 2))
def mset(space: Keyspace, slot: Slot, command: Command) -> Outcome:
    for key, value in _pairs(command).items():
        _write(space, slot, key, value)
    return OK


@command("MSETNX", -3, writes=True, keys=(1, -1, 2))
def msetnx(space: Keyspace, slot: Slot, command: Command) -> Outcome:
    pairs = _pairs(command)
    if any(slot.get(key) for key in pairs):
        return Outcome(0)
    for key, value in pairs.items():
        _write(space, slot, key, value)
    return Outcome(1)


@command("GETDEL", 2, writes=True)
def getdel(space: Keyspace, slot: Slot, command: Command) -> Outcome:
    value = _value(slot.versions.get(command[1]))
    space.remove(slot, command[1])
    return Outcome(value)


@command("GETEX", -2, writes=True)
def getex(space: Keyspace, slot: Slot, command: Command) -> Outcome:
    options = _Options(space, command, 2, (*_DEADLINES, b"PERSIST"))
    version = slot.get(command[1])
    if version is None:
        return Outcome()
    assert version.value is not None
    if options.expires_ms is not None or (b"PERSIST" in options.given and version.expires_ms):
        expire(space, slot, command[1], version, options.expires_ms or 0)
    return Outcome(version.value)


# ---------------------------------------------------------------------------------------- grow and count


@command("APPEND", 3, writes=True)
def append(space: Keyspace, slot: Slot, command: Command) -> Outcome:
    key = command[1]
    version = slot.get(key)
    value = _inline(version) + command[2]
    _write(space, slot, key, _fitting(value), 0 if version is None else version.expires_ms)
    return Outcome(len(value))


@command("INCR", 2, writes=True)
def incr(space: Keyspace, slot: Slot, command: Command) -> Outcome:
    return _add(space, slot, command[1], 1)


@command("DECR", 2, writes=True)
def decr(space: Keyspace, slot: Slot, command: Command) -> Outcome:
    return _add(space, slot, command[1], -1)


@command("INCRBY", 3, writes=True)
def incrby(space: Keyspace, slot: Slot, command: Command) -> Outcome:
    return _add(space, slot, command[1], integer(command[2]))


@command("DECRBY", 3, writes=True)
def decrby(space: Keyspace, slot: Slot, command: Command) -> Outcome:
    decrement = integer(command[2])
    if decrement == -(1 << 63):
        raise Refused("ERR decrement would overflow")
    return _add(space, slot, command[1], -decrement)


# ---------------------------------------------------------------------------------------------------- helpers


def expire(space: Keyspace, slot: Slot, key: bytes, version: Version, expires_ms: int) -> None:
    """Give a key another deadline, 0 for none; one that has passed deletes it."""
    if expires_ms and expires_ms <= space.now_ms:
        space.remove(slot, key)
    elif version.value is not None:
        space.put(slot, key, version.value, expires_ms)


_DEADLINES = (b"EX", b"PX", b"EXAT", b"PXAT")
_LASTING = (*_DEADLINES, b"KEEPTTL", b"PERSIST")
_LIFETIME_MS_MAX = 1 << 62


def deadline_ms(space: Keyspace, unit: bytes, argument: bytes, name: str) -> int:
    """Log time in milliseconds of `EX seconds`, `PX milliseconds`, `EXAT second` or `PXAT millisecond`."""
    time = integer(argument)
    time_ms = time * 1000 if unit.startswith(b"EX") else time
    expires_ms = time_ms if unit.endswith(b"AT") else time_ms + space.now_ms
    if time <= 0 or expires_ms > _LIFETIME_MS_MAX:
        raise Refused(f"ERR invalid expire time in '{name}' command")
    return expires_ms


class _Options:
    """What stands behind key and value in SET and GETEX."""

    def __init__(self, space: Keyspace, command: Command, at: int, allowed: tuple[bytes, ...]) -> None:
        self.given: dict[bytes, None] = {}
        self.expires_ms: int | None = None
        rest = iter(command[at:])
        for word in rest:
            option = word.upper()
            # At most one of those that are about the deadline.
            if option not in allowed or (
                option in _LASTING and any(other in _LASTING for other in self.given)
            ):
                raise Refused(SYNTAX)
            self.given[option] = None
            if option in _DEADLINES:
                argument = next(rest, None)
                if argument is None:
                    raise Refused(SYNTAX)
                self.expires_ms = deadline_ms(space, option, argument, _called(command))
        if b"NX" in self.given and b"XX" in self.given:
            raise Refused(SYNTAX)


def _called(command: Command) -> str:
    return command[0].decode().lower().lstrip("@")


_SET_OPTIONS = (*_DEADLINES, b"KEEPTTL", b"NX", b"XX", b"GET")


def _set(space: Keyspace, slot: Slot, command: Command, value: Value) -> Outcome:
    key = command[1]
    options = _Options(space, command, 3, _SET_OPTIONS)
    before = slot.get(key)
    expires_ms = options.expires_ms or 0
    if b"KEEPTTL" in options.given and before is not None:
        expires_ms = before.expires_ms
    refused = (b"NX" in options.given and before is not None) or (b"XX" in options.given and before is None)
    if not refused:
        if expires_ms and expires_ms <= space.now_ms:
            space.remove(slot, key)
        else:
            _write(space, slot, key, value, expires_ms)
    if b"GET" in options.given:
        return Outcome(_value(before))
    return Outcome() if refused else OK


def _add(space: Keyspace, slot: Slot, key: bytes, increment: int) -> Outcome:
    version = slot.get(key)
    number = 0 if version is None else integer(_inline(version), NOT_AN_INTEGER)
    number += increment
    if not -(1 << 63) <= number < 1 << 63:
        raise Refused(OUT_OF_RANGE)
    _write(space, slot, key, b"%d" % number, 0 if version is None else version.expires_ms)
    return Outcome(number)


def _write(space: Keyspace, slot: Slot, key: bytes, value: Value, expires_ms: int = 0) -> None:
    if len(key) > KEY_BYTES_MAX:
        raise Refused(TOO_LONG)
    space.put(slot, key, value, expires_ms)


def _pairs(command: Command) -> dict[bytes, bytes]:
    """Of MSET: the last value of each key."""
    if len(command) % 2 == 0:
        raise Refused(f"ERR wrong number of arguments for '{_called(command)}' command")
    pairs = dict(zip(command[1::2], map(_fitting, command[2::2]), strict=True))
    if any(len(key) > KEY_BYTES_MAX for key in pairs):
        raise Refused(TOO_LONG)
    return pairs


def _fitting(value: bytes) -> bytes:
    if len(value) > VALUE_BYTES_MAX:
        raise Refused(TOO_LONG)
    return value


def _value(version: Version | None) -> Value | None:
    return None if version is None else version.value


def _inline(version: Version | None) -> bytes:
    """A value that is here, not a reference to it."""
    value = _value(version)
    if isinstance(value, Reference):
        raise Refused(LARGE)
    return value or b""
