"""Configurations: which group serves which slots, as a value, and how one follows from another.

Owns the map and its arithmetic: balanced within one slot, with the fewest slots moved. Pure functions: who
numbers configurations and keeps their history is `kv.sharding.controller`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from itertools import groupby
from typing import Annotated

import msgspec

from kv.slots import SLOTS
from underlay.errors import InputError
from underlay.node import Address

SlotNumber = Annotated[int, msgspec.Meta(ge=0, lt=SLOTS)]
"""Checked where it comes out of a message."""

Range = tuple[SlotNumber, SlotNumber]
"""Slots from the first to the last, both included."""

NOBODY = ""
"""Owns the slots before the first group has joined."""

GROUPS_MAX = 120
"""So that a group's number fits one byte of msgpack, and the most fragmented map there can be 32 KiB."""

ENCODED_BYTES_MAX = 44 * 1024
"""Fits a message with room to spare; what the map leaves of it bounds the names of the replicas."""

REPLICAS_MAX = 7

_NAME = re.compile(r"[a-z][a-z0-9-]{0,30}")
_ADDRESS = re.compile(r"[A-Za-z0-9._-]{1,63}/[A-Za-z0-9._-]{1,63}")


class Configuration(msgspec.Struct, frozen=True, array_like=True):
    """One map of all slots.

    >>> first = join(Configuration(), "g1", ["store1/g1"])
    >>> second = join(first, "g2", ["store2/g2"])
    >>> list(second.ranges())
    [(0, 8191, 'g1'), (8192, 16383, 'g2')]
    """

    number: int = 0
    """Counts the configurations; 0 is the one in which there is no group."""
    groups: dict[str, tuple[Address, ...]] = {}
    """The replicas of each group, in the order of the groups' names."""
    runs: tuple[int, ...] = (SLOTS, 0)
    """From slot 0 on: how many slots, then whose they are (0: nobody's, n: the nth group's), and so on."""

    def ranges(self) -> Iterator[tuple[int, int, str]]:
        """First slot, last slot (included), group; in the order of slots, neighbours being different."""
        names = (NOBODY, *self.groups)
        first = 0
        for length, index in zip(self.runs[::2], self.runs[1::2], strict=True):
            yield first, first + length - 1, names[index]
            first += length

    def table(self) -> list[str]:
        """The group of each slot."""
        names = (NOBODY, *self.groups)
        table: list[str] = []
        for length, index in zip(self.runs[::2], self.runs[1::2], strict=True):
            table += [names[index]] * length
        return table

    def owner_of(self, slot: int) -> str:
        """The group of one slot; `table` is quicker for many."""
        return next(group for first, last, group in self.ranges() if first <= slot <= last)

    def slots_of(self, group: str) -> tuple[Range, ...]:
        """What a group has."""
        return tuple((first, last) for first, last, owner in self.ranges() if owner == group)

    def encode(self) -> bytes:
        """At most `ENCODED_BYTES_MAX` bytes."""
        return _ENCODER.encode(self)

    @staticmethod
    def decode(data: bytes) -> Configuration:
        """The inverse of `encode`; raises msgspec.DecodeError."""
        return _DECODER.decode(data)


_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgspec.msgpack.Decoder(Configuration)


def join(configuration: Configuration, group: str, replicas: Iterable[Address]) -> Configuration:
    """The next configuration, in which `group` has its share. A group that is there already gets these
    replicas in place of the old ones, and no slot moves. Raises InputError."""
    replicas = tuple(replicas)
    check_group(group, replicas)
    if len(configuration.groups) >= GROUPS_MAX and group not in configuration.groups:
        raise InputError(f"there are {GROUPS_MAX} groups already")
    groups = configuration.groups | {group: replicas}
    table = configuration.table()
    return _following(
        configuration, groups, table if group in configuration.groups else balance(table, groups)
    )


def leave(configuration: Configuration, group: str) -> Configuration:
    """The next configuration, in which the others have what `group` had. Raises InputError."""
    if group not in configuration.groups:
        raise InputError(f"there is no group {group!r}")
    groups = {name: replicas for name, replicas in configuration.groups.items() if name != group}
    if not groups:
        raise InputError(f"{group!r} is the last group: nobody could take its slots")
    return _following(configuration, groups, balance(configuration.table(), groups))


