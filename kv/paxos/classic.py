"""Paxos as courses teach it: a sequence of independent agreements, any peer may propose in any of them.

`start(seq, value)` proposes, `status(seq)` tells what was agreed, `done(seq)` says that the application needs
nothing up to `seq` any more, `min()` and `max()` bound what is remembered. Every agreement runs both phases
(Lamport, "Paxos Made Simple", 2001, sections 2.2 and 2.3); nobody leads. The interface is that of the
replicated state machine laboratory of MIT's course 6.824 (2015). `kv.paxos.replica` is what the store is
built on.

All messages are datagrams: they may be lost, doubled and reordered, and a proposer tries again. What an
acceptor promised and accepted is durable before it says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal, cast

import msgspec

from kv.paxos.quorum import majority
from underlay.messages import Message, Protocol
from underlay.node import Address, Context, Node, Timer

Fate = Literal["decided", "pending", "forgotten"]

RETRY_S = 0.1
"""At least this long a proposer waits for answers; the random addition, which grows with every attempt, lets
one of several proposers get through (there is no other cure, as Fischer, Lynch and Paterson showed in
1985)."""


class Prepare(Message, frozen=True, array_like=True, tag=34):
    """Phase 1a. `done`, in every message: what its sender's application needs no more."""

    seq: int
    number: int
    done: int


class Promise(Message, frozen=True, array_like=True, tag=35):
    """Phase 1b: no lower number from now on; and what was accepted with the highest, if `accepted` is not
    0."""

    seq: int
    number: int
    accepted: int
    value: bytes
    done: int


class Refused(Message, frozen=True, array_like=True, tag=36):
    """A higher number was promised."""

    seq: int
    number: int
    promised: int
    done: int


class Accept(Message, frozen=True, array_like=True, tag=37):
    """Phase 2a."""

    carries_payload = True
    seq: int
    number: int
    value: bytes
    done: int


class Accepted(Message, frozen=True, array_like=True, tag=38):
    """Phase 2b."""

    seq: int
    number: int
    done: int


class Decided(Message, frozen=True, array_like=True, tag=39):
    """This was chosen."""

    carries_payload = True
    seq: int
    value: bytes
    done: int


class Start(Message, frozen=True, array_like=True, tag=43):
    """From the application on this device: call `start`."""

    transport = "local"
    seq: int
    value: bytes


class Done(Message, frozen=True, array_like=True, tag=44):
    """From the application on this device: call `done`."""

    transport = "local"
    seq: int


class Instance(msgspec.Struct, array_like=True):
    """What a peer has to remember of one agreement, durably."""

    promised: int = 0
    accepted: int = 0
    value: bytes = b""
    """Of what was accepted, or decided."""
    decided: bool = False


class Attempt(msgspec.Struct):
    """A proposer's attempt at one agreement, in memory."""

    wish: bytes
    """What is proposed unless something was accepted before."""
    tries: int = 0
    number: int = 0
    value: bytes = b""
    highest: int = 0
    """The highest number under which a promise reported something accepted."""
    promised_by: dict[Address, None] = {}
    accepted_by: dict[Address, None] = {}
    seen: int = 0
    """The highest number that was heard of."""


