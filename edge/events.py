"""What the birdhouses write to the trace. Metrics read these records and nothing else of the edge."""

from __future__ import annotations

from underlay.trace import Event


class Generated(Event, frozen=True, tag="generated"):
    """A sensor observed something. The record's `t` is t_gen on the trace's clock."""

    id: str
    """`device:sequence`."""
    kind: str
    size_bytes: int
    """Of the encoded observation."""
    t_event: float


class Delivered(Event, frozen=True, tag="delivered"):
    """An observation reached a subscriber: the record's device. Only the first arrival there counts."""

    id: str
    hops: int = 0
    """Overlay transmissions it took (last delivery hop); 0 where the protocol does not carry it."""


class Stored(Event, frozen=True, tag="stored"):
    """The sink has it durably."""

    id: str


class Discarded(Event, frozen=True, tag="discarded"):
    """A device gave an observation up by itself; `reason` is `queue-full`, `expired`, `too-large`, ..."""

    id: str
    reason: str


class Served(Event, frozen=True, tag="served"):
    """A cache answered a request."""

    resource: str
    outcome: str
    """`hit` (fresh in the cache), `validated` (origin said 2.03), `miss` (fetched), `joined` (waited for a
    fetch that was under way), `stale` (origin did not answer), `error`."""
    age_s: float
    """Age of what was served."""
    max_age_s: float
    """Its freshness lifetime; served older than that without saying so is a violation."""


class OriginServed(Event, frozen=True, tag="origin-served"):
    """A sensor itself answered a request for its data."""

    resource: str
    code: str


class SessionChanged(Event, frozen=True, tag="session-changed"):
    """A device's connection to its broker or parent: `state` is `connected` or `disconnected`."""

    state: str
    peer: str
    resumed: bool = False
    """Connected: the broker still had the session."""
