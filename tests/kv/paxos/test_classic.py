"""The classic interface, by what a course tests: agreement, forgetting, economy, partitions, loss."""

import msgspec
import pytest

from kv.paxos.classic import Classic, Done, Start
from underlay.faults import Crash, Heal, OneWayCut, Partition, Restart
from underlay.link import LinkSpec
from underlay.simulation import World, every_pair, plan_of

QUICK = LinkSpec(rate_kbps=100_000.0, delay_ms=1.0)


class Peers:
    """Peers on `p0`, `p1`, ..."""

    def __init__(self, size: int = 3, *, seed: int = 0, loss_ratio: float = 0.0) -> None:
        self.names = [f"p{index}" for index in range(size)]
        addresses = [f"{name}/paxos" for name in self.names]
        self.world = World(
            plan_of(
                {name: {"paxos": lambda: Classic(addresses)} for name in self.names},
                every_pair(self.names),
                link=msgspec.structs.replace(QUICK, loss_ratio=loss_ratio),
                seed=seed,
                route_convergence_s=None,
            ),
            check_codec=True,
        )

    def start(self, peer: int, seq: int, value: bytes) -> None:
        self.world.inject(f"p{peer}/paxos", Start(seq, value))

    def done(self, peer: int, seq: int) -> None:
        self.world.inject(f"p{peer}/paxos", Done(seq))

    def run(self, duration_s: float = 1.0) -> None:
        self.world.run_until(self.world.now + duration_s)

    def peer(self, index: int) -> Classic:
        node = self.world.node(f"p{index}/paxos")
        assert isinstance(node, Classic)
        return node

    def decided(self, seq: int) -> list[bytes]:
        """What those that know have, which must be one value."""
        fates = [self.peer(index).status(seq) for index in range(len(self.names))]
        values = [value for fate, value in fates if fate == "decided"]
        assert len(dict.fromkeys(values)) <= 1, f"agreement {seq} has several values: {values}"
        return values

    def messages(self) -> int:
        self.run(1.0)
        return sum(r["count"] for r in self.world.records() if r["event"] == "messages-sent")

    def stored_bytes(self, index: int) -> int:
        return sum(map(len, self.world.durable(f"p{index}/paxos").values()))


def test_a_single_proposer_is_agreed_with() -> None:
    peers = Peers()
    peers.start(0, 0, b"hello")
    peers.run()
    assert peers.decided(0) == [b"hello"] * 3


def test_many_proposers_of_one_value_agree() -> None:
    peers = Peers()
    for index in range(3):
        peers.start(index, 1, b"same")
    peers.run(3.0)
    assert peers.decided(1) == [b"same"] * 3


@pytest.mark.sweep(10)
def test_many_proposers_of_many_values_agree_on_one(seed: int) -> None:
    peers = Peers(5, seed=seed)
    for index in range(5):
        peers.start(index, 0, b"%d" % index)
    peers.run(10.0)
    assert len(peers.decided(0)) == 5


def test_agreements_need_no_order() -> None:
    peers = Peers()
    for seq in (7, 6, 5, 0, 9):
        peers.start(seq % 3, seq, b"%d" % seq)
    peers.run(3.0)
    assert [peers.decided(seq) for seq in (0, 5, 6, 7, 9)] == [[b"%d" % seq] * 3 for seq in (0, 5, 6, 7, 9)]
    assert [peers.peer(index).max() for index in range(3)] == [9] * 3


def test_a_deaf_peer_learns_when_it_proposes_itself() -> None:
    peers = Peers(5)
    for name in peers.names[1:]:
        peers.world.apply(OneWayCut(name, "p0"))
    peers.start(1, 0, b"x")
    peers.run()
    assert peers.decided(0) == [b"x"] * 4
    peers.world.apply(Heal())
    peers.start(0, 0, b"y")
    peers.run()
    assert peers.decided(0) == [b"x"] * 5


