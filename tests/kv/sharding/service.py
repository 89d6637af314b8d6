"""A sharded service in the simulation, with clerks that use it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from random import Random

from kv.checking.history import Call
from kv.checking.linearizability import find_violation
from kv.machine import KeyValueMachine
from kv.operations import Command
from kv.paxos import paxos
from kv.server import Replicate, Server
from kv.sharding.config import Configuration, join
from kv.sharding.machine import ShardMachine, SlotState
from kv.sharding.moves import Timings
from kv.sharding.server import ControllerServer, ShardServer
from kv.slots import slot_of
from tests.kv.sharding.clerk import Clerk, Go, Script
from tests.kv.solo import Solo
from underlay.link import LinkSpec
from underlay.node import Address
from underlay.simulation import Rule, World, every_pair, plan_of

WIRE = LinkSpec(rate_kbps=100_000.0, delay_ms=1.0)

Groups = Mapping[str, Sequence[str]]
"""The hosts of each group."""

THREE: Groups = {"g1": ["s1"], "g2": ["s2"], "g3": ["s3"]}


class Service:
    """A controller on `controllers`, groups on their hosts, clerks on devices of their own, all in range of
    each other.

    Args:
        scripts: a clerk for each; clerk 0 does what the test says.
        groups: their hosts. A group of one is `Solo`, the others are replicated by Paxos.
        joined: the groups of the first configuration; the others wait to be let in. None: all.
        tamper: what becomes of messages.
    """

    def __init__(
        self,
        *scripts: Script,
        groups: Groups = THREE,
        joined: Sequence[str] | None = None,
        controllers: Sequence[str] = ("c1",),
        timings: Timings = Timings(),  # noqa: B008 - immutable
        seed: int = 0,
        link: LinkSpec = WIRE,
        pause_s: float = 0.005,
        tamper: Sequence[Rule] = (),
    ) -> None:
        self.groups = {group: [f"{host}/{group}" for host in hosts] for group, hosts in groups.items()}
        self.controller = [f"{host}/ctl" for host in controllers]
        self.seed = seed
        initial = Configuration()
        for group in groups if joined is None else joined:
            initial = join(initial, group, self.groups[group])
        initial = Configuration(1, initial.groups, initial.runs)

        def shard(group: str) -> Server:
            machine = ShardMachine(group, KeyValueMachine())
            return ShardServer(group, replication(self.groups[group]), machine, self.controller, timings)

        devices: dict[str, dict[str, object]] = {host: {} for host in controllers}
        for host in controllers:
            devices[host]["ctl"] = lambda: ControllerServer(replication(self.controller), initial)
        for group, hosts in groups.items():
            for host in hosts:
                devices.setdefault(host, {})[group] = lambda group=group: shard(group)
        for number, script in enumerate((None, *scripts)):
            devices[f"clerk{number}"] = {
                "clerk": lambda script=script: Clerk(self.controller, script, pause_s=pause_s)
            }
        plan = plan_of(devices, every_pair(devices), link=link, seed=seed, route_convergence_s=None)  # type: ignore[arg-type]
        self.world = World(plan, check_codec=True, tamper=tamper)
        self._clerks = [f"clerk{number}/clerk" for number in range(len(scripts) + 1)]

    def run(self, seconds: float) -> None:
        """Let time pass."""
        self.world.run_until(self.world.now + seconds)

    def clerk(self, number: int = 0) -> Clerk:
        """Number 0 does what the test says, the others their scripts."""
        clerk = self.world.node(self._clerks[number])
        assert isinstance(clerk, Clerk)
        return clerk

    def do(self, *commands: Command, wait_s: float = 10.0) -> list[object]:
        """Have clerk 0 execute these; what came of each. Fails if they take longer."""
        clerk = self.clerk()
        before = len(clerk.calls)
        self.world.inject(self._clerks[0], Go(commands), "@test")
        until_s = self.world.now + wait_s
        while len(clerk.calls) < before + len(commands):
            assert self.world.now < until_s, f"no outcome of {clerk.pending} within {wait_s} s"
            self.run(0.01)
        outcomes = [call.outcome for call in clerk.calls[before:]]
        return [outcome.failure or outcome.value for outcome in outcomes if outcome is not None]

    def order(self, *commands: Command) -> None:
        """Have clerk 0 execute these, without waiting for it."""
        self.world.inject(self._clerks[0], Go(commands), "@test")

    def replica(self, address: Address) -> ShardServer:
        """A running replica."""
        server = self.world.node(address)
        assert isinstance(server, ShardServer)
        return server

    def leader(self, group: str) -> ShardServer | None:
        """The replica that leads a group and is up, if there is one."""
        for address in self.groups[group]:
            if self.world.endpoints[address].live is not None:
                server = self.replica(address)
                if server.replication.leading:
                    return server
        return None

    def latest(self) -> Configuration:
        """The latest configuration that any replica of the controller knows."""
        known = [Configuration()]
        for address in self.controller:
            if self.world.endpoints[address].live is not None:
                server = self.world.node(address)
                assert isinstance(server, ControllerServer)
                known.append(server.controller.latest)
        return max(known, key=lambda configuration: configuration.number)

    def shards(self, group: str) -> ShardMachine:
        """A group's machine, at its leader."""
        leader = self.leader(group)
        assert leader is not None, f"nobody leads {group}"
        return leader.shards

    def settle(self, number: int, wait_s: float = 30.0) -> None:
        """Wait until all groups have settled the configuration."""
        until_s = self.world.now + wait_s
        while self.latest().number < number or not all(self._settled(group, number) for group in self.groups):
            assert self.world.now < until_s, f"not settled within {wait_s} s: {self.describe()}"
            self.run(0.05)

    def describe(self) -> dict[str, object]:
        """For messages of failed tests."""
        return {
            group: leader.status(0).details if (leader := self.leader(group)) is not None else "no leader"
            for group in self.groups
        }

    def calls(self) -> list[Call]:
        """What all clerks saw."""
        found: list[Call] = []
        for number in range(len(self._clerks)):
            clerk = self.clerk(number)
            found += clerk.calls
            if clerk.pending is not None:
                found.append(clerk.pending)
        return found

    def check(self) -> list[Call]:
        """Fails unless what the clerks saw is linearizable; returns it."""
        calls = [call for call in self.calls() if not call.command[0].startswith(b"BH.")]
        violation = find_violation(calls)
        assert violation is None, f"seed {self.seed}: {violation}"
        return calls

    def check_slots(self) -> None:
        """Fails unless every slot is served by exactly one group, and nobody keeps anything of another's."""
        served = [0] * 16384
        for group in self.groups:
            shards = self.shards(group)
            assert shards.settled
            for slot in shards.slots_in(SlotState.OWNED):
                served[slot] += 1
            for slot in shards.slots_in(SlotState.ABSENT):
                assert not list(shards.inner.slot_records(slot)), f"{group} keeps records of slot {slot}"
        assert set(served) == {1}

    def _settled(self, group: str, number: int) -> bool:
        leader = self.leader(group)
        if leader is None or not leader.shards.settled:
            return False
        left_out = group not in self.latest().groups and not leader.shards.slots_in(SlotState.OWNED)
        return left_out or leader.shards.configuration.number >= number


def replication(members: Sequence[Address]) -> Replicate:
    """Of a group with these replicas."""
    return Solo if len(members) == 1 else paxos(members)


def appends(keys: Sequence[bytes], count: int) -> Script:
    """So many commands on these keys: mostly appends of values that occur once, and reads."""

    def script(rng: Random) -> object:
        for _ in range(count):
            key = rng.choice(keys)
            atom = b"<%08x>" % rng.getrandbits(32)
            kind = rng.random()
            if kind < 0.5:
                yield b"APPEND", key, atom
            elif kind < 0.8:
                yield b"GET", key
            elif kind < 0.9:
                yield b"SET", key, atom, b"GET"
            else:
                yield b"SET", key, atom, b"NX"

    return script  # type: ignore[return-value]


def keys_in(first: int, last: int, count: int, prefix: bytes = b"key") -> list[bytes]:
    """So many keys, each in one of these slots."""
    found: list[bytes] = []
    number = 0
    while len(found) < count:
        key = b"%s%d" % (prefix, number)
        if first <= slot_of(key) <= last:
            found.append(key)
        number += 1
    return found
