"""What gossip promises on networks that lose, fail, are slow, or are shared."""

from __future__ import annotations

from itertools import combinations

import pytest

from tests.edge.gossip.networks import RADIO, WIFI_EDGE, WIRE, Town, line
from underlay.faults import Crash, Heal, Partition, Restart
from underlay.link import LinkSpec
from underlay.network import Channel, seeded
from underlay.simulation import every_pair
from underlay.simulation.scenario import Edge

NAMES = [f"cam{i}" for i in range(12)]
MESH: list[Edge] = [
    *((f"cam{i}", f"relay{i % 3}") for i in range(12)),
    *((f"cam{i}", f"relay{(i + 1) % 3}") for i in range(12)),
    ("relay0", "relay1"),
    ("relay1", "relay2"),
    ("relay2", "relay0"),
    ("relay0", "hub"),
    ("relay1", "hub"),
]
"""Twelve birdhouses in range of two relays each, as in the quickstart."""


def test_a_broadcast_costs_one_message_a_receiver_once_the_tree_stands() -> None:
    """After a few broadcasts next to no payload is sent twice (repairs that overtake the tree are)."""
    town = Town(MESH)
    for i in range(20):
        town.tell(f"cam{i % 12}")
        town.run(0.5)
    before = town.sent()["Gossip"]
    for i in range(20):
        town.tell(f"cam{i % 12}")
        town.run(0.5)
    town.run(2.0)
    least = 20 * (len(town.devices) - 1)
    assert least <= town.sent()["Gossip"] - before <= 1.05 * least
    assert not town.late(1.0)


@pytest.mark.sweep(5)
def test_a_lossy_mesh_delivers_all_within_the_deadline(seed: int) -> None:
    """A tenth of all frames is lost, six in a row on average: next to nothing takes 10 s."""
    town = Town(MESH, link=WIFI_EDGE, seed=seed)
    rng = seeded(seed, "test")
    for _ in range(60):
        town.tell(rng.choice(town.devices))
        town.run(0.25)
    town.run(10.0)
    assert len(town.late(10.0)) <= 0.02 * len(town.made) * len(town.devices)


@pytest.mark.sweep(3)
def test_photographs_cross_slow_radios_and_readings_are_not_drowned(seed: int) -> None:
    """60 kB of a photograph over 120 kbit/s hops take a while; readings made meanwhile do not."""
    town = Town(MESH, link=RADIO, seed=seed)
    town.run(2.0)
    photograph = town.tell("cam0", bytes(30_000))
    readings = []
    for i in range(20):
        town.run(0.5)
        readings.append(town.tell(f"cam{i % 12}"))
    town.run(60.0)
    delivered = town.delivered()
    assert len(delivered[photograph]) == len(town.devices) - 1
    late = [
        (reading, device)
        for reading in readings
        for device, t_s in delivered[reading].items()
        if t_s - town.made[reading] > 2.0
    ]
    assert len(late) <= 0.05 * len(readings) * len(town.devices), "more than losses explain"
    assert not town.late(60.0)


def test_whoever_was_off_gets_everything_afterwards() -> None:
    """Readings and photographs from before and during its absence."""
    town = Town(MESH, faults=[(5.0, Crash("cam3")), (20.0, Restart("cam3"))])
    before = [town.tell("cam1"), town.tell("cam3"), town.tell("cam2", bytes(20_000))]
    town.run(10.0)
    during = [town.tell(name) for name in NAMES if name != "cam3"] + [town.tell("hub", bytes(5_000))]
    town.run(30.0)
    assert len(town.hashes()) == 1
    had = {
        record["id"]
        for record in town.records("delivered")
        if record["device"] == "cam3" and record["t"] > 20
    }
    assert had == {*before, *during}


