"""Routes over what is up: shortest paths by expected delay, the same on both fabrics, ties broken by name.

The weight of a hop is its delay plus the serialization of a 100-byte packet, plus the share lost as a
retransmission, so that a fast clean detour beats a slow lossy hop. Routes are recomputed
`route_convergence_s` after a change. Paths are found from the destination outwards, and only as far as the
sources that ask (Dijkstra 1959, resumed): where ten thousand devices talk to neighbours and to one sink, that
is all there is to know.
"""

from __future__ import annotations

import heapq
from collections.abc import Collection

from underlay.link import LinkSpec
from underlay.network import Network

Routes = dict[str, dict[str, str]]
"""`routes[source][destination]` is the next hop, a neighbour of source; the unreachable are absent."""

_PROBE_BYTES = 100
_LOSS_PENALTY_S = 1.0


def hop_weight(spec: LinkSpec) -> float:
    """Expected cost of one hop, seconds; always above 0."""
    serial_s = spec.airtime_s(_PROBE_BYTES)
    retransmission_s = _LOSS_PENALTY_S * spec.loss_ratio
    return (spec.delay_ms * 1e-3 + serial_s) / max(1e-3, 1.0 - spec.loss_ratio) + retransmission_s + 1e-6


def shortest_paths(
    network: Network,
    *,
    down: Collection[str] = (),
    cut: Collection[tuple[str, str]] = (),
    sources: Collection[str] | None = None,
) -> Routes:
    """Next hops from every live device (or `sources`) to every other.

    Args:
        down: devices that neither send nor forward.
        cut: directed hops `(from, to)` that pass nothing.
    """
    router = Router(network)
    router.change(down, cut)
    routes: Routes = {
        device.name: {}
        for device in network.devices
        if device.name not in down and (sources is None or device.name in sources)
    }
    for destination in network.devices:
        for source, table in routes.items():
            following = router.next_hop(source, destination.name)
            if following is not None:
                table[destination.name] = following
    return routes


def path(routes: Routes, source: str, destination: str) -> list[str] | None:
    """Devices passed from source to destination, both included; None where there is no route."""
    hops = [source]
    while hops[-1] != destination:
        following = routes.get(hops[-1], {}).get(destination)
        if following is None or following in hops:
            return None
        hops.append(following)
    return hops


class Router:
    """Next hops on demand over a network whose devices and hops go down and come back."""

    def __init__(self, network: Network) -> None:
        self._into = _arcs_into(network)
        self._down: frozenset[str] = frozenset()
        self._cut: frozenset[tuple[str, str]] = frozenset()
        self._trees: dict[str, _Tree] = {}

    @property
    def entries(self) -> int:
        """Routes found since the last change."""
        return sum(len(tree.next_hops) for tree in self._trees.values())

    def change(self, down: Collection[str] = (), cut: Collection[tuple[str, str]] = ()) -> None:
        """From now on `down` devices neither send nor forward and the directed hops `cut` pass nothing."""
        self._down = frozenset(down)
        self._cut = frozenset(cut)
        self._trees.clear()

    def next_hop(self, source: str, destination: str) -> str | None:
        """The neighbour of `source` on the shortest path to `destination`; None without a path."""
        tree = self._trees.get(destination)
        if tree is None:
            tree = self._trees[destination] = _Tree(destination)
        following = tree.next_hops.get(source)
        if following is None and tree.heap:
            following = self._grow(tree, source)
        return following or None

    def path(self, source: str, destination: str) -> list[str] | None:
        """Devices passed from source to destination, both included; None where there is no route."""
        hops = [source]
        while hops[-1] != destination:
            following = self.next_hop(hops[-1], destination)
            if following is None:
                return None
            hops.append(following)
        return hops

    def _grow(self, tree: _Tree, source: str) -> str | None:
        """Go on until `source` is reached; among equally short ways its neighbour that sorts first wins."""
        next_hops, heap, down, cut = tree.next_hops, tree.heap, self._down, self._cut
        while heap:
            cost_s, device, following = heapq.heappop(heap)
            if device in next_hops or device in down:
                continue
            next_hops[device] = following
            for before, weight_s in self._into[device]:
                if before not in next_hops and (before, device) not in cut:
                    heapq.heappush(heap, (cost_s + weight_s, before, device))
            if device == source:
                return following
        return None


class _Tree:
    """Shortest paths to one destination, as far as anybody asked; its own next hop is ''."""

    __slots__ = ("heap", "next_hops")

    def __init__(self, destination: str) -> None:
        self.next_hops: dict[str, str] = {}
        self.heap: list[tuple[float, str, str]] = [(0.0, destination, "")]


def _arcs_into(network: Network) -> dict[str, list[tuple[str, float]]]:
    """For each device its neighbours and what a hop from there costs."""
    found: dict[str, list[tuple[str, float]]] = {device.name: [] for device in network.devices}
    for link in network.links:
        found[link.b].append((link.a, hop_weight(link.forward)))
        found[link.a].append((link.b, hop_weight(link.backward)))
    for channel in network.channels:
        weight_s = hop_weight(channel.spec)
        for a, b in channel.pairs:
            found[b].append((a, weight_s))
            found[a].append((b, weight_s))
    return found
