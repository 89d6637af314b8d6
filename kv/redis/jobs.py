"""Batches of commands on their way to replies, and what goes to a group in one message.

Owns the bookkeeping: which outcome becomes which reply, and when all of a batch are there. Knows neither
groups nor the network.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from kv.operations import Command, Operation, Outcome
from kv.redis import resp
from kv.redis.client import Client

Mode = Literal["read", "write", "stale", "asking", "apart"]
"""How a group is asked: reads and writes each together, so that reads need not go through its log; stale
reads; what follows an ASK; and what must not be put together with anything."""

OPERATIONS_MAX = 256
BYTES_MAX = 32 * 1024
"""Of what goes to a group in one message: what fits an entry of its log. A larger command goes alone."""


class Job:
    """A batch of one client's commands."""

    __slots__ = ("client", "commands", "missing", "position", "replies", "size_bytes")

    def __init__(self, client: Client, commands: list[Command], size_bytes: int) -> None:
        self.client = client
        self.commands = commands
        self.size_bytes = size_bytes
        self.position = 0
        """Of the first command that nobody has looked at."""
        self.replies: list[bytes] = []
        self.missing = 0
        """Replies that are awaited."""

    def reply(self, encoded: bytes) -> None:
        """The next command's reply is known at once."""
        self.replies.append(encoded)

    def reserve(self) -> int:
        """The next command's reply will follow; its place."""
        self.missing += 1
        self.replies.append(b"")
        return len(self.replies) - 1

    def settle(self, place: int, outcome: Outcome) -> None:
        """What became of a command for which a place was reserved."""
        value = outcome.value
        if outcome.failure:
            reply = resp.error(outcome.failure)
        elif type(value) is bytes:
            reply = resp.bulk(value)
        elif value == "OK":
            reply = resp.OK
        else:
            reply = resp.encode(value, self.client.version)
        self.replies[place] = reply
        self.missing -= 1


class Gathering:
    """A command of a job that asks several groups, and combines their outcomes."""

    __slots__ = ("_combine", "_missing", "_outcomes", "_place", "job")

    def __init__(self, job: Job, count: int, combine: Callable[[list[Outcome]], Any]) -> None:
        self.job = job
        self._place = job.reserve()
        self._combine = combine
        self._outcomes = [Outcome()] * count
        self._missing = count

    def settle(self, place: int, outcome: Outcome) -> None:
        """What became of the question to the group at `place`."""
        self._outcomes[place] = outcome
        self._missing -= 1
        if not self._missing:
            combined = self._combine(self._outcomes)
            self.job.settle(self._place, combined if isinstance(combined, Outcome) else Outcome(combined))


class Piece:
    """Commands of one job for one group, which stay together and in order."""

    __slots__ = ("apart", "asking", "job", "operations", "owner", "places", "reads", "untried")

    def __init__(
        self, job: Job, owner: Job | Gathering | None = None, *, asking: bool = False, apart: bool = False
    ) -> None:
        self.job = job
        self.owner = owner or job
        self.operations: list[Operation] = []
        self.places: list[int] = []
        """To which the owner's `settle` refers."""
        self.reads = True
        """Nothing in it writes."""
        self.asking = asking
        """It follows an ASK."""
        self.apart = apart
        """It must not make others wait for its answer."""
        self.untried: list[str] | None = None
        """Groups that may still have its slot although the map says otherwise; None: the map is believed."""

    def part(self, place: int, operation: Operation) -> Piece:
        """One of its commands as a piece of its own."""
        part = Piece(self.job, self.owner, asking=self.asking, apart=True)
        part.operations.append(operation)
        part.places.append(place)
        part.reads = self.reads
        part.untried = None if self.untried is None else list(self.untried)
        return part


class Parcel:
    """What goes to a group in one message."""

    __slots__ = ("deadline_s", "group", "mode", "operations", "pieces", "size_bytes")

    def __init__(self, group: str, mode: Mode, deadline_s: float) -> None:
        self.group = group
        self.mode: Mode = mode
        self.deadline_s = deadline_s
        self.pieces: list[Piece] = []
        self.operations: list[Operation] = []
        self.size_bytes = 0

    def takes(self, piece: Piece) -> bool:
        """Whether there is room for one more."""
        return (
            len(self.operations) + len(piece.operations) <= OPERATIONS_MAX
            and self.size_bytes + piece.job.size_bytes <= BYTES_MAX
        )

    def put(self, piece: Piece) -> None:
        """Add what belongs together."""
        self.pieces.append(piece)
        self.operations += piece.operations
        self.size_bytes += piece.job.size_bytes
