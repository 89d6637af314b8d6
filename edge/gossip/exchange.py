"""What gossiping neighbours lack: announcements, anti-entropy, and repair.

Source: Demers et al. (PODC 1987) for anti-entropy by comparison, Trickle (RFC 6206) for its pace. An
announcement is a digest of what is held, not of single messages, so that it repairs what a peer missed
yesterday as well as what was lost on the air a moment ago.
"""

from __future__ import annotations

from collections.abc import Collection
from itertools import islice
from math import inf

from edge.gossip.holdings import Item
from edge.gossip.messages import (
    STREAMS_MAX,
    Gossip,
    Graft,
    IHave,
    ItemId,
    Offer,
    Prune,
    StreamDigest,
    StreamId,
    Want,
)
from edge.gossip.overlay import ANNOUNCE, FETCH, Overlay
from underlay.node import Context, in_range

LISTED_S = 3.0
"""Streams that changed since, or since the last announcement, are listed in one; the others are only
hashed."""
SERVED_MAX = 64
"""Parts sent in answer to one Graft."""
BEHIND = 3
"""Items that a neighbour lacks, though the tree had time to bring them, from which on it is thought cut
off."""
STRAIN_MAX = 0.3
"""Share of repaired items from which on the tree is thought broken, and not just lossy."""
ANNOUNCE_ROUND = 3
"""Announcements without news, one to each of so many neighbours, after which the pace halves."""
_ANNOUNCE_SLOWEST = 16
_REPLY_SLOWEST_S = 60.0


