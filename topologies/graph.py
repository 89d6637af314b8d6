"""The two questions that a physical graph is asked: how far, and whether one machine lies on all paths."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence


def hops_from(edges: Iterable[tuple[str, str]], start: str) -> dict[str, int]:
    """Hops from `start` to everything that it reaches."""
    hops: dict[str, int] = {}
    for device, parent in _reached(_peers(edges), start).items():
        hops[device] = hops[parent] + 1 if parent else 0
    return hops


def two_disjoint_paths(edges: Iterable[tuple[str, str]], birdhouses: Sequence[str], sink: str) -> bool:
    """Whether the sink has two paths to birdhouses that share no machine.

    It has unless one machine lies on all paths (Menger's theorem), and then it lies on the shortest as well.
    """
    peers = _peers(edges)
    parents = _reached(peers, sink)
    nearest = next((device for device in parents if device in set(birdhouses)), None)
    if nearest is None:
        return False
    on_shortest = [nearest]
    while parents[on_shortest[-1]] != sink:
        on_shortest.append(parents[on_shortest[-1]])
    if len(birdhouses) == 1:  # the one birdhouse is the end of both paths
        on_shortest.remove(nearest)
        if not on_shortest:
            peers[sink].remove(nearest)
            return nearest in _reached(peers, sink)
    return all(
        any(birdhouse != device and birdhouse in rest for birdhouse in birdhouses)
        for device in on_shortest
        for rest in [_reached(peers, sink, without=device)]
    )


def _peers(edges: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    peers: dict[str, list[str]] = {}
    for a, b in edges:
        peers.setdefault(a, []).append(b)
        peers.setdefault(b, []).append(a)
    return peers


def _reached(peers: dict[str, list[str]], start: str, without: str = "") -> dict[str, str]:
    """Everything that `start` reaches, nearest first, with the machine it is reached from; breadth first."""
    found = {start: ""}
    queue = deque([start])
    while queue:
        device = queue.popleft()
        for peer in peers.get(device, ()):
            if peer not in found and peer != without:
                found[peer] = device
                queue.append(peer)
    return found
