"""Results in the storage tier: reading their chunks, and removing what is no result.

Attempts write under their own names (`messages.result_key`); which of them is a part's result, the
coordinator's log says. Owns nothing but the conversation with the tier.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable

from gateway.mapreduce.events import JobRows
from gateway.mapreduce.messages import Attempt, ReduceDone, result_key
from gateway.mapreduce.running import JobRun
from kv.client import Client, Reply
from underlay.node import Context

UNKNOWN_CHUNKS = 8
"""Removed of an attempt that did not say how many it wrote."""

Got = Callable[[Context, bytes | None, str], None]
"""The chunk, or None and why not."""


class Chunks:
    """Of all jobs.

    Args:
        client: of the tier; None: there is none, and no result either.
    """

    def __init__(self, client: Client[Context] | None) -> None:
        self._client = client

    def read(self, ctx: Context, done: ReduceDone, chunk: int, got: Got) -> None:
        """One chunk of a part; `got` follows."""
        if self._client is None:
            got(ctx, None, "there is no storage tier here")
            return

        def read(ctx: Context, reply: Reply) -> None:
            value = None if reply.outcome is None else reply.outcome.value
            if isinstance(value, bytes):
                got(ctx, value, "")
            else:
                got(ctx, None, f"the storage tier does not give it: {reply.trouble or 'it is not there'}")

        key = result_key(done.attempt.job, done.attempt.task, done.attempt.number, chunk)
        self._client.call(ctx, (b"GET", key), read)

    def trace(self, ctx: Context, job: JobRun) -> None:
        """Write a result into the trace, for whoever reads that."""
        for part, done in sorted(job.commits.items()):
            for chunk in range(done.chunks):

                def got(
                    ctx: Context, data: bytes | None, _: str, part: int = part, chunk: int = chunk
                ) -> None:
                    if data is not None:
                        ctx.emit(JobRows(job.id, part, chunk, b64encode(data).decode()))

                self.read(ctx, done, chunk, got)

    def tidy(self, ctx: Context, job: JobRun) -> None:
        """Remove what attempts wrote that are not the final ones, and all of a job that came to nothing.
        Nobody waits for it."""
        final = {done.attempt for done in job.commits.values()} if job.log.state == "done" else set()
        for attempt in job.attempts_made:
            if attempt not in final:
                self._remove(ctx, attempt, UNKNOWN_CHUNKS)
        if job.log.state != "done":
            self.remove(ctx, job)

    def remove(self, ctx: Context, job: JobRun) -> None:
        """A whole result."""
        for done in job.commits.values():
            self._remove(ctx, done.attempt, done.chunks)

    def _remove(self, ctx: Context, attempt: Attempt, chunks: int) -> None:
        if self._client is not None and chunks:
            keys = [result_key(attempt.job, attempt.task, attempt.number, chunk) for chunk in range(chunks)]
            self._client.call(ctx, (b"DEL", *keys), lambda ctx, reply: None)
