"""Reads a GraphML file (brandes et al., graphdrawing.org) as a layout: the Topology Zoo's files and your
own."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import ParseError

from topologies.profiles import unknown
from topologies.shapes import HUB, SINK, Edge, Layout, Place, Role
from topologies.spec import LinkSettings
from underlay.errors import InputError

_DEVICE_KEYS = {"profile", "battery_j", "cpu_share", "memory_mb", "clock_offset_s", "drift_ppm"}
_LINK_KEYS = set(LinkSettings.__struct_fields__) - {"opportunities_file"}


def read_graphml(path: Path, hub: str) -> Layout:
    """Places and edges, with a sink if the file has one.

    Raises InputError where the file is missing, no GraphML, or has no node called `hub`.
    """
    import networkx as nx

    try:
        graph: nx.Graph[str] = nx.Graph(nx.read_graphml(path))
    except (OSError, ParseError, nx.NetworkXError) as error:
        raise InputError(f"cannot read {path} as GraphML: {error}", key="network.file") from error
    if not graph.number_of_nodes():
        raise InputError(f"{path} has no nodes", key="network.file")
    names = _device_names(graph)
    graph = nx.relabel_nodes(graph, names)
    graph.remove_edges_from(list(nx.selfloop_edges(graph)))

    if hub:
        wanted = names.get(hub, _clean(hub))
        if wanted not in graph:
            raise unknown("node", hub, graph.nodes, "network.hub")
        hub = wanted
    roles = {name: _role_of(name, data) for name, data in graph.nodes(data=True)}
    if not hub:
        centrality = nx.betweenness_centrality(graph)
        central = min(graph.nodes, key=lambda name: (-centrality[name], name))
        hub = next((name for name in graph.nodes if roles[name] == "hub"), central)
    roles[hub] = "hub"

    places = tuple(
        Place(name, roles[name], *position, settings=_kept(graph.nodes[name], _DEVICE_KEYS))
        for name, position in _positions(graph).items()
    )
    return Layout(places, tuple(Edge(a, b, _kept(data, _LINK_KEYS)) for a, b, data in graph.edges(data=True)))


def _clean(name: object) -> str:
    return re.sub(r"[^A-Za-z0-9_]+", "_", str(name)).strip("_").lower() or "node"


def _device_names(graph: Any) -> dict[str, str]:
    """Node ids to device names: the label where there is one, made safe and unique."""
    names: dict[str, str] = {}
    taken: dict[str, int] = {}
    for node, data in graph.nodes(data=True):
        base = _clean(data.get("label") or node)
        taken[base] = taken.get(base, 0) + 1
        names[node] = base if taken[base] == 1 else f"{base}_{taken[base]}"
    return names


def _role_of(name: str, data: dict[str, Any]) -> Role:
    role: Any = data.get("role") or re.sub(r"\d+$", "", name)
    known: dict[str, Role] = {"relay": "relay", HUB: "hub", SINK: "sink"}
    return known.get(role, "birdhouse")


def _kept(data: dict[str, Any], keys: set[str]) -> dict[str, Any]:
    return {key: value for key, value in data.items() if key in keys}


def _positions(graph: Any) -> dict[str, tuple[float, float]]:
    """From the file (x/y, or the Topology Zoo's Longitude/Latitude) scaled to the unit square, else a spring
    layout."""
    import networkx as nx

    for across, up, sign in (("x", "y", 1.0), ("Longitude", "Latitude", -1.0)):
        if all(across in data and up in data for _, data in graph.nodes(data=True)):
            raw = {
                name: (float(data[across]), sign * float(data[up])) for name, data in graph.nodes(data=True)
            }
            break
    else:
        raw = {name: (float(x), float(y)) for name, (x, y) in nx.spring_layout(graph, seed=1).items()}
    lows = [min(point[axis] for point in raw.values()) for axis in (0, 1)]
    spans = [max(point[axis] for point in raw.values()) - lows[axis] or 1.0 for axis in (0, 1)]

    def scaled(point: tuple[float, float], axis: int) -> float:
        return round(0.05 + 0.9 * (point[axis] - lows[axis]) / spans[axis], 4)

    return {name: (scaled(point, 0), scaled(point, 1)) for name, point in raw.items()}
