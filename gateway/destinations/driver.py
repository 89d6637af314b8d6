"""A way of writing to destinations, as the gateway's node sees it."""

from __future__ import annotations

from collections.abc import Callable

from underlay.messages import Message
from underlay.node import Address, Context, Timer

RETRY_S = 1.0
"""After a write that failed."""

Failed = Callable[[str], None]
"""A try failed, and why; it will be made again."""


class Driver:
    """Gives a `gateway.writer.Write` for each of its destinations, and hears what the node hears.

    Handlers that return a bool say whether it was theirs.
    """

    def on_start(self, ctx: Context) -> None:
        """The node starts."""

    def on_message(self, ctx: Context, sender: Address, message: Message) -> bool:
        return False

    def on_timer(self, ctx: Context, timer: Timer) -> bool:
        return False

    def on_peer_down(self, ctx: Context, peer: Address) -> bool:
        return False
