"""The spool: observations that are acknowledged and not yet at their destination, on the gateway's own disk.

Owns how much may wait, whose turn it is, and the order: what a device handed over first leaves first, with
one batch of a device under way at a time; devices take turns, so that one with a thousand observations
waiting does not keep the others. In memory is only what is needed to choose; the observations are in the
node's durable store until the tier has them, numbered as they came, and are there again after a crash.

Each entry is a route's, which has a priority, perhaps a rate, a share of the room, and a word on what happens
without any (`gateway.routing.routes.Route`). A device's turn has the highest priority of what waits of it,
since what came earlier has to leave before it; and for the same reason a route that has used up its rate
holds up what the device handed over later.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator

import msgspec

from edge.observation import Observation
from gateway.lane import Entry, Lane, Queue
from gateway.routing.rate import Bucket
from gateway.routing.routes import STORE, UNMATCHED, Route
from underlay.store import Store

PREFIX, END = b"s:", b"s;"
"""Of all spools' keys in the node's store: the destination's name, a colon, eight bytes of the number and the
route's name follow; a zero and one more byte where it came through other gateways, for how many."""
NUMBER_BYTES = 8
RETRY_AFTER_S = 1.0
"""For those who come without room; who comes too fast is told when the next one may."""


class Bounds(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How much may wait."""

    bytes_max: int = 64 * 1024 * 1024
    entries_max: int = 200_000
    batch_max: int = 32
    """Observations of one device that are written together."""
    batch_bytes_max: int = 16 * 1024
    """Of such a batch; a larger observation goes alone."""


class Refusal(msgspec.Struct, frozen=True):
    """Why an observation cannot wait here now."""

    reason: str
    retry_after_s: float = RETRY_AFTER_S


class Spool:
    """All that waits for one destination. Every method that takes a store writes to it in the handler that
    calls it.

    Args:
        bounds: how much may wait.
        name: the destination's.
        routes: all that lead here; what was spooled under any other has no priority, rate or share.
    """

    def __init__(self, bounds: Bounds | None = None, name: str = STORE, routes: Iterable[Route] = ()) -> None:
        self.bounds = bounds or Bounds()
        self._prefix = PREFIX + name.encode() + b":"
        self._routes = {route.name: route for route in routes} or {UNMATCHED: Route(name, UNMATCHED)}
        self._plain = Route(name, UNMATCHED)
        self._parts = _parts(route.priority for route in self._routes.values())
        self._least = min(self._parts.values())
        self._rates = {
            route.name: Bucket(route.rate_limit_per_s, route.rate_burst)
            for route in self._routes.values()
            if route.rate_limit_per_s is not None
        }
        self.size_bytes = 0
        self._lanes: dict[str, Lane] = {}
        """By device."""
        self._turns: dict[int, Queue] = {}
        """Devices of which a batch may leave, by priority; the one whose turn is next comes first."""
        self._held: dict[str, Queue] = {}
        """Devices whose first waits for its route's rate, by route."""
        self._pending: dict[str, OrderedDict[bytes, Entry]] = {}
        """By route and spool key, as they came: all that is not under way."""
        self._waiting: dict[str, int] = {}
        """By route: all, what is under way included."""
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
            rest = spool_key[len(self._prefix) :]
            self._number = int.from_bytes(rest[:NUMBER_BYTES], "big")
            self._enter(_entry(spool_key, rest[NUMBER_BYTES:], Observation.decode(data), len(data), now))

    # ------------------------------------------------------------------------------------------------- room

    def refusal(self, device: str, size_bytes: int, now: float, route: str = UNMATCHED) -> Refusal | None:
        """Why there is no room for that much more of a device by that route; None: there is.

        When half of the room is taken, a device that holds more than its equal share of that half is
        refused first, so that a flood from one leaves the other half to the rest. A route that drops its
        oldest is bounded by its own share instead.
        """
        policy = self._policy(route)
        if policy.overflow == "drop-oldest":
            enough = self._victims(policy, size_bytes) is not None
            return None if enough else Refusal("the spool is full")
        share = policy.spool_max_observations
        if share is not None and len(self._pending.get(route, ())) >= share:
            return Refusal(f"{share} wait by the route {route} already")
        if self._beyond(policy, self.size_bytes + size_bytes, len(self) + 1):
            return Refusal("the spool is full")
        if self.size_bytes > self.bounds.bytes_max // 2:
            lane = self._lanes.get(device)
            others = len(self._lanes) + (lane is None)
            held = lane.size_bytes if lane else 0
            if held + size_bytes > self.bounds.bytes_max // 2 // max(2, others):
                return Refusal(f"{device} has more waiting than its share")
        if policy.overflow == "block" and route in self._rates:
            wait_s = self._rates[route].wait_s(now)
            if wait_s:
                return Refusal(f"the route {route} takes {policy.rate_limit_per_s:g} a second", wait_s)
        return None

    def add(
        self,
        store: Store,
        observation: Observation,
        data: bytes,
        now: float,
        route: str = UNMATCHED,
        hops: int = 0,
    ) -> tuple[Entry, ...]:
        """Let an observation wait; `data` is its encoding. What gave way to it, for good."""
        policy = self._policy(route)
        dropped: tuple[Entry, ...] = ()
        if policy.overflow == "drop-oldest":
            dropped = self._victims(policy, len(data)) or ()
        elif policy.overflow == "block" and route in self._rates:
            self._rates[route].take(now)
        for entry in dropped:
            self._drop(store, entry)
        self._number += 1
        suffix = route.encode() + (bytes([0, min(hops, 255)]) if hops else b"")
        spool_key = self._prefix + self._number.to_bytes(NUMBER_BYTES, "big") + suffix
        store.put(spool_key, data)
        self._enter(_entry(spool_key, suffix, observation, len(data), now))
        return dropped

    def _beyond(self, policy: Route, size_bytes: int, entries: int) -> bool:
        """Whether that is more than a route of its priority may make of it."""
        part = self._parts.get(policy.priority, self._least)
        return size_bytes > self.bounds.bytes_max * part or entries > self.bounds.entries_max * part

    def _victims(self, policy: Route, size_bytes: int) -> tuple[Entry, ...] | None:
        """The oldest of the route that have to go for one more; None: it would not do."""
        pending = self._pending.get(policy.name) or OrderedDict()
        share = policy.spool_max_observations
        over = 0 if share is None else len(pending) - share + 1
        found: list[Entry] = []
        freed = 0
        for entry in pending.values():
            if len(found) >= over and not self._beyond(
                policy, self.size_bytes - freed + size_bytes, len(self) - len(found) + 1
            ):
                break
            found.append(entry)
            freed += entry.size_bytes
        beyond = self._beyond(policy, self.size_bytes - freed + size_bytes, len(self) - len(found) + 1)
        return None if beyond else tuple(found)

    # ------------------------------------------------------------------------------------------------- turns

    def batch(self, now: float) -> tuple[Entry, ...]:
        """The oldest of the device whose turn it is, which are under way now; empty: nothing can be."""
        self._release(now)
        for priority in sorted(self._turns, reverse=True):
            turns = self._turns[priority]
            while turns:
                device = next(iter(turns))
                lane = self._lanes[device]
                found = tuple(self._first(lane, now))
                if found:
                    lane.leave()
                    lane.under_way = len(found)
                    for entry in found:
                        del self._pending[entry.route][entry.spool_key]
                    return found
                lane.wait_in(self._held.setdefault(lane.first.route, OrderedDict()))
            del self._turns[priority]
        return ()

    def wait_s(self, now: float) -> float | None:
        """Until a device that waits for a route's rate may go on; None: there is none."""
        waits = (self._rates[route].wait_s(now) for route, held in self._held.items() if held)
        return min(waits, default=None)

    def first_alone(self, device: str) -> Entry:
        """Of a device's batch that is under way only its first is, from now on."""
        lane = self._lanes[device]
        first, *rest = lane.batch()
        lane.under_way = 1
        for entry in reversed(rest):
            pending = self._pending[entry.route]
            pending[entry.spool_key] = entry
            pending.move_to_end(entry.spool_key, last=False)
            if self._is_paced(entry.route):
                self._rates[entry.route].give_back(1)
        return first

    def done(self, store: Store, device: str) -> None:
        """The device's batch need not wait any more."""
        lane = self._lanes[device]
        for entry in lane.batch():
            store.delete(entry.spool_key)
            self._forget(lane, entry)
        lane.under_way = 0
        self._seat(lane)

    def _first(self, lane: Lane, now: float) -> Iterator[Entry]:
        """As many of its oldest as fit a batch and their routes' rates."""
        size_bytes = 0
        for number, entry in enumerate(lane):
            size_bytes += entry.size_bytes
            crowded = number == self.bounds.batch_max or size_bytes > self.bounds.batch_bytes_max
            if number and crowded:
                return
            if self._is_paced(entry.route) and not self._rates[entry.route].take(now):
                return
            yield entry

    def _release(self, now: float) -> None:
        """Where a rate allows one more, the device that has waited longest for it comes first."""
        for route, held in self._held.items():
            if held and self._rates[route].available(now):
                lane = self._lanes[next(iter(held))]
                self._seat(lane)
                assert lane.queue is not None
                lane.queue.move_to_end(lane.device, last=False)

    def _seat(self, lane: Lane) -> None:
        """Where a device belongs that is neither under way nor held."""
        if not len(lane):
            lane.leave()
            del self._lanes[lane.device]
            return
        turns = self._turns.setdefault(lane.priority, OrderedDict())
        if lane.queue is not turns:
            lane.wait_in(turns)

    # ----------------------------------------------------------------------------------------- what is there

    def oldest_s(self) -> float | None:
        """When the oldest that waits came; None: nothing waits."""
        return min((lane.first.since_s for lane in self._lanes.values()), default=None)

    def waiting(self) -> Iterable[str]:
        """Devices with something that waits."""
        return self._lanes.keys()

    def waiting_of(self, route: str) -> int:
        """How many wait by that route; by `unmatched` also those whose route is no more."""
        return self._waiting.get(route, 0)

    # ----------------------------------------------------------------------------------------------- helpers

    def _policy(self, route: str) -> Route:
        return self._routes.get(route, self._plain)

    def _is_paced(self, route: str) -> bool:
        """Whether the route's rate is that at which it leaves."""
        return route in self._rates and self._routes[route].overflow != "block"

    def _enter(self, entry: Entry) -> None:
        if entry.route not in self._routes:
            entry = msgspec.structs.replace(entry, route=UNMATCHED)
        lane = self._lanes.get(entry.device)
        if lane is None:
            lane = self._lanes[entry.device] = Lane(entry.device)
        lane.add(entry, self._policy(entry.route).priority)
        self._pending.setdefault(entry.route, OrderedDict())[entry.spool_key] = entry
        self._waiting[entry.route] = self._waiting.get(entry.route, 0) + 1
        self._keys[entry.key] = entry.spool_key
        self.size_bytes += entry.size_bytes
        if not lane.under_way and not self._is_held(lane):
            self._seat(lane)

    def _drop(self, store: Store, entry: Entry) -> None:
        lane = self._lanes[entry.device]
        del self._pending[entry.route][entry.spool_key]
        store.delete(entry.spool_key)
        self._forget(lane, entry)
        if not lane.under_way:  # another may be its first now
            self._seat(lane)

    def _forget(self, lane: Lane, entry: Entry) -> None:
        lane.remove(entry, self._policy(entry.route).priority)
        self._waiting[entry.route] -= 1
        del self._keys[entry.key]
        self.size_bytes -= entry.size_bytes

    def _is_held(self, lane: Lane) -> bool:
        return any(lane.queue is held for held in self._held.values())


def _parts(priorities: Iterable[int]) -> dict[int, float]:
    """How much of the spool a priority may fill: of k the highest all, each lower one a k-th of half less.

    >>> _parts([7, 0, 0])
    {0: 0.75, 7: 1.0}
    """
    ranked = sorted(dict.fromkeys(priorities))
    return {each: 0.5 + 0.5 * rank / len(ranked) for rank, each in enumerate(ranked, 1)}


def _entry(spool_key: bytes, suffix: bytes, observation: Observation, size_bytes: int, now: float) -> Entry:
    route, _, hops = suffix.partition(b"\0")
    return Entry(
        spool_key=spool_key,
        device=observation.id.device,
        key=observation.key(),
        id=str(observation.id),
        size_bytes=size_bytes,
        since_s=now,
        route=route.decode(),
        hops=int.from_bytes(hops, "big"),
    )
