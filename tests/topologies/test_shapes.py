"""Shapes and the networks made of them: the same cast everywhere, connected, the sink on two disjoint
paths."""

from __future__ import annotations

from math import hypot
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import networkx as nx
import pytest
from hypothesis import given, settings

from topologies.graph import hops_from, two_disjoint_paths
from topologies.shapes import (
    Custom,
    Geometric,
    Grid,
    Line,
    Ring,
    Shape,
    Star,
    Tree,
)
from topologies.spec import ExplicitChannel, ExplicitLink, LinkClass, Links, RadioLinks, Spec
from topologies.topology import Topology, build_topology
from underlay.errors import InputError

COUNTS: dict[str, Any] = {"birdhouses": st.integers(1, 40), "relays": st.integers(0, 6)}
SHAPES = st.one_of(
    st.builds(Star, **COUNTS),
    st.builds(Tree, **COUNTS, branching=st.integers(1, 5), uplinks=st.integers(1, 3), ring=st.booleans()),
    st.builds(Line, **COUNTS),
    st.builds(Ring, **COUNTS),
    st.builds(Grid, **COUNTS, columns=st.integers(0, 9)),
    st.builds(Geometric, **COUNTS, range_m=st.just(150.0)),
)


def topology_of(shape: Any, **spec: Any) -> Topology:
    return build_topology(Spec(network=shape, **spec))


def graph_of(topology: Topology) -> Any:
    return nx.Graph(list(topology.network.edges()))


@given(shape=SHAPES, seed=st.integers(0, 1000))
@settings(max_examples=60)
def test_every_shape_has_the_whole_cast(shape: Any, seed: int) -> None:
    """Birdhouses, relays, one hub and one sink, each at a place of its own within the picture."""
    layout = shape.layout(seed)
    names = [place.name for place in layout.places]
    expected = {"hub", "sink"}
    expected |= {f"cam{i}" for i in range(1, shape.birdhouses + 1)}
    expected |= {f"relay{k}" for k in range(1, shape.relays + 1)}
    assert len(names) == len(set(names))
    assert set(names) == expected
    assert all(0 <= place.x <= 1 and 0 <= place.y <= 1 for place in layout.places)
    pairs = [frozenset((edge.a, edge.b)) for edge in layout.edges]
    assert len(pairs) == len(set(pairs))


@given(shape=SHAPES, seed=st.integers(0, 1000))
@settings(max_examples=60)
def test_every_network_is_fair(shape: Shape, seed: int) -> None:
    """It is connected, and no single machine but the sink's own lies on all paths to it."""
    topology = build_topology(Spec(network=shape, seed=seed))  # type: ignore[arg-type]
    graph = graph_of(topology)
    assert nx.is_connected(graph)
    for device in topology.roles:
        if device != topology.sink and (device,) != topology.birdhouses:
            rest = graph.copy()
            rest.remove_node(device)
            reached = nx.node_connected_component(rest, topology.sink)
            assert any(cam in reached for cam in topology.birdhouses if cam != device), device


@given(shape=SHAPES, seed=st.integers(0, 1000))
@settings(max_examples=60)
def test_links_point_towards_the_sink(shape: Shape, seed: int) -> None:
    """So that the forward direction of a profile is the uplink."""
    layout = shape.layout(seed)
    hops = hops_from(((edge.a, edge.b) for edge in layout.edges), "sink")
    assert all(hops[edge.a] >= hops[edge.b] for edge in layout.edges)


@given(shape=SHAPES, seed=st.integers(0, 1000))
@settings(max_examples=40)
def test_single_points_of_failure_are_those_that_cut_birdhouses_off(shape: Shape, seed: int) -> None:
    """Held against taking each machine out in turn."""
    topology = build_topology(Spec(network=shape, seed=seed))  # type: ignore[arg-type]
    expected = {}
    for device in topology.roles:
        if device == topology.sink:
            continue
        edges = [pair for pair in topology.network.edges() if device not in pair]
        reached = hops_from(edges, topology.sink)
        if lost := sum(1 for cam in topology.birdhouses if cam != device and cam not in reached):
            expected[device] = lost
    assert topology.single_points_of_failure() == expected


