"""Another gateway as a destination: observations are offered to it as a door offers them, over a stream.

What it has acknowledged is written: kept, known already, or among its dead letters. What it is too busy for
is offered again when it says, beginning with the first that it turned away, so that a device's order is kept.
If nothing is heard from it for a while (it crashed, or is cut off), everything under way is offered anew over
another stream; it recognises what it has by the ids.

An observation says through how many gateways it came. A spec whose routes form a loop is refused before
anything runs; what goes round nevertheless is stopped by its ids, and by `HOPS_MAX` at the latest.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from edge.observation import Observation
from gateway.destinations.driver import RETRY_S, Driver, Failed
from gateway.lane import Entry
from gateway.messages import NODE, HandedOn, HandOn, Verdict
from gateway.writer import Finish, Write
from underlay.messages import Message
from underlay.node import Address, Context, Timer, address

PATIENCE_S = 5.0
"""With something under way, and nothing heard."""
HOPS_MAX = 8
_NAME = "upstream"


class _Batch(msgspec.Struct):
    """Under way to one gateway."""

    peer: Address
    left: tuple[Observation, ...]
    hops: int
    finish: Finish
    failed: Failed


class Upstream(Driver):
    """The node's side of all such destinations."""

    def __init__(self) -> None:
        self._number = 0
        self._batches: dict[int, _Batch] = {}
        """By the token of the last offer."""
        self._pausing: dict[int, None] = {}
        """Those that will be offered again: nobody owes an answer."""

    def write_to(self, device: str, failed: Failed) -> Write:
        """Offers to the gateway on that device."""
        peer = address(device, NODE)

        def write(ctx: Context, batch: tuple[Entry, ...], data: list[bytes], finish: Finish) -> None:
            observations = tuple(Observation.decode(value) for value in data)
            hops = 1 + max(entry.hops for entry in batch)
            if not self._owing(peer):
                ctx.set_timer((_NAME, peer), PATIENCE_S)
            self._offer(ctx, _Batch(peer, observations, hops, finish, failed))

        return write

    def on_message(self, ctx: Context, sender: Address, message: Message) -> bool:
        if not isinstance(message, HandedOn):
            return False
        batch = self._batches.get(message.token)
        if batch is not None and message.token not in self._pausing:
            self._on_verdicts(ctx, message.token, batch, message.verdicts)
        return True

    def on_timer(self, ctx: Context, timer: Timer) -> bool:
        if not (isinstance(timer, tuple) and timer[0] == _NAME):
            return False
        _, what = timer
        if isinstance(what, int):
            del self._pausing[what]
            batch = self._batches.pop(what)
            if not self._owing(batch.peer):
                ctx.set_timer((_NAME, batch.peer), PATIENCE_S)
            self._offer(ctx, batch)
        else:
            ctx.give_up(what)
            self._again(ctx, what, "does not answer", self._offer)
            ctx.set_timer((_NAME, what), PATIENCE_S)
        return True

    def on_peer_down(self, ctx: Context, peer: Address) -> bool:
        if not any(batch.peer == peer for batch in self._batches.values()):
            return False
        ctx.cancel_timer((_NAME, peer))
        self._again(ctx, peer, "is down", self._pause)
        return True

    # ------------------------------------------------------------------------------------------------ helpers

    def _owing(self, peer: Address) -> list[int]:
        """Offers that it has not answered."""
        found = (token for token, batch in self._batches.items() if batch.peer == peer)
        return [token for token in found if token not in self._pausing]

    def _offer(self, ctx: Context, batch: _Batch) -> None:
        self._number += 1
        self._batches[self._number] = batch
        ctx.send(batch.peer, HandOn(self._number, batch.hops, batch.left))

    def _pause(self, ctx: Context, batch: _Batch, pause_s: float = RETRY_S) -> None:
        self._number += 1
        self._batches[self._number] = batch
        self._pausing[self._number] = None
        ctx.set_timer((_NAME, self._number), pause_s)

    def _again(
        self, ctx: Context, peer: Address, trouble: str, do: Callable[[Context, _Batch], None]
    ) -> None:
        """Everything that it owes an answer for."""
        told: dict[Failed, None] = {}
        for token in self._owing(peer):
            batch = self._batches.pop(token)
            told[batch.failed] = None
            do(ctx, batch)
        for failed in told:
            failed(f"the gateway {peer} {trouble}")

    def _on_verdicts(self, ctx: Context, token: int, batch: _Batch, verdicts: tuple[Verdict, ...]) -> None:
        if len(verdicts) != len(batch.left):
            return  # it is no gateway of ours; patience ends
        del self._batches[token]
        if self._owing(batch.peer):
            ctx.set_timer((_NAME, batch.peer), PATIENCE_S)
        else:
            ctx.cancel_timer((_NAME, batch.peer))
        turned_away = next((n for n, each in enumerate(verdicts) if each.outcome == "busy"), None)
        if turned_away is None:
            batch.finish(ctx, "written", "")
            return
        busy = verdicts[turned_away]
        batch.failed(f"the gateway {batch.peer} is busy: {busy.reason}")
        batch.left = batch.left[turned_away:]
        self._pause(ctx, batch, max(busy.retry_after_s, _PAUSE_S_MIN))


_PAUSE_S_MIN = 0.01
"""Whoever says "at once" and is busy is not asked in a loop."""
