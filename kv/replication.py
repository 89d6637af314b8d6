"""The two seams of a replicated service, and so the picture of this room.

```
   Submit          Operation                       execute
client ---> Server ---------> Replication ~ ~ ~ ~> Machine        on every replica, in the same order
       <---        <--------- (paxos, primary/backup)
   Answered        applied
```

A `Server` (`kv.server`) is the `Node`: it knows clients. A `Replication` makes one order of operations that
all replicas execute: it knows peers, ballots, the disk. A `Machine` is what they execute it on,
deterministic: it knows nothing but its own state. Any machine runs on any replication.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterable, Iterator, Sequence
from typing import Protocol

from kv.operations import Command, Operation, Outcome
from underlay.messages import Message
from underlay.node import Address, Context, Timer
from underlay.store import Batch

Token = Hashable
"""By which a server recognises what it proposed."""


class Machine(Protocol):
    """A deterministic state machine whose state is a map of byte records.

    The same operations at the same log times in the same order give the same state and the same outcomes on
    every replica, in every process. Checkpoints, snapshots and shards on the move are all made of records.
    """

    @property
    def revision(self) -> int:
        """Counts the changes; grows with every operation that changed something, and never falls."""

    def execute(self, operation: Operation, time_s: float) -> Outcome:
        """Execute one operation of the log; `time_s` is log time and never falls. Never raises on account of
        what a client sent."""

    def is_read(self, command: Command) -> bool:
        """Whether `query` can answer it."""

    def query(self, command: Command) -> Outcome:
        """Answer a read from the present state."""

    @property
    def wakes_at_s(self) -> float | None:
        """Log time at which something is due (a key expires) and the leader should propose `(b"@tick",)`."""

    def referenced(self) -> Collection[bytes]:
        """Digests of all large objects (`kv.objects`) that its state names, old versions and remembered
        outcomes included."""

    def take_changes(self) -> Batch:
        """The records that changed since the last call (or `restore`); None for those that are gone."""

    def freeze(self) -> Iterator[tuple[bytes, bytes]]:
        """All records in key order as of this call, whatever is executed while the iterator is read."""

    def restore(self, records: Iterable[tuple[bytes, bytes]]) -> None:
        """Become the state of these records."""


class Owner(Protocol):
    """Whom a replication tells: the server around it."""

    def applied(self, ctx: Context, token: Token, outcomes: Sequence[Outcome]) -> None:
        """What was proposed here under `token` has been chosen and executed."""

    def readable(self, ctx: Context, token: Token) -> None:
        """The machine holds everything that was acknowledged before `read(token)` was called: answer now."""

    def took_office(self, ctx: Context) -> None:
        """This replica leads, and its machine has everything that was chosen before."""

    @property
    def complete(self) -> bool:
        """Whether this replica has everything that the group relies on beside the log, so that it may be
        given a vote."""

    def left_office(self, ctx: Context) -> None:
        """It leads no more. Tokens that were not answered never will be; their operations may or may not be
        executed."""


class Replication(Protocol):
    """One group's way to a common order."""

    protocol: tuple[type[Message], ...]
    """The messages that it exchanges with its peers."""

    @property
    def leading(self) -> bool:
        """Whether `propose` and `read` may be called."""

    @property
    def leader(self) -> Address | None:
        """Who leads, as far as this replica knows."""

    def on_start(self, ctx: Context) -> None:
        """Recover from the store, and begin."""

    def on_message(self, ctx: Context, sender: Address, message: Message) -> None:
        """One of `protocol`, or one that it sent itself (local)."""

    def on_timer(self, ctx: Context, timer: Timer) -> None:
        """A timer that it set; its keys are tuples that begin with `"replication"`."""

    def on_peer_down(self, ctx: Context, peer: Address) -> None:
        """A stream to a peer was reset."""

    def propose(self, ctx: Context, operations: Sequence[Operation], token: Token) -> None:
        """Have them chosen and executed, in this order; `Owner.applied` follows, or `left_office`. They
        travel with whatever else is proposed in the same moment."""

    def read(self, ctx: Context, token: Token) -> None:
        """Make sure that the machine is up to date, by a lease or by asking a majority; `Owner.readable`
        follows, perhaps at once, or `left_office`."""

    def describe(self) -> dict[str, object]:
        """The fields of `kv.messages.Status` that it knows: role, leader, ballot, members, chosen, applied,
        stored_from."""
