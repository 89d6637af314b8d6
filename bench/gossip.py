"""Gossip's numbers: messages and latency of broadcasts, crashes of five nodes, ten thousand birdhouses.

Usage: `python -m bench.gossip [broadcast] [crash] [many] [--crashes N] [--birdhouses N] [--seeds N]`.

Everything runs on the simulation, from seeds. Prints what was asked of the design beside what was measured.
"""

from __future__ import annotations

import argparse
import gc
import os
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import combinations
from random import Random
from statistics import fmean, median

from edge.gossip import GossipConfig, GossipPeer
from edge.observation import Observation, ObservationId, Observed
from underlay.faults import Crash
from underlay.link import LinkSpec
from underlay.network import Device, Link, Network, seeded
from underlay.node import address
from underlay.plan import DevicePlan, NodePlan, Plan
from underlay.simulation import World
from underlay.simulation.incarnation import Incarnation
from underlay.trace import Record

NODES = 25
ONE_WAY = LinkSpec(delay_ms=100.0)
PER_SECOND = 10.0
CHOICES = 100
WARM_UP_S = 15.0
DEVICES = [f"n{i}" for i in range(NODES)]


def gossip_plan(links: Sequence[Link], seed: int, duration_s: float, **knobs: object) -> Plan:
    """Every device of the links gossips with those it is linked to."""
    network = Network(
        tuple(Device(name) for name in dict.fromkeys(n for link in links for n in (link.a, link.b))),
        tuple(links),
    )
    return Plan(
        seed=seed,
        duration_s=duration_s,
        network=network,
        devices={
            device: DevicePlan((NodePlan("gossip", partial(GossipPeer, GossipConfig(peers, **knobs)), 7000),))  # type: ignore[arg-type]
            for device, peers in network.neighbours().items()
        },
        route_convergence_s=None,
    )


def clique(nodes: int = NODES, link: LinkSpec = ONE_WAY) -> list[Link]:
    """Everybody in range of everybody."""
    return [Link(a, b, link, link) for a, b in combinations([f"n{i}" for i in range(nodes)], 2)]


class Broadcasts:
    """Broadcasts at random times from random devices that are up, put into a world as it goes."""

    def __init__(self, world: World, rng: Random, per_s: float) -> None:
        self.world = world
        self.made_s: dict[str, float] = {}
        self._rng = rng
        self._per_s = per_s
        self._next_s = world.now + rng.expovariate(per_s)
        self._sequence: Counter[str] = Counter()

    def run_until(self, t_s: float, devices: Sequence[str]) -> None:
        """Let the world go on to `t_s`, with broadcasts from `devices`."""
        while self._next_s <= t_s:
            self.world.run_until(self._next_s)
            self.make(self._rng.choice(devices))
            self._next_s += self._rng.expovariate(self._per_s)
        self.world.run_until(t_s)

    def make(self, device: str, payload: bytes = b"21.5 C") -> str:
        """One broadcast now; its key."""
        key = ObservationId(device, self._sequence[device])
        self._sequence[device] += 1
        observation = Observation(key, "temperature", 0.0, self.world.now, payload)
        self.made_s[str(key)] = self.world.now
        self.world.inject(address(device, "gossip"), Observed(observation))
        return str(key)


def arrivals(records: Sequence[Record]) -> dict[str, dict[str, float]]:
    """id -> device -> when it was first delivered there."""
    found: dict[str, dict[str, float]] = {}
    for record in records:
        if record["event"] == "delivered":
            found.setdefault(record["id"], {}).setdefault(record["device"], record["t"])
    return found


def node_of(life: Incarnation) -> GossipPeer:
    """The gossip node of a device that is up."""
    assert isinstance(life.node, GossipPeer)
    return life.node


def eager_most(world: World) -> int:
    """Most eager neighbours that any node that is up has."""
    return max(len(tree) for tree in _eager(world).values())


