"""Files on the gateway's disk as destinations: what the node says to the binding `@files`, and how it asks.

The binding owns the files (`gateway.destinations.disk`). A batch that could not be written (the disk is full)
is asked for again by the node after a while; the binding recognises what it has.
"""

from __future__ import annotations

from gateway.destinations.driver import RETRY_S, Driver, Failed
from gateway.lane import Entry
from gateway.writer import Finish, Write
from underlay.messages import Message
from underlay.node import Address, Context, Timer

ENDPOINT = "@files"


class WriteFiles(Message, frozen=True, array_like=True, tag=1):
    """Write these, in this order, and say when they are durable."""

    transport = "local"
    token: int
    destination: str
    observations: tuple[bytes, ...]
    """Encoded."""


class FilesWritten(Message, frozen=True, array_like=True, tag=2):
    """They are durable; or `problem` says why not, and then some of them may be."""

    transport = "local"
    token: int
    problem: str = ""


class Files(Driver):
    """The node's side: batches under way."""

    def __init__(self) -> None:
        self._number = 0
        self._waiting: dict[int, tuple[str, tuple[bytes, ...], Finish, Failed]] = {}

    def write_to(self, name: str, failed: Failed) -> Write:
        """Writes to the destination of that name."""

        def write(ctx: Context, _batch: tuple[Entry, ...], data: list[bytes], finish: Finish) -> None:
            self._number += 1
            self._waiting[self._number] = name, tuple(data), finish, failed
            self._ask(ctx, self._number)

        return write

    def on_message(self, ctx: Context, sender: Address, message: Message) -> bool:
        if not isinstance(message, FilesWritten):
            return False
        waiting = self._waiting.get(message.token)
        if waiting is not None:
            _, _, finish, failed = waiting
            if message.problem:
                failed(message.problem)
                ctx.set_timer((ENDPOINT, message.token), RETRY_S)
            else:
                del self._waiting[message.token]
                finish(ctx, "written", "")
        return True

    def on_timer(self, ctx: Context, timer: Timer) -> bool:
        if not (isinstance(timer, tuple) and timer[0] == ENDPOINT):
            return False
        self._ask(ctx, timer[1])
        return True

    def _ask(self, ctx: Context, token: int) -> None:
        name, data, _, _ = self._waiting[token]
        ctx.send(ENDPOINT, WriteFiles(token, name, data))