@pytest.mark.sweep(10)
def test_partitions_heal_and_all_hold_the_same(seed: int) -> None:
    """Loss, crashes, restarts and a partition at random: in the end everybody holds the same."""
    rng = seeded(seed, "test")
    names = [f"n{i}" for i in range(8)]
    edges = [pair for pair in every_pair(names) if rng.random() < 0.4] + line(*names)
    lossy = LinkSpec(rate_kbps=1000.0, delay_ms=15.0, jitter_ms=10.0, loss_ratio=0.2, burst_frames=2.0)
    town = Town(dict.fromkeys(edges), link=lossy, seed=seed)
    down: set[str] = set()
    for _ in range(40):
        town.run(0.5)
        fate = rng.random()
        name = rng.choice(names)
        if fate < 0.1 and len(down) < 3:
            town.world.apply(Crash(name))
            down.add(name)
        elif fate < 0.2 and down:
            town.world.apply(Restart(min(down)))
            down.remove(min(down))
        elif fate < 0.25:
            town.world.apply(Partition((tuple(names[:4]),)))
        elif fate < 0.3:
            town.world.apply(Heal())
        if name not in down:
            town.tell(name, bytes(rng.choice((10, 10, 10, 4000))))
    town.world.apply(Heal())
    for name in sorted(down):
        town.world.apply(Restart(name))
    town.run(60.0)
    assert len(town.hashes()) == 1


def test_nobody_writes_to_the_dead_for_ever() -> None:
    """A clique whose other half died sends less and less towards it."""
    names = [f"n{i}" for i in range(6)]
    town = Town(every_pair(names), faults=[(20.0, Crash(name)) for name in names[3:]])
    for _ in range(300):
        town.tell("n0")
        town.run(0.5)
    after = [r for r in town.records("link-usage") if r["t"] > 100 and r["target"] in names[3:] and r["cut"]]
    assert sum(record["cut"] for record in after) < 50 * 0.5  # one to each of 3 in two minutes or so, from 3


def test_in_a_clique_on_a_channel_a_broadcast_is_one_transmission() -> None:
    """Everybody hears everybody: nobody relays."""
    town = Town(channels=[Channel("air", WIRE, tuple(combinations(NAMES, 2)))])
    for i in range(24):
        town.run(0.5)
        town.tell(NAMES[i % 12])
    town.run(3.0)
    assert not town.late(0.5)
    assert town.sent()["Gossip"] == 24


@pytest.mark.sweep(3)
def test_on_a_channel_relays_are_found_for_those_out_of_range(seed: int) -> None:
    """A line of eight in which each hears the next two; with losses."""
    names = [f"n{i}" for i in range(8)]
    pairs = tuple((a, b) for i, a in enumerate(names) for b in names[i + 1 : i + 3])
    spec = LinkSpec(rate_kbps=250.0, delay_ms=5.0, loss_ratio=0.05)
    town = Town(channels=[Channel("air", spec, pairs)], seed=seed)
    rng = seeded(seed, "test")
    for _ in range(80):
        town.run(0.5)
        town.tell(rng.choice(names))
    town.run(15.0)
    assert not town.late(15.0)
    assert town.sent()["Gossip"] < 80 * len(names)


@pytest.mark.sweep(2)
def test_a_photograph_on_a_channel_is_sent_about_once(seed: int) -> None:
    """Eleven ask for its 20 chunks; each is broadcast, and repeated only where it was lost."""
    spec = LinkSpec(rate_kbps=250.0, delay_ms=5.0, loss_ratio=0.01)
    town = Town(channels=[Channel("air", spec, tuple(combinations(NAMES, 2)))], seed=seed)
    town.run(2.0)
    town.tell("cam0", bytes(20_000))
    town.run(30.0)
    assert not town.late(30.0)
    assert town.sent()["Gossip"] < 2 * 20


def test_memory_is_bounded_and_what_was_evicted_is_not_asked_for() -> None:
    """A node that holds 50 kB at most forwards 200 kB all the same."""
    town = Town(line("a", "b", "c"), memory_bytes=50_000)
    for _ in range(50):
        town.tell("a", bytes(4000))
        town.run(0.5)
    town.run(5.0)
    assert not town.late(5.0)
    assert all(town.peer(name).holdings.bytes <= 50_000 + 5_000 for name in "abc")
    assert all(not town.peer(name).fetch.missing for name in "abc")
    assert town.peer("b").holdings.evicted > 30
