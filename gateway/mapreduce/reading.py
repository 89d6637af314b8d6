"""Reading a split of the store: page after page from one replica, into the scratch space.

All pages are as of the split's revision. Where that has been forgotten meanwhile (the store keeps a bounded
history), the present is read: observations never change, so what was there is there, and what was added since
may come along.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from gateway.mapreduce.inputs import StoreSplit
from gateway.mapreduce.scratch import Scratch
from kv.client import Client, Reply
from kv.operations import Command
from underlay.node import Address, Context

PAGE_KEYS = 1000
TRY_S = 8.0
"""For one page from one replica; then the next one is asked."""

Done = Callable[[Context, str], None]
"""Called once, with what went wrong; `GONE` first if the slots have moved."""


class Reader:
    """Reads one split.

    Args:
        replicas: of the split, the best first.
        pattern: of the keys.
        name: of the file in the scratch space: each value after its length in 4 bytes.
    """

    def __init__(
        self,
        client: Client[Context],
        split: StoreSplit,
        replicas: Sequence[Address],
        pattern: bytes,
        scratch: Scratch,
        name: str,
        done: Done,
    ) -> None:
        self._client = client
        self._split = split
        self._replicas = list(replicas)
        self._pattern = pattern
        self._scratch = scratch
        self._name = name
        self._done = done
        self._range = 0
        self._after = b""
        self._as_of = True
        self.stopped = False
        self.read_bytes = 0
        self.read_from: Address = ""
        """The replica that was read last."""

    def start(self, ctx: Context) -> None:
        """Begin; `done` follows."""
        self._scratch.append(self._name, b"")
        self._ask(ctx)

    def _ask(self, ctx: Context) -> None:
        if self.stopped:
            return
        if self._range == len(self._split.slots):
            self._done(ctx, "")
            return
        if not self._replicas:
            self._done(ctx, f"no replica of {self._split.group} answers")
            return
        first, last = self._split.slots[self._range]
        command: Command = (
            b"BH.READ",
            b"%d" % first,
            b"%d" % last,
            self._pattern,
            self._after,
            b"%d" % PAGE_KEYS,
        )
        if self._as_of:
            command = (*command, b"%d" % self._split.revision)
        self.read_from = self._replicas[0]
        self._client.call(
            ctx,
            command,
            self._heard,
            deadline_s=TRY_S,
            stale=True,
            group=self._split.group,
            to=self.read_from,
        )

    def _heard(self, ctx: Context, reply: Reply) -> None:
        if self.stopped:
            return
        outcome = reply.outcome
        failure = "no answer" if outcome is None else outcome.failure
        if failure.startswith("GONE"):
            self._done(ctx, failure)
        elif failure.startswith("COMPACTED"):
            self._as_of = False
            self._ask(ctx)
        elif failure or outcome is None:
            self._replicas.pop(0)
            self._ask(ctx)
        else:
            _, _, values, more, after = msgspec.convert(
                outcome.value, tuple[int, list[bytes], list[bytes], int, bytes]
            )
            data = b"".join(len(value).to_bytes(4, "big") + value for value in values)
            self.read_bytes += len(data)
            if data:
                self._scratch.append(self._name, data)
            if more:
                self._after = after
            else:
                self._range, self._after = self._range + 1, b""
            self._ask(ctx)
