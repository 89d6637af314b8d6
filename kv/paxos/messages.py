"""What the replicas of a Paxos group say to each other, and what they agree on.

Names are those of Lamport's "Paxos Made Simple" (2001): Prepare, Promise, Accept, Accepted; `PreVote` is
section 9.6 of Ongaro's dissertation on Raft (2014). Small questions of life and death are datagrams: they
must not queue behind data, nor wait until a connection that a cut has broken tries again. What carries
entries is a stream. Every answer names the disk that gives it: a vote is a promise of a disk, not of an
address.
"""

from __future__ import annotations

import msgspec

from kv.operations import Operation
from underlay.messages import Message
from underlay.node import Address


class Ballot(msgspec.Struct, frozen=True, array_like=True, order=True):
    """A leadership. No two are alike, as a disk never stands twice in the same round."""

    round: int
    disk: int

    def __str__(self) -> str:
        return f"{self.round}.{self.disk & 0xFFFF:04x}" if self.round else ""


NO_BALLOT = Ballot(0, 0)


class Member(msgspec.Struct, frozen=True, array_like=True, order=True):
    """A voter: a disk with a random name, and where it is. A replica that lost its disk is somebody else."""

    address: Address
    disk: int


Members = tuple[Member, ...]


class Entry(msgspec.Struct, frozen=True, array_like=True):
    """What is chosen at one position of the log: operations in their order. Neither operations nor members:
    it fills a hole."""

    time_s: float
    """The leader's clock."""
    operations: tuple[Operation, ...] = ()
    members: Members = ()
    """Reconfigure: who votes on everything after this position."""


class Vote(msgspec.Struct, frozen=True, array_like=True):
    """An acceptor accepted this (encoded) entry at this position in this ballot."""

    position: int
    ballot: Ballot
    entry: bytes


# --------------------------------------------------------------------------------------------------- election


class PreVote(Message, frozen=True, array_like=True, tag=20):
    """Would you promise this ballot? Asked before any ballot is raised."""

    ballot: Ballot
    chosen: int


class PreVoteGranted(Message, frozen=True, array_like=True, tag=21):
    """I would."""

    ballot: Ballot
    disk: int


class Prepare(Message, frozen=True, array_like=True, tag=22):
    """Phase 1a for all positions above `chosen`."""

    ballot: Ballot
    chosen: int


class Promise(Message, frozen=True, array_like=True, tag=23):
    """Phase 1b: I vote in no lower ballot any more, and above your `chosen` I have voted so. Votes that
    exceed a message come in parts, counted from 0."""

    transport = "stream"
    ballot: Ballot
    disk: int
    chosen: int
    """Through which position the sender knows what was chosen."""
    votes: tuple[Vote, ...]
    part: int
    last: bool


class Refused(Message, frozen=True, array_like=True, tag=24):
    """Not in that ballot: I have promised another, or (`promised` is not higher) my log does not reach back
    to where yours ends."""

    ballot: Ballot
    promised: Ballot


# -------------------------------------------------------------------------------------------------- agreement


class Accept(Message, frozen=True, array_like=True, tag=25):
    """Phase 2a for consecutive positions."""

    transport = "stream"
    carries_payload = True
    ballot: Ballot
    first: int
    """Position of the first entry."""
    entries: tuple[bytes, ...]
    chosen: int
    """Everything through this position is chosen."""


class Accepted(Message, frozen=True, array_like=True, tag=26):
    """Phase 2b: in this ballot I have accepted everything through that position, or know it to be chosen."""

    ballot: Ballot
    disk: int
    through: int
    gap: bool = False
    """The entries that came begin later than they should; they were left."""


class Heartbeat(Message, frozen=True, array_like=True, tag=27):
    """I lead. Promise nobody else anything for a while."""

    ballot: Ballot
    round: int
    chosen: int


class Heard(Message, frozen=True, array_like=True, tag=28):
    """The answer to the heartbeat of that round; also says what `Accepted` says."""

    ballot: Ballot
    disk: int
    round: int
    through: int


# ----------------------------------------------------------------------------- snapshots, newcomers, the node


class Chunk(Message, frozen=True, array_like=True, tag=29):
    """Records of the machine as of `position`, in key order; number 0 comes with the state around them."""

    transport = "stream"
    carries_payload = True
    ballot: Ballot
    position: int
    number: int
    records: tuple[tuple[bytes, bytes], ...]
    last: bool
    state: bytes = b""


class ChunkStored(Message, frozen=True, array_like=True, tag=30):
    """Send the chunk of that number next; 0: from the beginning; after the last chunk: I have it all."""

    ballot: Ballot
    disk: int
    position: int
    next: int


class Greet(Message, frozen=True, array_like=True, tag=31):
    """I vote in no group. Is there one?"""

    disk: int
    replaces: Address
    """The member whose place the sender is to take; empty: its own."""
    empty: bool
    """The sender has nothing at all; otherwise it is being caught up."""


class Empty(Message, frozen=True, array_like=True, tag=32):
    """Answer to a greeting: I know of no group either. `disk` may be counted in one that `founder` founds."""

    disk: int
    founder: int


class Founded(Message, frozen=True, array_like=True, tag=33):
    """There is a group, you are one of its founders, and these are all of them."""

    members: Members


PEER_MESSAGES: tuple[type[Message], ...] = (
    PreVote,
    PreVoteGranted,
    Prepare,
    Promise,
    Refused,
    Accept,
    Accepted,
    Heartbeat,
    Heard,
    Chunk,
    ChunkStored,
    Greet,
    Empty,
    Founded,
)


class Flush(Message, frozen=True, array_like=True, tag=40):
    """To itself: what was proposed until now makes entries."""

    transport = "local"


class Synced(Message, frozen=True, array_like=True, tag=41):
    """To itself: the leader's own disk has everything through that position."""

    transport = "local"
    ballot: Ballot
    through: int


class Sweep(Message, frozen=True, array_like=True, tag=42):
    """To itself: delete some more of what a newer snapshot has replaced."""

    transport = "local"
