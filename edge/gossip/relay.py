"""Gossip on a shared channel, where a broadcast is one transmission that all in range hear.

Owns who relays for whom there, and what need not be said because it was heard. On a channel an edge of the
tree has no use: everybody in range of an origin hears it directly. So nobody relays until somebody who is
out of an origin's range asks for it (a Graft), and a relay is given up once it was redundant for a while; a
clique makes one transmission per item. Repeating what was heard is suppressed as in Trickle (RFC 6206
§4.2).
"""

from __future__ import annotations

from collections import OrderedDict

from edge.gossip.messages import ItemId

REDUNDANT_MAX = 16
"""Relayed items in a row that were here already before a relay is asked to stop."""
SAME_MAX = 2
"""Announcements that agree, heard since the last one made here, that make the next one needless."""
_AGAIN_S = 0.5
_SENT_MAX = 256


class Relay:
    """One node's part in relaying on its channel."""

    def __init__(self, peers: frozenset[str]) -> None:
        self.peers = peers
        """Who hears a broadcast."""
        self.needed_by: dict[str, None] = {}
        """Who asked this node to relay."""
        self._needs: dict[str, int] = {}
        """Whom this node asked, and redundant items in a row since."""
        self._same = 0
        self._sent: OrderedDict[tuple[ItemId, int], float] = OrderedDict()

    def needed(self, origin: str, source: str | None, own: bool) -> bool:
        """Whether to broadcast an item that came from `source`."""
        return own or any(peer not in (source, origin) for peer in self.needed_by)

    def needs(self, peer: str) -> None:
        """This node asks `peer` to relay."""
        self._needs[peer] = 0

    def useful(self, peer: str, hops: int) -> None:
        """`peer` was first with an item."""
        if hops > 1 and peer in self._needs:
            self._needs[peer] = 0

    def redundant(self, peer: str) -> bool:
        """`peer` relayed what was here; whether to ask it to stop."""
        if peer in self._needs:
            self._needs[peer] += 1
            if self._needs[peer] >= REDUNDANT_MAX:
                del self._needs[peer]
                return True
        return False

    def heard_the_same(self) -> None:
        """Somebody announced what would be announced here."""
        self._same += 1

    def announces(self) -> bool:
        """Whether to make the announcement that is due."""
        same, self._same = self._same, 0
        return bool(self.peers) and same < SAME_MAX

    def sends(self, item: ItemId, chunk: int, now: float) -> bool:
        """Whether to broadcast a chunk that is asked for: not if that was done just now."""
        before_s = self._sent.get((item, chunk))
        if before_s is not None and now - before_s < _AGAIN_S:
            return False
        self._sent[item, chunk] = now
        self._sent.move_to_end((item, chunk))
        if len(self._sent) > _SENT_MAX:
            self._sent.popitem(last=False)
        return True
