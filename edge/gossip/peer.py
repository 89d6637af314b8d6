"""The gossip node: eager push along a tree, lazy announcements, repair, and anti-entropy.

Source: Plumtree (Leitao, Pereira, Rodrigues: Epidemic Broadcast Trees, SRDS 2007) for push, prune and graft;
anti-entropy after Demers et al. (PODC 1987); the pace of announcements after Trickle (RFC 6206). An announcement
is a digest of what is held, not of single messages, so that it repairs what a peer missed yesterday as well as
what was lost on the air a moment ago.

Owns what is said to whom and when. Which neighbours are eager is in `tree`, what is missing in `fetch`, what is
held in `holdings`; on a shared channel, who relays is in `relay`.
"""

from __future__ import annotations

from collections.abc import Collection
from itertools import islice
from math import inf

import msgspec

from edge.events import Delivered, Discarded
from edge.gossip.fetch import Estimate, Fetch
from edge.gossip.holdings import Holdings, Item
from edge.gossip.messages import (
    CHUNKS_MAX,
    GOSSIP_PROTOCOL,
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
from edge.gossip.relay import Relay
from edge.gossip.tree import Tree
from edge.observation import Observation, Observed
from underlay.messages import Message
from underlay.node import Address, Context, Node, Timer, address, device_of, in_range

ANNOUNCE, FETCH, WATCH = "announce", "fetch", "watch"

LISTED_S = 3.0
"""Streams that changed since are listed in an announcement; the others are only hashed."""
PROBES = 3
"""Lazy neighbours that are asked when an eager one is silent."""
SERVED_MAX = 64
"""Parts sent in answer to one Graft."""
BEHIND = 3
"""Items that a neighbour lacks, though the tree had time to bring them, from which on it is thought cut off."""
STRAIN_MAX = 0.3
"""Share of repaired items from which on the tree is thought broken, and not just lossy."""
ANNOUNCE_ROUND = 3
"""Announcements without news, one to each of so many neighbours, after which the pace halves."""
_ANNOUNCE_SLOWEST = 16
_REPLY_SLOWEST_S = 60.0


class GossipConfig(msgspec.Struct, frozen=True):
    """Knobs of one gossip node."""

    neighbours: tuple[str, ...]
    """Devices in range, by name."""
    on_channel: frozenset[str] = frozenset()
    """Those of them that hear a broadcast."""
    subscriber: bool = True
    """Whether arrivals here count as delivered."""
    deliver_to: str | None = None
    """A node on this device that gets every observation (the sink)."""
    eager_max: int = 8
    """Most eager neighbours: what one item may cost this device in transmissions."""
    announce_interval_s: float = 0.9
    """Between announcements while there is news, each to one neighbour in turn; up to 16 times as long without."""
    graft_timeout_s: float = 0.5
    """How long an announced item may take by the tree before it is asked for, until that has been measured."""
    part_bytes: int = 1024
    """Larger observations travel in chunks of this size: one datagram on the usual MTU."""
    window_parts: int = 16
    """Most parts asked of one neighbour at a time."""
    memory_bytes: int = 8_000_000
    """Held for repairs; what came first goes first. What was delivered is remembered regardless."""


class GossipPeer(Node):
    """One gossiping device. Neighbours run a node of the same name."""

    protocol = GOSSIP_PROTOCOL

    def __init__(self, config: GossipConfig) -> None:
        self.config = config
        self.holdings = Holdings(config.memory_bytes)
        self.fetch = Fetch(config.graft_timeout_s, config.window_parts)
        self.relay = Relay(config.on_channel)
        self.tree: Tree
        self._answer = Estimate(config.graft_timeout_s, 0.15, 2.0)
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

    def on_message(self, ctx: Context, sender: Address, message: Message) -> None:
        if isinstance(message, Observed):
            self._publish(ctx, message.observation)
            return
        peer = device_of(sender)
        if peer not in self.tree.edges and peer not in self.relay.peers:
            return
        if isinstance(message, Gossip):
            self._on_gossip(ctx, peer, message)
            return
        answers = self._heard(peer, ctx.now)
        match message:
            case Offer():
                self._on_offer(ctx, peer, message)
            case IHave():
                self._on_ihave(ctx, peer, message, urgent=answers or message.answer)
            case Graft():
                self._on_graft(ctx, peer, message)
            case Prune():
                self._on_prune(ctx, peer)

    def on_timer(self, ctx: Context, timer: Timer) -> None:
        match timer:
            case "announce":
                self._announce(ctx)
            case "fetch":
                self._fetch(ctx)
            case "watch":
                self._watch(ctx)

    # ------------------------------------------------------------------------------------------------ the tree

    def _publish(self, ctx: Context, observation: Observation) -> None:
        data = observation.encode()
        size = self.config.part_bytes
        chunks = [data[i : i + size] for i in range(0, len(data), size)]
        if len(chunks) > CHUNKS_MAX:
            ctx.emit(Discarded(str(observation.id), "too-large"))
            return
        key = ItemId(self._stream, self._told)
        self._told += 1
        for index, chunk in enumerate(chunks):
            self.holdings.add(key, index, len(chunks), chunk, ctx.now)
        if len(chunks) == 1:
            self._push(ctx, Gossip(key, 0, 1, 1, True, data), None)
        else:
            self._push(ctx, Offer(key, len(chunks), 1, True), None)
        self._news(ctx)
        if self.config.deliver_to:
            ctx.send(address(ctx.device, self.config.deliver_to), Observed(observation))

    def _on_gossip(self, ctx: Context, peer: str, gossip: Gossip) -> None:
        now, key = ctx.now, gossip.item
        self._heard(peer, now)
        self._watch_by(ctx, self.tree.fed(peer, now))
        if self.holdings.has(key, gossip.chunk):
            if gossip.eager:
                self._on_redundant(ctx, peer, key)
            return
        whole = self.holdings.add(key, gossip.chunk, gossip.count, gossip.data, now)
        if gossip.count == 1:
            self._on_news_from(ctx, peer, gossip.eager, gossip.hops)
            if gossip.eager:
                self.fetch.by_tree(key, now)
            else:
                self.fetch.arrived(key, 0, peer, now)
            # What was repaired overtook the tree: where it goes on, it says nothing about edges.
            self._push(ctx, Gossip(key, 0, 1, gossip.hops + 1, gossip.eager, gossip.data), peer)
        else:
            self._on_chunk(ctx, peer, gossip)
        if whole is not None:
            whole.hops = gossip.hops
            whole.eager = gossip.eager
            self.fetch.done(key)
            self._news(ctx)
            self._deliver(ctx, whole)

    def _on_chunk(self, ctx: Context, peer: str, gossip: Gossip) -> None:
        key = gossip.item
        missing = self.fetch.missing.get(key)
        if missing is not None:
            for waiting in missing.waiting.pop(gossip.chunk, ()):
                self._send_part(ctx, waiting, key, gossip.chunk, gossip.count, gossip.hops + 1, gossip.data)
        self.fetch.arrived(key, gossip.chunk, peer, ctx.now, self._hold_s(ctx, peer, 0.3))
        self._fetch(ctx)

    def _on_offer(self, ctx: Context, peer: str, offer: Offer) -> None:
        key = offer.item
        self._watch_by(ctx, self.tree.fed(peer, ctx.now))
        if not self.holdings.whole(key):
            hold_s = self._hold_s(ctx, peer, 0.1)
            if self.fetch.offered(key, peer, offer.count, offer.hops, ctx.now, hold_s) is not None:
                self._on_news_from(ctx, peer, offer.eager, offer.hops)
                self._push(ctx, Offer(key, offer.count, offer.hops + 1, offer.eager), peer)
                self._fetch(ctx)
                return
        if offer.eager:
            self._on_redundant(ctx, peer, key)

    def _push(self, ctx: Context, message: Gossip | Offer, source: str | None) -> None:
        """Along the tree, and on the channel if anybody there needs it from here."""
        name = self._name
        for peer in self.tree.eager:
            if peer != source:
                ctx.send(f"{peer}/{name}", message)
        if self.relay.peers and self.relay.needed(message.item.stream.device, source, message.hops == 1):
            ctx.send(in_range(name), message)

    def _on_news_from(self, ctx: Context, peer: str, eager: bool, hops: int) -> None:
        self.tree.count(ctx.now)
        """A neighbour was first with an item: in the tree it becomes, or stays, eager (SRDS 2007, algorithm 1)."""
        if peer in self.relay.peers:
            self.relay.useful(peer, hops)
        elif eager:
            if peer not in self.tree.eager and not self.tree.attach(peer, ctx.now):
                self._prune(ctx, peer)
        elif peer not in self.tree.eager and self.tree.any_asked():
            self._helpers[peer] = self._helpers.get(peer, 0) + 1

    def _on_redundant(self, ctx: Context, peer: str, key: ItemId) -> None:
        """Along the tree came what is here already: where the tree brought it before, the edge closes a cycle."""
        first = self.holdings.items.get(key) or self.fetch.missing.get(key)
        if first is None or not first.eager or not self.tree.may_prune(key):
            return
        if peer in self.relay.peers:
            if self.relay.redundant(peer):
                ctx.send(self._at(peer), Prune())
        else:
            self._prune(ctx, peer)

    def _prune(self, ctx: Context, peer: str) -> None:
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

    def _attach(self, ctx: Context, peer: str, *, ask: bool) -> None:
        """Make a neighbour eager, if it agrees; `ask` it also for what it has, and for a sign of life."""
        if peer in self.relay.peers:
            self.relay.needs(peer)
        elif not self.tree.attach(peer, ctx.now):
            return
        ctx.send(self._at(peer), Graft((), eager=True))
        if ask:
            self._ask(ctx, peer)
        self._watch_by(ctx, ctx.now)

    # ------------------------------------------------------------------------------------- silence and failures

    def _watch(self, ctx: Context) -> None:
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
        self._watch_by(ctx, tree.next_check_s(self._answer.limit_s))

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
        if due_s == ctx.now:
            due_s = self.tree.next_check_s(self._answer.limit_s)
        if due_s < self._watch_s:
            self._watch_s = max(due_s, ctx.now + 0.05)
            ctx.set_timer(WATCH, self._watch_s - ctx.now)

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

    # -------------------------------------------------------------------------- announcements and anti-entropy

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
                self._watch_by(ctx, now)
            else:
                ctx.send(self._at(peer), self._digest(self._listed(now)))
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
        return self.holdings.changed_since(now - LISTED_S, STREAMS_MAX)

    def _digest(self, listed: Collection[StreamId], *, answer: bool = False) -> IHave:
        late_ms = round(1e3 * self.fetch.lateness.limit_s)
        return IHave(self.holdings.digest(listed), self.holdings.rest(listed), late_ms, answer)

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

    # -------------------------------------------------------------------------------------------------- repair

    def _on_graft(self, ctx: Context, peer: str, graft: Graft) -> None:
        if graft.eager:
            if peer in self.relay.peers:
                self.relay.needed_by[peer] = None
            elif not self.tree.attach(peer, ctx.now):
                self.tree.edges[peer].pruned_s = ctx.now
                ctx.send(self._at(peer), Prune())
            else:
                self._watch_by(ctx, ctx.now)
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
                    self._watch_by(ctx, ctx.now)
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

    def _hold_s(self, ctx: Context, peer: str, at_most_s: float) -> float:
        """On a channel, some wait for what others' asking brings to all."""
        return at_most_s * (0.5 + ctx.rng.random()) if peer in self.relay.peers else 0.0

    # ------------------------------------------------------------------------------------------------- helpers

    def _deliver(self, ctx: Context, item: Item) -> None:
        try:
            observation = Observation.decode(item.joined())
        except msgspec.DecodeError:
            ctx.emit(Discarded("?", "malformed"))
            return
        if self.config.subscriber:
            ctx.emit(Delivered(str(observation.id), item.hops))
        if self.config.deliver_to:
            ctx.send(address(ctx.device, self.config.deliver_to), Observed(observation))

    def _at(self, peer: str) -> Address:
        return f"{peer}/{self._name}"


def _bits(bitmap: bytes) -> list[int]:
    """Numbers of the bits that are set, ascending."""
    return [8 * i + bit for i, byte in enumerate(bitmap) for bit in range(8) if byte >> bit & 1]
