"""Shapes: where the machines stand and who can hear whom. A shape is a few parameters and one function to a
`Layout`.

Owns places, roles and edges; knows no link parameters (`topologies.topology` puts profiles on the edges).
Every layout has the same cast, so that every architecture and every fault finds its machines: birdhouses
`cam1..camN`, one `hub`, `relay1..relayK`, and a `sink`, a machine of its own that is attached in two places.

    >>> layout = Tree(birdhouses=4, relays=2).layout(seed=1)
    >>> [place.name for place in layout.places]
    ['hub', 'relay1', 'relay2', 'cam1', 'cam2', 'cam3', 'cam4', 'sink']
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from math import ceil, cos, hypot, isqrt, pi, sin
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from topologies.graph import hops_from, two_disjoint_paths
from underlay.errors import InputError
from underlay.network import seeded

Role = Literal["birdhouse", "relay", "hub", "sink", "storage"]

HUB = "hub"
SINK = "sink"

Count = Annotated[int, msgspec.Meta(ge=0, le=100_000)]
Positive = Annotated[int, msgspec.Meta(ge=1, le=100_000)]
Metres = Annotated[float, msgspec.Meta(gt=0)]


class Place(msgspec.Struct, frozen=True):
    """A machine in the plane; x and y in the unit square."""

    name: str
    role: Role
    x: float
    y: float
    settings: dict[str, Any] = {}
    """What the shape itself knows of the device (a GraphML file's attributes): keys of `[[device]]`."""


class Edge(msgspec.Struct, frozen=True):
    """Two machines that hear each other. `a` is the one further from the sink."""

    a: str
    b: str
    settings: dict[str, Any] = {}
    """What the shape itself knows of the link: keys of `[links.*]`."""


class Layout(msgspec.Struct, frozen=True):
    """What a shape makes."""

    places: tuple[Place, ...]
    edges: tuple[Edge, ...]


class Shape(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag_field="shape"):
    """What all shapes have in common."""

    sink_at: tuple[str, ...] = ()
    """Devices the sink is attached to; empty is the shape's own choice of two."""

    def layout(self, seed: int, folder: Path = Path()) -> Layout:
        """Places and edges. `seed` matters to random shapes only; `folder` is where relative file names
        start."""
        plain = self.plain(seed, folder)
        places, edges = list(plain.places), list(plain.edges)
        if all(place.role != "sink" for place in places):
            places.append(Place(SINK, "sink", *_beside(places)))
            sink_at = self.sink_at or (_two_footholds(plain) if plain.edges else ())
            edges += [Edge(device, SINK) for device in sink_at]
        else:
            sink = next(place.name for place in places if place.role == "sink")
            edges += [Edge(device, sink) for device in self.sink_at]
        return Layout(tuple(places), tuple(_towards_sink(places, edges)))

    def plain(self, seed: int, folder: Path) -> Layout:
        """The shape without its sink."""
        raise AssertionError("a shape defines plain()")  # unreachable: msgspec only builds tagged shapes


class Cast(Shape, frozen=True, kw_only=True):
    """A shape that makes its own machines."""

    birdhouses: Positive = 12
    relays: Count = 2
    """Machines between the birdhouses and the hub; the cache nodes of the caching architecture."""


class Star(Cast, frozen=True, tag="star", kw_only=True):
    """Every birdhouse hears the hub, and one relay where there are any."""

    relays: Count = 0

    def plain(self, seed: int, folder: Path) -> Layout:
        places = [Place(HUB, "hub", 0.5, 0.5)]
        places += [
            Place(f"relay{k}", "relay", *_on_circle(k, self.relays, 0.2)) for k in _numbers(self.relays)
        ]
        places += [
            Place(f"cam{i}", "birdhouse", *_on_circle(i, self.birdhouses, 0.42))
            for i in _numbers(self.birdhouses)
        ]
        edges = [Edge(f"relay{k}", HUB) for k in _numbers(self.relays)]
        for i in _numbers(self.birdhouses):
            edges.append(Edge(f"cam{i}", HUB))
            if self.relays:
                edges.append(Edge(f"cam{i}", f"relay{1 + (i - 1) * self.relays // self.birdhouses}"))
        return Layout(tuple(places), tuple(edges))


class Tree(Cast, frozen=True, tag="tree", kw_only=True):
    """The hub, relays below it level by level, birdhouses below the relays."""

    branching: Positive = 4
    """Relays below the hub, and below each relay."""
    uplinks: Positive = 1
    """Relays that each birdhouse hears."""
    ring: bool = False
    """Whether relays also hear their neighbours, so that the tree survives its root."""

    def plain(self, seed: int, folder: Path) -> Layout:
        parents = {
            1 + k: (0 if k < self.branching else 1 + (k - self.branching) // self.branching)
            for k in range(self.relays)
        }
        names = [HUB, *(f"relay{k}" for k in _numbers(self.relays))]
        depth = [0]
        for k in _numbers(self.relays):
            depth.append(depth[parents[k]] + 1)
        levels = max(depth) + 1
        places = [Place(HUB, "hub", 0.5, 0.08)]
        for k in _numbers(self.relays):
            level = [other for other in _numbers(self.relays) if depth[other] == depth[k]]
            places.append(
                Place(names[k], "relay", (level.index(k) + 0.5) / len(level), 0.08 + 0.84 * depth[k] / levels)
            )
        edges = [Edge(names[k], names[parent]) for k, parent in parents.items()]
        if self.ring and self.relays > 1:
            around = [f"relay{k}" for k in _numbers(self.relays)]
            tied = {frozenset((edge.a, edge.b)) for edge in edges}
            pairs = [*pairwise(around), *([(around[-1], around[0])] if self.relays > 2 else [])]
            edges += [Edge(a, b) for a, b in pairs if frozenset((a, b)) not in tied]
        for i in _numbers(self.birdhouses):
            places.append(Place(f"cam{i}", "birdhouse", (i - 0.5) / self.birdhouses, 0.92))
            first = (i - 1) * self.relays // self.birdhouses
            reach = min(self.uplinks, self.relays)
            parents_of_cam = [f"relay{1 + (first + n) % self.relays}" for n in range(reach)] or [HUB]
            edges += [Edge(f"cam{i}", parent) for parent in parents_of_cam]
        return Layout(tuple(places), tuple(edges))


class Line(Cast, frozen=True, tag="line", kw_only=True):
    """One after another from the hub, relays evenly among the birdhouses; the sink is attached at both
    ends."""

    def plain(self, seed: int, folder: Path) -> Layout:
        order = [HUB, *_mixed(self.birdhouses, self.relays)]
        places = [
            Place(name, _role(name), 0.05 + 0.9 * n / max(1, len(order) - 1), 0.5)
            for n, name in enumerate(order)
        ]
        return Layout(tuple(places), tuple(Edge(b, a) for a, b in pairwise(order)))


class Ring(Cast, frozen=True, tag="ring", kw_only=True):
    """A closed line."""

    def plain(self, seed: int, folder: Path) -> Layout:
        order = [HUB, *_mixed(self.birdhouses, self.relays)]
        places = [
            Place(name, _role(name), *_on_circle(n + 1, len(order), 0.42)) for n, name in enumerate(order)
        ]
        edges = [Edge(b, a) for a, b in pairwise(order)]
        if len(order) > 2:
            edges.append(Edge(order[-1], order[0]))
        return Layout(tuple(places), tuple(edges))


class Grid(Cast, frozen=True, tag="grid", kw_only=True):
    """Rows and columns, each machine hearing those beside, above and below it; the hub in the middle."""

    columns: Count = 0
    """0 makes it about square."""

    def plain(self, seed: int, folder: Path) -> Layout:
        others = _mixed(self.birdhouses, self.relays)
        total = len(others) + 1
        columns = self.columns or isqrt(total - 1) + 1
        rows = ceil(total / columns)
        middle = min(total - 1, (rows // 2) * columns + columns // 2)
        order = [*others[:middle], HUB, *others[middle:]]
        places = [
            Place(name, _role(name), (n % columns + 0.5) / columns, (n // columns + 0.5) / rows)
            for n, name in enumerate(order)
        ]
        edges = [Edge(order[n], order[n + 1]) for n in range(total - 1) if (n + 1) % columns]
        edges += [Edge(order[n], order[n + columns]) for n in range(total - columns)]
        return Layout(tuple(places), tuple(edges))


class Geometric(Cast, frozen=True, tag="geometric", kw_only=True):
    """Birdhouses at random places, the hub in the middle, relays around it; whoever is in radio range hears
    each other."""

    side_m: Metres = 100.0
    range_m: Metres = 40.0

    def plain(self, seed: int, folder: Path) -> Layout:
        rng = seeded(seed, "shape", "geometric")
        places = [Place(HUB, "hub", 0.5, 0.5)]
        places += [
            Place(f"relay{k}", "relay", *_on_circle(k, self.relays, 0.28)) for k in _numbers(self.relays)
        ]
        places += [
            Place(f"cam{i}", "birdhouse", rng.random(), rng.random()) for i in _numbers(self.birdhouses)
        ]
        reach = self.range_m / self.side_m
        edges = [Edge(places[i].name, places[j].name) for i, j in _in_range(places, reach)]
        if not _connected(places, reach):
            needed_m = _range_that_connects(places) * self.side_m
            raise InputError(
                f"range_m = {self.range_m:g} leaves birdhouses out of everybody's range",
                key="network.range_m",
                hint=f"{needed_m:.1f} m would connect them with this seed",
            )
        return Layout(tuple(places), tuple(edges))


class GraphML(Shape, frozen=True, tag="graphml", kw_only=True):
    """Any GraphML file. Nodes may carry `role`, `profile`, `x`, `y`; edges any key of `[links.*]`.

    A node without a role is what its name says (`cam7`, `relay1`, `hub`, `sink`), else a birdhouse. Without a
    hub, the most central machine (betweenness) plays it; without a sink, one is added at the hub and the next
    central machine.
    """

    file: str
    hub: str = ""
    """The node that plays the hub."""

    def plain(self, seed: int, folder: Path) -> Layout:
        from topologies.graphml import read_graphml

        return read_graphml(folder / self.file, self.hub)


class Custom(Cast, frozen=True, tag="custom", kw_only=True):
    """The cast without any edge: every link is a `[[link]]` or a `[[channel]]` of the spec."""

    def plain(self, seed: int, folder: Path) -> Layout:
        order = [HUB, *_mixed(self.birdhouses, self.relays)]
        places = (
            Place(name, _role(name), *_on_circle(n + 1, len(order), 0.42)) for n, name in enumerate(order)
        )
        return Layout(tuple(places), ())


AnyShape = Star | Tree | Line | Ring | Grid | Geometric | GraphML | Custom

SHAPES: dict[str, type[Shape]] = {
    str(shape.__struct_config__.tag): shape
    for shape in (Star, Tree, Line, Ring, Grid, Geometric, GraphML, Custom)
}
"""By the name a spec gives."""


def _two_footholds(plain: Layout) -> tuple[str, ...]:
    """Where the sink goes by default: the hub, and the last relay with which it has two disjoint paths, else
    the birdhouse furthest from the hub, with which it always has, if there is any at all."""
    hub = next(place.name for place in plain.places if place.role == "hub")
    birdhouses = [place.name for place in plain.places if place.role == "birdhouse"]
    pairs = [(edge.a, edge.b) for edge in plain.edges]
    for place in reversed(plain.places):
        if place.role == "relay" and two_disjoint_paths(
            [*pairs, (hub, SINK), (place.name, SINK)], birdhouses, SINK
        ):
            return hub, place.name
    hops = hops_from(pairs, hub)
    return hub, max(reversed(birdhouses), key=lambda name: hops.get(name, 0))


def _towards_sink(places: list[Place], edges: list[Edge]) -> Iterator[Edge]:
    sink = next(place.name for place in places if place.role == "sink")
    hops = hops_from(((edge.a, edge.b) for edge in edges), sink)
    far = len(places)
    for edge in edges:
        turned = hops.get(edge.a, far) < hops.get(edge.b, far)
        yield Edge(edge.b, edge.a, edge.settings) if turned else edge


def _numbers(count: int) -> range:
    return range(1, count + 1)


def _role(name: str) -> Role:
    if name == HUB:
        return "hub"
    return "relay" if name.startswith("relay") else "birdhouse"


def _on_circle(number: int, count: int, radius: float) -> tuple[float, float]:
    angle = 2 * pi * (number - 1) / max(1, count) - pi / 2
    return round(0.5 + radius * cos(angle), 4), round(0.5 + radius * sin(angle), 4)


def _beside(places: list[Place]) -> tuple[float, float]:
    """A spot for the sink: beside the hub, off the others."""
    hub = next(place for place in places if place.role == "hub")
    return min(0.98, round(hub.x + 0.13, 4)), max(0.02, round(hub.y - 0.11, 4))


def _mixed(birdhouses: int, relays: int) -> list[str]:
    """Relays spread evenly among the birdhouses, one after each equal share.

    >>> _mixed(4, 2)
    ['cam1', 'relay1', 'cam2', 'cam3', 'relay2', 'cam4']
    """
    after: dict[int, list[str]] = {}
    for k in _numbers(relays):
        after.setdefault(round((k - 0.5) * birdhouses / relays), []).append(f"relay{k}")
    order = list(after.get(0, []))
    for i in _numbers(birdhouses):
        order += [f"cam{i}", *after.get(i, [])]
    return order


def _in_range(places: list[Place], reach: float) -> Iterator[tuple[int, int]]:
    """Index pairs at most `reach` apart, by way of square cells of that size."""
    cells: dict[tuple[int, int], list[int]] = {}
    for j, place in enumerate(places):
        column, row = int(place.x / reach), int(place.y / reach)
        for near in ((column + dx, row + dy) for dx in (-1, 0, 1) for dy in (-1, 0, 1)):
            for i in cells.get(near, ()):
                if hypot(places[i].x - place.x, places[i].y - place.y) <= reach:
                    yield i, j
        cells.setdefault((column, row), []).append(j)


def _connected(places: list[Place], reach: float) -> bool:
    pairs = ((places[i].name, places[j].name) for i, j in _in_range(places, reach))
    return len(hops_from(pairs, places[0].name)) == len(places)


def _range_that_connects(places: list[Place]) -> float:
    """The smallest range that connects all, rounded up to a thousandth of the side (bisection)."""
    low, high = 0, 1415
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if _connected(places, middle / 1000) else (middle, high)
    return high / 1000
