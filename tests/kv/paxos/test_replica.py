"""Multi-Paxos in scenarios: what a group does when something happens to it."""

from kv.messages import NotHere
from kv.operations import OK, Outcome
from kv.paxos import Settings
from kv.paxos.acceptor import Acceptor
from kv.paxos.log import encode_entry
from kv.paxos.messages import Ballot, Entry
from tests.kv.paxos.group import Agreement, Group, commands
from tests.kv.small import submit
from underlay.clock import DeviceClock
from underlay.faults import Crash, Heal, LoseDisk, OneWayCut, Partition, Pause, Restart, Resume, RotDisk
from underlay.store import OrderedMap


def test_a_group_is_founded_elects_a_leader_and_executes() -> None:
    group = Group()
    group.run(2.0)
    assert group.do((b"SET", b"a", b"1"), (b"GET", b"a")) == (OK, Outcome(b"1"))
    group.run(1.0)
    assert [group.machine(name).records for name in group.names] == [group.machine("s1").records] * 3


def test_a_follower_names_the_leader() -> None:
    group = Group()
    group.run(2.0)
    number = group.send(group.followers()[0], (b"SET", b"a", b"1"))
    group.run(1.0)
    (reply,) = group.replies(number)
    assert isinstance(reply, NotHere)
    assert reply.leader == f"{group.leader()}/g1"


def test_what_was_acknowledged_survives_the_leader_s_crash() -> None:
    group = Group()
    group.run(2.0)
    group.do((b"SET", b"a", b"1"))
    old = group.leader()
    group.apply(Crash(old))
    group.run(2.0)
    assert group.leader() != old
    assert group.do((b"GET", b"a")) == (Outcome(b"1"),)


def test_all_restart_and_nothing_is_lost() -> None:
    group = Group()
    agreement = Agreement(group)
    group.run(2.0)
    group.do(*commands(b"a", 20))
    for name in group.names:
        group.apply(Crash(name))
    group.run(1.0)
    group.restart(group.names)
    agreement.run(3.0)
    (outcome,) = group.do((b"GET", b"a"))
    assert outcome.value == b"".join(b"%d," % number for number in range(20))


def test_a_leader_that_reaches_no_majority_answers_nothing_and_leaves_office() -> None:
    group = Group()
    group.run(2.0)
    old = group.leader()
    group.apply(Partition((tuple(group.followers()),)))
    write = group.send(old, (b"SET", b"a", b"1"))
    group.run(2.0)
    assert not group.replica(old).leading
    read = group.ask(old, submit(0, (b"GET", b"a")))
    group.run(1.0)
    assert all(isinstance(reply, NotHere) for number in (write, read) for reply in group.replies(number))
    (new,) = group.leaders()
    assert new != old
    group.apply(Heal())
    group.run(3.0)
    assert group.leaders() == [new]


def test_a_flapping_follower_deposes_nobody() -> None:
    """It hears the other follower, but never the leader: the pre-vote keeps it quiet."""
    group = Group()
    group.run(2.0)
    leader = group.leader()
    ballot = group.replica(leader).acceptor.promised
    deaf = group.followers()[0]
    for _ in range(5):
        group.apply(OneWayCut(leader, deaf))
        group.run(3.0)
        group.apply(Heal())
        group.run(1.0)
    assert group.leaders() == [leader]
    assert group.replica(leader).acceptor.promised == ballot


def test_a_follower_that_missed_much_gets_a_snapshot_and_the_log_stays_short() -> None:
    settings = Settings(checkpoint_operations=20, checkpoint_entries=20, retained_entries=10)
    group = Group(settings=settings)
    agreement = Agreement(group)
    group.run(2.0)
    away = group.followers()[0]
    group.apply(Crash(away))
    for start in range(200):
        group.do((b"SET", b"k%d" % (start % 7), bytes(1000)), within_s=0.02)
    assert len(group.replica(group.leader()).acceptor.log) <= 40
    group.apply(Restart(away))
    agreement.run(3.0)
    assert group.machine(away).records == group.machine(group.leader()).records
    stored = group.world.durable(f"{away}/g1")
    assert len([key for key in stored if key.startswith(b"m")]) == len(group.machine(away).records)


