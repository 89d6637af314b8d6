"""A gossiping node's neighbours: who is made eager or lazy, and what is done when one falls silent.

The first of three layers of the node, each a concern of its own: this one acts on what `edge.gossip.tree`
knows (Plumtree's GRAFT and PRUNE); `exchange` repairs and compares; `peer` takes items in and passes them
on.
"""

from __future__ import annotations

from collections.abc import Collection
from math import inf

from edge.gossip.config import GossipConfig
from edge.gossip.fetch import TURNS_TO_ANSWER, Estimate, Fetch
from edge.gossip.holdings import Holdings
from edge.gossip.messages import GOSSIP_PROTOCOL, STREAMS_MAX, Graft, IHave, Prune, StreamId
from edge.gossip.relay import Relay
from edge.gossip.tree import Tree
from underlay.node import Address, Context, Node

ANNOUNCE, FETCH, WATCH = "announce", "fetch", "watch"
PROBES = 3
"""Lazy neighbours that are asked when an eager one is silent."""


class Overlay(Node):
    """State of a node, and its edges."""

    protocol = GOSSIP_PROTOCOL

    def __init__(self, config: GossipConfig) -> None:
        self.config = config
        self.holdings = Holdings(config.memory_bytes)
        self.fetch = Fetch(config.graft_timeout_s, config.window_parts, config.turn_s)
        self.relay = Relay(config.on_channel)
        self.tree: Tree
        self._answer = Estimate(config.graft_timeout_s, max(0.15, TURNS_TO_ANSWER * config.turn_s), 2.0)
        self._interval_s = config.announce_interval_s
        self._stream = StreamId("", 0)
        self._told = 0
        self._announced_hash = 0
        self._in_doubt = False
        """Whether somebody on the channel holds something else of streams that are not listed."""
        self._unchanged = 0
        """Announcements since the last that had news."""
        self._helpers: dict[str, int] = {}
        """Lazy neighbours -> items they were first with while eager ones were suspected."""
        self._watch_s = self._fetch_s = inf
        self._replies: dict[str, tuple[float, float]] = {}
        """Neighbour -> when its next disagreement is answered, and the pause after that."""
        self._name = ""

    def on_start(self, ctx: Context) -> None:
        self._name = ctx.address.partition("/")[2]
        self._stream = StreamId(ctx.device, ctx.rng.getrandbits(32))
        linked = [peer for peer in self.config.neighbours if peer not in self.config.on_channel]
        self.tree = Tree(linked, self.config.eager_max, ctx.now, ctx.rng)
        for n, peer in enumerate(self.tree.first_choices(ctx.device)):
            self._attach(ctx, peer, ask=n < 2)
        ctx.set_timer(ANNOUNCE, self._interval_s * ctx.rng.random())

    def _attach(self, ctx: Context, peer: str, *, ask: bool) -> None:
        """Make a neighbour eager, if it agrees; `ask` it also for what it has, and for a sign of life."""
        if peer in self.relay.peers:
            self.relay.needs(peer)
        elif not self.tree.attach(peer, ctx.now):
            return
        ctx.send(self._at(peer), Graft((), eager=True))
        if ask:
            self._ask(ctx, peer)
        self._watch_by(ctx, self._next_check_s())

    def _prune(self, ctx: Context, peer: str) -> None:
        """Make the edge lazy at both ends; not over and over, where the other end does not hear it."""
        edge = self.tree.edges[peer]
        if edge.eager or ctx.now - edge.pruned_s > 1.0:
            edge.pruned_s = ctx.now
            self.tree.detach(peer)
            ctx.send(self._at(peer), Prune())

    def _on_prune(self, ctx: Context, peer: str) -> None:
        if peer in self.relay.peers:
            self.relay.needed_by.pop(peer, None)
        else:
            self.tree.detach(peer)
            if not self.tree.eager:
                self._watch_by(ctx, ctx.now + self._answer.limit_s)

    def _watch(self, ctx: Context) -> None:
        """Ask who is silent, give up who does not answer, and find somebody else."""
        now, tree = ctx.now, self.tree
        self._watch_s = inf
        dead = tree.take_dead(now, self._answer.limit_s)
        suspects = tree.suspects(now)
        for peer in suspects:
            # It may have been restarted and know nothing of this edge: hence the Graft.
            ctx.send(self._at(peer), Graft((), eager=True))
            self._ask(ctx, peer)
        if suspects or dead:
            for peer in tree.next_turn(now, PROBES, lazy_only=True):
                self._ask(ctx, peer)
        for _ in dead or range(not tree.eager):
            self._replace(ctx)
        if not tree.any_asked():
            self._helpers.clear()
        self._watch_by(ctx, self._next_check_s())

    def _replace(self, ctx: Context) -> None:
        """Put an edge in the place of a dead one: to whoever had most news while it was silent."""
        while self._helpers:
            peer = max(self._helpers, key=lambda peer: self._helpers[peer])
            del self._helpers[peer]
            if peer not in self.tree.eager:
                self._attach(ctx, peer, ask=True)
                return
        if not self.tree.eager:
            for peer in self.tree.next_turn(ctx.now, 1, lazy_only=True):
                self._attach(ctx, peer, ask=True)

    def _watch_by(self, ctx: Context, due_s: float) -> None:
        """Call `_watch` at `due_s` at the latest."""
        if due_s < self._watch_s:
            self._watch_s = max(due_s, ctx.now + 0.05)
            ctx.set_timer(WATCH, self._watch_s - ctx.now)

    def _next_check_s(self) -> float:
        return self.tree.next_check_s(self._answer.limit_s)

    def _heard(self, peer: str, now: float) -> bool:
        """A sign of life; whether it was asked for."""
        answer_s = self.tree.heard(peer, now) if peer in self.tree.edges else None
        if answer_s is not None:
            self._answer.add(answer_s)
        return answer_s is not None

    def _ask(self, ctx: Context, peer: str) -> None:
        """For a sign of life, and for news."""
        if peer in self.tree.edges:
            self.tree.asked(peer, ctx.now)
        newest = self.holdings.changed_since(-inf, STREAMS_MAX)
        ctx.send(self._at(peer), self._digest(newest, answer=True))

    def _digest(self, listed: Collection[StreamId], *, answer: bool = False) -> IHave:
        late_ms = round(1e3 * self.fetch.lateness.limit_s)
        return IHave(self.holdings.digest(listed), self.holdings.rest(listed), late_ms, answer)

    def _hold_s(self, ctx: Context, peer: str, at_most_s: float) -> float:
        """On a channel, some wait for what others' asking brings to all."""
        return at_most_s * (0.5 + ctx.rng.random()) if peer in self.relay.peers else 0.0

    def _at(self, peer: str) -> Address:
        return f"{peer}/{self._name}"
