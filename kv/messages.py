"""What clients and replicas say to each other, whichever way the replicas agree.

One question, `Submit`, and two answers. The number in it is the asker's own and comes back; a question may be
sent again, to another replica too, under the same or another number. All go over streams.

Tags of all messages in this room are distinct, so that any of them can meet in one node: 1-19 here,
20-49 `kv.paxos`, 50-69 `kv.primary_backup`, 70-89 `kv.sharding`, 90-99 `kv.objects`, 100-119 `kv.redis`.
"""

from __future__ import annotations

from typing import Any

import msgspec

from kv.operations import Operation, Outcome
from underlay.messages import Message


class Submit(Message, frozen=True, array_like=True, tag=1):
    """Execute these operations, in this order; a replica answers with `Answered` or `NotHere`.

    They need not be executed together: other clients' operations may come between them.
    """

    transport = "stream"
    carries_payload = True
    number: int
    operations: tuple[Operation, ...]
    stale: bool = False
    """Reads only: any replica may answer from the state that it has."""
    asking: bool = False
    """The client was sent here by ASK: a slot that is still arriving is waited for."""


class Answered(Message, frozen=True, array_like=True, tag=2):
    """One outcome for each operation, in order."""

    transport = "stream"
    carries_payload = True
    number: int
    outcomes: tuple[Outcome, ...]
    revision: int = 0
    """Of the replica's state when the last of them was executed."""


class NotHere(Message, frozen=True, array_like=True, tag=3):
    """This replica does not do it. Nothing says that it has not been done: an operation that a leader
    proposed before it lost its office may still be executed."""

    transport = "stream"
    number: int
    leader: str = ""
    """The address of the replica that may do it, where this one has heard of one."""
    reason: str = "not leading"


class AskStatus(Message, frozen=True, array_like=True, tag=4):
    """Tell me how you are; answered with `Status`. For people, routers and tests."""

    transport = "stream"
    number: int


class Status(Message, frozen=True, array_like=True, tag=5):
    """How a replica is."""

    transport = "stream"
    number: int
    group: str
    role: str
    """"leader", "follower", "candidate", "joining", "primary", "backup", "idle"."""
    leader: str
    """Whom it follows, or itself; empty: nobody it knows."""
    ballot: str
    """Ballot, or view, as text."""
    members: tuple[str, ...]
    chosen: int
    """Log position through which it knows what was chosen."""
    applied: int
    """Log position through which it has executed."""
    stored_from: int
    """First position that is still in its log."""
    revision: int
    keys: int
    slots: tuple[tuple[int, int], ...]
    """Ranges of slots it serves, both ends included."""
    details: dict[str, Any] = msgspec.field(default_factory=dict)


CLIENT_MESSAGES = (Submit, Answered, NotHere, AskStatus, Status)
"""For a `Protocol` that takes part in the conversation."""