class Exchange(Overlay):
    """Says what is held, and sends or asks for what is not."""

    # Announcements and anti-entropy

    def _announce(self, ctx: Context) -> None:
        """To one neighbour in turn; on a channel to all, unless others said the same already."""
        now = ctx.now
        if self.relay.announces():
            listed = self._unlisted(ctx, ()) if self._in_doubt else self._listed(now)
            self._in_doubt = False
            ctx.send(in_range(self._name), self._digest(listed))
        for peer in self.tree.next_turn(now, 1):
            if self.tree.is_forgotten(peer, now, self._interval_s):
                self._ask(ctx, peer)
                self._watch_by(ctx, self._next_check_s())
            else:
                ctx.send(self._at(peer), self._digest(self._listed(now)))
        if not self.tree.eager:
            self._replace(ctx)
        changed = self.holdings.hash != self._announced_hash
        self._announced_hash = self.holdings.hash
        shortest_s = self.config.announce_interval_s
        self._interval_s = (
            shortest_s if changed else min(_ANNOUNCE_SLOWEST * shortest_s, 2 * self._interval_s)
        )
        ctx.set_timer(ANNOUNCE, self._interval_s * (0.75 + 0.5 * ctx.rng.random()))

    def _news(self, ctx: Context) -> None:
        """There is something to announce, or to clear up."""
        shortest_s = self.config.announce_interval_s
        if self._interval_s > shortest_s:
            self._interval_s = shortest_s
            ctx.set_timer(ANNOUNCE, shortest_s * (0.5 + 0.5 * ctx.rng.random()))

    def _listed(self, now: float) -> list[StreamId]:
        lately_s = max(LISTED_S, self.config.announce_interval_s)
        return self.holdings.changed_since(now - lately_s, STREAMS_MAX)

    def _on_ihave(self, ctx: Context, peer: str, ihave: IHave, *, urgent: bool) -> None:
        """Compare; where either side feels cut off, the tree is not waited for."""
        now, fetch = ctx.now, self.fetch
        hold_s = (
            0.0 if ihave.answer else fetch.lateness.limit_s + self._hold_s(ctx, peer, fetch.lateness.limit_s)
        )
        if peer in self.tree.edges and peer not in self.tree.eager and self.tree.any_asked():
            self._helpers.setdefault(peer, 0)
        before = len(fetch.missing)
        differing = self.holdings.differing(ihave.streams)
        for theirs in differing:
            fetch.announced(self.holdings.lacking(theirs), peer, now, hold_s)
        listed = {theirs.stream: None for theirs in ihave.streams}
        grace_s = max(1e-3 * ihave.late_ms, fetch.lateness.limit_s)
        agrees = self.holdings.agrees(ihave.rest, listed, now - grace_s)
        if peer in self.relay.peers and not ihave.answer:
            if agrees and before == len(fetch.missing):
                self.relay.heard_the_same()
            else:
                self._in_doubt |= not agrees
                self._news(ctx)
        else:
            told_all = self._tell(ctx, peer, differing, 0.0 if ihave.answer else grace_s)
            if agrees and told_all:
                self._replies.pop(peer, None)
            if ihave.answer or not (agrees and told_all):
                self._reply(ctx, peer, listed, at_once=ihave.answer)
        self._fetch_by(ctx, fetch.next_due_s())

    def _tell(self, ctx: Context, peer: str, streams: Collection[StreamDigest], grace_s: float) -> bool:
        """Send what has been here for `grace_s` and is not there; whether that was all."""
        budget = 4 * self.config.part_bytes
        behind = 0
        for theirs in streams:
            for key, item in self.holdings.surplus(theirs):
                if ctx.now - item.since_s >= grace_s:
                    if budget <= 0:
                        return False
                    budget -= self._send_item(ctx, peer, key, item)
                    self._news(ctx)
                    behind += ctx.now - item.since_s >= 2 * grace_s
        if behind >= BEHIND and grace_s and peer not in self.tree.eager:
            self._attach(ctx, peer, ask=True)
        return True

    def _reply(self, ctx: Context, peer: str, listed: Collection[StreamId], *, at_once: bool) -> None:
        """Answer a digest with one of what it did not list, as rarely as that helps."""
        now = ctx.now
        next_s, pause_s = self._replies.get(peer, (-inf, self.config.announce_interval_s))
        if now < next_s and not at_once:
            return
        if not at_once:
            self._replies[peer] = (now + pause_s, min(_REPLY_SLOWEST_S, 2 * pause_s))
        changed = [stream for stream in self._listed(now) if stream in listed]
        ctx.send(self._at(peer), self._digest((self._unlisted(ctx, listed) + changed)[:STREAMS_MAX]))

    def _unlisted(self, ctx: Context, listed: Collection[StreamId]) -> list[StreamId]:
        """Streams that are not listed; where they are too many, some."""
        others = [stream for stream in self.holdings.streams() if stream not in listed]
        if len(others) > STREAMS_MAX:
            start = ctx.rng.randrange(len(others))
            others = (others[start:] + others[:start])[:STREAMS_MAX]
        return others

    # Repair

    def _on_graft(self, ctx: Context, peer: str, graft: Graft) -> None:
        if graft.eager:
            if peer in self.relay.peers:
                self.relay.needed_by[peer] = None
            elif not self.tree.attach(peer, ctx.now):
                self.tree.edges[peer].pruned_s = ctx.now
                ctx.send(self._at(peer), Prune())
            else:
                self._watch_by(ctx, self._next_check_s())
        budget = SERVED_MAX
        for want in graft.wants:
            budget -= self._serve(ctx, peer, want, budget)

    def _serve(self, ctx: Context, peer: str, want: Want, at_most: int) -> int:
        """Send what is here of what is wanted, note who wants what is on its way; how much was sent."""
        key = want.item
        item = self.holdings.items.get(key)
        missing = self.fetch.missing.get(key)
        if not want.chunks:
            if item is not None and item.whole:
                self._send_item(ctx, peer, key, item)
            elif missing is not None and missing.count:
                ctx.send(self._at(peer), Offer(key, missing.count, missing.hops + 1, False))
            return 1
        sent = 0
        for chunk in islice(_bits(want.chunks), at_most):
            data = item.chunks[chunk] if item is not None and chunk < len(item.chunks) else None
            if item is not None and data is not None:
                self._send_part(ctx, peer, key, chunk, len(item.chunks), item.hops + 1, data)
                sent += 1
            elif missing is not None and chunk < missing.count:
                missing.waiting.setdefault(chunk, {})[peer] = None
        return sent

    def _send_item(self, ctx: Context, peer: str, key: ItemId, item: Item) -> int:
        """The item, or an Offer of it where it is large; returns its bytes."""
        data = item.chunks[0]
        if len(item.chunks) == 1 and data is not None:
            ctx.send(self._at(peer), Gossip(key, 0, 1, item.hops + 1, False, data))
            return len(data)
        ctx.send(self._at(peer), Offer(key, len(item.chunks), item.hops + 1, False))
        return 64

    def _send_part(
        self, ctx: Context, peer: str, key: ItemId, chunk: int, count: int, hops: int, data: bytes
    ) -> None:
        """A chunk that was asked for: on a channel for everybody, once in a while."""
        part = Gossip(key, chunk, count, hops, False, data)
        if peer not in self.relay.peers:
            ctx.send(self._at(peer), part)
        elif self.relay.sends(key, chunk, ctx.now):
            ctx.send(in_range(self._name), part)

    def _fetch(self, ctx: Context) -> None:
        self._fetch_s = inf
        fetch = self.fetch
        for peer, wants in fetch.due(ctx.now, self.holdings).items():
            if peer in self.relay.peers:
                # Heard from its origin, an item needs no relay: that one was lost on the air.
                eager = any(want.item.stream.device not in self.config.neighbours for want in wants)
                if eager:
                    self.relay.needs(peer)
            else:
                eager = fetch.strain > STRAIN_MAX and peer not in self.tree.eager
                if eager:
                    fetch.strain = 0.0
                    eager = self.tree.attach(peer, ctx.now)
                    self._ask(ctx, peer)
                    self._watch_by(ctx, self._next_check_s())
            ctx.send(self._at(peer), Graft(tuple(wants), eager))
        if not fetch.missing:
            for peer in fetch.overflowed:
                self._ask(ctx, peer)
            fetch.overflowed.clear()
        self._fetch_by(ctx, fetch.next_due_s())

    def _fetch_by(self, ctx: Context, due_s: float) -> None:
        if due_s < self._fetch_s:
            self._fetch_s = max(due_s, ctx.now + 0.01)
            ctx.set_timer(FETCH, self._fetch_s - ctx.now)


def _bits(bitmap: bytes) -> list[int]:
    """Numbers of the bits that are set, ascending."""
    return [8 * i + bit for i, byte in enumerate(bitmap) for bit in range(8) if byte >> bit & 1]
