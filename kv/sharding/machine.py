"""A group's machine: a key-value machine that knows which slots are its own, now.

Owns the state of every slot and the commands that change it; what a slot holds is the inner machine's. All
decisions are made when an operation is executed, so every replica makes the same: an operation that was
proposed before a slot was released and comes after that in the log is not executed, and says so.

```
                @config                  @install, last part             @config
   absent ------------------> arriving -----------------------> owned ------------> leaving
      ^  \\                                                     ^                        |
      |   `---- @config: nobody had it ------------------------'                        | @release
      |                                                                                  v
      `----------------------- dropping <-------------------------------------------- frozen
             @drop, nothing left                          @drop
```

`owned` and `leaving` are served. The commands are harmless when they are repeated or come late, because each
names the configuration that it belongs to; the functions at the end make them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from enum import IntEnum
from itertools import chain, compress
from operator import ne
from typing import Any, Protocol

import msgspec

from kv.operations import OK, Command, Operation, Outcome
from kv.replication import Machine
from kv.sharding.config import NOBODY, Configuration, Range, compact, expand
from kv.sharding.messages import Part
from kv.slots import SLOTS
from underlay.store import Batch

DROPPED_RECORDS_MAX = 400
"""Deleted by one operation of the log, so that no handler takes long."""

_OWN = b"\x00"
"""Prefix of the records that are not the inner machine's; below all of those."""
_NOW, _BEFORE, _STATES, _CURSOR = _OWN + b"n", _OWN + b"b", _OWN + b"s", _OWN + b"t"


class SlotState(IntEnum):
    """What a slot is to a group."""

    ABSENT = 0
    OWNED = 1
    LEAVING = 2
    """Another group has it in the present configuration and has not asked for it yet: served."""
    FROZEN = 3
    """The other group asked for it: neither served nor changed, until it has it."""
    DROPPING = 4
    """The other group has it; the records are being deleted."""
    ARRIVING = 5
    """Ours in the present configuration, and not here yet, or only in part."""


_STATES_BY_NUMBER = tuple(SlotState)

SERVED = (SlotState.OWNED, SlotState.LEAVING)


