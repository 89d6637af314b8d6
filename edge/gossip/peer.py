"""The gossip node: eager push along a tree, lazy announcements, repair, and anti-entropy.

Source: Plumtree (Leitao, Pereira, Rodrigues: Epidemic Broadcast Trees, SRDS 2007). Owns what happens to an
item: taken in, passed on, delivered. Where it goes is in `tree` and `overlay`, what is missing in `fetch`
and `exchange`, what is held in `holdings`; on a shared channel, who relays is in `relay`.
"""

from __future__ import annotations

import msgspec

from edge.events import Delivered, Discarded
from edge.gossip.config import GossipConfig
from edge.gossip.exchange import Exchange
from edge.gossip.holdings import Item
from edge.gossip.messages import CHUNKS_MAX, Gossip, Graft, IHave, ItemId, Offer, Prune
from edge.observation import Observation, Observed
from underlay.messages import Message
from underlay.node import Address, Context, Timer, address, device_of, in_range

__all__ = ["GossipConfig", "GossipPeer"]


class GossipPeer(Exchange):
    """One gossiping device. Neighbours run a node of the same name."""

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
        if gossip.count == 1:  # Chunks come when they are asked for: they say nothing about the tree.
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
        """A neighbour was first with an item: in the tree it becomes, or stays, eager (SRDS 2007, algorithm
        1)."""
        self.tree.count(ctx.now)
        if peer in self.relay.peers:
            self.relay.useful(peer, hops)
        elif eager:
            if peer not in self.tree.eager and not self.tree.attach(peer, ctx.now):
                self._prune(ctx, peer)
        elif peer not in self.tree.eager and self.tree.any_asked():
            self._helpers[peer] = self._helpers.get(peer, 0) + 1

    def _on_redundant(self, ctx: Context, peer: str, key: ItemId) -> None:
        """Along the tree came what is here already: where the tree brought it before, the edge closes a
        cycle."""
        first = self.holdings.items.get(key) or self.fetch.missing.get(key)
        if first is None or not first.eager or not self.tree.may_prune(key):
            return
        if peer in self.relay.peers:
            if self.relay.redundant(peer):
                ctx.send(self._at(peer), Prune())
        else:
            self._prune(ctx, peer)

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
