"""The knobs of a Paxos group: each says why it has its value."""

from __future__ import annotations

import msgspec


class Settings(msgspec.Struct, frozen=True):
    """Alike on all replicas of a group.

    >>> Settings(election_timeout_s=0.5, drift_ratio=0.01).lease_s
    0.49009900990099015
    """

    election_timeout_s: float = 0.5
    """A follower stands for election between this and half as much again after the leader's last sign of
    life, and promises nobody else anything before. At least 10 round trips: a heartbeat or two may get
    lost."""
    heartbeats: int = 5
    """In an election timeout: so many may be lost in a row, less one, without a leader being given up."""
    drift_ratio: float = 0.01
    """By how much the clock of a device runs fast or slow at most; a cheap crystal is good to 0.0001."""
    entry_bytes_max: int = 40 * 1024
    """Of the operations in one entry: larger ones save overhead, and delay whatever shares the link."""
    in_flight_max: int = 64
    """Entries that are proposed and not chosen; at one a millisecond, a round trip of 64 ms keeps busy."""
    window_max: int = 256
    """Entries that a follower was sent and has not accepted."""
    window_bytes_max: int = 1024 * 1024
    message_bytes_max: int = 48 * 1024
    """Of the entries in an Accept, the votes in a Promise, the records in a Chunk."""
    checkpoint_operations: int = 1000
    """Between two checkpoints: fewer is less to execute again at a restart, more lets hot keys be written
    once for many changes. A checkpoint of so many records takes a few milliseconds of a handler."""
    checkpoint_entries: int = 1000
    retained_entries: int = 1024
    """Log that is kept after a checkpoint, for followers that lag a little; others get a snapshot."""
    retained_bytes: int = 4 * 1024 * 1024

    @property
    def heartbeat_s(self) -> float:
        """Between two heartbeats."""
        return self.election_timeout_s / self.heartbeats

    @property
    def lease_s(self) -> float:
        """How long a leader trusts a heartbeat, by its own clock: less than a follower's promise lasts, even
        if the leader's clock is as slow and the follower's as fast as they may be."""
        return self.election_timeout_s * (1.0 - self.drift_ratio) / (1.0 + self.drift_ratio)
