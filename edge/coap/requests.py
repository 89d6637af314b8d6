"""What a model endpoint remembers of each request, and the blocks that large ones are cut into (RFC 7959).

Data and pure functions; `model` owns what happens with them.
"""

from __future__ import annotations

import msgspec

from edge.coap.messages import Get, Path, Post, Representation
from edge.coap.packets import BLOCK_BYTES, WHOLE_BYTES_MAX, Block, PostPacket
from underlay.node import Address


class Outgoing(msgspec.Struct):
    """A request of ours, with its later blocks and its notifications."""

    request: Get | Post
    node: Address
    token: int
    """On the wire, of the request itself."""
    blocks: bytes = b""
    """Of a representation that is being put together."""
    first: Representation | None = None
    """Its first block's response."""
    posted: int = 0
    """Blocks that the server has, of what is posted in blocks."""
    observed: bool = False
    notified: int = -1
    """Sequence number of the last notification."""
    block_token: int | None = None
    """On the wire, of the request for the next block."""


class Incoming(msgspec.Struct):
    """A request to us that is not answered yet, or an observer."""

    number: int
    peer: Address
    token: int
    mid: int
    path: Path
    to_acknowledge: bool
    """The response can still travel with the acknowledgement."""
    observe: bool
    node: Address
    """Who answers it."""
    block1: Block | None = None
    """Of a POST in blocks: the last one."""
    posts: bool = False
    notifications: int = 0
    confirmed_s: float = 0.0
    """When a notification was last sent confirmable, or with an acknowledgement."""


def block_of(whole: Representation, number: int) -> tuple[Representation, Block]:
    """A block of a representation, and its option."""
    start, end = number * BLOCK_BYTES, (number + 1) * BLOCK_BYTES
    part = msgspec.structs.replace(whole, payload=whole.payload[start:end])
    return part, Block(number, more=end < len(whole.payload))


def post_packet(request: Post, mid: int, token: int, number: int) -> PostPacket:
    """A POST as a whole, or its block of that number."""
    payload = request.payload
    if len(payload) <= WHOLE_BYTES_MAX:
        return PostPacket("CON", mid, token, request.path, payload, request.content_format)
    start, end = number * BLOCK_BYTES, (number + 1) * BLOCK_BYTES
    return PostPacket(
        "CON",
        mid,
        token,
        request.path,
        payload[start:end],
        request.content_format,
        Block(number, more=end < len(payload)),
        None if number else len(payload),
    )
