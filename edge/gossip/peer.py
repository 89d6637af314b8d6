"""The gossip node: eager push along a tree, lazy announcements, repair, and anti-entropy.

Source: Plumtree (Leitao, Pereira, Rodrigues: Epidemic Broadcast Trees, SRDS 2007) for the tree;
anti-entropy after Demers et al. (PODC 1987), with digests of sequence intervals in place of per-message
announcements, so that an IHAVE repairs what a peer missed yesterday as well as what was lost on the air a
moment ago.

Owns which neighbours are eager and lazy, what is missing and who was seen to have it, and the pacing of
repairs. What is held is in `edge.gossip.holdings`.
"""

from __future__ import annotations

import msgspec

from edge.events import Delivered, Discarded
from edge.gossip.holdings import Holdings
from edge.gossip.messages import GOSSIP_PROTOCOL, Gossip, Graft, IHave, PartId, Prune
from edge.observation import Observation, ObservationId, Observed
from underlay.messages import Message
from underlay.node import Address, Context, Node, Timer, address, device_of, in_range

ANNOUNCE = "announce"
GRAFT = "graft"
REPAIR = "repair"


class GossipConfig(msgspec.Struct, frozen=True):
    """Knobs of one gossip node."""

    neighbours: tuple[str, ...]
    """Devices in range, by name."""
    on_channel: frozenset[str] = frozenset()
    """Those of them that hear a broadcast; two or more eager ones among them are served by one
    transmission."""
    subscriber: bool = True
    """Whether arrivals here count as delivered."""
    deliver_to: str | None = None
    """A node on this device that gets every observation (the sink)."""
    eager_max: int = 4
    """Eager neighbours to begin with; the tree prunes and grafts from there."""
    announce_interval_s: float = 0.5
    """Between announcements; each goes to one lazy neighbour, in turn."""
    graft_timeout_s: float = 0.5
    """How long an announced part may take by the tree before it is asked for."""
    part_bytes: int = 1024
    """Larger observations travel in chunks of this size: one datagram on the usual MTU."""
    repair_parts: int = 8
    """Parts sent to one neighbour per `repair_interval_s` as repairs, so that a returning node is not
    drowned."""
    repair_interval_s: float = 0.1
    memory_bytes: int = 8_000_000
    """Data held for repairs; the oldest goes first. What was delivered is remembered regardless."""


