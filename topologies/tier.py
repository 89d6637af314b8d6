"""The storage tier's machines: hosts behind the sink, and how they hang on it.

Owns their names, places and edges. What runs on them is the key-value store's (`kv.tiers`), what their links
are like is the spec's (`[links.storage]`).
"""

from __future__ import annotations

from collections.abc import Iterator

from topologies.shapes import Edge, Layout, Place
from topologies.spec import StorageSettings


def with_storage(layout: Layout, storage: StorageSettings) -> Layout:
    """`layout` and the tier, where the spec names one: each host on the sink, and all of them in a ring.

    The sink is every host's way to the birdhouses, and no host is another's only way to the rest.
    """
    if storage.kind == "sink":
        return layout
    sink = next(place for place in layout.places if place.role == "sink")
    names = [f"store{n}" for n in range(1, storage.hosts + 1)]
    hosts = (Place(name, "storage", *_beside(sink, n, len(names))) for n, name in enumerate(names))
    return Layout((*layout.places, *hosts), (*layout.edges, *_edges(names, sink.name)))


def _edges(names: list[str], sink: str) -> Iterator[Edge]:
    yield from (Edge(name, sink) for name in names)
    around = zip(names, names[1:] + names[:1], strict=True)
    yield from (Edge(a, b) for n, (a, b) in enumerate(around) if len(names) > 2 or n == 0)


def _beside(sink: Place, n: int, count: int) -> tuple[float, float]:
    """In a column on the sink's right, outside of the square that the birdhouses live in."""
    spread = 0.0 if count == 1 else (n / (count - 1) - 0.5) * 0.6
    return max(1.1, sink.x + 0.14), round(min(0.8, max(0.2, sink.y)) + spread, 4)
