"""A gateway's destinations beside the store: which driver writes to which, and what bindings they need."""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil

import msgspec

from gateway.destinations.disk import files_binding
from gateway.destinations.driver import Driver, Failed
from gateway.destinations.files import Files
from gateway.destinations.topics import Topics, topics_binding
from gateway.destinations.upstream import Upstream
from gateway.routing.routes import Route
from gateway.routing.targets import Columnar, Destination, Images, Lines, Nested, OnDisk, Topic
from gateway.spool import Bounds
from gateway.writer import Write
from underlay.messages import Message
from underlay.node import Address, Context, Timer
from underlay.plan import BindingPlan

LANES = 32
"""Batches under way at a time to a destination."""
WIDE_LANES = 256
WIDE_BATCH = 256
WIDE_BATCH_BYTES = 128 * 1024


class Destinations(Driver):
    """Made anew with the node."""

    def __init__(self) -> None:
        self._files = Files()
        self._topics = Topics()
        self._upstream = Upstream()
        self._drivers: tuple[Driver, ...] = (self._files, self._topics, self._upstream)

    def write_to(self, name: str, destination: Destination, failed: Failed) -> Write:
        """How batches get there."""
        match destination:
            case Lines() | Images() | Columnar():
                return self._files.write_to(name, failed)
            case Topic():
                return self._topics.write_to(destination, failed)
            case Nested(device):
                return self._upstream.write_to(device, failed)

    def on_start(self, ctx: Context) -> None:
        for driver in self._drivers:
            driver.on_start(ctx)

    def on_message(self, ctx: Context, sender: Address, message: Message) -> bool:
        return any(driver.on_message(ctx, sender, message) for driver in self._drivers)

    def on_timer(self, ctx: Context, timer: Timer) -> bool:
        return any(driver.on_timer(ctx, timer) for driver in self._drivers)

    def on_peer_down(self, ctx: Context, peer: Address) -> bool:
        return any(driver.on_peer_down(ctx, peer) for driver in self._drivers)


def bounds_of(destination: Destination, bounds: Bounds) -> tuple[Bounds, int]:
    """How much is written together there, and how many batches are under way at a time.

    A file of columns is the better the more it holds, and one device's observations do not make it.
    """
    if isinstance(destination, Columnar):
        wide = msgspec.structs.replace(
            bounds,
            batch_max=max(bounds.batch_max, WIDE_BATCH),
            batch_bytes_max=max(bounds.batch_bytes_max, WIDE_BATCH_BYTES),
        )
        return wide, WIDE_LANES
    return bounds, LANES


def paced(route: Route, destination: Destination) -> Route:
    """The route with the burst that its rate needs there.

    Where observations are gathered for a while, none of a device leaves meanwhile: what the rate allows in
    that time has to be able to go at once, or the rate would never be reached.
    """
    if isinstance(destination, Columnar) and route.rate_limit_per_s is not None and route.rate_burst is None:
        burst = ceil(route.rate_limit_per_s * max(1.0, destination.gather_s))
        return msgspec.structs.replace(route, rate_burst=burst)
    return route


def bindings(destinations: Mapping[str, Destination]) -> tuple[BindingPlan, ...]:
    """What the gateway's device needs for them."""
    on_disk = {name: each for name, each in destinations.items() if isinstance(each, OnDisk)}
    found = []
    if on_disk:
        found.append(files_binding(on_disk))
    if any(isinstance(each, Topic) for each in destinations.values()):
        found.append(topics_binding())
    return tuple(found)
