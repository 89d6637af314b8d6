"""Redis clients while slots move between real groups, in the simulation: sent around, nothing done twice."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import pytest

from kv.machine import KeyValueMachine
from kv.messages import Submit
from kv.operations import Command, Operation
from kv.paxos import paxos
from kv.redis.directory import Directory
from kv.redis.messages import Asked, Opened, Replied
from kv.redis.router import Router
from kv.sharding.config import Configuration
from kv.sharding.machine import ShardMachine
from kv.sharding.server import ControllerServer, ShardServer
from kv.slots import slot_of
from tests.kv.redis.desk import ADVERTISED, Played, configuration_of
from tests.kv.solo import Solo
from underlay.faults import Crash, Restart
from underlay.link import LinkSpec
from underlay.node import Node
from underlay.plan import BindingPlan
from underlay.simulation import World, every_pair, plan_of

APART = {"g1": ["s1"], "g2": ["s2"]}
TOGETHER = {"g1": ["s1", "s2", "s3"], "g2": ["s2", "s3", "s1"]}
KEYS = [b"%d" % number for number in range(40)]
HOSTS = {f"{ip}:{port}": device for device, (ip, port) in ADVERTISED.items()}


class Service:
    """Groups and a controller on three hosts, and one client that follows redirections as Redis' do."""

    def __init__(self, groups: Mapping[str, Sequence[str]], seed: int) -> None:
        self.configuration = configuration_of(groups)
        controller = [f"{host}/ctl" for host in ADVERTISED]
        initial = Configuration(1, self.configuration.groups, self.configuration.runs)

        def shard(group: str) -> Node:
            members = [f"{host}/{group}" for host in groups[group]]
            replicate = Solo if len(members) == 1 else paxos(members)
            return ShardServer(group, replicate, ShardMachine(group, KeyValueMachine()), controller)

        def nodes(host: str) -> dict[str, Callable[[], Node]]:
            return {
                "ctl": lambda: ControllerServer(paxos(controller), initial),
                "redis": lambda: Router(Directory(initial, controller)),
                **{group: partial(shard, group) for group, hosts in groups.items() if host in hosts},
            }

        binding = BindingPlan("@redis", Played, Played, 6379)  # type: ignore[arg-type]
        plan = plan_of(
            {host: nodes(host) for host in ADVERTISED},
            every_pair(ADVERTISED),
            link=LinkSpec(rate_kbps=100_000.0, delay_ms=1.0),
            bindings={host: [binding] for host in ADVERTISED},
            seed=seed,
            route_convergence_s=None,
        )
        self.world = World(plan)
        self.redirections = 0
        self._at = "s1"
        self.run(3.0)
        for device in ADVERTISED:
            self.connect(device)

    def run(self, duration_s: float) -> None:
        self.world.run_until(self.world.now + duration_s)

    def connect(self, device: str) -> None:
        self.world.inject(f"{device}/redis", Opened(1, "10.0.9.9:5", "10.0.0.1:6379", ADVERTISED), "@redis")

    def move(self, slots: str, group: bytes) -> None:
        """Tell all of the controller's replicas; the one that leads does it."""
        question = Submit(1, (Operation((b"BH.MOVE", slots.encode(), group)),))
        for device in ADVERTISED:
            self.world.inject(f"{device}/ctl", question, "caller:1")

    def ask(self, command: Command) -> bytes:
        """The reply that is no redirection."""
        asking, reply = False, b""
        for _ in range(16):
            reply = self._ask_at(self._at, [(b"ASKING",), command] if asking else [command])
            reply = reply.removeprefix(b"+OK\r\n") if asking else reply
            code, _, where = reply.partition(b" ")
            if code not in (b"-MOVED", b"-ASK"):
                return reply
            self.redirections += 1
            asking = code == b"-ASK"
            self._at = HOSTS[where.split()[1].decode()]
        raise AssertionError(f"{command} was sent around: {reply!r}")

    def _ask_at(self, device: str, commands: list[Command]) -> bytes:
        desk = self.world.node(f"{device}/@redis")
        assert isinstance(desk, Played)
        desk.heard.clear()
        self.world.inject(f"{device}/redis", Asked(((1, commands, 50),)), "@redis")
        deadline_s = self.world.now + 10.0
        while not desk.heard and self.world.now < deadline_s:
            self.run(0.002)
        (replied,) = desk.heard
        assert isinstance(replied, Replied)
        return replied.batches[0][1]

    def configurations(self) -> set[int]:
        """The configurations that the replicas of g1 have come to."""
        servers = [self.world.node(replica) for replica in self.configuration.groups["g1"]]
        return {server.shards.configuration.number for server in servers if isinstance(server, ShardServer)}


@pytest.mark.parametrize("groups", [APART, TOGETHER], ids=["on hosts of their own", "on the same hosts"])
@pytest.mark.sweep(3)
def test_slots_move_back_and_forth_and_every_command_is_executed_once(
    groups: Mapping[str, Sequence[str]], seed: int
) -> None:
    service = Service(groups, seed)
    slots = sorted(slot_of(key) for key in KEYS)
    halves = [f"{slots[0]}-{slots[len(slots) // 2]}", f"{slots[len(slots) // 2]}-{slots[-1]}"]
    for round_ in range(6):
        service.move(halves[round_ % 2], b"g1" if round_ % 3 else b"g2")
        for key in KEYS:
            assert service.ask((b"INCR", key)) == b":%d\r\n" % (round_ + 1)
        service.run(0.3)
    service.run(5.0)
    assert max(service.configurations()) > 3, "slots have moved"
    for key in KEYS:
        assert service.ask((b"GET", key)) == b"$1\r\n6\r\n"
    assert service.redirections or groups is TOGETHER


@pytest.mark.sweep(3)
def test_a_crash_in_the_middle_leaves_errors_at_worst(seed: int) -> None:
    """A write that failed may have been executed, but one that was acknowledged has been, once."""
    service = Service(TOGETHER, seed)
    service.move("0-16383", b"g2")
    acknowledged, failed = 0, 0
    for round_ in range(30):
        if round_ == 5:
            service.world.apply(Crash("s3"))
            service._at = "s1"
        if round_ == 20:
            service.world.apply(Restart("s3"))
            service.connect("s3")
        try:
            reply = service.ask((b"INCR", b"counter"))
        except KeyError:  # sent to the host that is down, as a client would be
            service._at = "s2"
            failed += 1
            service.run(0.5)
            continue
        if reply.startswith(b":"):
            acknowledged += 1
        else:
            assert reply.startswith((b"-CLUSTERDOWN", b"-TRYAGAIN"))
            failed += 1
    total = int(service.ask((b"GET", b"counter")).split(b"\r\n")[1])
    assert acknowledged <= total <= acknowledged + failed
    assert acknowledged > 15