@given(seed=st.integers(0, 10_000), count=st.integers(1, 60), range_m=st.floats(15, 120))
@settings(max_examples=50)
def test_geometric_links_are_exactly_those_in_range(seed: int, count: int, range_m: float) -> None:
    """Or an error says which range would connect them, and that range does."""
    shape = Geometric(birdhouses=count, relays=3, range_m=range_m)
    try:
        layout = shape.layout(seed)
    except InputError as error:
        enough_m = float(str(error.hint).split()[0]) + 0.05
        Geometric(birdhouses=count, relays=3, range_m=enough_m).layout(seed)
        return
    at = {place.name: (place.x * 100, place.y * 100) for place in layout.places if place.role != "sink"}
    near = {
        frozenset((a, b))
        for a in at
        for b in at
        if a < b and hypot(at[a][0] - at[b][0], at[a][1] - at[b][1]) <= range_m
    }
    assert {frozenset((e.a, e.b)) for e in layout.edges if "sink" not in (e.a, e.b)} == near


def test_the_same_seed_places_birdhouses_alike() -> None:
    """And another does not."""
    shape = Geometric(range_m=150)
    assert shape.layout(3) == shape.layout(3)
    assert shape.layout(3) != shape.layout(4)


@pytest.mark.parametrize(
    ("shape", "edges"),
    [
        pytest.param(Star(birdhouses=3), "cam1-hub cam2-hub cam3-hub hub-sink cam3-sink", id="star"),
        pytest.param(
            Tree(birdhouses=2, relays=2),
            "hub-sink relay2-sink relay2-hub relay1-hub cam1-relay1 cam2-relay2",
            id="tree",
        ),
        pytest.param(
            Line(birdhouses=2, relays=1), "hub-sink relay1-sink cam1-hub relay1-cam1 relay1-cam2", id="line"
        ),
        pytest.param(
            Ring(birdhouses=3, relays=0),
            "hub-sink cam2-sink cam1-hub cam1-cam2 cam3-cam2 cam3-hub",
            id="ring",
        ),
        pytest.param(
            Grid(birdhouses=3, relays=0, columns=2),
            "hub-sink cam1-sink cam1-cam2 cam3-hub cam1-cam3 cam2-hub",
            id="grid",
        ),
    ],
)
def test_small_shapes_are_these_edges(shape: Shape, edges: str) -> None:
    """Written out, so that a change of a shape is seen."""
    found = {frozenset((edge.a, edge.b)) for edge in shape.layout(1).edges}
    assert found == {frozenset(edge.split("-")) for edge in edges.split()}


BAD_NETWORKS = {
    "two halves": (
        Spec(network=Star(birdhouses=3), link=(ExplicitLink(between=("cam1", "hub"), remove=True),)),
        "network: the network is not connected: no path from hub to cam1 "
        "(add [[link]]s, or choose another shape or range)",
    ),
    "a sink at the end of one path": (
        Spec(network=Star(birdhouses=3, sink_at=("hub",))),
        "network.sink_at: sink has only one path to the birdhouses: whatever fails on it fails every "
        'architecture alike (attach it in two places, such as sink_at = ["hub", "cam3"])',
    ),
    "a sink attached to nobody there": (
        Spec(network=Star(birdhouses=3, sink_at=("hub", "cma2"))),
        "network.sink_at: there is no device 'cma2' (did you mean 'cam2'?)",
    ),
    "a link to nobody there": (
        Spec(link=(ExplicitLink(between=("cam1", "relay9")),)),
        "link[0].between: there is no device 'relay9' (did you mean 'relay2'?)",
    ),
    "a link to itself": (
        Spec(link=(ExplicitLink(between=("cam1", "cam1")),)),
        "link[0].between: cam1 cannot be linked to itself",
    ),
    "a link to remove that is not there": (
        Spec(network=Star(birdhouses=3), link=(ExplicitLink(between=("cam1", "cam2"), remove=True),)),
        "link[0]: there is no link between cam1 and cam2 to remove",
    ),
    "jitter above the delay": (
        Spec(links=Links(radio=RadioLinks(profile="802.15.4", jitter_ms=20))),
        "links.radio: jitter_ms = 20 exceeds delay_ms = 6.0 (profile 802.15.4)",
    ),
    "two channels of one name": (
        Spec(
            links=Links(radio=RadioLinks(profile="ble", shared=True)),
            channel=(ExplicitChannel(name="radio", members=("hub", "relay*"), profile="ble"),),
        ),
        "channel[0].name: there are two channels 'radio'",
    ),
    "a channel of one": (
        Spec(channel=(ExplicitChannel(name="air", members="cam1"),)),
        "channel[0].members: a channel needs two members",
    ),
}


