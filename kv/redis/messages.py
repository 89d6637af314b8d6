"""What the Redis binding and the router of a host say to each other; nothing of it leaves the host.

The binding has one batch of each connection under way at a time, and the router answers a batch in one piece,
so replies stay in order without being numbered.
"""

from __future__ import annotations

from collections.abc import Mapping

from kv.operations import Command
from underlay.messages import Message

Advertised = Mapping[str, tuple[str, int]]
"""Where a client is sent to: host and port of each storage device, as seen from where the client came in."""


class Opened(Message, frozen=True, array_like=True, tag=100):
    """Binding: a client is there."""

    transport = "local"
    connection: int
    """Counts the connections of the binding."""
    peer: str
    """Its address, as `ip:port`."""
    here: str
    """Ours."""
    advertised: Advertised


class Closed(Message, frozen=True, array_like=True, tag=101):
    """Binding: a client is gone; nobody waits for its replies."""

    transport = "local"
    connection: int


class Asked(Message, frozen=True, array_like=True, tag=102):
    """Binding: the next commands of some connections. None of these has a batch under way."""

    transport = "local"
    batches: tuple[tuple[int, list[Command], int], ...]
    """Connection, commands, and the bytes of all their arguments."""


class Replied(Message, frozen=True, array_like=True, tag=103):
    """Router: the replies to whole batches, encoded."""

    transport = "local"
    batches: tuple[tuple[int, bytes], ...]
    ending: tuple[int, ...] = ()
    """Connections that end after these replies."""
