"""What gossiping birdhouses say to each other, all in UDP datagrams.

Names follow Plumtree (Leitao, Pereira, Rodrigues: Epidemic Broadcast Trees, SRDS 2007): GOSSIP, IHAVE,
GRAFT, PRUNE. An *item* is one observation as its origin numbered it; one that fits a datagram travels in a
Gossip, a larger one is offered along the same tree and fetched in chunks. Bounds on what a stranger may
claim are in the types: what exceeds them is no message.
"""

from __future__ import annotations

from typing import Annotated, NamedTuple

from msgspec import Meta

from underlay.messages import Message, Protocol

CHUNKS_MAX = 4096
"""Chunks of one item."""
WANTS_MAX = 64
"""Items asked for in one Graft."""
STREAMS_MAX = 48
"""Streams in one IHave: about a kilobyte."""
BOUNDS_MAX = 32
"""Bounds of intervals in one stream's digest; the newest are given."""

Name = Annotated[str, Meta(min_length=1, max_length=64)]
Epoch = Annotated[int, Meta(ge=0, lt=1 << 32)]
Number = Annotated[int, Meta(ge=0, lt=1 << 48)]
Count = Annotated[int, Meta(ge=1, le=CHUNKS_MAX)]
Hops = Annotated[int, Meta(ge=0, lt=1 << 16)]
Bitmap = Annotated[bytes, Meta(max_length=CHUNKS_MAX // 8)]


class StreamId(NamedTuple):
    """What one life of a device tells. A restarted device forgot how far it had counted: it starts
    another."""

    device: Name
    epoch: Epoch
    """Drawn at random when that life began."""


class ItemId(NamedTuple):
    """Item `number` of a stream: 0, 1, 2, ..."""

    stream: StreamId
    number: Number


class Want(NamedTuple):
    """An item that is asked for."""

    item: ItemId
    chunks: Bitmap
    """Little-endian bitmap of the chunks wanted; empty: the item, or an Offer of it if it has several."""


class StreamDigest(NamedTuple):
    """What a peer knows of one stream."""

    stream: StreamId
    floor: Number
    """Items below it can no longer be had from this peer."""
    bounds: Annotated[tuple[Number, ...], Meta(max_length=BOUNDS_MAX)]
    """Numbers held, or held once, as ascending bounds: first, last, first, last, ..."""


class Gossip(Message, frozen=True, array_like=True, tag=1):
    """An item or a chunk of one."""

    carries_payload = True
    item: ItemId
    chunk: Annotated[int, Meta(ge=0, lt=CHUNKS_MAX)]
    count: Count
    """Chunks of the item in all."""
    hops: Hops
    """Transmissions so far, this one included."""
    eager: bool
    """Whether it came along the tree (the sender holds the receiver for an eager neighbour), or as a
    repair."""
    data: bytes


class Offer(Message, frozen=True, array_like=True, tag=2):
    """A large item is here, or on its way here: ask for its chunks. Takes a Gossip's place in the tree."""

    item: ItemId
    count: Count
    hops: Hops
    eager: bool


class IHave(Message, frozen=True, array_like=True, tag=3):
    """Lazy announcement and anti-entropy in one: what the sender holds."""

    streams: Annotated[tuple[StreamDigest, ...], Meta(max_length=STREAMS_MAX)]
    """Those that changed lately, or that the receiver seems to need."""
    rest: Epoch
    """Hash of what is held of all streams that are not listed: two peers that agree need say no more."""
    late_ms: Annotated[int, Meta(ge=0, lt=1 << 16)]
    """How long after an announcement the tree usually still brings the sender what was announced."""
    answer: bool = False
    """Whether the sender feels cut off: answer in any case, and push what it lacks."""


class Graft(Message, frozen=True, array_like=True, tag=4):
    """Send these, and make the edge eager if `eager`."""

    wants: Annotated[tuple[Want, ...], Meta(max_length=WANTS_MAX)]
    eager: bool


class Prune(Message, frozen=True, array_like=True, tag=5):
    """The receiver's payloads come sooner from elsewhere, or here are eager neighbours enough: make the edge
    lazy."""


GOSSIP_PROTOCOL = Protocol("gossip", Gossip, Offer, IHave, Graft, Prune)