@pytest.mark.parametrize(("spec", "message"), BAD_NETWORKS.values(), ids=BAD_NETWORKS.keys())
def test_an_unfair_or_impossible_network_is_one_exact_error(spec: Spec, message: str) -> None:
    """Before anything is built."""
    with pytest.raises(InputError) as caught:
        build_topology(spec)
    assert str(caught.value) == message


def test_a_geometric_network_out_of_range_says_what_would_do() -> None:
    """With the range, rounded up."""
    with pytest.raises(InputError, match=r"network.range_m: range_m = 5 leaves .* m would connect them"):
        topology_of(Geometric(range_m=5))


def test_profiles_go_on_edges_by_class() -> None:
    """A birdhouse at one end makes it radio."""
    network = topology_of(Tree(birdhouses=4, relays=2)).network
    assert {link.profile for link in network.links if "cam" in link.name} == {"wifi-edge"}
    assert {link.profile for link in network.links if "cam" not in link.name} == {"ethernet-100m"}


def test_a_link_of_its_own_overrides_single_figures_or_all_of_them() -> None:
    """A figure keeps the rest; a profile starts afresh."""
    links = Links(radio=RadioLinks(profile="wifi-edge", loss_ratio=0.3))
    topology = topology_of(
        Star(birdhouses=3),
        links=links,
        link=(
            ExplicitLink(between=("hub", "cam1"), delay_ms=40),
            ExplicitLink(between=("cam2", "hub"), profile="ble"),
        ),
    )
    first, second, third = (topology.network.link(f"cam{i}", "hub") for i in (1, 2, 3))
    assert first is not None
    assert second is not None
    assert third is not None
    assert (first.forward.delay_ms, first.forward.loss_ratio) == (40, 0.3)
    assert (second.profile, second.forward.loss_ratio) == ("ble", 0.01)
    assert (third.forward.delay_ms, third.forward.loss_ratio) == (15, 0.3)


def test_shared_radio_links_are_one_channel() -> None:
    """With the profile's duty cycle; the backhaul stays as it is."""
    topology = topology_of(
        Tree(birdhouses=4, relays=2), links=Links(radio=RadioLinks(profile="lora-sf7", shared=True))
    )
    (channel,) = topology.network.channels
    assert (channel.name, channel.duty_cycle_ratio, len(channel.pairs)) == ("radio", 0.01, 4)
    assert all("cam" not in link.name for link in topology.network.links)


def test_a_channel_of_its_own_replaces_the_links_among_its_members() -> None:
    """Everybody in it hears everybody."""
    topology = topology_of(
        Star(birdhouses=3), channel=(ExplicitChannel(name="air", members=("cam*", "hub"), profile="ble"),)
    )
    (channel,) = topology.network.channels
    assert len(channel.pairs) == 6
    assert [link.name for link in topology.network.links] == ["hub-sink", "cam3-sink"]


def test_a_custom_network_is_made_of_its_links_alone() -> None:
    """The cast is there, the edges are the spec's."""
    pairs = [("cam1", "hub"), ("cam2", "relay1"), ("hub", "relay1"), ("hub", "sink"), ("relay1", "sink")]
    topology = topology_of(
        Custom(birdhouses=2, relays=1), link=tuple(ExplicitLink(between=pair) for pair in pairs)
    )
    assert sorted(topology.network.edges()) == sorted(pairs)


