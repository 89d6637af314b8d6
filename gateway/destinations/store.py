"""The storage tier as a destination: a batch of one device is one MSET, since all its keys are in one slot.

It happens as a whole. A retry writes the same values under the same keys, so an outcome that is unknown is
simply tried again; how long to wait in between, and whom to ask, is `kv.client`'s.
"""

from __future__ import annotations

from gateway.lane import Entry
from gateway.writer import Finish, Write
from kv.client import Client, Reply
from underlay.node import Context


def to_store(client: Client[Context]) -> Write:
    """Writes by that client."""

    def write(ctx: Context, batch: tuple[Entry, ...], data: list[bytes], finish: Finish) -> None:
        pairs = [part for entry, value in zip(batch, data, strict=True) for part in (entry.key, value)]

        def done(ctx: Context, reply: Reply) -> None:
            outcome = reply.outcome
            if outcome is None:
                finish(ctx, "again", f"no answer: {reply.trouble}")
            elif not outcome.failure:
                finish(ctx, "written", "")
            else:
                finish(ctx, "refused" if outcome.executed else "again", outcome.failure)

        client.call(ctx, (b"MSET" if len(batch) > 1 else b"SET", *pairs), done)

    return write
