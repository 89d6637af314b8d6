"""Commands about keys whatever they hold: existence, deletion, deadlines.

Source: Redis 7's documentation of each command. Time is log time, so what remains of a key's
life is told as of the last operation that was executed.
"""

from __future__ import annotations

from kv.machine.commands import Refused, command, integer
from kv.machine.keyspace import Keyspace
from kv.machine.slot import Slot
from kv.machine.strings import expire
from kv.operations import Command, Outcome

_NO_KEY, _NO_DEADLINE = -2, -1


@command("EXISTS", -2, keys=(1, -1, 1))
def exists(space: Keyspace, slot: Slot, command: Command) -> Outcome:
    return Outcome(sum(slot.get(key) is not None for key in command[1:]))


@command("TOUCH", -2, keys=(1, -1, 1))
def touch(space: Keyspace, slot: Slot, command: Command) -> Outcome:
    return exists(space, slot, command)


@command("TYPE", 2)
def type_(space: Keyspace, slot: Slot, command: Command) -> Outcome:
    return Outcome("none" if slot.get(command[1]) is None else "string")


@command("DEL", -2, writes=True, keys=(1, -1, 1))
def del_(space: Keyspace, slot: Slot, command: Command) -> Outcome:
    return Outcome(sum(space.remove(slot, key) for key in command[1:]))


@command("UNLINK", -2, writes=True, keys=(1, -1, 1))
def unlink(space: Keyspace, slot: Slot, command: Command) -> Outcome:
    return del_(space, slot, command)


# -------------------------------------------------------------------------------------------------- deadlines


@command("TTL", 2)
def ttl(space: Keyspace, slot: Slot, command: Command) -> Outcome:
    milliseconds = _remaining_ms(space, slot, command[1])
    return Outcome((milliseconds + 500) // 1000 if milliseconds >= 0 else milliseconds)


@command("PTTL", 2)
def pttl(space: Keyspace, slot: Slot, command: Command) -> Outcome:
    return Outcome(_remaining_ms(space, slot, command[1]))


@command("EXPIRETIME", 2)
def expiretime(space: Keyspace, slot: Slot, command: Command) -> Outcome:
    milliseconds = _deadline_ms(slot, command[1])
    return Outcome((milliseconds + 500) // 1000 if milliseconds >= 0 else milliseconds)


@command("PEXPIRETIME", 2)
def pexpiretime(space: Keyspace, slot: Slot, command: Command) -> Outcome:
    return Outcome(_deadline_ms(slot, command[1]))


@command("PERSIST", 2, writes=True)
def persist(space: Keyspace, slot: Slot, command: Command) -> Outcome:
    version = slot.get(command[1])
    if version is None or not version.expires_ms:
        return Outcome(0)
    expire(space, slot, command[1], version, 0)
    return Outcome(1)


@command("EXPIRE", -3, writes=True)
def expire_(space: Keyspace, slot: Slot, command: Command) -> Outcome:
    return _expire_at(space, slot, command, 1000, space.now_ms)


@command("PEXPIRE", -3, writes=True)
def pexpire(space: Keyspace, slot: Slot, command: Command) -> Outcome:
    return _expire_at(space, slot, command, 1, space.now_ms)


@command("EXPIREAT", -3, writes=True)
def expireat(space: Keyspace, slot: Slot, command: Command) -> Outcome:
    return _expire_at(space, slot, command, 1000, 0)


@command("PEXPIREAT", -3, writes=True)
def pexpireat(space: Keyspace, slot: Slot, command: Command) -> Outcome:
    return _expire_at(space, slot, command, 1, 0)


# ---------------------------------------------------------------------------------------------------- helpers


def _expire_at(space: Keyspace, slot: Slot, command: Command, unit_ms: int, from_ms: int) -> Outcome:
    name, key = command[0].decode().lower(), command[1]
    expires_ms = integer(command[2]) * unit_ms + from_ms
    if not -(1 << 62) <= expires_ms <= 1 << 62:
        raise Refused(f"ERR invalid expire time in '{name}' command")
    conditions = _conditions(command[3:])
    version = slot.get(key)
    if version is None:
        return Outcome(0)
    before = version.expires_ms or float("inf")
    if (
        (b"NX" in conditions and version.expires_ms)
        or (b"XX" in conditions and not version.expires_ms)
        or (b"GT" in conditions and expires_ms <= before)
        or (b"LT" in conditions and expires_ms >= before)
    ):
        return Outcome(0)
    # A deadline at or before zero has passed, whatever the log's time is; 0 would mean none.
    expire(space, slot, key, version, expires_ms) if expires_ms > 0 else space.remove(slot, key)
    return Outcome(1)


def _conditions(arguments: Command) -> list[bytes]:
    conditions = [argument.upper() for argument in arguments]
    for argument, condition in zip(arguments, conditions, strict=True):
        if condition not in (b"NX", b"XX", b"GT", b"LT"):
            raise Refused(f"ERR Unsupported option {argument.decode('utf-8', 'replace')}")
    if b"NX" in conditions and any(other in conditions for other in (b"XX", b"GT", b"LT")):
        raise Refused("ERR NX and XX, GT or LT options at the same time are not compatible")
    if b"GT" in conditions and b"LT" in conditions:
        raise Refused("ERR GT and LT options at the same time are not compatible")
    return conditions


def _deadline_ms(slot: Slot, key: bytes) -> int:
    version = slot.get(key)
    if version is None:
        return _NO_KEY
    return version.expires_ms or _NO_DEADLINE


def _remaining_ms(space: Keyspace, slot: Slot, key: bytes) -> int:
    milliseconds = _deadline_ms(slot, key)
    return max(0, milliseconds - space.now_ms) if milliseconds >= 0 else milliseconds
