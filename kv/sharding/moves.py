"""How slots go from one group's log to another's: the two sides of a move, each on its group's leader.

Owns who sends what, when, and what is tried again. Everything that must survive a leader is in the machine
(`kv.sharding.machine`); what is kept here is only what is under way, and a new leader begins without it.

```
   receiver's leader                         source's leader
   Pull(slots)        ---------------------> @release those that fit a chunk, through the log
   @install           <--------------------- Chunk(records), once that is executed
   (Pull of the next) ---------------------> ...
   served at once; Taken(slots) -----------> @drop, through the log
                      <--------------------- AskTaken(slots), where that was lost
```

A key therefore pauses from the source's `@release` to the receiver's `@install`: two commits and a message.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Protocol

import msgspec

from kv.messages import NotHere
from kv.operations import Command, Outcome
from kv.server import Then
from kv.sharding.config import Range, compact, expand
from kv.sharding.machine import (
    ShardMachine,
    SlotState,
    drop_command,
    install_command,
    release_command,
)
from kv.sharding.messages import AskTaken, Chunk, Part, Pull, Taken
from underlay.messages import Message
from underlay.node import Address, Context

PART_BYTES = 16
"""What a part costs beside its records."""
RECORD_BYTES = 8
"""What a record costs beside its key and value."""


class Timings(msgspec.Struct, frozen=True):
    """The knobs of a group's moves. The defaults suit links of up to 50 ms."""

    poll_s: float = 0.5
    """How often the controller is asked for the next configuration."""
    retry_s: float = 0.3
    """After so long without an answer a message of a move is sent again, to the next replica."""
    hold_s: float = 2.0
    """How long a question waits for a slot that is on its way."""
    chunk_bytes: int = 36 * 1024
    """Of records in a `Chunk`; it becomes one operation of a log, which takes 40 KiB."""
    chunks_max: int = 3
    """Chunks of one large slot that answer one question."""
    slots_max: int = 512
    """Slots that are asked for at a time; so many empty ones fit a chunk."""
    installs_max: int = 6
    """Chunks that are on their way through the receiver's log."""


class Seat(Protocol):
    """What a side of a move needs of the server that it is in. Nobody else is told when the server leaves
    its office: then the sides are thrown away."""

    shards: ShardMachine
    timings: Timings

    def order(self, ctx: Context, *commands: Command, then: Then | None = None) -> None:
        """Propose; `then` follows once that is executed here."""

    def question(self) -> int:
        """A number for a question to somebody."""

    def contact(self, group: str) -> Address:
        """Whom to ask in a group: its leader, if somebody said who that is."""

    def anybody(self, group: str) -> Address:
        """A replica of a group, another one each time."""

    def lost_contact(self, group: str, leader: Address = "") -> None:
        """That was not the one; `leader` is, if given."""

    def secure(self, ctx: Context, then: Callable[[Context], None]) -> None:
        """Call back once a majority of the group has all objects that its machine refers to."""

    def arrived(self, ctx: Context) -> None:
        """Slots became ours, or a chunk showed that they are on their way."""

    def moved(self, ctx: Context) -> None:
        """Something was executed after which the configuration may be settled."""