def test_a_replica_that_lost_its_disk_votes_again_only_when_caught_up() -> None:
    group = Group()
    agreement = Agreement(group)
    group.run(2.0)
    group.do(*commands(b"a", 5))
    lost = group.followers()[0]
    disk = group.replica(lost).me.disk
    group.apply(Crash(lost))
    group.apply(LoseDisk(lost))
    group.apply(Restart(lost))
    agreement.run(3.0)
    replica = group.replica(lost)
    assert replica.me.disk != disk
    assert replica.me in group.replica(group.leader()).execution.members
    assert replica.describe()["role"] == "follower"
    group.apply(Crash(next(name for name in group.followers() if name != lost)))
    agreement.run(2.0)
    assert group.do((b"GET", b"a")) == (Outcome(b"0,1,2,3,4,"),)


def test_two_of_three_that_lost_their_disks_found_no_group_of_their_own() -> None:
    group = Group()
    group.run(2.0)
    group.do((b"SET", b"a", b"1"))
    for name in group.names[:2]:
        group.apply(Crash(name))
        group.apply(LoseDisk(name))
        group.apply(Restart(name))
    group.run(5.0)
    assert group.leaders() == []
    assert [group.replica(name).describe()["role"] for name in group.names[:2]] == ["joining"] * 2


def test_a_dead_member_s_host_is_replaced_at_run_time() -> None:
    group = Group(replacing={"s4": "s2"})
    agreement = Agreement(group)
    group.run(2.0)
    group.do(*commands(b"a", 5))
    group.apply(Crash("s2"))
    group.apply(Restart("s4"))
    agreement.run(4.0)
    assert group.replica(group.leader()).describe()["members"] == ("s1/g1", "s3/g1", "s4/g1")
    group.apply(Crash("s1"))
    agreement.run(3.0)
    assert group.do((b"GET", b"a")) == (Outcome(b"0,1,2,3,4,"),)


def test_a_member_whose_place_was_taken_disturbs_nobody() -> None:
    group = Group(replacing={"s4": "s2"})
    group.run(2.0)
    group.apply(Crash("s2"), Restart("s4"))
    group.run(4.0)
    leader, ballot = group.leader(), group.replica(group.leader()).acceptor.promised
    group.apply(Restart("s2"))
    group.run(5.0)
    assert group.leaders() == [leader]
    assert group.replica(leader).acceptor.promised == ballot


def test_lease_reads_ask_nobody_and_without_a_lease_a_majority_is_asked() -> None:
    group = Group(settings=Settings(election_timeout_s=2.0, drift_ratio=0.5))  # it leads on without its lease
    group.run(5.0)
    group.do((b"SET", b"a", b"1"))
    leader = group.leader()
    number = group.send(leader, (b"GET", b"a"))
    group.run(0.0025)  # to the leader and back
    assert group.outcomes(number) == (Outcome(b"1"),)
    group.apply(*[OneWayCut(name, leader) for name in group.followers()])
    group.run(1.0)
    number = group.send(leader, (b"GET", b"a"))
    group.run(0.01)
    assert group.replies(number) == []
    group.apply(Heal())
    group.run(0.5)
    assert group.outcomes(number) == (Outcome(b"1"),)


def test_groups_of_any_size_survive_a_minority() -> None:
    for size, faulty in ((1, 0), (2, 0), (4, 1), (5, 2), (7, 3)):
        group = Group(size)
        group.run(2.0)
        group.do((b"SET", b"a", b"1"))
        group.apply(*[Crash(name) for name in group.names[:faulty]])
        group.run(3.0)
        assert group.do((b"GET", b"a")) == (Outcome(b"1"),)


def test_damage_is_found_at_the_restart_and_counts_as_a_lost_disk() -> None:
    group = Group()
    agreement = Agreement(group)
    group.run(2.0)
    group.do(*commands(b"a", 50))
    rotten = group.followers()[0]
    disk = group.replica(rotten).me.disk
    group.apply(Crash(rotten), RotDisk(rotten), Restart(rotten))
    agreement.run(3.0)
    assert group.replica(rotten).me.disk != disk
    assert group.replica(rotten).me in group.replica(group.leader()).execution.members
    assert group.machine(rotten).records == group.machine(group.leader()).records