def test_what_all_are_done_with_is_forgotten_and_nothing_else() -> None:
    peers = Peers()
    for seq in range(10):
        peers.start(seq % 3, seq, bytes(10_000))
    peers.run(2.0)
    assert [peers.peer(index).min() for index in range(3)] == [0] * 3
    peers.done(0, 9)
    peers.done(1, 9)
    peers.done(2, 4)
    for index in range(3):
        peers.start(index, 10 + index, b"carries what is done")
    peers.run(2.0)
    assert [peers.peer(index).min() for index in range(3)] == [5] * 3
    assert peers.peer(0).status(4) == ("forgotten", b"")
    assert peers.decided(5) == [bytes(10_000)] * 3
    peers.start(0, 3, b"too late")
    peers.run()
    assert peers.peer(0).status(3) == ("forgotten", b"")


def test_forgetting_frees_memory_and_disk() -> None:
    peers = Peers()
    for seq in range(20):
        peers.start(seq % 3, seq, bytes(50_000))
    peers.run(3.0)
    assert all(peers.stored_bytes(index) > 900_000 for index in range(3))
    for index in range(3):
        peers.done(index, 19)
        peers.start(index, 20 + index, b"")
    peers.run(2.0)
    for index in range(3):
        peers.start(index, 23 + index, b"")
    peers.run(2.0)
    assert all(peers.stored_bytes(index) < 1_000 for index in range(3))
    assert all(len(peers.peer(index)._instances) <= 6 for index in range(3))


def test_an_agreement_takes_few_messages() -> None:
    """A question and an answer for each of two phases, and the outcome, to two others: 10."""
    peers = Peers()
    for seq in range(10):
        peers.start(0, seq, b"x")
        peers.run(0.1)
    assert peers.messages() == 10 * 10


def test_without_a_majority_nothing_is_decided_and_healing_decides() -> None:
    peers = Peers(5)
    peers.world.apply(Partition((("p0", "p1"), ("p2",), ("p3", "p4"))))
    peers.start(0, 0, b"a")
    peers.start(3, 0, b"b")
    peers.run(5.0)
    assert peers.decided(0) == []
    peers.world.apply(Heal())
    peers.run(5.0)
    assert len(peers.decided(0)) == 5


def test_a_majority_decides_and_the_minority_s_proposal_gives_way() -> None:
    peers = Peers(5)
    peers.world.apply(Partition((("p0",),)))
    peers.start(0, 0, b"minority")
    peers.start(1, 0, b"majority")
    peers.run(2.0)
    assert peers.decided(0) == [b"majority"] * 4
    peers.world.apply(Heal())
    peers.run(2.0)
    assert peers.decided(0) == [b"majority"] * 5


def test_an_old_proposal_cannot_overturn_what_was_decided() -> None:
    """The proposer got its promises, and comes back when all is over."""
    peers = Peers()
    peers.start(0, 0, b"old")
    peers.run(0.0035)
    peers.world.apply(Crash("p0"))
    peers.start(1, 0, b"new")
    peers.run(2.0)
    decided = peers.peer(1).status(0)
    peers.world.apply(Restart("p0"))
    peers.start(0, 0, b"old again")
    peers.run(2.0)
    assert peers.decided(0) == [decided[1]] * 3


def test_a_restarted_acceptor_keeps_its_word() -> None:
    peers = Peers()
    peers.start(0, 0, b"x")
    peers.run()
    for name in peers.names:
        peers.world.apply(Crash(name))
        peers.world.apply(Restart(name))
    assert peers.decided(0) == [b"x"] * 3


@pytest.mark.sweep(15)
def test_agreement_under_loss_crashes_and_cuts(seed: int) -> None:
    peers = Peers(5, seed=seed, loss_ratio=0.2)
    for seq in range(5):
        for index in range(5):
            peers.start(index, seq, b"%d-%d" % (seq, index))
    for step in range(10):
        one, other = f"p{(seed + step) % 5}", f"p{(seed + 2 * step + 1) % 5}"
        if one != other:
            peers.world.apply(OneWayCut(one, other))
        peers.world.apply(Crash(one))
        peers.run(0.1)
        peers.world.apply(Restart(one))
        for seq in range(5):
            peers.decided(seq)
        if step % 4 == 3:
            peers.world.apply(Heal())
    peers.world.apply(Heal())
    for seq in range(5):
        for index in range(5):
            peers.start(index, seq, b"%d-%d" % (seq, index))
    peers.run(20.0)
    assert all(len(peers.decided(seq)) == 5 for seq in range(5))