class Classic(Node):
    """One of `peers`, which are alike and given alike to all, this one among them."""

    protocol: ClassVar[Protocol] = Protocol("classic", Prepare, Promise, Refused, Accept, Accepted, Decided)

    def __init__(self, peers: Sequence[Address]) -> None:
        self._peers = tuple(peers)
        self._instances: dict[int, Instance] = {}
        self._attempts: dict[int, Attempt] = {}
        self._done = dict.fromkeys(self._peers, -1)
        self._max = -1

    # ------------------------------------------------------------------------------------------ the interface

    def start(self, ctx: Context, seq: int, value: bytes) -> None:
        """Begin to agree on agreement `seq`, proposing `value`; returns at once."""
        self._max = max(self._max, seq)
        if seq >= self.min() and self.status(seq)[0] == "pending" and seq not in self._attempts:
            self._attempts[seq] = Attempt(value)
            self._try(ctx, seq)

    def status(self, seq: int) -> tuple[Fate, bytes]:
        """What this peer knows of agreement `seq`; it asks nobody."""
        if seq < self.min():
            return "forgotten", b""
        instance = self._instances.get(seq)
        return ("decided", instance.value) if instance is not None and instance.decided else ("pending", b"")

    def done(self, ctx: Context, seq: int) -> None:
        """The application here needs nothing up to and including `seq`. Others hear of it with whatever they
        are sent next; when all have said so, it is forgotten."""
        if seq > self._done[ctx.address]:
            self._done[ctx.address] = seq
            ctx.store.put(b"done", b"%d" % seq)
            self._forget(ctx)

    def min(self) -> int:
        """The first agreement that is remembered: one more than what all are known to be done with."""
        return 1 + min(self._done.values())

    def max(self) -> int:
        """The last agreement that this peer has heard of; -1: none."""
        return self._max

    # ---------------------------------------------------------------------------------------------- as a node

    def on_start(self, ctx: Context) -> None:
        for key, value in ctx.store.scan(b"i", b"j"):
            seq = int.from_bytes(key[1:], "big")
            self._instances[seq] = msgspec.msgpack.decode(value, type=Instance)
            self._max = max(self._max, seq)
        self._done[ctx.address] = int(ctx.store.get(b"done") or -1)

    def on_timer(self, ctx: Context, timer: Timer) -> None:
        seq = cast("int", timer)
        if seq in self._attempts:
            self._try(ctx, seq)

    def on_message(self, ctx: Context, sender: Address, message: Message) -> None:
        match message:
            case Start(seq, value):
                self.start(ctx, seq, value)
            case Done(seq):
                self.done(ctx, seq)
            case Prepare() | Promise() | Refused() | Accept() | Accepted() | Decided() if (
                sender in self._done
            ):
                self._max = max(self._max, message.seq)
                if message.done > self._done[sender]:
                    self._done[sender] = message.done
                    self._forget(ctx)
                if message.seq >= self.min():
                    self._hear(ctx, sender, message)
            case _:
                pass

    # ---------------------------------------------------------------------------------------------- proposers

    def _try(self, ctx: Context, seq: int) -> None:
        """Phase 1 with a number above all that were heard of."""
        attempt = self._attempts[seq]
        attempt.tries += 1
        size, index = len(self._peers), self._peers.index(ctx.address)
        attempt.number = attempt.seen = (max(attempt.number, attempt.seen) // size + 1) * size + index
        attempt.value, attempt.highest = attempt.wish, 0
        attempt.promised_by, attempt.accepted_by = {}, {}
        ctx.set_timer(seq, RETRY_S * (1.0 + ctx.rng.random() * min(attempt.tries, 10)))
        self._tell_all(ctx, Prepare(seq, attempt.number, self._done[ctx.address]))

    def _on_promise(self, ctx: Context, sender: Address, promise: Promise) -> None:
        attempt = self._attempts.get(promise.seq)
        if attempt is None or attempt.number != promise.number or sender in attempt.promised_by:
            return
        attempt.promised_by[sender] = None
        if promise.accepted > attempt.highest:
            attempt.highest, attempt.value = promise.accepted, promise.value
        if len(attempt.promised_by) == majority(len(self._peers)):
            self._tell_all(ctx, Accept(promise.seq, attempt.number, attempt.value, self._done[ctx.address]))

    def _on_accepted(self, ctx: Context, sender: Address, accepted: Accepted) -> None:
        attempt = self._attempts.get(accepted.seq)
        if attempt is None or attempt.number != accepted.number:
            return
        attempt.accepted_by[sender] = None
        if len(attempt.accepted_by) == majority(len(self._peers)):
            self._tell_all(ctx, Decided(accepted.seq, attempt.value, self._done[ctx.address]))

    # ---------------------------------------------------------------------------------------------- acceptors

    def _hear(self, ctx: Context, sender: Address, message: Message) -> None:
        done = self._done[ctx.address]
        match message:
            case Prepare(seq, number) | Accept(seq, number):
                instance = self._instances.get(seq) or Instance()
                if instance.decided:
                    self._tell(ctx, sender, Decided(seq, instance.value, done))
                elif number < instance.promised:
                    self._tell(ctx, sender, Refused(seq, number, instance.promised, done))
                elif isinstance(message, Accept):
                    self._write(ctx, seq, Instance(number, number, message.value))
                    self._tell(ctx, sender, Accepted(seq, number, done))
                else:
                    self._write(ctx, seq, Instance(number, instance.accepted, instance.value))
                    self._tell(ctx, sender, Promise(seq, number, instance.accepted, instance.value, done))
            case Promise():
                self._on_promise(ctx, sender, message)
            case Refused(seq, _, promised):
                if (attempt := self._attempts.get(seq)) is not None:
                    attempt.seen = max(attempt.seen, promised)
            case Accepted():
                self._on_accepted(ctx, sender, message)
            case Decided(seq, value):
                self._attempts.pop(seq, None)
                ctx.cancel_timer(seq)
                if self.status(seq)[0] == "pending":
                    self._write(ctx, seq, Instance(value=value, decided=True))

    # ------------------------------------------------------------------------------------------------ helpers

    def _tell(self, ctx: Context, peer: Address, message: Message) -> None:
        """What a peer tells itself takes no message."""
        if peer == ctx.address:
            self._hear(ctx, peer, message)
        else:
            ctx.send(peer, message)

    def _tell_all(self, ctx: Context, message: Message) -> None:
        for peer in self._peers:
            self._tell(ctx, peer, message)

    def _write(self, ctx: Context, seq: int, instance: Instance) -> None:
        self._instances[seq] = instance
        ctx.store.put(_key(seq), msgspec.msgpack.encode(instance))

    def _forget(self, ctx: Context) -> None:
        for seq in [seq for seq in self._instances if seq < self.min()]:
            del self._instances[seq]
            ctx.store.delete(_key(seq))
        for seq in [seq for seq in self._attempts if seq < self.min()]:
            del self._attempts[seq]
            ctx.cancel_timer(seq)


def _key(seq: int) -> bytes:
    return b"i" + seq.to_bytes(8, "big")