def test_energy_is_counted_where_a_link_has_a_radio() -> None:
    """Birdhouses run on batteries; hub and sink on the mains."""
    network = topology_of(Tree(birdhouses=2, relays=1)).network
    cam, sink = network.device("cam1"), network.device("sink")
    assert cam.radio is not None
    assert (cam.radio.transmit_ma, cam.battery_j) == (190, 40_000)
    assert (sink.radio, sink.battery_j) == (None, None)


def test_a_class_of_links_can_be_shared_only_as_a_whole() -> None:
    """The settings say so, not the shape."""
    assert LinkClass(shared=True).shared


GRAPHML = """<graphml xmlns="http://graphml.graphdrawing.org/xmlns">
<key id="l" for="node" attr.name="label" attr.type="string"/>
<key id="p" for="node" attr.name="profile" attr.type="string"/>
<key id="d" for="edge" attr.name="delay_ms" attr.type="double"/>
<graph edgedefault="undirected">
<node id="0"><data key="l">Wien Mitte</data></node>
<node id="1"><data key="l">Graz</data><data key="p">phone</data></node>
<node id="2"><data key="l">Linz</data></node>
<node id="3"><data key="l">Graz</data></node>
<edge source="0" target="1"><data key="d">70</data></edge>
<edge source="0" target="2"/><edge source="0" target="3"/><edge source="2" target="3"/>
</graph></graphml>"""


def test_a_graphml_file_becomes_a_network(tmp_path: Path) -> None:
    """Labels name devices, the most central one is the hub, attributes override."""
    (tmp_path / "net.graphml").write_text(GRAPHML, encoding="utf-8")
    (tmp_path / "s.toml").write_text('[network]\nshape = "graphml"\nfile = "net.graphml"\n', encoding="utf-8")
    from topologies.spec_file import load_spec

    topology = build_topology(load_spec(tmp_path / "s.toml"), tmp_path)
    assert topology.hub == "wien_mitte"
    assert topology.birdhouses == ("graz", "linz", "graz_2")
    link = topology.network.link("graz", "wien_mitte")
    assert link is not None
    assert link.forward.delay_ms == 70
    assert topology.network.device("graz").profile == "phone"
    assert topology.sink == "sink"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param("<graphml", "as GraphML", id="torn"),
        pytest.param(None, "cannot read", id="missing"),
        pytest.param(GRAPHML.replace("70", "-1"), "delay_ms", id="out of range"),
    ],
)
def test_a_bad_graphml_file_is_an_error(tmp_path: Path, text: str | None, message: str) -> None:
    """That names the file's key."""
    from topologies.shapes import GraphML

    if text is not None:
        (tmp_path / "net.graphml").write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=message) as caught:
        build_topology(Spec(network=GraphML(file="net.graphml")), tmp_path)
    assert caught.value.key == "network.file"


@given(
    pairs=st.lists(st.tuples(st.integers(0, 7), st.integers(0, 7)), max_size=16),
    birdhouses=st.sets(st.integers(1, 7), min_size=1),
)
@settings(max_examples=300)
def test_two_disjoint_paths_are_what_maximum_flow_says(
    pairs: list[tuple[int, int]], birdhouses: set[int]
) -> None:
    """On any small graph; node 0 is the sink."""
    edges = sorted({(str(min(a, b)), str(max(a, b))) for a, b in pairs if a != b})
    names = sorted(str(n) for n in birdhouses)
    graph = nx.Graph(edges)
    graph.add_nodes_from(["0", *names])
    source = names[0]
    if len(names) > 1:
        source = "all"
        graph.add_edges_from((source, name) for name in names)
    expected = len(list(_disjoint_paths(graph, source))) >= 2
    assert two_disjoint_paths(edges, names, "0") is expected


def _disjoint_paths(graph: Any, source: str) -> Any:
    try:
        return list(nx.node_disjoint_paths(graph, source, "0"))
    except nx.NetworkXNoPath:
        return []