def test_the_log_and_the_store_stay_bounded() -> None:
    settings = Settings(checkpoint_operations=50, checkpoint_entries=50, retained_entries=30)
    group = Group(settings=settings)
    group.run(2.0)
    for round_ in range(6):
        for number in range(100):
            group.send(group.leader(), (b"SET", b"k%d" % (number % 10), b"%d" % round_))
            group.run(0.005)
        for name in group.names:
            records = 80 + 10 + 5
            assert len(group.replica(name).acceptor.log) <= 80
            assert len(group.world.durable(f"{name}/g1")) <= records


def test_a_leader_that_was_paused_answers_no_read_from_the_past() -> None:
    """Its programs stood still while another was elected; the read waited in its kernel."""
    group = Group()
    group.run(2.0)
    group.do((b"SET", b"a", b"old"))
    old = group.leader()
    group.apply(Pause(old))
    read = group.send(old, (b"GET", b"a"))
    group.run(2.0)
    (new,) = [name for name in group.leaders() if name != old]
    number = group.send(new, (b"SET", b"a", b"new"))
    group.run(0.5)
    assert group.outcomes(number) == (OK,)
    group.apply(Resume(old))
    group.run(1.0)
    assert group.outcomes(read) in (None, (Outcome(b"new"),))


def test_leases_hold_as_long_as_clocks_drift_no_more_than_they_may() -> None:
    """The leader's clock is as slow, its followers' as fast as is allowed: its lease ends before they
    lead."""
    names, drift_ratio = ("s1", "s2", "s3"), 0.1
    for slow in names:
        clocks = {name: DeviceClock(drift_ppm=1e6 * drift_ratio * (-1) ** (name == slow)) for name in names}
        group = Group(settings=Settings(drift_ratio=drift_ratio), clocks=clocks)
        group.run(4.0)
        old = group.leader()
        group.apply(Partition((tuple(group.followers()),)))
        others = [group.replica(name) for name in names if name != old]
        held = [True]
        while not any(replica.leads for replica in others):
            held.append(lease_holds(group, old))
            group.run(0.001)
        assert not held[-1]


def lease_holds(group: Group, name: str) -> bool:
    leads = group.replica(name).leads
    live = group.world.endpoints[f"{name}/g1"].live
    assert live is not None
    return leads is not None and leads.lease.holds(live.now, group.settings.lease_s)


def test_a_write_costs_two_messages_a_follower() -> None:
    """Accept and Accepted; that it is chosen travels with whatever comes next."""
    group = Group()
    group.run(3.0)
    before = group.messages_sent()
    for number in range(100):
        group.send(group.leader(), (b"SET", b"a", b"%d" % number))
        group.run(0.01)
    group.run(1.0)
    after = group.messages_sent()
    sent = {kind: after[kind] - before.get(kind, 0) for kind in ("Accept", "Accepted")}
    assert sent == {"Accept": 200, "Accepted": 200}


def test_a_founder_that_loses_its_disk_before_all_have_heard_of_the_group_founds_no_other() -> None:
    group = Group()
    while not group.replica("s1").execution.founders:
        group.run(0.0005)
    group.apply(OneWayCut("s1", "s3"))
    while not group.replica("s2").execution.founders:
        group.run(0.0005)
    assert not group.replica("s3").execution.founders
    founders = group.replica("s1").execution.founders
    group.apply(Crash("s1"), LoseDisk("s1"), Heal(), Restart("s1"))
    Agreement(group).run(4.0)
    assert [group.replica(name).execution.founders for name in group.names] == [founders] * 3
    assert group.do((b"SET", b"a", b"1")) == (OK,)


def test_what_a_replica_said_it_has_it_still_has_after_a_restart() -> None:
    """Found by a sweep: it knew in memory what was chosen, promised another ballot, and forgot."""
    store = OrderedMap()
    acceptor = Acceptor()
    acceptor.promise(store, Ballot(1, 7))
    assert acceptor.accept(store, 1, [encode_entry(Entry(0.0))] * 3)
    acceptor.learn(3)
    acceptor.promise(store, Ballot(2, 8))
    restarted = Acceptor()
    restarted.load(store, 1, 0)
    assert (acceptor.chosen, acceptor.through) == (restarted.chosen, restarted.through) == (3, 3)
