"""From a spool to its destination.

Owns what is under way: a batch of each device at a time, as many devices as there are lanes, and the timer
for those that wait for a route's rate. How a batch is written is the destination's affair (`Write`); it may
be written again with the same observations, and has to bear that. What a destination refuses is given up: a
batch is taken apart first, so that one bad observation takes no other with it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from gateway.lane import Entry
from gateway.spool import Spool
from underlay.node import Context, Timer

Outcome = Literal["written", "again", "refused"]
"""It is durable there; nobody knows, or nothing happened; it will never be taken."""

PACE_SLACK_S = 1e-6
"""Clocks are rounded: a timer that is early by less would find no token yet."""

Finish = Callable[[Context, Outcome, str], None]
"""How it went, and what the trouble is."""

Write = Callable[[Context, tuple[Entry, ...], list[bytes], Finish], None]
"""Writes a batch, and calls `Finish` once, later. Whoever says "again" has waited a while already."""

Told = Callable[[Context, Entry, bytes], None]
GivenUp = Callable[[Context, Entry, bytes, str], None]
Freed = Callable[[Context], None]


class Writer:
    """Keeps writing while there is something in the spool.

    Args:
        name: the destination's.
        kind: its type: `store`, `lines`.
        spool: what waits.
        lanes: batches under way at a time.
        write: the destination's.
        written: told of each observation that is there, with its bytes.
        given_up: told of each that the destination will not take, and why.
        freed: told once there is room again.
    """

    def __init__(
        self,
        name: str,
        kind: str,
        spool: Spool,
        lanes: int,
        write: Write,
        written: Told,
        given_up: GivenUp,
        freed: Freed,
    ) -> None:
        self.name = name
        self.type = kind
        self.spool = spool
        self.pace: Timer = ("pace", name)
        """Set while something waits for a rate; then `go_on`."""
        self.delivered = self.failures = 0
        self.trouble = ""
        """Why the last try failed; empty once one has succeeded."""
        self._free = lanes
        self._write_batch = write
        self._written = written
        self._given_up = given_up
        self._freed = freed
        self._waits = False

    def go_on(self, ctx: Context) -> None:
        """Begin as many batches as there are lanes and devices."""
        while self._free and (batch := self.spool.batch(ctx.now)):
            self._free -= 1
            self._write(ctx, batch)
        wait_s = self.spool.wait_s(ctx.now) if self._free else None
        if wait_s is not None:
            ctx.set_timer(self.pace, wait_s + PACE_SLACK_S)
        elif self._waits:
            ctx.cancel_timer(self.pace)
        self._waits = wait_s is not None

    def failed(self, trouble: str) -> None:
        """A try failed, and the destination tries again by itself."""
        self.failures += 1
        self.trouble = trouble

    # ------------------------------------------------------------------------------------------------ helpers

    def _write(self, ctx: Context, batch: tuple[Entry, ...]) -> None:
        data = [ctx.store.get(entry.spool_key) or b"" for entry in batch]

        def finish(ctx: Context, outcome: Outcome, trouble: str) -> None:
            self._on_finished(ctx, batch, data, outcome, trouble)

        self._write_batch(ctx, batch, data, finish)

    def _on_finished(
        self, ctx: Context, batch: tuple[Entry, ...], data: list[bytes], outcome: Outcome, trouble: str
    ) -> None:
        if outcome == "written":
            self.trouble = ""
            self.delivered += len(batch)
            self._end(ctx, batch[0].device)
            for entry, value in zip(batch, data, strict=True):
                self._written(ctx, entry, value)
        else:
            self.failed(trouble)
            if outcome == "again":
                self._write(ctx, batch)
                return
            if len(batch) > 1:
                self._write(ctx, (self.spool.first_alone(batch[0].device),))
                return
            self._end(ctx, batch[0].device)
            self._given_up(ctx, batch[0], data[0], trouble)
        self.go_on(ctx)
        self._freed(ctx)

    def _end(self, ctx: Context, device: str) -> None:
        self.spool.done(ctx.store, device)
        self._free += 1