def _eager(world: World) -> Mapping[str, Sequence[str]]:
    found = {}
    for endpoint in world.endpoints.values():
        if endpoint.live is not None:
            found[endpoint.host.name] = list(node_of(endpoint.live).tree.eager)
    return found


def broadcast(seed: int, duration_s: float = 60.0) -> dict[str, float]:
    """25 nodes, 100 ms one way, 10 broadcasts/s from random sources."""
    world = World(gossip_plan(clique(), seed, duration_s))
    broadcasts = Broadcasts(world, seeded(seed, "broadcasts"), PER_SECOND)
    eager = 0
    for second in range(int(duration_s)):
        broadcasts.run_until(second + 1.0, DEVICES)
        eager = max(eager, eager_most(world))
    world.run_until(duration_s + 2.0)
    world.finish()
    records = world.records()
    sent: Counter[str] = Counter()
    for record in records:
        if record["event"] == "messages-sent":
            sent[record["message"]] += record["count"]
    arrived = arrivals(records)
    made = broadcasts.made_s
    missing = sum(len(arrived.get(key, ())) < NODES - 1 for key in made)
    last_s = sorted(
        max(arrived[key].values()) - made[key] for key in made if len(arrived.get(key, ())) == NODES - 1
    )
    return {
        "messages": sum(sent.values()) / len(made),
        **{name: count / len(made) for name, count in sorted(sent.items())},
        "median_ms": 1e3 * median(last_s),
        "p99_ms": 1e3 * last_s[int(0.99 * len(last_s))],
        "max_ms": 1e3 * last_s[-1],
        "eager": eager,
        "undelivered": missing,
    }


def warm(seed: int) -> Broadcasts:
    """The 25 nodes after a while of broadcasts."""
    broadcasts = Broadcasts(World(gossip_plan(clique(), seed, 60.0)), seeded(seed, "broadcasts"), PER_SECOND)
    broadcasts.run_until(WARM_UP_S, DEVICES)
    return broadcasts


def most_loaded(world: World) -> list[str]:
    """The five nodes with most eager neighbours."""
    degrees = {device: len(peers) for device, peers in _eager(world).items()}
    return sorted(degrees, key=lambda device: -degrees[device])[:5]


def crash(broadcasts: Broadcasts, victims: Sequence[str]) -> tuple[float, str]:
    """The victims crash at once, broadcasts go on for 2 s. The longest that any survivor then waits for what
    any survivor has, from its broadcast or from the crash, whichever is later; and which broadcast it was."""
    world = broadcasts.world
    crash_s = world.now
    for victim in victims:
        world.apply(Crash(victim))
    survivors = [device for device in DEVICES if device not in victims]
    broadcasts.run_until(crash_s + 2.0, survivors)
    world.run_until(crash_s + 5.0)
    arrived = arrivals(world.records())
    worst, which = 0.0, ""
    for key, made_s in broadcasts.made_s.items():
        source = key.partition(":")[0]
        have = {device: t_s for device, t_s in arrived.get(key, {}).items() if device in survivors}
        if source in survivors:
            have[source] = made_s
        if have:
            full_s = max(have.values()) if len(have) == len(survivors) else float("inf")
            if full_s - max(made_s, crash_s) > worst:
                worst, which = full_s - max(made_s, crash_s), f"{key}@{made_s:.2f}"
    return worst, which


def crashes(seed: int, choices: int) -> list[tuple[float, str, str]]:
    """The most loaded, then seeded choices of five, all out of the same warm state: each in a fork of this
    process."""
    broadcasts = warm(seed)
    found = []
    for choice in range(choices):
        victims = (
            most_loaded(broadcasts.world)
            if not choice
            else seeded(seed, "victims", choice).sample(DEVICES, 5)
        )
        read, write = os.pipe()
        child = os.fork()
        if not child:
            worst, which = crash(broadcasts, victims)
            os.write(write, f"{worst}|{which}|{seed}/{choice}".encode())
            os._exit(0)
        os.close(write)
        with os.fdopen(read) as result:
            worst_text, which, run = result.read().split("|")
        os.waitpid(child, 0)
        found.append((float(worst_text), which, run))
    return found


