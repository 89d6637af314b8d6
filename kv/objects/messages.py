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
    """Send me the object with `Keep`, if you have it."""

    transport = "stream"
    digest: bytes


class KeptHere(Message, frozen=True, array_like=True, tag=93):
    """To itself: the own disk has it."""

    transport = "local"
    digest: bytes


OBJECT_MESSAGES: tuple[type[Message], ...] = (Keep, Kept, Fetch)
