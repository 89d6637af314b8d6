"""Reading back: at the end of an experiment, all that the storage tier acknowledged is asked for again."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from zlib import crc32

from gateway.events import ReadBack
from kv.client import Client, Reply
from underlay.node import Context


class Audit:
    """Asks for everything, a few at a time, and says what is missing once all has been answered.

    Args:
        client: of the storage tier.
        stored: by key, an observation's id and the checksum (CRC-32) of its bytes.
        at_once: questions under way at a time.
    """

    def __init__(self, client: Client[Context], stored: dict[bytes, tuple[str, int]], at_once: int) -> None:
        self._client = client
        self._left = deque((key, *expected) for key, expected in stored.items())
        self._checked = len(stored)
        self._at_once = at_once
        self._asked = 0
        self._missing: list[str] = []

    def go_on(self, ctx: Context) -> None:
        """Ask for more."""
        while self._left and self._asked < self._at_once:
            key, id_, checksum = self._left.popleft()
            self._asked += 1
            self._client.call(ctx, (b"GET", key), self._compare(key, id_, checksum))
        if not self._asked and not self._left:
            ctx.emit(ReadBack(self._checked, tuple(self._missing)))

    def _compare(self, key: bytes, id_: str, checksum: int) -> Callable[[Context, Reply], None]:
        def done(ctx: Context, reply: Reply) -> None:
            self._asked -= 1
            if reply.outcome is None or reply.outcome.failure:  # no answer is no proof of anything
                self._left.append((key, id_, checksum))
            elif not isinstance(reply.outcome.value, bytes) or crc32(reply.outcome.value) != checksum:
                self._missing.append(id_)
            self.go_on(ctx)

        return done
