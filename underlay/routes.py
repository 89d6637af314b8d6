"""Routes over what is up: shortest paths by expected delay, the same on both fabrics, ties broken by name.

The weight of a hop is its delay plus the serialization of a 100-byte packet, plus the share lost as a
retransmission, so that a fast clean detour beats a slow lossy hop. Routes are recomputed
`route_convergence_s` after a change.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Collection

from underlay.link import LinkSpec
from underlay.network import Network

Routes = dict[str, dict[str, str]]
"""`routes[source][destination]` is the next hop, a neighbour of source; unreachable destinations are
absent."""

_PROBE_BYTES = 100
_LOSS_PENALTY_S = 1.0


def hop_weight(spec: LinkSpec) -> float:
    """Expected cost of one hop, seconds; always above 0."""
    serial_s = spec.airtime_s(_PROBE_BYTES)
    return (
        (spec.delay_ms * 1e-3 + serial_s) / max(1e-3, 1.0 - spec.loss_ratio)
        + _LOSS_PENALTY_S * spec.loss_ratio
        + 1e-6
    )


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
    arcs = _arcs(network, down, cut)
    wanted = [
        d.name for d in network.devices if d.name not in down and (sources is None or d.name in sources)
    ]
    return {source: _next_hops(arcs, source) for source in wanted}


def path(routes: Routes, source: str, destination: str) -> list[str] | None:
    """Devices passed from source to destination, both included; None where there is no route."""
    hops = [source]
    while hops[-1] != destination:
        following = routes.get(hops[-1], {}).get(destination)
        if following is None or following in hops:
            return None
        hops.append(following)
    return hops


def _arcs(
    network: Network, down: Collection[str], cut: Collection[tuple[str, str]]
) -> dict[str, list[tuple[str, float]]]:
    found: dict[str, list[tuple[str, float]]] = {device.name: [] for device in network.devices}

    def join(a: str, b: str, spec_of: Callable[[str], LinkSpec]) -> None:
        for source, target in ((a, b), (b, a)):
            if source not in down and target not in down and (source, target) not in cut:
                found[source].append((target, hop_weight(spec_of(source))))

    for link in network.links:
        join(link.a, link.b, link.spec_from)
    for channel in network.channels:
        for a, b in channel.pairs:
            join(a, b, lambda _, spec=channel.spec: spec)  # type: ignore[misc]
    return found


def _next_hops(arcs: dict[str, list[tuple[str, float]]], source: str) -> dict[str, str]:
    """Dijkstra; among equally short paths the one whose last hop sorts first."""
    best: dict[str, tuple[float, str]] = {}
    heap: list[tuple[float, str, str]] = [(0.0, source, "")]
    while heap:
        cost, device, first = heapq.heappop(heap)
        if device in best:
            continue
        best[device] = (cost, first)
        for target, weight in arcs[device]:
            if target not in best:
                heapq.heappush(heap, (cost + weight, target, first or target))
    return {device: first for device, (_, first) in best.items() if device != source}
