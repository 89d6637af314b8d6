"""What servers, view service and clients of a primary/backup service say to each other.

Names are those of Budhiraja, Marzullo, Schneider, Toueg, "The primary-backup approach" (1993), and of the
course exercise that is built on it: views, pings, forwards. Everything between servers names the view, and so
exactly two lives of two servers: what an earlier life said is never taken for what a later one says.

Questions of life and death are datagrams: they must not queue behind data. What carries state is a stream.
"""

from __future__ import annotations

import msgspec

from kv.operations import Operation
from underlay.messages import Message
from underlay.node import Address


class Member(msgspec.Struct, frozen=True, array_like=True):
    """One life of a server."""

    address: Address
    disk: int
    """A random name: a server that lost its disk is somebody else."""
    start: int
    """Counts the lives of that disk, from 1."""

    def outlives(self, other: Member) -> bool:
        """Whether this is the other's server with the other's disk, in that life or a later one."""
        return (self.address, self.disk) == (other.address, other.disk) and self.start >= other.start


class View(msgspec.Struct, frozen=True, array_like=True):
    """Who is what from now on."""

    number: int = 0
    """Counts the views; 0 is before the first."""
    primary: Member | None = None
    backup: Member | None = None

    def __str__(self) -> str:
        names = [member.address for member in (self.primary, self.backup) if member is not None]
        return f"{self.number} ({', '.join(names) or 'nobody'})"


class Entry(msgspec.Struct, frozen=True, array_like=True):
    """What is logged at one position: operations in their order."""

    time_s: float
    """The primary's clock."""
    operations: tuple[Operation, ...]


# ----------------------------------------------------------------------------------------------- view service


class Ping(Message, frozen=True, array_like=True, tag=50):
    """A server lives. The view service answers with `Viewed`."""

    disk: int
    start: int
    known: int
    """The latest view that this disk has heard of."""
    acknowledged: int = 0
    """The view in which the sender is primary and has taken up its work; 0: none."""
    synced: bool = False
    """The backup of that view has the whole state, and nothing happens any more without it."""
    silent: bool = False
    """The backup of that view does not answer."""


class Viewed(Message, frozen=True, array_like=True, tag=51):
    """The current view."""

    view: View


class AskView(Message, frozen=True, array_like=True, tag=52):
    """A client asks who is primary; answered with `ViewIs`."""

    transport = "stream"
    number: int


class ViewIs(Message, frozen=True, array_like=True, tag=53):
    """The current view, for who asked with that number."""

    transport = "stream"
    number: int
    view: View


# --------------------------------------------------------------------------------------------------- servers


class Forward(Message, frozen=True, array_like=True, tag=54):
    """The primary's entries for consecutive positions."""

    transport = "stream"
    carries_payload = True
    view: int
    first: int
    """Position of the first entry."""
    entries: tuple[bytes, ...]
    chosen: int
    """Everything through this position is on both disks: it may be executed."""


class Forwarded(Message, frozen=True, array_like=True, tag=55):
    """The backup has logged everything through that position."""

    transport = "stream"
    view: int
    through: int
    gap: bool = False
    """The entries that came begin later than they should; they were left."""


class Chunk(Message, frozen=True, array_like=True, tag=56):
    """Records of the primary's machine in key order; number 0 comes with the state around them."""

    transport = "stream"
    carries_payload = True
    view: int
    number: int
    records: tuple[tuple[bytes, bytes], ...]
    last: bool
    state: bytes = b""


class ChunkStored(Message, frozen=True, array_like=True, tag=57):
    """Send the chunk of that number next."""

    transport = "stream"
    view: int
    next: int


class Confirm(Message, frozen=True, array_like=True, tag=58):
    """The primary asks whether it still is, before it answers reads."""

    view: int
    round: int


class Confirmed(Message, frozen=True, array_like=True, tag=59):
    """For the backup it is, and will be for a while (`Settings.restraint_s`)."""

    view: int
    round: int


VIEW_MESSAGES: tuple[type[Message], ...] = (Ping, Viewed, AskView, ViewIs)
PEER_MESSAGES: tuple[type[Message], ...] = (
    Ping,
    Viewed,
    Forward,
    Forwarded,
    Chunk,
    ChunkStored,
    Confirm,
    Confirmed,
)


class Flush(Message, frozen=True, array_like=True, tag=60):
    """To itself: what was proposed until now makes entries."""

    transport = "local"


class Logged(Message, frozen=True, array_like=True, tag=61):
    """To itself: the own disk has everything through that position."""

    transport = "local"
    office: int
    """The view with which the primary's work began."""
    through: int


class Sweep(Message, frozen=True, array_like=True, tag=62):
    """To itself: delete some more of what a transferred state has replaced."""

    transport = "local"
