"""From the spool into the storage tier.

Owns what is under way: a batch of each device at a time, as many devices as the client has lanes. A batch is
one MSET, since all keys of a device are in one slot: it happens as a whole. A retry writes the same values
under the same keys, so an outcome that is unknown is simply tried again; how long to wait in between, and
whom to ask, is `kv.client`'s. What the store itself refuses is given up: a batch is taken apart first, so
that one bad observation takes no other with it.
"""

from __future__ import annotations

from collections.abc import Callable

from gateway.spool import Entry, Spool
from kv.client import Client, Reply
from underlay.node import Context

Stored = Callable[[Context, Entry, bytes], None]
GivenUp = Callable[[Context, Entry, bytes, str], None]


class Writer:
    """Keeps writing while there is something in the spool.

    Args:
        client: of the storage tier.
        spool: what waits.
        lanes: batches under way at a time.
        stored: told of each observation that the tier has acknowledged, with its bytes.
        given_up: told of each that the tier will not take, and why.
    """

    def __init__(
        self, client: Client[Context], spool: Spool, lanes: int, stored: Stored, given_up: GivenUp
    ) -> None:
        self.delivered = self.failures = 0
        self.trouble = ""
        """Why the last try failed; empty once one has succeeded."""
        self._client = client
        self._spool = spool
        self._free = lanes
        self._stored = stored
        self._given_up = given_up

    def go_on(self, ctx: Context) -> None:
        """Begin as many batches as there are lanes and devices."""
        while self._free and (batch := self._spool.batch()):
            self._free -= 1
            self._write(ctx, batch)

    # ------------------------------------------------------------------------------------------------ helpers

    def _write(self, ctx: Context, batch: tuple[Entry, ...]) -> None:
        data = [ctx.store.get(entry.spool_key) or b"" for entry in batch]
        pairs = [part for entry, value in zip(batch, data, strict=True) for part in (entry.key, value)]

        def done(ctx: Context, reply: Reply) -> None:
            self._on_reply(ctx, batch, data, reply)

        self._client.call(ctx, (b"MSET" if len(batch) > 1 else b"SET", *pairs), done)

    def _on_reply(self, ctx: Context, batch: tuple[Entry, ...], data: list[bytes], reply: Reply) -> None:
        outcome = reply.outcome
        if outcome is not None and not outcome.failure:
            self.trouble = ""
            self.delivered += len(batch)
            self._end(ctx, batch[0].device)
            for entry, value in zip(batch, data, strict=True):
                self._stored(ctx, entry, value)
        else:
            self.failures += 1
            self.trouble = outcome.failure if outcome is not None else f"no answer: {reply.trouble}"
            if outcome is None or not outcome.executed:
                self._write(ctx, batch)
                return
            if len(batch) > 1:
                self._write(ctx, (self._spool.first_alone(batch[0].device),))
                return
            self._end(ctx, batch[0].device)
            self._given_up(ctx, batch[0], data[0], self.trouble)
        self.go_on(ctx)

    def _end(self, ctx: Context, device: str) -> None:
        self._spool.done(ctx.store, device)
        self._free += 1
