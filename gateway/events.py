"""What the gateway writes to the trace, beside the edge's `Stored`."""

from __future__ import annotations

from underlay.trace import Event


class ReadBack(Event, frozen=True, tag="read-back"):
    """Everything that the storage tier had acknowledged was asked for again."""

    checked: int
    missing: tuple[str, ...]
    """Ids of observations that were not there, or not as they were written."""


class SpoolFull(Event, frozen=True, tag="spool-full"):
    """No room for what waits for the storage tier: an observation was turned away, unacknowledged."""

    id: str
    spooled_bytes: int


class GaveWay(Event, frozen=True, tag="gave-way"):
    """An acknowledged observation was given up for a newer one: its route says `drop-oldest`."""

    id: str
    route: str
    destination: str


class Delivered(Event, frozen=True, tag="destination-has"):
    """A destination beside the storage tier has an observation durably."""

    id: str
    destination: str


class RoutedElsewhere(Event, frozen=True, tag="routed-elsewhere"):
    """No route takes an observation to the storage tier."""

    id: str
    to: tuple[str, ...]


class DeadLettered(Event, frozen=True, tag="dead-lettered"):
    """An observation was acknowledged and will not be stored."""

    id: str
    reason: str
