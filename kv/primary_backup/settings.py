"""The knobs of a primary/backup service: each says why it has its value."""

from __future__ import annotations

import msgspec


class Settings(msgspec.Struct, frozen=True):
    """Alike on all servers of a service and on its view service.

    >>> Settings(ping_s=0.1, dead_pings=5, drift_ratio=0.01).lease_s
    0.49009900990099015
    """

    ping_s: float = 0.1
    """Between two pings of a server to the view service."""
    dead_pings: int = 5
    """So many missing pings in a row are a dead server. A live one that is taken for dead costs a change of
    views and the transfer of its state, so a few may get lost."""
    silent_s: float = 1.0
    """After so long without any answer a primary has its backup replaced, though the view service hears both.
    Longer than a chunk of `message_bytes_max` takes on the link between them."""
    drift_ratio: float = 0.01
    """By how much the clock of a device runs fast or slow at most; a cheap crystal is good to 0.0001."""
    entry_bytes_max: int = 40 * 1024
    """Of the operations in one entry: larger ones save overhead, and delay whatever shares the link."""
    in_flight_max: int = 64
    """Entries that are proposed and not yet on both disks."""
    window_bytes_max: int = 1024 * 1024
    """Of entries that the backup was sent and has not confirmed."""
    message_bytes_max: int = 48 * 1024
    """Of the entries in a Forward, the records in a Chunk."""
    retained_bytes_max: int = 16 * 1024 * 1024
    """Of entries that wait in memory for a backup whose state is being transferred; beyond, writes wait."""
    checkpoint_operations: int = 1000
    """Between two checkpoints: fewer is less to execute again at a restart, more lets hot keys be written
    once for many changes."""

    @property
    def dead_s(self) -> float:
        """After so long without a ping a server is dead."""
        return self.ping_s * self.dead_pings

    @property
    def restraint_s(self) -> float:
        """How long a backup that has confirmed its primary does not take its place: no longer than it takes
        to find the primary dead, so that nobody waits for it."""
        return self.dead_s

    @property
    def lease_s(self) -> float:
        """How long a primary trusts that confirmation, counted from when it asked, by its own clock: less
        than the restraint lasts, even if its clock is as slow and the backup's as fast as they may be."""
        return self.restraint_s * (1.0 - self.drift_ratio) / (1.0 + self.drift_ratio)
