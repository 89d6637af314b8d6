"""Large values: apart from the log, on a majority before anybody hears of them, in the end everywhere."""

from __future__ import annotations

from hashlib import sha256

from kv.machine import KeyValueMachine
from kv.messages import Answered
from kv.objects.objects import UNREFERENCED_S
from kv.objects.shelf import CHUNK_BYTES, Shelf
from kv.operations import OK, Outcome
from kv.paxos import paxos
from kv.server import Server
from tests.kv.small import Ask, Asker, submit
from underlay.faults import Crash, LoseDisk, Restart
from underlay.simulation import World, every_pair, plan_of
from underlay.store import OrderedMap

HOSTS = ("s1", "s2", "s3")
MEMBERS = tuple(f"{host}/g1" for host in HOSTS)
PHOTOGRAPH = bytes(range(256)) * 234  # 59,904 bytes


def a_server() -> Server:
    return Server("g1", paxos(MEMBERS), KeyValueMachine())


class Group:
    """Three replicas, and somebody on each host who asks: what is local has no limit of size."""

    def __init__(self) -> None:
        hosts = {host: {"g1": a_server, "asker": Asker} for host in HOSTS}
        self.world = World(plan_of(hosts, every_pair(hosts), route_convergence_s=None), check_codec=True)
        self._number = 0
        self.run(2.0)

    def run(self, duration_s: float) -> None:
        self.world.run_until(self.world.now + duration_s)

    def server(self, host: str) -> Server:
        node = self.world.node(f"{host}/g1")
        assert isinstance(node, Server)
        return node

    @property
    def leader(self) -> str:
        (leader,) = [
            host for host in HOSTS if f"{host}/g1" in self.up and self.server(host).replication.leading
        ]
        return leader

    @property
    def up(self) -> tuple[str, ...]:
        return tuple(a for a, endpoint in self.world.endpoints.items() if endpoint.live is not None)

    def do(self, *command: bytes, wait_s: float = 3.0) -> Outcome:
        """Have the leader execute a command, asked by its own host."""
        self._number += 1
        host = self.leader
        self.world.inject(f"{host}/asker", Ask(f"{host}/g1", submit(self._number, command)))
        self.run(wait_s)
        asker = self.world.node(f"{host}/asker")
        assert isinstance(asker, Asker)
        (answer,) = asker.answers[self._number]
        assert isinstance(answer, Answered), answer
        return answer.outcomes[0]

    def holders(self, content: bytes) -> list[str]:
        """Hosts that have it durably."""
        name = b"o" + sha256(content).digest()
        durable = {host: self.world.durable(f"{host}/g1") for host in HOSTS}
        return [host for host in HOSTS if any(key.startswith(name) for key in durable[host])]

    def log_bytes(self) -> int:
        return max(
            len(value)
            for host in HOSTS
            for key, value in self.world.durable(f"{host}/g1").items()
            if not key.startswith(b"o")
        )


def test_a_large_value_is_read_as_it_was_written_and_the_log_carries_a_reference() -> None:
    group = Group()
    assert group.do(b"SET", b"photo", PHOTOGRAPH) == OK
    assert group.do(b"GET", b"photo").value == PHOTOGRAPH
    assert group.do(b"STRLEN", b"photo").value == len(PHOTOGRAPH)
    assert group.do(b"MGET", b"photo", b"photo").value == [PHOTOGRAPH, PHOTOGRAPH]
    assert group.holders(PHOTOGRAPH) == list(HOSTS)
    assert group.log_bytes() < 1024


def test_options_of_set_hold_for_large_values_too() -> None:
    group = Group()
    assert group.do(b"SET", b"photo", PHOTOGRAPH, b"XX").value is None
    assert group.do(b"SET", b"photo", PHOTOGRAPH, b"NX") == OK
    assert group.do(b"SET", b"photo", b"small", b"GET").value == PHOTOGRAPH


def test_what_is_no_set_or_larger_than_an_object_may_be_is_refused() -> None:
    group = Group()
    assert group.do(b"APPEND", b"photo", PHOTOGRAPH).failure.startswith("ERR")
    assert group.do(b"SET", b"photo", bytes(600 * 1024)).failure.startswith("ERR")
    assert group.do(b"GET", b"photo").value is None


def test_a_replica_that_was_down_fetches_what_it_missed() -> None:
    group = Group()
    away = next(host for host in HOSTS if host != group.leader)
    group.world.apply(Crash(away))
    assert group.do(b"SET", b"photo", PHOTOGRAPH) == OK
    assert away not in group.holders(PHOTOGRAPH)
    group.world.apply(Restart(away))
    group.run(5.0)
    assert away in group.holders(PHOTOGRAPH)


def test_without_a_majority_nothing_is_acknowledged() -> None:
    group = Group()
    leader = group.leader
    for host in HOSTS:
        if host != leader:
            group.world.apply(Crash(host))
    group.world.inject(f"{leader}/asker", Ask(f"{leader}/g1", submit(77, (b"SET", b"photo", PHOTOGRAPH))))
    group.run(40.0)
    asker = group.world.node(f"{leader}/asker")
    assert isinstance(asker, Asker)
    assert not any(isinstance(answer, Answered) for answer in asker.answers.get(77, ()))


def test_a_lost_disk_gets_its_objects_back_before_its_replica_gets_a_vote() -> None:
    group = Group()
    assert group.do(b"SET", b"photo", PHOTOGRAPH) == OK
    lost = next(host for host in HOSTS if host != group.leader)
    for fault in (Crash(lost), LoseDisk(lost), Restart(lost)):
        group.world.apply(fault)
    group.run(10.0)
    assert lost in group.holders(PHOTOGRAPH)
    # The group may lose another one now.
    group.world.apply(Crash(group.leader))
    group.run(5.0)
    assert group.do(b"GET", b"photo").value == PHOTOGRAPH


def test_what_nothing_refers_to_is_deleted_after_a_while() -> None:
    group = Group()
    group.do(b"SET", b"photo", PHOTOGRAPH)
    group.do(b"SET", b"photo", b"gone")
    for number in range(3):
        group.do(b"SET", b"other", b"%d" % number)
    assert group.holders(PHOTOGRAPH) == list(HOSTS), "its old version can still be read"
    for _ in range(3):
        for number in range(500):
            group.world.inject(
                f"{group.leader}/asker",
                Ask(f"{group.leader}/g1", submit(10_000 + number, (b"INCRBY", b"n", b"1"))),
            )
            group.run(0.02)
    group.run(UNREFERENCED_S + 60.0)
    assert group.holders(PHOTOGRAPH) == []


def test_content_that_is_not_what_its_name_says_is_thrown_away() -> None:
    store, shelf = OrderedMap(), Shelf()
    digest = sha256(b"right").digest()
    shelf.put(store, digest, 0, 1, b"wrong")
    assert digest not in shelf
    assert len(store) == 0
    shelf.put(store, digest, 0, 1, b"right")
    assert shelf.read(store, digest) == b"right"


def test_chunks_may_come_twice_and_in_any_order() -> None:
    content = bytes(CHUNK_BYTES) + b"end"
    digest = sha256(content).digest()
    store, shelf = OrderedMap(), Shelf()
    for number in (1, 1, 0, 0):
        shelf.put(store, digest, number, 2, content[number * CHUNK_BYTES :][:CHUNK_BYTES])
    again = Shelf()
    again.load(store)
    assert again.read(store, digest) == content
