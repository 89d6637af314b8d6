"""The driver's promises: writes and sends, datagrams, timers, clock, counters, long work, bindings."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

from tests.underlay.emulation.device_bench import HERE, Bench, Scripted, Thought, Word
from underlay.clock import DeviceClock
from underlay.emulation import driver
from underlay.emulation.store_log import Disk
from underlay.messages import Message
from underlay.node import Context, Timer, Work, WorkFailed
from underlay.plan import BindingHost, BindingPlan

# ------------------------------------------------------------------------------------------- writes and sends


def test_no_send_after_a_write_leaves_before_the_commit_but_one_before_it_does(
    start: Callable[..., Bench], monkeypatch: pytest.MonkeyPatch
) -> None:
    def on_start(ctx: Context) -> None:
        ctx.send("far/peer", Word("before"))
        ctx.store.put(b"k", b"v")
        ctx.send("far/peer", Word("after"))

    bench = start({"node": Scripted(start=on_start)})
    heard_at_commit: list[list[bytes]] = []
    commit = Disk.commit

    def slow_commit(disk: Disk) -> None:
        heard_at_commit.append(bench.heard())
        commit(disk)

    monkeypatch.setattr(Disk, "commit", slow_commit)
    after: list[bytes] = []

    def arrived() -> list[bytes]:
        after.extend(bench.heard())
        return after

    bench.run(arrived)
    assert [Scripted.protocol.decode(data) for data in heard_at_commit[0]] == [Word("before")]
    assert [Scripted.protocol.decode(data) for data in after] == [Word("after")]


def test_all_nodes_of_a_device_share_one_commit(
    start: Callable[..., Bench], monkeypatch: pytest.MonkeyPatch
) -> None:
    commits: list[Disk] = []
    commit = Disk.commit

    def counted(disk: Disk) -> None:
        commits.append(disk)
        commit(disk)

    monkeypatch.setattr(Disk, "commit", counted)
    monkeypatch.setattr(driver, "TURN_S", 60.0)  # a slow disk must not end the turn
    nodes = {name: Scripted(start=lambda ctx: ctx.store.put(b"k", b"v")) for name in ("one", "two", "three")}
    bench = start(nodes)
    bench.run(lambda: commits)
    assert len(commits) == 1
    reopened = Disk(bench.life.store)
    assert [reopened.store(name).get(b"k") for name in nodes] == [b"v"] * 3
    reopened.close()


def test_when_durable_comes_after_the_commit_and_to_the_node_itself(start: Callable[..., Bench]) -> None:
    def on_start(ctx: Context) -> None:
        ctx.store.put(b"k", b"v")
        ctx.when_durable(Thought("safe"))

    node = Scripted(start=on_start)
    bench = start({"node": node})
    bench.run(lambda: node.happened)
    assert node.happened == [("here/node", Thought("safe"))]


def test_a_node_that_dies_in_the_middle_of_a_turn_leaves_nothing_of_it(start: Callable[..., Bench]) -> None:
    def on_start(ctx: Context) -> None:
        ctx.store.put(b"k", b"v")
        ctx.send("far/peer", Word("promised"))
        raise ZeroDivisionError

    bench = start({"node": Scripted(start=on_start)})
    with pytest.raises(ZeroDivisionError):
        bench.run(lambda: False)
    assert bench.heard() == []
    reopened = Disk(bench.life.store)
    assert reopened.store("node").get(b"k") is None
    reopened.close()


def test_the_trace_is_written_before_what_it_tells_of_is_sent(start: Callable[..., Bench]) -> None:
    bench = start({"node": Scripted(start=lambda ctx: ctx.send("far/peer", Word("hello")))})
    bench.run(bench.heard)
    assert bench.records()[0]["event"] == "node-started"


# ----------------------------------------------------------------------------------------------- what arrives


def test_datagrams_are_known_by_where_they_come_from(start: Callable[..., Bench]) -> None:
    node = Scripted()
    bench = start({"node": node})
    bench.run(lambda: True)
    bench.far.sendto(Scripted.protocol.encode(Word("hello")), (HERE, bench.ports["node"]))
    bench.run(lambda: node.happened)
    assert node.happened == [("far/peer", Word("hello"))]


@pytest.mark.parametrize(
    "data",
    [b"", b"\xc1", b"\x92\x01", os.urandom(100), Scripted.protocol.encode(Thought("from outside"))],
    ids=["empty", "no msgpack", "cut short", "noise", "a local message"],
)
def test_bytes_that_are_no_message_are_noted_and_dropped(data: bytes, start: Callable[..., Bench]) -> None:
    node = Scripted()
    bench = start({"node": node})
    bench.run(lambda: True)
    bench.far.sendto(data, (HERE, bench.ports["node"]))
    bench.far.sendto(Scripted.protocol.encode(Word("good")), (HERE, bench.ports["node"]))
    bench.run(lambda: node.happened)
    assert node.happened == [("far/peer", Word("good"))]
    bench.run(lambda: [r for r in bench.records() if r["event"] == "malformed" and r["sender"] == "far/peer"])


# ------------------------------------------------------------------------------------ timers, clock, counters


def test_timers_move_when_set_again_and_a_cancelled_one_never_comes(start: Callable[..., Bench]) -> None:
    def on_start(ctx: Context) -> None:
        ctx.set_timer("moved", 0.01)
        ctx.set_timer("cancelled", 0.02)
        ctx.cancel_timer("cancelled")
        ctx.set_timer(("a", "tuple"), 0.03)
        ctx.set_timer("moved", 0.06)

    node = Scripted(start=on_start)
    bench = start({"node": node})
    bench.run(lambda: len(node.happened) == 2)
    assert node.happened == [("timer", ("a", "tuple")), ("timer", "moved")]


def test_a_timer_cancelled_by_the_handler_before_it_in_the_same_turn_does_not_come(
    start: Callable[..., Bench],
) -> None:
    def on_start(ctx: Context) -> None:
        ctx.set_timer("first", 0.0)
        ctx.set_timer("second", 0.0)
        ctx.set_timer("last", 0.02)

    node = Scripted(start=on_start, timer=lambda ctx, timer: ctx.cancel_timer("second"))
    bench = start({"node": node})
    bench.run(lambda: ("timer", "last") in node.happened)
    assert node.happened == [("timer", "first"), ("timer", "last")]


def test_a_device_lives_by_its_own_clock(start: Callable[..., Bench]) -> None:
    seen: list[float] = []
    bench = start(
        {"node": Scripted(start=lambda ctx: seen.append(ctx.now))}, clock=DeviceClock(offset_s=1000.0)
    )
    bench.run(lambda: seen)
    assert 1000.0 <= seen[0] < 1010.0


def test_what_was_sent_is_counted_with_its_hops(start: Callable[..., Bench]) -> None:
    def on_start(ctx: Context) -> None:
        ctx.send("far/peer", Word("one"))
        ctx.send("far/peer", Word("two"))
        ctx.send("here/node", Thought("to myself"))
        ctx.send("nobody/peer", Word("lost"))

    bench = start({"node": Scripted(start=on_start)})
    bench.run(lambda: [r for r in bench.records() if r["event"] == "messages-sent"])
    (sent,) = [r for r in bench.records() if r["event"] == "messages-sent"]
    size = len(Scripted.protocol.encode(Word("one")))
    lost = len(Scripted.protocol.encode(Word("lost")))
    assert (sent["message"], sent["count"], sent["bytes"], sent["hops"]) == ("Word", 3, 2 * size + lost, 4)


def test_the_same_seed_gives_a_node_the_same_random_stream_as_the_simulation(
    start: Callable[..., Bench],
) -> None:
    from underlay.network import seeded

    seen: list[float] = []
    bench = start({"node": Scripted(start=lambda ctx: seen.append(ctx.rng.random()))})
    bench.run(lambda: seen)
    assert seen == [seeded(1, "node", "here/node", 1).random()]


# ---------------------------------------------------------------------------------------- long work, bindings


def double(n: int) -> Message:
    return Thought(str(2 * n))


def fail() -> Message:
    raise LookupError("nothing there")


def die() -> Message:
    os._exit(9)


def forever() -> Message:
    while True:
        pass


@pytest.mark.parametrize(
    ("work", "outcome"),
    [
        (Work(double, (21,)), Thought("42")),
        (Work(fail), WorkFailed("key", "LookupError: nothing there")),
        (Work(die), WorkFailed("key", "ended with status 9")),
    ],
    ids=["returns", "raises", "dies"],
)
def test_work_comes_back_as_a_message_whatever_happens(
    work: Work, outcome: Message, start: Callable[..., Bench]
) -> None:
    node = Scripted(start=lambda ctx: ctx.run("key", work))
    bench = start({"node": node})
    bench.run(lambda: node.happened)
    assert node.happened == [("@run", outcome)]


def test_work_of_the_same_key_replaces_what_runs_and_cancelled_work_never_answers(
    start: Callable[..., Bench],
) -> None:
    def on_start(ctx: Context) -> None:
        ctx.run("replaced", Work(forever))
        ctx.run("cancelled", Work(forever))
        ctx.set_timer("then", 0.05)

    def then(ctx: Context, timer: Timer) -> None:
        ctx.run("replaced", Work(double, (1,)))
        ctx.cancel_run("cancelled")

    node = Scripted(start=on_start, timer=then)
    bench = start({"node": node})
    bench.run(lambda: len(node.happened) == 2)
    assert node.happened[1:] == [("@run", Thought("2"))]


class Parrot:
    """A binding that says everything back."""

    async def start(self, host: BindingHost) -> None:
        self.host = host

    def send(self, node: str, message: Message) -> None:
        self.host.sent("Squawk", 10, payload=True, to="far")
        self.host.deliver(node, message)

    async def close(self) -> None:
        """Nothing to release."""


def test_a_node_and_a_binding_talk_by_local_messages(start: Callable[..., Bench]) -> None:
    node = Scripted(start=lambda ctx: ctx.send("@parrot", Thought("hello")))
    bench = start({"node": node}, bindings=(BindingPlan("@parrot", Scripted, Parrot, 1),))
    bench.run(lambda: [r for r in bench.records() if r["event"] == "messages-sent"])
    assert node.happened == [("@parrot", Thought("hello"))]
    (sent,) = [r for r in bench.records() if r["event"] == "messages-sent"]
    assert (sent["node"], sent["message"], sent["payload"], sent["hops"]) == ("@parrot", "Squawk", True, 2)


def test_what_is_heard_before_the_start_waits_until_the_nodes_have_started(
    start: Callable[..., Bench],
) -> None:
    seen: list[str] = []

    def on_message(ctx: Context, sender: str, message: Message) -> None:
        seen.append("message")

    bench = start({"node": Scripted(start=lambda ctx: seen.append("start"), message=on_message)})
    bench.driver.nodes["node"].deliver("far/peer", Word("early"))
    bench.run(lambda: len(seen) == 2)
    assert seen == ["start", "message"]