class Receiver:
    """Fetches what arrives from one group."""

    def __init__(self, seat: Seat, source: str) -> None:
        self.source = source
        self._seat = seat
        self._asked: int | None = None
        self._asked_at_s = 0.0
        self._after: dict[int, bytes] = {}
        """How far chunks have come, which may be further than what is executed."""
        self._whole: dict[int, None] = {}
        """Slots whose last record has come."""
        self._installing = 0

    def expects(self, slot: int) -> bool:
        """Whether a part of the slot is here, so that the source has stopped serving it."""
        return slot in self._whole or slot in self._after or bool(self._seat.shards.cursor(slot))

    def pull(self, ctx: Context) -> None:
        """Ask for what comes next, unless an answer is awaited or enough is being installed."""
        seat = self._seat
        if self._asked is not None or self._installing >= seat.timings.installs_max:
            return
        wanted = self._wanted()
        if not wanted:
            return
        self._asked, self._asked_at_s = seat.question(), ctx.now
        after = {slot: key for slot in wanted if (key := self._cursor(slot))}
        number = seat.shards.configuration.number
        ctx.send(seat.contact(self.source), Pull(self._asked, number, compact(wanted), after))

    def on_chunk(self, ctx: Context, sender: Address, chunk: Chunk) -> None:
        """Propose what came, and ask for more meanwhile."""
        seat = self._seat
        if chunk.number != self._asked or group_of(sender) != self.source:
            return
        if chunk.configuration != seat.shards.configuration.number:
            return
        self._asked_at_s = ctx.now
        if not chunk.more:
            self._asked = None
        parts = [part for part in chunk.parts if self._continues(part)]
        for part in parts:
            self._after[part.slot] = part.through
            if part.last:
                self._whole[part.slot] = None
        if parts:
            self._installing += 1

            def installed(ctx: Context, outcomes: Sequence[Outcome]) -> None:
                self._installed(ctx, sender, parts)

            seat.order(ctx, install_command(chunk.configuration, chunk.revision, parts), then=installed)
        self.pull(ctx)

    def on_not_here(self, ctx: Context, answer: NotHere) -> bool:
        """The replica that was asked does not lead; returns whether that was an answer to this side."""
        if answer.number != self._asked:
            return False
        self._seat.lost_contact(self.source, answer.leader)
        if answer.leader:
            self._asked = None
            self.pull(ctx)
        return True

    def retry(self, ctx: Context) -> None:
        """Ask somebody else, where nobody answered."""
        if self._asked is not None and ctx.now - self._asked_at_s >= self._seat.timings.retry_s:
            self._asked = None
            self._seat.lost_contact(self.source)
        self.pull(ctx)

    # ------------------------------------------------------------------------------------------------ helpers

    def _wanted(self) -> list[int]:
        shards = self._seat.shards
        arriving = (
            slot
            for slot in shards.slots_in(SlotState.ARRIVING)
            if shards.source_of(slot) == self.source and slot not in self._whole
        )
        return [slot for slot, _ in zip(arriving, range(self._seat.timings.slots_max), strict=False)]

    def _cursor(self, slot: int) -> bytes:
        return self._after.get(slot) or self._seat.shards.cursor(slot)

    def _continues(self, part: Part) -> bool:
        arriving = self._seat.shards.state(part.slot) is SlotState.ARRIVING
        return arriving and part.slot not in self._whole and part.after == self._cursor(part.slot)

    def _installed(self, ctx: Context, sender: Address, parts: Sequence[Part]) -> None:
        seat = self._seat
        self._installing -= 1
        for part in parts:
            if part.last:
                self._whole.pop(part.slot, None)
                self._after.pop(part.slot, None)
        # Only what the machine says: the source deletes it.
        here = [part.slot for part in parts if seat.shards.state(part.slot) is SlotState.OWNED]
        if here:
            taken = Taken(seat.shards.configuration.number, compact(here))
            seat.secure(ctx, lambda ctx: ctx.send(sender, taken))
            seat.arrived(ctx)
        self.pull(ctx)
        seat.moved(ctx)