class Slotted(Machine, Protocol):
    """What a machine offers whose state falls into slots."""

    def slot_of(self, command: Command) -> int | None:
        """The slot that a command is about; None: it has no keys."""

    def slot_records(self, slot: int, after: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        """The records of a slot with keys above `after`, in key order: its keys, their versions, and the
        sessions that changed them."""

    def install(self, records: Iterable[tuple[bytes, bytes]], revision: int) -> None:
        """Take over records, each slot's in key order; `revision` becomes that number unless it is higher."""

    def drop(self, slot: int, records_max: int) -> int:
        """Delete up to so many records of a slot; returns how many were deleted. Fewer: nothing is left."""

    def show_slots(self, serves: Callable[[int], bool]) -> None:
        """Whose keys are counted and scanned."""


class ShardMachine:
    """Implements `kv.replication.Machine` over a machine with slots.

    Args:
        group: whose machine this is.
        inner: what executes operations on slots that are served.
    """

    def __init__(self, group: str, inner: Slotted) -> None:
        self.group = group
        self.inner = inner
        self.configuration = Configuration()
        """The one in force for this group."""
        self.before = Configuration()
        """The one before: arriving slots come from the groups that had them in it."""
        self._states = bytearray(SLOTS)
        self._owners: list[str] = [NOBODY] * SLOTS
        self._sources: list[str] = [NOBODY] * SLOTS
        self._cursors: dict[int, bytes] = {}
        """Of slots that arrived in part: the key of the last record."""
        self._unsettled = 0
        self._states_changed = False
        self._changed: Batch = {}
        inner.show_slots(lambda slot: self._states[slot] in SERVED)

    # ------------------------------------------------------------------------------------------- as a machine

    @property
    def revision(self) -> int:
        return self.inner.revision

    def execute(self, operation: Operation, time_s: float) -> Outcome:
        command = operation.command
        moving = _COMMANDS.get(command[0]) if command else None
        if moving is not None:
            return moving(self, *command[1:])
        return self.elsewhere(command) or self.inner.execute(operation, time_s)

    def is_read(self, command: Command) -> bool:
        return self.inner.is_read(command)

    def query(self, command: Command) -> Outcome:
        return self.elsewhere(command) or self.inner.query(command)

    @property
    def wakes_at_s(self) -> float | None:
        return self.inner.wakes_at_s

    def referenced(self) -> Collection[bytes]:
        return self.inner.referenced()

    def take_changes(self) -> Batch:
        if self._states_changed:
            self._changed[_STATES] = self._encoded_states()
        changed, self._changed, self._states_changed = self._changed, {}, False
        return self.inner.take_changes() | changed

    def freeze(self) -> Iterator[tuple[bytes, bytes]]:
        own = [
            (_BEFORE, self.before.encode()),
            (_NOW, self.configuration.encode()),
            (_STATES, self._encoded_states()),
            *((_CURSOR + slot.to_bytes(2), cursor) for slot, cursor in sorted(self._cursors.items())),
        ]
        return chain(own, self.inner.freeze())

    def restore(self, records: Iterable[tuple[bytes, bytes]]) -> None:
        self.configuration = self.before = Configuration()
        self._states, self._cursors = bytearray(SLOTS), {}
        self._changed, self._states_changed = {}, False
        self.inner.restore(self._restore_own(records))
        self._owners, self._sources = self.configuration.table(), self.before.table()
        self._count_unsettled()

    # ---------------------------------------------------------------------------------------- what a slot is

    @property
    def settled(self) -> bool:
        """Whether nothing of the present configuration is left to do."""
        return not self._unsettled

    def state(self, slot: int) -> SlotState:
        """What a slot is to this group."""
        return _STATES_BY_NUMBER[self._states[slot]]

    def slots_in(self, *states: SlotState) -> list[int]:
        """The slots in any of these states, ascending."""
        chosen = bytearray(256)
        for state in states:
            chosen[state] = 1
        return list(compress(range(SLOTS), self._states.translate(chosen)))

    def owner_of(self, slot: int) -> str:
        """The group that has the slot in the present configuration."""
        return self._owners[slot]

    def source_of(self, slot: int) -> str:
        """The group that had it in the one before."""
        return self._sources[slot]

    def cursor(self, slot: int) -> bytes:
        """Of an arriving slot: the key of the last record that is here."""
        return self._cursors.get(slot, b"")

    def elsewhere(self, command: Command) -> Outcome | None:
        """Where a command belongs that is not for this group at present; None: it is."""
        slot = self.inner.slot_of(command)
        if slot is None or self._states[slot] in SERVED:
            return None
        match self._states[slot]:
            case SlotState.FROZEN:
                return self.redirection("ASK", slot, self._owners[slot])
            case SlotState.ARRIVING:
                return self.redirection("MOVED", slot, self._sources[slot])
        return self.redirection("MOVED", slot, self._owners[slot])

    def redirection(self, code: str, slot: int, group: str) -> Outcome:
        """`"MOVED 3999 store2/g2"`: the slot, and one of the replicas of its group."""
        replicas = self.replicas_of(group)
        if not replicas:
            return Outcome(failure="CLUSTERDOWN Hash slot not served")
        return Outcome(failure=f"{code} {slot} {replicas[0]}")

    def replicas_of(self, group: str) -> tuple[str, ...]:
        """Addresses of a group of this configuration, or the one before."""
        return self.configuration.groups.get(group) or self.before.groups.get(group, ())

    # ------------------------------------------------------------------------------------ commands of a move

    def _configure(self, data: bytes) -> Outcome:
        following = Configuration.decode(data)
        if not self.settled or not self._follows(following):
            return Outcome(self.configuration.number)
        self.before, self.configuration = self.configuration, following
        self._sources, self._owners = self._owners, following.table()
        mine = self.group
        for slot in compress(range(SLOTS), map(ne, self._sources, self._owners)):
            if self._sources[slot] == mine:
                self._states[slot] = SlotState.LEAVING
            elif self._owners[slot] == mine:
                nobodys = self._sources[slot] == NOBODY
                self._states[slot] = SlotState.OWNED if nobodys else SlotState.ARRIVING
        self._changed[_BEFORE] = self.before.encode()
        self._changed[_NOW] = following.encode()
        self._slots_changed()
        return Outcome(following.number)

    def _follows(self, following: Configuration) -> bool:
        """The next one; or, for a group that has nothing and gets nothing, any later one."""
        number = self.configuration.number
        idle = self.group not in self.configuration.groups and self.group not in following.groups
        return following.number == number + 1 or (idle and following.number > number)

    def _release(self, number: bytes, ranges: bytes) -> Outcome:
        for slot in self._those_in(number, ranges, SlotState.LEAVING):
            self._states[slot] = SlotState.FROZEN
        self._slots_changed()
        return OK

    def _install(self, number: bytes, revision: bytes, parts: bytes) -> Outcome:
        """Only what continues what is here: an operation between may have been lost with its leader."""
        if int(number) == self.configuration.number:
            records: list[tuple[bytes, bytes]] = []
            for part in _PARTS.decode(parts):
                if self._states[part.slot] == SlotState.ARRIVING and part.after == self.cursor(part.slot):
                    records += part.records
                    self._take_part(part)
            self.inner.install(records, int(revision))
            self._slots_changed()
        return OK

    def _take_part(self, part: Part) -> None:
        key = _CURSOR + part.slot.to_bytes(2)
        if part.last:
            self._states[part.slot] = SlotState.OWNED
            if self._cursors.pop(part.slot, None) is not None:
                self._changed[key] = None
        else:
            self._cursors[part.slot] = self._changed[key] = part.through

    def _drop(self, number: bytes, ranges: bytes) -> Outcome:
        left = DROPPED_RECORDS_MAX
        for slot in self._those_in(number, ranges, SlotState.FROZEN, SlotState.DROPPING):
            self._states[slot] = SlotState.DROPPING
            if next(self.inner.slot_records(slot), None) is not None:
                left -= self.inner.drop(slot, left)
                if left <= 0:
                    break
            self._states[slot] = SlotState.ABSENT
        self._slots_changed()
        return OK

    # ------------------------------------------------------------------------------------------------ helpers

    def _those_in(self, number: bytes, ranges: bytes, *states: SlotState) -> list[int]:
        if int(number) != self.configuration.number:
            return []
        return [slot for slot in expand(_RANGES.decode(ranges)) if self._states[slot] in states]

    def _slots_changed(self) -> None:
        self._states_changed = True
        self._count_unsettled()

    def _count_unsettled(self) -> None:
        settled = self._states.count(SlotState.ABSENT) + self._states.count(SlotState.OWNED)
        self._unsettled = SLOTS - settled

    def _encoded_states(self) -> bytes:
        return _encode([(run[0][0], len(run[0])) for run in _RUN.finditer(self._states)])

    def _restore_own(self, records: Iterable[tuple[bytes, bytes]]) -> Iterator[tuple[bytes, bytes]]:
        """Keeps its own of the records, and passes the others on."""
        for key, value in records:
            if key == _NOW:
                self.configuration = Configuration.decode(value)
            elif key == _BEFORE:
                self.before = Configuration.decode(value)
            elif key == _STATES:
                runs = msgspec.msgpack.decode(value, type=list[tuple[int, int]])
                self._states = bytearray(b"".join(bytes([state]) * length for state, length in runs))
            elif key.startswith(_CURSOR):
                self._cursors[int.from_bytes(key[len(_CURSOR) :])] = value
            else:
                yield key, value


_encode: Callable[[Any], bytes] = msgspec.msgpack.Encoder().encode
_RUN = re.compile(rb"(.)\1*", re.DOTALL)
_RANGES = msgspec.msgpack.Decoder(tuple[Range, ...])
_PARTS = msgspec.msgpack.Decoder(tuple[Part, ...])

_COMMANDS: dict[bytes, Callable[..., Outcome]] = {
    b"@config": ShardMachine._configure,
    b"@release": ShardMachine._release,
    b"@install": ShardMachine._install,
    b"@drop": ShardMachine._drop,
}


def config_command(configuration: Configuration) -> Command:
    """Go on to this configuration, if it is the next and nothing of the present one is left to do."""
    return b"@config", configuration.encode()


def release_command(number: int, slots: Iterable[int]) -> Command:
    """Freeze those of these slots that are leaving in configuration `number`."""
    return b"@release", b"%d" % number, _encode(compact(slots))


def install_command(number: int, revision: int, parts: Sequence[Part]) -> Command:
    """Take these parts of slots that arrive in configuration `number`."""
    return b"@install", b"%d" % number, b"%d" % revision, _encode(parts)


def drop_command(number: int, slots: Iterable[int]) -> Command:
    """Delete what was given away in configuration `number`: `DROPPED_RECORDS_MAX` records of it."""
    return b"@drop", b"%d" % number, _encode(compact(slots))