def move(configuration: Configuration, ranges: Iterable[Range], group: str) -> Configuration:
    """The next configuration, in which `group` has these slots and all others stay. The next join or leave
    balances again. Raises InputError."""
    if group not in configuration.groups:
        raise InputError(f"there is no group {group!r}")
    table = configuration.table()
    for first, last in ranges:
        if not 0 <= first <= last < SLOTS:
            raise InputError(f"{first}-{last} is no range of slots", hint=f"slots are 0 to {SLOTS - 1}")
        table[first : last + 1] = [group] * (last + 1 - first)
    return _following(configuration, configuration.groups, table)


def balance(table: list[str], groups: Iterable[str]) -> list[str]:
    """A table in which every one of `groups` has as many slots as every other, give or take one, and as few
    slots as possible have changed hands.

    Those that have most keep the odd slot. Groups give from their upper end, so that ranges stay long.
    """
    slots: dict[str, list[int]] = {group: [] for group in sorted(groups)}
    spare: list[int] = []
    for slot, owner in enumerate(table):
        slots.get(owner, spare).append(slot)
    share, odd = divmod(SLOTS, len(slots))
    by_size = sorted(slots, key=lambda group: -len(slots[group]))
    wanted = {group: share + (place < odd) for place, group in enumerate(by_size)}
    for group, held in slots.items():
        spare += held[wanted[group] :]
        del held[wanted[group] :]
    spare.sort()
    result = list(table)
    for group, held in slots.items():
        missing = wanted[group] - len(held)
        for slot in spare[:missing]:
            result[slot] = group
        del spare[:missing]
    return result


def compact(slots: Iterable[int]) -> tuple[Range, ...]:
    """Ascending slots as ranges.

    >>> compact([1, 2, 3, 7])
    ((1, 3), (7, 7))
    """
    found: list[Range] = []
    for slot in slots:
        if found and slot == found[-1][1] + 1:
            found[-1] = (found[-1][0], slot)
        else:
            found.append((slot, slot))
    return tuple(found)


def expand(ranges: Iterable[Range]) -> Iterator[int]:
    """The slots of these ranges."""
    for first, last in ranges:
        yield from range(first, last + 1)


def read_ranges(text: str) -> tuple[Range, ...]:
    """`"0-99,512"` as ranges; raises InputError.

    >>> read_ranges("0-99,512")
    ((0, 99), (512, 512))
    """
    found: list[Range] = []
    for part in text.split(","):
        match = re.fullmatch(r"(\d{1,5})(?:-(\d{1,5}))?", part.strip())
        if match is None:
            raise InputError(f"{part!r} is no range of slots", hint="such as 512 or 0-99")
        found.append((int(match[1]), int(match[2] or match[1])))
    return tuple(found)


def check_group(group: str, replicas: tuple[Address, ...]) -> None:
    """Raises InputError where these cannot be the name and the replicas of a group."""
    if not _NAME.fullmatch(group):
        raise InputError(f"{group!r} is no name of a group", hint="small letters, digits and dashes")
    if not 1 <= len(replicas) <= REPLICAS_MAX or len(set(replicas)) != len(replicas):
        raise InputError(f"group {group!r} needs 1 to {REPLICAS_MAX} different replicas")
    for address in replicas:
        if not _ADDRESS.fullmatch(address):
            raise InputError(f"{address!r} is no address of a replica", hint=f"such as store1/{group}")


# ---------------------------------------------------------------------------------------------------- helpers


def _following(
    before: Configuration, groups: Mapping[str, tuple[Address, ...]], table: Iterable[str]
) -> Configuration:
    groups = dict(sorted(groups.items()))
    index = {name: place for place, name in enumerate((NOBODY, *groups))}
    runs: list[int] = []
    for owner, slots in groupby(table):
        runs += (sum(1 for _ in slots), index[owner])
    following = Configuration(before.number + 1, groups, tuple(runs))
    if len(following.encode()) > ENCODED_BYTES_MAX:
        raise InputError(
            f"the configuration exceeds {ENCODED_BYTES_MAX} bytes", hint="shorter names of replicas"
        )
    return following