class Source:
    """Gives what other groups ask for, and deletes what they have."""

    def __init__(self, seat: Seat) -> None:
        self._seat = seat
        self._taken: dict[int, None] = dict.fromkeys(seat.shards.slots_in(SlotState.DROPPING))
        """Slots to be deleted."""
        self._dropping = False

    def on_pull(self, ctx: Context, sender: Address, pull: Pull) -> None:
        """Stop serving the slots that fit a chunk, then send them."""
        shards = self._seat.shards
        if pull.configuration != shards.configuration.number:
            return
        slots = [part.slot for part in self._parts(self._given_to(sender, pull.slots), pull.after)]
        if any(shards.state(slot) is SlotState.LEAVING for slot in slots):

            def released(ctx: Context, outcomes: Sequence[Outcome]) -> None:
                self._send(ctx, sender, pull, slots)

            self._seat.order(ctx, release_command(pull.configuration, slots), then=released)
        elif slots:
            self._send(ctx, sender, pull, slots)

    def on_taken(self, ctx: Context, sender: Address, taken: Taken) -> None:
        """The receiver has them."""
        shards = self._seat.shards
        if taken.configuration == shards.configuration.number:
            slots = self._given_to(sender, taken.slots)
            self._taken.update((slot, None) for slot in slots if shards.state(slot) is SlotState.FROZEN)
            self.drop(ctx)

    def drop(self, ctx: Context) -> None:
        """Delete some of what was taken, and go on when that is executed."""
        if self._dropping or not self._taken:
            return
        self._dropping = True
        command = drop_command(self._seat.shards.configuration.number, sorted(self._taken))
        self._seat.order(ctx, command, then=self._dropped)

    def ask_taken(self, ctx: Context) -> None:
        """Ask the receivers of frozen slots whether they have them: their word may have been lost."""
        shards = self._seat.shards
        frozen: dict[str, list[int]] = {}
        for slot in shards.slots_in(SlotState.FROZEN):
            if slot not in self._taken:
                frozen.setdefault(shards.owner_of(slot), []).append(slot)
        for group, slots in frozen.items():
            ctx.send(self._seat.anybody(group), AskTaken(shards.configuration.number, compact(slots)))

    # ------------------------------------------------------------------------------------------------ helpers

    def _given_to(self, receiver: Address, ranges: Iterable[Range]) -> Iterator[int]:
        """Those of these slots that are the receiver's group's in this configuration."""
        group, owner_of = group_of(receiver), self._seat.shards.owner_of
        return (slot for slot in expand(ranges) if owner_of(slot) == group)

    def _send(self, ctx: Context, receiver: Address, pull: Pull, slots: Iterable[int]) -> None:
        shards, after = self._seat.shards, dict(pull.after)
        left = [slot for slot in slots if shards.state(slot) is SlotState.FROZEN]
        for place in range(1, self._seat.timings.chunks_max + 1):
            parts = tuple(self._parts(left, after))
            if not parts:
                return
            left = [parts[-1].slot] if not parts[-1].last else []
            after = dict.fromkeys(left, parts[-1].through)
            more = bool(left) and place < self._seat.timings.chunks_max
            ctx.send(receiver, Chunk(pull.number, pull.configuration, shards.revision, parts, more))

    def _parts(self, slots: Iterable[int], after_keys: Mapping[int, bytes]) -> list[Part]:
        """As much of these slots as one chunk takes, and at least one record."""
        shards = self._seat.shards
        left = self._seat.timings.chunk_bytes
        parts: list[Part] = []
        for slot in slots:
            if shards.state(slot) not in (SlotState.LEAVING, SlotState.FROZEN):
                continue
            after = after_keys.get(slot, b"")
            records: list[tuple[bytes, bytes]] = []
            left -= PART_BYTES
            for key, value in shards.inner.slot_records(slot, after):
                left -= len(key) + len(value) + RECORD_BYTES
                if left < 0 and (records or parts):
                    break
                records.append((key, value))
            else:
                parts.append(Part(slot, after, tuple(records), last=True))
                if left <= 0:
                    break
                continue
            if records:
                parts.append(Part(slot, after, tuple(records), last=False))
            break
        return parts

    def _dropped(self, ctx: Context, outcomes: Sequence[Outcome]) -> None:
        self._dropping = False
        state = self._seat.shards.state
        self._taken = {
            slot: None for slot in self._taken if state(slot) in (SlotState.FROZEN, SlotState.DROPPING)
        }
        self.drop(ctx)
        self._seat.moved(ctx)


def group_of(replica: Address) -> str:
    """The group of a replica's address. What comes from outside has no such address."""
    return replica.partition("/")[2]


def taken_of(shards: ShardMachine, asked: AskTaken) -> Message | None:
    """What any replica of the receiver can say: which of these slots it knows to be in its group's log. A
    later configuration says it of all of them, because this one had to be settled first."""
    if shards.configuration.number > asked.configuration:
        return Taken(asked.configuration, asked.slots)
    if shards.configuration.number < asked.configuration:
        return None
    here = [slot for slot in expand(asked.slots) if shards.state(slot) is SlotState.OWNED]
    return Taken(asked.configuration, compact(here)) if here else None
