"""Which neighbours are eager: one node's share of the broadcast tree.

Owns the edges to neighbours on point-to-point links, what each was last heard to say, and when its silence is
suspicious; sends nothing. Plumtree (SRDS 2007) leaves the choice of the first tree and the detection of
failed edges to the membership protocol below it. Here the neighbours are those in range, so:

- The first tree is read off the neighbours' names. A node joins its best-ranked neighbour, or one of the
  next best where those would have too many children; ranks fall along every edge, so there is no cycle to
  prune. Where everybody is in range of everybody that is one tree of the least depth that `eager_max`
  allows; elsewhere it is a forest that announcements join.
- An edge is suspected when it has been silent for `PATIENCE` times its mean gap (for Poisson arrivals that
  is a false alarm once in e^6 = 400 gaps), and dead when it does not answer either.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from math import inf
from typing import TYPE_CHECKING
from zlib import crc32

from edge.gossip.messages import ItemId

if TYPE_CHECKING:
    from random import Random

PATIENCE = 6.0
SILENCE_MIN_S = 0.3
SILENCE_MAX_S = 10.0
RETRY_MIN_S = 1.0
RETRY_MAX_S = 60.0
PRUNING_ONE_IN_MAX = 1024
PRUNING_S = 2.0
"""Mean time between items that prune; many times what an item takes to reach everybody."""
_GAP_WEIGHT = 1 / 32


class Edge:
    """What is known of one neighbour."""

    __slots__ = (
        "asked_s", "due_s", "eager", "failures", "fed_s", "feeds", "gap_s", "heard_s", "pruned_s", "quiet",
        "retry_s",
    )  # fmt: skip

    def __init__(self, now: float) -> None:
        self.eager = False
        self.heard_s = now
        """Last sign of life."""
        self.fed_s = 0.0
        """When it last passed an item, or became eager."""
        self.gap_s = SILENCE_MAX_S / PATIENCE
        """Mean time between such messages; a guess before there are any."""
        self.feeds = 0
        """Messages behind that mean."""
        self.due_s = inf
        """When its silence becomes suspicious."""
        self.quiet = 0
        """Times that it was found to live since, and to have nothing to pass."""
        self.asked_s: float | None = None
        """When it was asked for a sign of life that has not come yet."""
        self.pruned_s = -inf
        self.failures = 0
        """Times in a row that it did not answer."""
        self.retry_s = -inf
        """Until when it is left alone, being thought dead."""

    def silence_max_s(self) -> float:
        """How long it may say nothing before that is suspicious."""
        patient_s: float = max(SILENCE_MIN_S, PATIENCE * self.gap_s) * 2**self.quiet
        return min(SILENCE_MAX_S, patient_s)


class Tree:
    """The edges of one node."""

    def __init__(self, neighbours: Sequence[str], eager_max: int, now: float, rng: Random) -> None:
        self.edges = {peer: Edge(now) for peer in neighbours}
        self.eager: dict[str, None] = {}
        self._eager_max = eager_max
        self._items = 0
        self._item_s = 0.0
        self._item_gap_s = inf
        self._turns = list(self.edges)
        """Everybody, who was talked to last, last; at first in an order of this node's own."""
        rng.shuffle(self._turns)

    def first_choices(self, device: str) -> list[str]:
        """Whom to make eager at the start: with few neighbours all of them, otherwise the parent by rank."""
        if len(self.edges) <= self._eager_max:
            return list(self.edges)
        better = sorted(peer for peer in map(_rank, self.edges) if peer < _rank(device))
        return [better[_parent(len(better), self._eager_max - 1)][1]] if better else []

    def count(self, now: float) -> None:
        """An item is new here."""
        self._items += 1
        if self._items == 2:
            self._item_gap_s = now - self._item_s
        elif self._items > 2:
            self._item_gap_s += (now - self._item_s - self._item_gap_s) * max(_GAP_WEIGHT, 1 / self._items)
        self._item_s = now

    def may_prune(self, item: ItemId) -> bool:
        """Whether a cycle that the item went round may be cut where it closed.

        Two items from different origins close the same cycle at different edges, and cut both ends off if
        both prune. So only one item in 1, 2, 4, ... may, as all agree: one in `PRUNING_S`, on average.
        """
        one_in = 1
        while one_in * self._item_gap_s < PRUNING_S and one_in < PRUNING_ONE_IN_MAX:
            one_in *= 2
        return not ((item.stream.epoch + item.number) * 0x9E3779B1 & 0xFFFFFFFF) >> 12 & one_in - 1

    def attach(self, peer: str, now: float) -> bool:
        """Make the edge eager, where there is room."""
        edge = self.edges[peer]
        if not edge.eager:
            if len(self.eager) >= self._eager_max:
                return False
            edge.eager = True
            edge.fed_s = now
            edge.gap_s = SILENCE_MAX_S / PATIENCE
            edge.feeds = edge.quiet = 0
            edge.due_s = now + edge.silence_max_s()
            edge.asked_s = None
            self.eager[peer] = None
        return True

    def detach(self, peer: str) -> None:
        """Make the edge lazy."""
        self.edges[peer].eager = False
        self.eager.pop(peer, None)

    def fed(self, peer: str, now: float) -> float:
        """An item came; when its silence from now on would be suspicious."""
        edge = self.edges.get(peer)
        if edge is not None and edge.eager:
            edge.feeds += 1
            gap_s = min(now - edge.fed_s, edge.silence_max_s())
            edge.gap_s += max(_GAP_WEIGHT, 1 / edge.feeds) * (gap_s - edge.gap_s)
            edge.fed_s = now
            edge.quiet = 0
            edge.due_s = now + edge.silence_max_s()
            return edge.due_s
        return inf

    def heard(self, peer: str, now: float) -> float | None:
        """Any message came; the seconds since it was asked for one, if it was."""
        edge = self.edges[peer]
        edge.heard_s = now
        edge.failures = 0
        edge.retry_s = -inf
        if edge.asked_s is None:
            return None
        asked_s, edge.asked_s = edge.asked_s, None
        # It lives, and was silent for want of something to say.
        edge.quiet += 1
        edge.due_s = now + edge.silence_max_s()
        return now - asked_s

    def asked(self, peer: str, now: float) -> None:
        """It was asked for a sign of life."""
        edge = self.edges[peer]
        if edge.asked_s is None:
            edge.asked_s = now

    def suspects(self, now: float) -> list[str]:
        """Eager neighbours that have been silent for too long and were not asked yet."""
        return [
            peer for peer in self.eager if (edge := self.edges[peer]).asked_s is None and now >= edge.due_s
        ]

    def any_asked(self) -> bool:
        """Whether an eager neighbour is suspected."""
        return any(self.edges[peer].asked_s is not None for peer in self.eager)

    def take_dead(self, now: float, answer_s: float) -> list[str]:
        """Neighbours, eager or not, that did not answer within `answer_s`: they are lazy and left alone for a
        while now. The eager ones among them are returned."""
        dead = []
        for peer, edge in self.edges.items():
            if edge.asked_s is not None and now - edge.asked_s >= answer_s:
                if edge.eager:
                    dead.append(peer)
                    self.detach(peer)
                edge.asked_s = None
                edge.retry_s = now + min(RETRY_MAX_S, RETRY_MIN_S * 2**edge.failures)
                edge.failures += 1
        return dead

    def next_check_s(self, answer_s: float) -> float:
        """When `suspects` or `take_dead` may have something to say next; infinite for never."""
        due_s = inf
        for edge in self.edges.values():
            if edge.asked_s is not None:
                due_s = min(due_s, edge.asked_s + answer_s)
            elif edge.eager:
                due_s = min(due_s, edge.due_s)
        return due_s

    def next_turn(self, now: float, at_most: int, *, lazy_only: bool = False) -> list[str]:
        """Whose turn it is: neighbours not thought dead, longest not talked to first."""
        chosen = list(islice(self._talkable(now, lazy_only), at_most))
        if chosen:
            self._turns = [peer for peer in self._turns if peer not in chosen] + chosen
        return chosen

    def is_forgotten(self, peer: str, now: float, turn_s: float) -> bool:
        """Whether it has been silent for so long that it may be dead, where every `turn_s` one has its
        turn."""
        return now - self.edges[peer].heard_s > max(SILENCE_MAX_S, 3 * turn_s * len(self.edges))

    def _talkable(self, now: float, lazy_only: bool) -> Iterator[str]:
        for peer in self._turns:
            edge = self.edges[peer]
            if edge.retry_s <= now and not (lazy_only and edge.eager):
                yield peer


def _parent(position: int, arity: int) -> int:
    """Of a node in a tree that is filled level by level, each level evenly; position 0 is the root.

    >>> [_parent(position, 2) for position in range(1, 7)]
    [0, 0, 1, 2, 1, 2]
    """
    start, above, size = 1, 0, 1
    while position >= start + size * arity:
        start, above, size = start + size * arity, start, size * arity
    return above + (position - start) % size


def _rank(device: str) -> tuple[int, str]:
    """By a hash, so that the load of the root does not follow from how people number devices."""
    return crc32(device.encode()), device
