"""Routes: the shortest way by expected delay, ties by name, over what is up."""

from itertools import pairwise

import networkx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from underlay.link import LinkSpec
from underlay.network import Channel, Device, Link, Network
from underlay.routes import Router, hop_weight, path, shortest_paths

FAST = LinkSpec(rate_kbps=10_000.0, delay_ms=1.0)
SLOW = LinkSpec(rate_kbps=100.0, delay_ms=50.0)
BAD = LinkSpec(rate_kbps=10_000.0, delay_ms=1.0, loss_ratio=0.5)


def network(*edges: tuple[str, str, LinkSpec], channels: tuple[Channel, ...] = ()) -> Network:
    names = sorted({name for a, b, _ in edges for name in (a, b)} | {n for c in channels for n in c.members})
    return Network(tuple(map(Device, names)), tuple(Link(a, b, spec, spec) for a, b, spec in edges), channels)


SQUARE = network(("a", "b", FAST), ("b", "d", FAST), ("a", "c", FAST), ("c", "d", FAST))


@pytest.mark.parametrize(
    ("graph", "changes", "expected"),
    [
        pytest.param(SQUARE, {}, ["a", "b", "d"], id="of two equal ways the neighbour that sorts first"),
        pytest.param(SQUARE, {"down": ["b"]}, ["a", "c", "d"], id="around a device that is down"),
        pytest.param(SQUARE, {"cut": [("b", "d")]}, ["a", "c", "d"], id="around a cut hop"),
        pytest.param(
            SQUARE, {"cut": [("d", "b")]}, ["a", "b", "d"], id="a cut the other way does not matter"
        ),
        pytest.param(SQUARE, {"down": ["b", "c"]}, None, id="no way"),
        pytest.param(SQUARE, {"down": ["d"]}, None, id="to a device that is down"),
        pytest.param(
            network(("a", "d", SLOW), ("a", "b", FAST), ("b", "d", FAST)),
            {},
            ["a", "b", "d"],
            id="two fast hops, not a slow",
        ),
        pytest.param(
            network(("a", "d", BAD), ("a", "b", FAST), ("b", "d", FAST)),
            {},
            ["a", "b", "d"],
            id="two clean, not a lossy",
        ),
        pytest.param(
            network(("a", "b", SLOW), channels=(Channel("air", FAST, (("a", "b"), ("b", "d"))),)),
            {},
            ["a", "b", "d"],
            id="over a channel",
        ),
    ],
)
def test_the_way_from_a_to_d(
    graph: Network, changes: dict[str, list[str]], expected: list[str] | None
) -> None:
    routes = shortest_paths(graph, **changes)  # type: ignore[arg-type]
    assert path(routes, "a", "d") == expected


def test_a_hop_costs_its_delay_serialization_and_loss() -> None:
    assert hop_weight(SLOW) == pytest.approx(0.050 + 0.008, abs=1e-5)
    assert hop_weight(BAD) == pytest.approx(2 * (0.001 + 0.00008) + 0.5, abs=1e-5)


@st.composite
def graphs(draw: st.DrawFn) -> Network:
    size = draw(st.integers(2, 12))
    pairs = draw(st.lists(st.tuples(st.integers(0, size - 1), st.integers(0, size - 1)), max_size=30))
    edges = {(min(a, b), max(a, b)): None for a, b in pairs if a != b}
    specs = draw(st.lists(st.sampled_from([FAST, SLOW, BAD]), min_size=len(edges), max_size=len(edges)))
    links = tuple(Link(f"n{a:02}", f"n{b:02}", s, s) for (a, b), s in zip(edges, specs, strict=True))
    return Network(tuple(Device(f"n{i:02}") for i in range(size)), links)


@given(graphs())
def test_routes_are_as_short_as_dijkstra_says_and_end_where_they_should(graph: Network) -> None:
    """networkx is the oracle."""
    reference: networkx.Graph[str] = networkx.Graph()
    reference.add_nodes_from(device.name for device in graph.devices)
    for link in graph.links:
        reference.add_edge(link.a, link.b, weight=hop_weight(link.forward))
    lengths = dict(networkx.all_pairs_dijkstra_path_length(reference))
    routes = shortest_paths(graph)
    for source, table in routes.items():
        assert set(table) | {source} == set(lengths[source])
        for destination in table:
            way = path(routes, source, destination)
            assert way is not None
            cost_s = sum(reference.edges[hop]["weight"] for hop in pairwise(way))
            assert cost_s == pytest.approx(lengths[source][destination])


@given(graphs(), st.randoms(use_true_random=False))
def test_the_order_of_questions_does_not_change_the_answers(graph: Network, random: object) -> None:
    names = [device.name for device in graph.devices]
    questions = [(a, b) for a in names for b in names if a != b]
    straight = Router(graph)
    answers = {question: straight.next_hop(*question) for question in questions}
    random.shuffle(questions)  # type: ignore[attr-defined]
    shuffled = Router(graph)
    assert {question: shuffled.next_hop(*question) for question in questions} == answers


def test_a_router_follows_changes() -> None:
    router = Router(SQUARE)
    assert router.path("a", "d") == ["a", "b", "d"]
    router.change(down=["b"])
    assert router.path("a", "d") == ["a", "c", "d"]
    router.change()
    assert router.path("a", "d") == ["a", "b", "d"]


def test_a_neighbour_is_found_without_exploring_the_network() -> None:
    names = [f"n{i:03}" for i in range(200)]
    line = network(*((a, b, FAST) for a, b in pairwise(names)))
    router = Router(line)
    assert router.next_hop("n100", "n101") == "n101"
    assert router.entries < 5
