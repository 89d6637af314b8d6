"""What replicas say to each other about objects. Everything may be lost and repeated: chunks are named by
their content."""

from __future__ import annotations

from underlay.messages import Message


class Keep(Message, frozen=True, array_like=True, tag=90):
    """Chunk `number` (from 0) of `of` of the object with this SHA-256 digest: make it durable."""

    transport = "stream"
    carries_payload = True
    digest: bytes
    number: int
    of: int
    data: bytes


class Kept(Message, frozen=True, array_like=True, tag=91):
    """I have the whole object, durably."""

    transport = "stream"
    digest: bytes


class Fetch(Message, frozen=True, array_like=True, tag=92):
    """Send me the object with `Keep`; answered with `Lacking` by who does not have it."""

    transport = "stream"
    digest: bytes


class Lacking(Message, frozen=True, array_like=True, tag=94):
    """I do not have what you wanted to fetch."""

    transport = "stream"
    digest: bytes


class AskKept(Message, frozen=True, array_like=True, tag=95):
    """Which of these do you have, durably?"""

    transport = "stream"
    digests: tuple[bytes, ...]


class KeptOf(Message, frozen=True, array_like=True, tag=96):
    """These."""

    transport = "stream"
    digests: tuple[bytes, ...]


class KeptHere(Message, frozen=True, array_like=True, tag=93):
    """To itself: the own disk has it."""

    transport = "local"
    digest: bytes


OBJECT_MESSAGES: tuple[type[Message], ...] = (Keep, Kept, Fetch, Lacking, AskKept, KeptOf)
