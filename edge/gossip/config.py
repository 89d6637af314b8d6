"""The knobs of one gossip node."""

from __future__ import annotations

import msgspec


class GossipConfig(msgspec.Struct, frozen=True):
    """Knobs of one gossip node."""

    neighbours: tuple[str, ...]
    """Devices in range, by name."""
    on_channel: frozenset[str] = frozenset()
    """Those of them that hear a broadcast."""
    subscriber: bool = True
    """Whether arrivals here count as delivered."""
    deliver_to: str | None = None
    """A node on this device that gets every observation (the sink)."""
    eager_max: int = 8
    """Most eager neighbours: what one item may cost this device in transmissions."""
    announce_interval_s: float = 0.9
    """Between announcements while there is news, each to one neighbour in turn; up to 16 times as long
    without."""
    graft_timeout_s: float = 0.5
    """How long an announced item may take by the tree before it is asked for, until that has been
    measured."""
    turn_s: float = 0.0
    """How long a small message keeps its sender, or the medium, from the next one: no answer is expected
    sooner."""
    part_bytes: int = 1024
    """Larger observations travel in chunks of this size: one datagram on the usual MTU."""
    window_parts: int = 16
    """Most parts asked of one neighbour at a time."""
    memory_bytes: int = 8_000_000
    """Held for repairs; what came first goes first. What was delivered is remembered regardless."""