def many(birdhouses: int, seed: int = 1, observations: int = 100, degree: int = 6) -> dict[str, float]:
    """A random regular graph (each in range of `degree` others), observations from random birdhouses."""
    import networkx

    gc.disable()  # Nothing here is cyclic garbage; walking millions of live objects takes a while.
    started = time.perf_counter()
    graph = networkx.random_regular_graph(degree, birdhouses, seed=seed)
    link = LinkSpec(rate_kbps=1000.0, delay_ms=20.0)
    links = [Link(f"n{a}", f"n{b}", link, link) for a, b in sorted(graph.edges)]
    world = World(gossip_plan(links, seed, 60.0))
    built = time.perf_counter()
    broadcasts = Broadcasts(world, seeded(seed, "broadcasts"), 25.0)
    devices = [f"n{i}" for i in range(birdhouses)]
    while len(broadcasts.made_s) < observations:
        broadcasts.run_until(world.now + 0.1, devices)
    made = len(broadcasts.made_s)

    def delivered() -> int:
        return sum(
            len(node_of(endpoint.live).holdings.items)
            for endpoint in world.endpoints.values()
            if endpoint.live is not None
        )

    while delivered() < birdhouses * made and world.now < 60.0:
        world.run_until(world.now + 0.5)
    ended = time.perf_counter()
    return {
        "build_s": built - started,
        "run_s": ended - built,
        "total_s": ended - started,
        "virtual_s": world.now,
        "made": made,
        "ratio": delivered() / (birdhouses * made),
    }


def main() -> None:
    """Print the numbers beside what was asked."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", nargs="*", default=["broadcast", "crash", "many"])
    parser.add_argument("--crashes", type=int, default=10_000, metavar="N", help="choices of five nodes")
    parser.add_argument("--birdhouses", type=int, default=10_000, metavar="N")
    parser.add_argument("--seeds", type=int, default=5, metavar="N", help="runs of `broadcast`")
    options = parser.parse_args()
    if "broadcast" in options.what:
        print(
            "25 nodes, 100 ms one way, 10 broadcasts/s for 60 s. Asked: at most 30 messages a broadcast, last"
        )
        print("delivery median 500 ms, p99 650 ms, 8 eager neighbours.")
        for seed in range(options.seeds):
            print(f"  seed {seed}:", _text(broadcast(seed)), flush=True)
    if "crash" in options.what:
        print("Five of them crash. Asked: every survivor has everything within 2 s, over 10,000 choices")
        print("of five, and for the five most loaded.")
        states = range(-(-options.crashes // CHOICES))
        worst = [run for seed in states for run in crashes(seed, CHOICES + 1)]
        chosen = [t for t, _, run in worst if not run.endswith("/0")]
        loaded = [t for t, _, run in worst if run.endswith("/0")]
        print(f"  {len(chosen)} choices: mean {fmean(chosen):.2f} s, worst {max(chosen):.2f} s", end=", ")
        print(f"over 2 s {sum(t > 2 for t in chosen)}")
        print(f"  five most loaded, {len(loaded)} runs: worst {max(loaded):.2f} s")
        print(
            "  slowest:",
            *(f"{t:.2f} s (run {run}, {which})" for t, which, run in sorted(worst)[-3:]),
            flush=True,
        )
    if "many" in options.what:
        print("Birdhouses gossiping 100 observations in all to everyone. Asked: 10,000 in under 60 s.")
        print(f"  {options.birdhouses}:", _text(many(options.birdhouses)))


def _text(numbers: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {number:.4g}" for name, number in numbers.items())


if __name__ == "__main__":
    main()
