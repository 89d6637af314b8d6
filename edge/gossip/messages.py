"""What gossiping birdhouses say to each other, all in UDP datagrams.

Names follow Plumtree (Leitao, Pereira, Rodrigues: Epidemic Broadcast Trees, SRDS 2007): GOSSIP, IHAVE,
GRAFT, PRUNE. The unit that travels is a *part*: a whole observation where it fits one datagram, otherwise
one chunk of it.
"""

from __future__ import annotations

from typing import NamedTuple

from underlay.messages import Message, Protocol

ALL_PARTS = -1
"""As `PartId.chunk` in a Graft: every part, for a peer that does not know their number."""


class PartId(NamedTuple):
    """Chunk `chunk` of observation `device:sequence`."""

    device: str
    sequence: int
    chunk: int


class OriginDigest(NamedTuple):
    """What a peer holds of one origin's observations."""

    device: str
    complete: tuple[int, ...]
    """Sequence numbers held whole, as ascending bounds: first, last, first, last, ..."""
    partial: tuple[tuple[int, int], ...] = ()
    """(sequence, bitmap of the chunks held) of those held in part."""


class Gossip(Message, frozen=True, array_like=True, tag=1):
    """A part, pushed along the tree or sent as a repair."""

    carries_payload = True
    device: str
    sequence: int
    chunk: int
    count: int
    """Parts that the observation has in all."""
    hops: int
    """Transmissions so far, this one included."""
    data: bytes

    @property
    def part(self) -> PartId:
        """Its identity."""
        return PartId(self.device, self.sequence, self.chunk)


class Prune(Message, frozen=True, array_like=True, tag=2):
    """The receiver gets these payloads sooner from elsewhere: make the edge lazy."""


class Graft(Message, frozen=True, array_like=True, tag=3):
    """Send these parts, and make the edge eager if `eager`."""

    parts: tuple[PartId, ...]
    eager: bool


class IHave(Message, frozen=True, array_like=True, tag=4):
    """Lazy announcement and anti-entropy in one: everything the sender holds of the origins it names."""

    origins: tuple[OriginDigest, ...]
    everything: bool
    """True: origins that are not named are not held at all (the receiver may push them)."""


GOSSIP_PROTOCOL = Protocol("gossip", Gossip, Prune, Graft, IHave)
