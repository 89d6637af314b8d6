"""Who is there: the devices' announcements while their leases run, and who has a name that several want.

Owns no clock (whoever asks says when) and knows nothing of DNS but labels. What it holds is bounded by the
number of devices: each has one entry.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from gateway.names.messages import Announce, check, labels_of

Labels = tuple[bytes, ...]
"""A name within the zone, in lower case, the zone's own is `()`."""


class Entry(msgspec.Struct, frozen=True):
    """What a device announced."""

    device: str
    announced: Announce
    until_s: float
    since: int
    """Counts first announcements: the smaller was there first."""

    def names(self) -> Iterator[Labels]:
        """All names at which it has a record, some perhaps twice."""
        yield labels_of(self.announced.name)
        for alias in self.announced.aliases:
            yield labels_of(alias)
        for service in self.announced.services:
            yield labels_of(service.name)


class Registry:
    """Entries by device, found by name."""

    def __init__(self) -> None:
        self.changes = 0
        """How often something began or ceased to be true; renewals do not count."""
        self._entries: dict[str, Entry] = {}
        self._at: dict[Labels, dict[str, None]] = {}
        """Devices with a record at that name."""
        self._beneath: dict[Labels, dict[str, None]] = {}
        """Devices with a record at that name or under it."""
        self._first = 0

    def announce(self, device: str, announced: Announce, now: float) -> None:
        """The device says this of itself; raises ValueError where it cannot be put into a zone."""
        check(announced)
        before = self._entries.get(device)
        if before is not None and before.until_s <= now:
            self._remove(before)
            before = None
        until_s = now + announced.lease_s
        if before is not None and before.announced == announced:
            self._entries[device] = msgspec.structs.replace(before, until_s=until_s)
            return
        if before is not None:
            since = before.since
            self._remove(before)
        else:
            self._first += 1
            since = self._first
        self._add(Entry(device, announced, until_s, since))

    def expire(self, now: float) -> tuple[Entry, ...]:
        """Forget entries whose lease is over; those it were."""
        over = tuple(entry for entry in self._entries.values() if entry.until_s <= now)
        for entry in over:
            self._remove(entry)
        return over

    def next_expiry_s(self) -> float | None:
        """When the next lease is over, unless it is renewed."""
        return min((entry.until_s for entry in self._entries.values()), default=None)

    def holder(self, name: Labels, now: float) -> Entry | None:
        """Who has the name for himself."""
        holder: Entry | None = None
        for entry in self._alive(self._at.get(name, ()), now):
            if labels_of(entry.announced.name) == name and (holder is None or _rank(entry) > _rank(holder)):
                holder = entry
        return holder

    def entry(self, device: str, now: float) -> Entry | None:
        """What the device announced, if its lease runs and the name it announced is its own: the records of
        a device that was replaced do not count, its services neither."""
        entry = self._entries.get(device)
        if entry is None or entry.until_s <= now:
            return None
        holder = self.holder(labels_of(entry.announced.name), now)
        return entry if holder is entry else None

    def at(self, name: Labels, now: float) -> list[Entry]:
        """Entries that count and have a record at that name, in the order in which they came."""
        return self._counting(self._at.get(name, ()), now)

    def exists(self, name: Labels, now: float) -> bool:
        """Whether there is a record at that name or under it (RFC 8020)."""
        return any(self.entry(device, now) for device in self._beneath.get(name, ()))

    # ------------------------------------------------------------------------------------------------ helpers

    def _alive(self, devices: dict[str, None] | tuple[()], now: float) -> Iterator[Entry]:
        return (entry for device in devices if (entry := self._entries[device]).until_s > now)

    def _counting(self, devices: dict[str, None] | tuple[()], now: float) -> list[Entry]:
        found = (self.entry(device, now) for device in devices)
        return sorted((entry for entry in found if entry is not None), key=lambda entry: entry.since)

    def _add(self, entry: Entry) -> None:
        self.changes += 1
        self._entries[entry.device] = entry
        for name in entry.names():
            self._at.setdefault(name, {})[entry.device] = None
            for n in range(len(name)):
                self._beneath.setdefault(name[n:], {})[entry.device] = None

    def _remove(self, entry: Entry) -> None:
        self.changes += 1
        del self._entries[entry.device]
        for name in entry.names():
            _forget(self._at, name, entry.device)
            for n in range(len(name)):
                _forget(self._beneath, name[n:], entry.device)


def _rank(entry: Entry) -> tuple[int, int]:
    return entry.announced.generation, -entry.since


def _forget(index: dict[Labels, dict[str, None]], name: Labels, device: str) -> None:
    devices = index.get(name, {})
    devices.pop(device, None)
    if not devices:
        index.pop(name, None)
