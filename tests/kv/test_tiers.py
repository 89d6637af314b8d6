"""Tiers: replicas are spread evenly, and a fresh tier becomes ready by itself."""

from collections import Counter

import pytest

from kv.messages import Answered, AskStatus, Status
from kv.operations import OK, Outcome
from kv.sharding.config import Configuration
from kv.slots import SLOTS
from kv.tiers import Kind, Tier, storage_nodes, tier
from tests.kv.small import Ask, Asker, submit
from underlay.errors import InputError
from underlay.network import Device, Link, Network
from underlay.node import Address, device_of
from underlay.plan import DevicePlan, NodePlan, Plan
from underlay.simulation import World, every_pair
from underlay.simulation.scenario import WIRE

LEADS = ("leader", "primary")
HOSTS = [f"store{number}" for number in range(1, 6)]


def running(made: Tier) -> World:
    """The tier, and an asker, all in range of each other."""
    nodes = made.nodes()
    nodes["c"] = (NodePlan("asker", Asker, 7000),)
    network = Network(
        tuple(Device(name) for name in nodes), tuple(Link(a, b, WIRE, WIRE) for a, b in every_pair(nodes))
    )
    devices = {name: DevicePlan(plans) for name, plans in nodes.items()}
    return World(Plan(seed=1, duration_s=60.0, network=network, devices=devices))


def ask(world: World, replica: Address, question: object) -> object:
    node = world.node("c/asker")
    assert isinstance(node, Asker)
    node.answers.clear()
    world.inject("c/asker", Ask(replica, question))  # type: ignore[arg-type]
    world.run_until(world.now + 1.0)
    ((answer,),) = node.answers.values()
    return answer


def status(world: World, replica: Address) -> Status:
    found = ask(world, replica, AskStatus(1))
    assert isinstance(found, Status)
    return found


def leader(world: World, replicas: tuple[Address, ...]) -> Status:
    (found,) = [each for each in (status(world, replica) for replica in replicas) if each.role in LEADS]
    return found


def test_replicas_are_spread_evenly_and_never_two_of_a_group_on_a_host() -> None:
    for hosts, groups, replicas in [(5, 3, 3), (5, 1, 5), (7, 9, 3), (3, 4, 3), (4, 2, 1)]:
        made = tier("sharded", [f"s{n}" for n in range(hosts)], groups, replicas)
        everywhere = [*made.groups.values(), made.controller]
        assert all(len({device_of(each) for each in group}) == replicas for group in everywhere)
        counts = Counter(device_of(each) for group in everywhere for each in group)
        assert max(counts.values()) - min(counts[f"s{n}"] for n in range(hosts)) <= 1


def test_a_node_has_one_port_everywhere_and_another_than_its_neighbours() -> None:
    nodes = storage_nodes("sharded", HOSTS, groups=4)
    ports = {plan.name: plan.port for plans in nodes.values() for plan in plans}
    assert all(plan.port == ports[plan.name] for plans in nodes.values() for plan in plans)
    assert len(set(ports.values())) == len(ports) == 5


def test_the_first_configuration_has_all_groups_and_is_number_1() -> None:
    first = tier("sharded", HOSTS).initial()
    assert (first.number, list(first.groups)) == (1, ["g1", "g2", "g3"])
    assert sum(last - low + 1 for low, last, group in first.ranges() if group) == SLOTS


def test_the_view_service_is_on_a_host_of_its_own_where_there_are_enough() -> None:
    made = tier("primary-backup", HOSTS)
    assert made.views == "store5/views"
    assert device_of(made.views) not in map(device_of, made.groups["g1"])


@pytest.mark.parametrize("kind", ["primary-backup", "paxos", "sharded"])
def test_a_fresh_tier_becomes_ready_by_itself(kind: Kind) -> None:
    made = tier(kind, HOSTS)
    world = running(made)
    world.run_until(3.0)
    leaders = [leader(world, replicas) for replicas in made.groups.values()]
    ranges = sorted(slots for each in leaders for slots in each.slots)
    assert sum(last - first + 1 for first, last in ranges) == SLOTS
    answers: list[Outcome] = []
    for each in leaders:
        answer = ask(world, each.leader, submit(2, (b"SET", b"a", b"1")))
        assert isinstance(answer, Answered)
        answers += answer.outcomes
    assert answers.count(OK) == 1


def test_a_group_that_is_added_later_serves_when_it_has_joined() -> None:
    made = tier("sharded", HOSTS, groups=2).with_group("g3", ["store1", "store3", "store5"])
    world = running(made)
    world.run_until(3.0)
    replicas = made.groups["g3"]
    assert leader(world, replicas).slots == ()
    join = submit(2, (b"BH.JOIN", b"g3", *(replica.encode() for replica in replicas)))
    controller = leader(world, made.controller).leader
    answer = ask(world, controller, join)
    assert isinstance(answer, Answered)
    assert answer.outcomes == (Outcome(2),)
    world.run_until(world.now + 5.0)
    slots = leader(world, replicas).slots
    assert sum(last - first + 1 for first, last in slots) == SLOTS // 3
    answer = ask(world, controller, submit(3, (b"BH.QUERY",)))
    assert isinstance(answer, Answered)
    assert Configuration.decode(answer.outcomes[0].value).slots_of("g3") == slots


@pytest.mark.parametrize(
    ("hosts", "groups", "replicas"),
    [(2, 1, 3), (3, 0, 3), (3, 1, 0), (9, 1, 9), (3, 500, 3)],
    ids=str,
)
def test_a_tier_that_cannot_be_is_refused(hosts: int, groups: int, replicas: int) -> None:
    with pytest.raises(InputError):
        tier("sharded", [f"s{n}" for n in range(hosts)], groups, replicas)
