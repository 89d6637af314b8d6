"""The storage tier of an experiment: what a spec may say of it, its place in the network, and that it keeps
what it is given though hosts crash."""

from __future__ import annotations

from pathlib import Path

import pytest

import topologies
from topologies import runner
from topologies.experiment import build_experiment, build_plan
from topologies.fabrics import choose_fabric
from topologies.metrics import Summary, read_summary
from topologies.shapes import Layout, Place, Tree
from topologies.spec import StorageSettings
from topologies.spec_file import load_spec, parse_spec
from topologies.tier import with_storage
from underlay.errors import InputError
from underlay.plan import DevicePlan

SMALL = """
duration_s = 24
warmup_s = 3
deadline_s = 8
route_convergence_s = 1
[network]
shape = "tree"
birdhouses = 4
relays = 2
ring = true
[links.radio]
profile = "wifi-good"
"""
KINDS = ("primary-backup", "paxos", "sharded")


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (
            'kind = "raft"',
            "s.toml: storage.kind: 'raft' is not known (one of paxos, primary-backup, sharded, sink)",
        ),
        (
            'kind = "paxos"\nhosts = 3\nreplicas = 5',
            "s.toml: storage.replicas: 5 replicas of a group need as many hosts (at most storage.hosts = 3)",
        ),
        ('kind = "paxos"\nhosts = 1', "s.toml: storage.hosts: expected a whole number >= 2, got 1"),
        ('kind = "sharded"\ngroups = 0', "s.toml: storage.groups: expected a whole number >= 1, got 0"),
        ('kind = "paxos"\nreplicas = 10', "s.toml: storage.replicas: expected a whole number <= 9, got 10"),
        ('kind = "paxos"\nreplica = 3', "s.toml: storage.replica: unknown key (did you mean 'replicas'?)"),
    ],
    ids=["a kind", "too few hosts", "one host", "no group", "too many replicas", "a key"],
)
def test_a_tier_that_means_nothing_is_one_clear_error(text: str, complaint: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_spec(f"[storage]\n{text}", file="s.toml")
    assert str(caught.value) == complaint


def test_a_fault_of_a_storage_host_needs_a_storage_host() -> None:
    spec = parse_spec(SMALL + '[[fault]]\nat_s = 5\nkind = "crash"\ndevice = "store1"', file="s.toml")
    with pytest.raises(InputError, match="store1"):
        build_experiment(spec, "star")


def test_without_a_tier_the_network_is_as_it_was() -> None:
    layout = Tree(birdhouses=4, relays=2).layout(1)
    assert with_storage(layout, StorageSettings()) is layout


@pytest.mark.parametrize("hosts", [2, 3, 5, 9])
def test_storage_hosts_hang_on_the_sink_and_on_each_other(hosts: int) -> None:
    """Each is a neighbour of the sink and of two others, or of the only other one."""
    layout = Tree(birdhouses=4, relays=2).layout(1)
    joined = with_storage(layout, StorageSettings(kind="paxos", hosts=hosts, replicas=2))
    names = {f"store{n}" for n in range(1, hosts + 1)}
    assert {place.name for place in joined.places if place.role == "storage"} == names
    assert joined.places[: len(layout.places)] == layout.places
    assert joined.edges[: len(layout.edges)] == layout.edges
    for name in names:
        around = neighbours(joined, name)
        assert len(around) == 1 + min(2, hosts - 1)
        assert "sink" in around
        assert around <= names | {"sink"}


def test_storage_hosts_are_drawn_apart_and_beside_the_others() -> None:
    layout = with_storage(Tree(birdhouses=4, relays=2).layout(1), StorageSettings(kind="paxos", hosts=7))
    hosts = [place for place in layout.places if place.role == "storage"]
    assert len({(place.x, place.y) for place in hosts}) == 7
    assert all(beside(place, layout) for place in hosts)


@pytest.mark.parametrize("kind", KINDS)
def test_a_tier_runs_on_its_hosts_and_takes_the_sinks_place(kind: str) -> None:
    """The sink's own node is gone, and nothing of the store is on any other machine; Redis' clients may ask
    each of its hosts."""
    spec = parse_spec(f'{SMALL}[storage]\nkind = "{kind}"', file="s.toml")
    experiment = build_experiment(spec, "star")
    devices = build_plan(experiment).devices
    assert {"gateway", "star"} <= names_of(devices["sink"])
    assert "sink" not in names_of(devices["sink"])
    reached = {name for name, plan in devices.items() if any(b.name == "@redis" for b in plan.bindings)}
    assert reached == set(experiment.topology.storage)
    hosting = {name for name, plan in devices.items() if names_of(plan) & {"g1", "g2", "g3", "ctl", "views"}}
    assert hosting <= set(experiment.topology.storage)
    assert len(hosting) == (5 if kind == "sharded" else 4 if kind == "primary-backup" else 3)


@pytest.mark.parametrize("architecture", ["star", "caching", "gossip"])
def test_every_architecture_hands_over_to_the_tier(architecture: str) -> None:
    spec = parse_spec(f'{SMALL}[storage]\nkind = "paxos"', file="s.toml")
    assert build_experiment(spec, architecture).deliver_to("sink") == "gateway"


@pytest.mark.parametrize("kind", KINDS)
def test_a_tier_keeps_what_it_is_given_though_each_of_its_hosts_crashes(kind: str, tmp_path: Path) -> None:
    """All in turn, so that the leader is among them."""
    crashes = "".join(
        f'[[fault]]\nat_s = {4 + 3 * n}\nkind = "crash"\ndevice = "store{n + 1}"\nfor_s = 2\n'
        for n in range(3)
    )
    tier = summary(f'{SMALL}[storage]\nkind = "{kind}"\n{crashes}', tmp_path).tier
    assert tier.kind == kind
    assert tier.given == tier.kept > 50
    assert tier.lost == 0
    assert [effect.outage.subject for effect in tier.effects] == ["store1", "store2", "store3"]
    assert all(effect.given > 0 for effect in tier.effects)


def test_a_tier_that_is_away_keeps_what_comes_when_it_is_back(tmp_path: Path) -> None:
    """Without a majority nothing is stored, and nothing that the sink took in is lost."""
    crashes = "".join(
        f'[[fault]]\nat_s = 6\nkind = "crash"\ndevice = "store{n}"\nfor_s = 5\n' for n in (1, 2, 3)
    )
    tier = summary(f'{SMALL}[storage]\nkind = "paxos"\nhosts = 3\n{crashes}', tmp_path).tier
    assert tier.given == tier.kept > 50
    assert tier.lost == 0
    assert tier.longest_s > 3.0
    assert all(effect.longest_s is not None and effect.longest_s > 3.0 for effect in tier.effects)


def test_the_shipped_comparison_of_stores_means_something_for_every_kind() -> None:
    path = next(each for each in topologies_examples() if each.name == "storage.toml")
    for kind in KINDS:
        spec = load_spec(path, [("storage.kind", kind)])
        plan = build_plan(build_experiment(spec, "star", path.parent))
        struck = {device for timed in plan.faults for device in getattr(timed.fault, "device", "").split()}
        assert struck == {"store1", "store2", "store3"}


# ---------------------------------------------------------------------------------------------------- helpers


def neighbours(layout: Layout, name: str) -> set[str]:
    """Of one machine."""
    ends = [(edge.a, edge.b) for edge in layout.edges if name in (edge.a, edge.b)]
    return {end for pair in ends for end in pair} - {name}


def beside(host: Place, layout: Layout) -> bool:
    """Whether a storage host is on the right of every other machine."""
    return all(host.x > place.x for place in layout.places if place.role != "storage")


def names_of(plan: DevicePlan) -> set[str]:
    """The nodes on a device."""
    return {node.name for node in plan.nodes}


def summary(text: str, folder: Path) -> Summary:
    """Of a run of the spec on the simulation."""
    spec = parse_spec(text, file="s.toml")
    experiment = build_experiment(spec, "star")
    runner.run_experiment(experiment, choose_fabric(spec, "simulation"), folder)
    return read_summary(folder)


def topologies_examples() -> list[Path]:
    """The specs that come along."""
    return sorted((Path(topologies.__file__).parent.parent / "examples").glob("*.toml"))
