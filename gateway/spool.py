"""The spool: observations that are acknowledged and not yet at their destination, on the gateway's own disk.

Owns how much may wait, whose turn it is, and the order: what a device handed over first leaves first, with
one batch of a device under way at a time; devices take turns, so that one with a thousand observations
waiting does not keep the others. In memory is only what is needed to choose; the observations are in the
node's durable store until the tier has them, numbered as they came, and are there again after a crash.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterable

import msgspec

from edge.observation import Observation
from underlay.store import Store

PREFIX, END = b"s:", b"s;"
"""Of all spools' keys in the node's store: the destination's name, a colon, and eight bytes of the number
follow."""


class Bounds(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How much may wait."""

    bytes_max: int = 64 * 1024 * 1024
    entries_max: int = 200_000
    batch_max: int = 32
    """Observations of one device that are written together."""
    batch_bytes_max: int = 16 * 1024
    """Of such a batch; a larger observation goes alone."""


class Entry(msgspec.Struct, frozen=True):
    """One that waits."""

    spool_key: bytes
    """Where it is in the node's store."""
    device: str
    key: bytes
    """Where the storage tier will keep it."""
    id: str
    size_bytes: int
    since_s: float
    """When it came; after a restart: when the gateway started."""


class Spool:
    """All that waits for one destination. Every method that takes a store writes to it in the handler that
    calls it.

    Args:
        bounds: how much may wait.
        name: the destination's.
    """

    def __init__(self, bounds: Bounds | None = None, name: str = "store") -> None:
        self.bounds = bounds or Bounds()
        self._prefix = PREFIX + name.encode() + b":"
        self.size_bytes = 0
        self._lanes: OrderedDict[str, deque[Entry]] = OrderedDict()
        """By device; the one whose turn is next comes first."""
        self._bytes: dict[str, int] = {}
        self._busy: dict[str, int] = {}
        """Devices with a batch under way, and its length."""
        self._keys: dict[bytes, bytes] = {}
        """Where each is in the node's store, by where the storage tier will keep it."""
        self._number = 0

    def __len__(self) -> int:
        return len(self._keys)

    def __contains__(self, key: bytes) -> bool:
        return key in self._keys

    def find(self, store: Store, key: bytes) -> bytes | None:
        """What waits to be kept under that key; None: nothing does."""
        spool_key = self._keys.get(key)
        return None if spool_key is None else store.get(spool_key)

    def load(self, store: Store, now: float) -> None:
        """After a restart: what was there before."""
        end = self._prefix[:-1] + b";"
        for spool_key, data in list(store.scan(self._prefix, end)):
            self._number = int.from_bytes(spool_key[len(self._prefix) :], "big")
            observation = Observation.decode(data)
            self._enter(Entry(spool_key, *_names(observation), len(data), now))

    def refusal(self, device: str, size_bytes: int) -> str:
        """Why there is no room for that much more of a device; empty: there is.

        When half of the room is taken, a device that holds more than its equal share of that half is
        refused first, so that a flood from one leaves the other half to the rest.
        """
        bounds, held = self.bounds, self._bytes.get(device, 0)
        if self.size_bytes + size_bytes > bounds.bytes_max or len(self) >= bounds.entries_max:
            return "the spool is full"
        if self.size_bytes > bounds.bytes_max // 2:
            share = bounds.bytes_max // 2 // max(2, len(self._bytes) + (device not in self._bytes))
            if held + size_bytes > share:
                return f"{device} has more waiting than its share"
        return ""

    def add(self, store: Store, observation: Observation, data: bytes, now: float) -> Entry:
        """Let an observation wait; `data` is its encoding."""
        self._number += 1
        spool_key = self._prefix + self._number.to_bytes(8, "big")
        entry = Entry(spool_key, *_names(observation), len(data), now)
        store.put(entry.spool_key, data)
        self._enter(entry)
        return entry

    def batch(self) -> tuple[Entry, ...]:
        """The oldest of the device whose turn it is, which are under way now; empty: nothing can be."""
        device = next((device for device in self._lanes if device not in self._busy), None)
        if device is None:
            return ()
        self._lanes.move_to_end(device)
        found: list[Entry] = []
        size_bytes = 0
        for entry in self._lanes[device]:
            size_bytes += entry.size_bytes
            crowded = len(found) == self.bounds.batch_max or size_bytes > self.bounds.batch_bytes_max
            if found and crowded:
                break
            found.append(entry)
        self._busy[device] = len(found)
        return tuple(found)

    def first_alone(self, device: str) -> Entry:
        """Of a device's batch that is under way only its first is, from now on."""
        self._busy[device] = 1
        return self._lanes[device][0]

    def done(self, store: Store, device: str) -> None:
        """The device's batch need not wait any more."""
        lane = self._lanes[device]
        for _ in range(self._busy.pop(device)):
            entry = lane.popleft()
            store.delete(entry.spool_key)
            del self._keys[entry.key]
            self.size_bytes -= entry.size_bytes
            self._bytes[device] -= entry.size_bytes
        if not lane:
            del self._lanes[device], self._bytes[device]

    def oldest_s(self) -> float | None:
        """When the oldest that waits came; None: nothing waits."""
        return min((lane[0].since_s for lane in self._lanes.values()), default=None)

    def waiting(self) -> Iterable[str]:
        """Devices with something that waits."""
        return self._lanes.keys()

    def _enter(self, entry: Entry) -> None:
        self._lanes.setdefault(entry.device, deque()).append(entry)
        self._bytes[entry.device] = self._bytes.get(entry.device, 0) + entry.size_bytes
        self._keys[entry.key] = entry.spool_key
        self.size_bytes += entry.size_bytes


def _names(observation: Observation) -> tuple[str, bytes, str]:
    return observation.id.device, observation.key(), str(observation.id)
