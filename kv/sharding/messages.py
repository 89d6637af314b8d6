"""What groups say to each other while slots move: `Pull` and `Chunk`, `Taken` and `AskTaken`.

The receiver leads the conversation, and the source answers from its machine's state alone: every message may
be lost, repeated or late, and either side may have a new leader in between.
"""

from __future__ import annotations

import msgspec

from kv.sharding.config import Range, SlotNumber
from underlay.messages import Message

Records = tuple[tuple[bytes, bytes], ...]


class Part(msgspec.Struct, frozen=True, array_like=True):
    """Some records of one slot, in key order."""

    slot: SlotNumber
    after: bytes
    """The key of the last record before these; empty: these are the first."""
    records: Records
    last: bool
    """Whether they are all that there is."""

    @property
    def through(self) -> bytes:
        """The key of the last record of all so far."""
        return self.records[-1][0] if self.records else self.after


class Pull(Message, frozen=True, array_like=True, tag=70):
    """Receiver to source: stop serving the first of these slots, as many as fit a `Chunk`, and send them.

    Each slot is asked for from a record on, so that a large one comes in several chunks and a repetition
    costs nothing. Answered with `Chunk`, with `NotHere`, or not at all while the source is not so far.
    """

    transport = "stream"
    number: int
    configuration: int
    """The one that gives the slots to the receiver."""
    slots: tuple[Range, ...]
    after: dict[SlotNumber, bytes] = msgspec.field(default_factory=dict)
    """Where it is not the beginning."""


class Chunk(Message, frozen=True, array_like=True, tag=71):
    """Source to receiver: what was asked for, or the beginning of it. One that ends within a large slot may
    be followed by more of it."""

    transport = "stream"
    carries_payload = True
    number: int
    configuration: int
    revision: int
    """Of the source, which is no less than that of any of the records."""
    parts: tuple[Part, ...]
    more: bool = False
    """Another one follows, in answer to the same question."""


class Taken(Message, frozen=True, array_like=True, tag=72):
    """Receiver to source: these slots are in our log and served by us; delete yours."""

    transport = "stream"
    configuration: int
    slots: tuple[Range, ...]


class AskTaken(Message, frozen=True, array_like=True, tag=73):
    """Source to receiver: do you have these? Answered with `Taken` by any replica that knows, as far as it
    does."""

    transport = "stream"
    configuration: int
    slots: tuple[Range, ...]


MOVING_MESSAGES = (Pull, Chunk, Taken, AskTaken)
