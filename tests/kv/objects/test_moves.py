"""Large values of slots that move: the former group may vanish once it has been told that it may forget."""

from __future__ import annotations

import pytest

from kv.messages import Answered
from kv.objects import Keep
from kv.operations import OK, Outcome
from kv.server import Server
from kv.sharding.machine import ShardMachine, SlotState
from kv.slots import slot_of
from kv.tiers import tier
from tests.kv.small import Ask, Asker, submit
from underlay.faults import Crash, LinkDown, LinkUp
from underlay.node import device_of
from underlay.simulation import Rule, World, every_pair, plan_of

HOSTS = tuple(f"s{number}" for number in range(1, 7))
TIER = tier("sharded", HOSTS, groups=2, replicas=3)
KEY = next(key for key in (b"a", b"b", b"c", b"d") if TIER.initial().owner_of(slot_of(key)) == "g2")
SLOT = slot_of(KEY)
PHOTOGRAPH = bytes(range(256)) * 234


class Tier:
    """Two groups on hosts of their own; `g1` shares its hosts with the controller."""

    def __init__(self, *rules: Rule) -> None:
        plans = TIER.nodes()
        hosts = {host: {plan.name: plan.make for plan in plans[host]} | {"asker": Asker} for host in HOSTS}
        self.world = World(plan_of(hosts, every_pair(hosts), route_convergence_s=None), tamper=rules)
        self._number = 0
        self.run(3.0)

    def run(self, duration_s: float) -> None:
        self.world.run_until(self.world.now + duration_s)

    def server(self, address: str) -> Server:
        node = self.world.node(address)
        assert isinstance(node, Server)
        return node

    def leader(self, replicas: tuple[str, ...]) -> str:
        up = [a for a in replicas if self.world.endpoints[a].live is not None]
        (leader,) = [a for a in up if self.server(a).replication.leading]
        return leader

    def state(self, group: str) -> SlotState:
        shards = self.server(self.leader(TIER.groups[group])).machine
        assert isinstance(shards, ShardMachine)
        return shards.state(SLOT)

    def do(self, replicas: tuple[str, ...], *command: bytes) -> Outcome:
        """Have the leader of these execute a command, asked by its own host: what is local has no limit."""
        self._number += 1
        leader = self.leader(replicas)
        asker = f"{device_of(leader)}/asker"
        self.world.inject(asker, Ask(leader, submit(self._number, command)))
        self.run(3.0)
        node = self.world.node(asker)
        assert isinstance(node, Asker)
        (answer,) = node.answers[self._number]
        assert isinstance(answer, Answered), answer
        return answer.outcomes[0]

    def begin_move(self) -> None:
        """`g2` leaves."""
        leader = self.leader(TIER.controller)
        self.world.inject(f"{device_of(leader)}/asker", Ask(leader, submit(9000, (b"BH.LEAVE", b"g2"))))

    def run_until_forgotten(self, patience_s: float) -> bool:
        """Whether the former group deletes its copy in that time."""
        end_s = self.world.now + patience_s
        while self.world.now < end_s:
            self.run(0.01)
            if self.state("g2") is SlotState.ABSENT:
                return True
        return False


def test_the_former_group_may_vanish_as_soon_as_it_has_forgotten_a_slot() -> None:
    tier = Tier()
    assert tier.do(TIER.groups["g2"], b"SET", KEY, PHOTOGRAPH) == OK
    tier.begin_move()
    assert tier.run_until_forgotten(20.0)
    for address in TIER.groups["g2"]:
        tier.world.apply(Crash(device_of(address)))
    assert tier.do(TIER.groups["g1"], b"GET", KEY).value == PHOTOGRAPH
    # And any one of the present group too.
    tier.world.apply(Crash(device_of(tier.leader(TIER.groups["g1"]))))
    tier.run(3.0)
    assert tier.do(TIER.groups["g1"], b"GET", KEY).value == PHOTOGRAPH


def test_while_the_contents_do_not_come_the_former_group_forgets_nothing() -> None:
    """Chunks between the groups are lost for a while; the slot itself has moved."""
    names = [address for group in ("g1", "g2") for address in TIER.groups[group]]
    rules = [
        Rule(messages=(Keep,), source=source, target=target, lost_ratio=1.0, from_s=6.5, to_s=20.0)
        for source in names
        for target in names
        if source.partition("/")[2] == "g2" and target.partition("/")[2] == "g1"
    ]
    tier = Tier(*rules)
    assert tier.do(TIER.groups["g2"], b"SET", KEY, PHOTOGRAPH) == OK
    tier.run(6.6 - tier.world.now)
    tier.begin_move()
    assert not tier.run_until_forgotten(20.0 - tier.world.now)
    assert tier.state("g1") is SlotState.OWNED
    assert tier.run_until_forgotten(20.0)
    for address in TIER.groups["g2"]:
        tier.world.apply(Crash(device_of(address)))
    assert tier.do(TIER.groups["g1"], b"GET", KEY).value == PHOTOGRAPH


@pytest.mark.sweep(4)
def test_leaders_that_die_in_between_lose_no_content(seed: int) -> None:
    tier = Tier()
    assert tier.do(TIER.groups["g2"], b"SET", KEY, PHOTOGRAPH) == OK
    tier.begin_move()
    tier.run(0.3 + 0.15 * seed)
    receiver = device_of(tier.leader(TIER.groups["g1"]))
    others = [host for host in HOSTS if host != receiver]
    for other in others:
        tier.world.apply(LinkDown(receiver, other))
    tier.run(5.0)
    for other in others:
        tier.world.apply(LinkUp(receiver, other))
    tier.run(3.0)
    assert tier.run_until_forgotten(20.0)
    for address in TIER.groups["g2"]:
        tier.world.apply(Crash(device_of(address)))
    assert tier.do(TIER.groups["g1"], b"GET", KEY).value == PHOTOGRAPH
