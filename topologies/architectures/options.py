"""What can be chosen of each architecture: the tables `[star]`, `[caching]` and `[gossip]` of a spec."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from edge.gossip.peer import GossipConfig

Positive = Annotated[float, msgspec.Meta(gt=0)]
PositiveInt = Annotated[int, msgspec.Meta(ge=1)]


class Options(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Base of all options."""


_GOSSIP = GossipConfig(neighbours=())
"""The node's own defaults are the spec's."""


class StarOptions(Options, frozen=True):
    """MQTT: every birdhouse publishes to the broker on the hub, subscribers get it from there."""

    qos: Literal[0, 1, 2] = 1
    retain: bool = True
    """Whether the broker keeps the last value of each topic."""
    persistent: bool = True
    """Whether the broker keeps the sessions of clients that are away."""
    keepalive_s: Annotated[int, msgspec.Meta(ge=1, le=65535)] = 5
    """A silent broker is given up after 1.5 times this."""
    standby: bool = False
    """A second broker on the first relay, used while the hub's does not answer."""
    queue_bytes: PositiveInt = 4_000_000
    """What a birdhouse holds while it is not connected; the oldest goes first."""


class CachingOptions(Options, frozen=True):
    """CoAP: caches ask the sensors once and answer whoever asks them."""

    caches: Literal["all", "relays"] = "all"
    """Which machines cache: every one, or relays and hub only."""
    observe: bool = True
    """Whether subscribers observe resources (RFC 7641) or poll them."""
    max_age_s: PositiveInt | None = None
    """For how long sensors say that their latest reading is fresh; by default two of its periods, 10 s at
    most."""
    budget_bytes: PositiveInt = 2_000_000
    """Of each cache; least recently used goes first."""
    stale_on_error: bool = True
    """Whether a cache serves what is no longer fresh where the origin does not answer."""


class GossipOptions(Options, frozen=True):
    """UDP: eager push along a tree, lazy announcements, repair (Plumtree), anti-entropy by digests."""

    eager_max: PositiveInt = _GOSSIP.eager_max
    """Most eager neighbours: what one item may cost a device in transmissions."""
    announce_interval_s: Positive | None = None
    """Between announcements of what one has, while there is news; by default 0.9 s, or ten times what a small
    message keeps the slowest link or channel of the device busy, duty cycle included."""
    graft_timeout_s: Positive | None = None
    """How long an announced item may take by the tree before it is asked for; by default 0.5 s, or three such
    times."""
    part_bytes: Annotated[int, msgspec.Meta(ge=32, le=32_768)] | None = None
    """Larger observations travel in parts of this size; by default 1024, or less where the fragments of a
    part that size are often lost."""
    window_parts: PositiveInt = _GOSSIP.window_parts
    """Most parts asked of one neighbour at a time."""
    memory_bytes: PositiveInt = _GOSSIP.memory_bytes
    """Held for repairs; what came first goes first."""


OPTIONS: dict[str, type[Options]] = {"star": StarOptions, "caching": CachingOptions, "gossip": GossipOptions}
"""By architecture."""