class GossipPeer(Node):
    """One gossiping device. Neighbours run a node of the same name."""

    protocol = GOSSIP_PROTOCOL

    def __init__(self, config: GossipConfig) -> None:
        self.config = config
        self.holdings = Holdings(config.memory_bytes)
        self.eager: dict[str, None] = {}
        self._missing: dict[PartId, list[str]] = {}
        """Parts announced but not here, with who announced them, oldest announcement first."""
        self._repairs: dict[str, dict[PartId, None]] = {}
        self._turn = 0

    def on_start(self, ctx: Context) -> None:
        neighbours = list(self.config.neighbours)
        ctx.rng.shuffle(neighbours)
        self.eager = dict.fromkeys(neighbours[: self.config.eager_max])
        ctx.set_timer(ANNOUNCE, self.config.announce_interval_s * ctx.rng.random())

    def on_message(self, ctx: Context, sender: Address, message: Message) -> None:
        peer = device_of(sender)
        match message:
            case Gossip():
                self._on_gossip(ctx, peer, message)
            case Prune():
                self.eager.pop(peer, None)
            case Graft(parts, eager):
                if eager:
                    self.eager[peer] = None
                for wanted in parts:
                    for part in self.holdings.parts_of(wanted):
                        self._repair(ctx, peer, part)
            case IHave():
                self._on_ihave(ctx, peer, message)
            case Observed(observation):
                self._broadcast(ctx, observation)

    def on_timer(self, ctx: Context, timer: Timer) -> None:
        match timer:
            case "announce":
                self._announce(ctx)
            case "graft":
                self._graft(ctx)
            case "repair":
                self._send_repairs(ctx)

    # The tree

    def _broadcast(self, ctx: Context, observation: Observation) -> None:
        data = observation.encode()
        size = self.config.part_bytes
        chunks = [data[i : i + size] for i in range(0, len(data), size)]
        for index, chunk in enumerate(chunks):
            device, sequence = observation.id.device, observation.id.sequence
            self.holdings.add(PartId(device, sequence, index), len(chunks), chunk)
            self._push(ctx, Gossip(device, sequence, index, len(chunks), 1, chunk), exclude=None)
        if self.config.deliver_to:
            ctx.send(address(ctx.device, self.config.deliver_to), Observed(observation))

    def _on_gossip(self, ctx: Context, peer: str, gossip: Gossip) -> None:
        part = gossip.part
        if part in self.holdings:
            self.eager.pop(peer, None)
            ctx.send(self._at(ctx, peer), Prune())
            return
        self.eager[peer] = None
        self._missing.pop(part, None)
        whole = self.holdings.add(part, gossip.count, gossip.data)
        self._push(ctx, msgspec.structs.replace(gossip, hops=gossip.hops + 1), exclude=peer)
        if whole is not None:
            self._deliver(ctx, gossip, whole)

    def _push(self, ctx: Context, gossip: Gossip, exclude: str | None) -> None:
        targets = [peer for peer in self.eager if peer != exclude]
        heard = [peer for peer in targets if peer in self.config.on_channel]
        if len(heard) >= 2:
            ctx.send(in_range(self._name(ctx)), gossip)
            targets = [peer for peer in targets if peer not in self.config.on_channel]
        for peer in targets:
            ctx.send(self._at(ctx, peer), gossip)

    def _deliver(self, ctx: Context, gossip: Gossip, whole: bytes) -> None:
        name = str(ObservationId(gossip.device, gossip.sequence))
        try:
            observation = Observation.decode(whole)
        except msgspec.DecodeError:
            ctx.emit(Discarded(name, "malformed"))
            return
        if self.config.subscriber:
            ctx.emit(Delivered(name, gossip.hops))
        if self.config.deliver_to:
            ctx.send(address(ctx.device, self.config.deliver_to), Observed(observation))

    # Announcements and repair

    def _announce(self, ctx: Context) -> None:
        lazy = [peer for peer in self.config.neighbours if peer not in self.eager] or list(
            self.config.neighbours
        )
        if lazy:
            peer = lazy[self._turn % len(lazy)]
            self._turn += 1
            ctx.send(
                self._at(ctx, peer), IHave(self.holdings.digest(self.holdings.origins()), everything=True)
            )
        ctx.set_timer(ANNOUNCE, self.config.announce_interval_s)

    def _on_ihave(self, ctx: Context, peer: str, ihave: IHave) -> None:
        for origin in ihave.origins:
            for part in self.holdings.lacking(origin):
                announcers = self._missing.setdefault(part, [])
                if peer not in announcers:
                    announcers.append(peer)
        if self._missing:
            ctx.set_timer(GRAFT, self.config.graft_timeout_s)

    def _graft(self, ctx: Context) -> None:
        wanted: dict[str, list[PartId]] = {}
        for part, announcers in list(self._missing.items()):
            if part in self.holdings or self.holdings.whole(part.device, part.sequence) or not announcers:
                del self._missing[part]
            else:
                wanted.setdefault(announcers.pop(0), []).append(part)
        for peer, parts in wanted.items():
            self.eager[peer] = None
            ctx.send(self._at(ctx, peer), Graft(tuple(parts[:64]), eager=True))
        if self._missing:
            ctx.set_timer(GRAFT, self.config.graft_timeout_s)

    def _repair(self, ctx: Context, peer: str, part: PartId) -> None:
        if not self._repairs:
            ctx.set_timer(REPAIR, 0.0)
        self._repairs.setdefault(peer, {})[part] = None

    def _send_repairs(self, ctx: Context) -> None:
        for peer in list(self._repairs):
            queue = self._repairs[peer]
            for part in list(queue)[: self.config.repair_parts]:
                del queue[part]
                found = self.holdings.get(part)
                if found is not None:
                    count, data = found
                    ctx.send(
                        self._at(ctx, peer), Gossip(part.device, part.sequence, part.chunk, count, 1, data)
                    )
            if not queue:
                del self._repairs[peer]
        if self._repairs:
            ctx.set_timer(REPAIR, self.config.repair_interval_s)

    def _at(self, ctx: Context, peer: str) -> Address:
        return address(peer, self._name(ctx))

    def _name(self, ctx: Context) -> str:
        return ctx.address.partition("/")[2]
