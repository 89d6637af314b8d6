"""The driver's promises, on real sockets of the loopback interface: no root, no namespace, no other device's
help.
"""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Any

import msgspec
import pytest

from underlay.clock import DeviceClock
from underlay.emulation import driver, streams
from underlay.emulation.driver import Driver, Incarnation
from underlay.emulation.store_sqlite import Disk
from underlay.emulation.streams import QUEUE_BYTES_MAX, Hello
from underlay.messages import MESSAGE_BYTES_MAX, Message, Protocol
from underlay.node import Context, Node, Timer, Work, WorkFailed
from underlay.plan import BindingHost, BindingPlan, DevicePlan, NodePlan
from underlay.store import OrderedMap
from underlay.trace import read_trace

HERE, THERE = "127.0.0.1", "127.0.0.2"


class Word(Message, frozen=True, array_like=True, tag=1):
    text: str


class Sentence(Message, frozen=True, array_like=True, tag=2):
    transport = "stream"
    text: str


class Thought(Message, frozen=True, array_like=True, tag=3):
    transport = "local"
    text: str


class Scripted(Node):
    """Does what the test says, and remembers what happened."""

    protocol = Protocol("scripted", Word, Sentence, Thought)

    def __init__(self, **handlers: Callable[..., None]) -> None:
        self.handlers = handlers
        self.happened: list[tuple[Any, ...]] = []

    def on_start(self, ctx: Context) -> None:
        self._do("start", ctx)

    def on_message(self, ctx: Context, sender: str, message: Message) -> None:
        self.happened.append((sender, message))
        self._do("message", ctx, sender, message)

    def on_timer(self, ctx: Context, timer: Timer) -> None:
        self.happened.append(("timer", timer))
        self._do("timer", ctx, timer)

    def on_peer_down(self, ctx: Context, peer: str) -> None:
        self.happened.append(("down", peer))

    def _do(self, what: str, *arguments: Any) -> None:
        if what in self.handlers:
            self.handlers[what](*arguments)


class Bench:
    """One device on 127.0.0.1 with the given nodes; 127.0.0.2 is the device `far`, played by the test."""

    def __init__(self, folder: Path, nodes: dict[str, Node], **changes: Any) -> None:
        self.loop = asyncio.new_event_loop()
        self.ports = {name: _free_port() for name in (*nodes, "peer")}
        made = tuple(NodePlan(name, partial(_same, node), self.ports[name]) for name, node in nodes.items())
        plan = DevicePlan(nodes=made, bindings=changes.pop("bindings", ()))
        life = Incarnation(
            device="here",
            number=1,
            seed=1,
            plan=plan,
            addresses={"here": HERE, "far": THERE},
            ports=self.ports,
            hops={"far": 2},
            clock=DeviceClock(),
            duration_s=60.0,
            usage_interval_s=0.05,
            store=folder / "store.sqlite",
            trace=folder / "trace.jsonl",
            log=folder / "log",
        )
        self.life = msgspec.structs.replace(life, **changes)
        self._file = self.life.trace.open("ab")
        self.driver = Driver(self.life, self.loop, self._file)
        self.far = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.far.bind((THERE, self.ports["peer"]))
        self.far.setblocking(False)

    def run(self, until: Callable[[], object], patience_s: float = 10.0) -> None:
        """Let the device live until `until()`; fails the test if that never comes."""
        self.loop.run_until_complete(self._run(until, patience_s))

    async def _run(self, until: Callable[[], object], patience_s: float) -> None:
        if self.driver.t() == 0.0:
            await self.driver.open()
            self.driver.start(monotonic())
        end_s = monotonic() + patience_s
        while not until():
            if self.driver.failure.done():
                self.driver.failure.result()
            assert monotonic() < end_s, "it never happened"
            await asyncio.sleep(0.002)

    def heard(self) -> list[bytes]:
        """Datagrams that arrived at `far`."""
        found = []
        with suppress(BlockingIOError):
            while True:
                found.append(self.far.recv(65_536))
        return found

    def records(self) -> list[dict[str, Any]]:
        """The trace so far."""
        return list(read_trace(self.life.trace))

    def close(self) -> None:
        self.loop.run_until_complete(self.driver.close())
        self.loop.run_until_complete(asyncio.sleep(0))
        self.loop.close()
        self._file.close()
        self.far.close()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Bench]]:
    """Makes benches and closes them."""
    made: list[Bench] = []

    def make(nodes: dict[str, Node], **changes: Any) -> Bench:
        made.append(Bench(tmp_path, nodes, **changes))
        return made[-1]

    yield make
    for bench in made:
        bench.close()


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


@pytest.mark.sweep(20)
def test_the_store_is_an_ordered_map(seed: int, tmp_path: Path) -> None:
    """Any mixture of writes, deletions, commits and crashes reads like a sorted dictionary."""
    from random import Random

    rng = Random(seed)
    disk = Disk(tmp_path / "store.sqlite")
    store, model = disk.store("node"), OrderedMap()
    durable: dict[bytes, bytes] = {}
    for _ in range(200):
        key = bytes([rng.randrange(20)]) * rng.randrange(1, 3)
        match rng.randrange(10):
            case 0 | 1 | 2 | 3:
                value = bytes([rng.randrange(256)])
                store.put(key, value)
                model.put(key, value)
            case 4 | 5:
                store.delete(key)
                model.delete(key)
            case 6:
                disk.commit()
                durable = dict(model.scan())
            case 7:
                disk.close()
                disk = Disk(tmp_path / "store.sqlite")
                store, model = disk.store("node"), OrderedMap(durable)
            case _:
                end = bytes([rng.randrange(20)]) if rng.random() < 0.5 else None
                assert list(store.scan(key, end)) == list(model.scan(key, end))
                assert store.get(key) == model.get(key)
    disk.close()


def test_a_scan_goes_on_while_what_it_found_is_deleted(tmp_path: Path) -> None:
    disk = Disk(tmp_path / "store.sqlite")
    store = disk.store("node")
    keys = [b"%04d" % n for n in range(1000)]
    for key in keys:
        store.put(key, b"")
    seen = []
    for key, _ in store.scan():
        store.delete(key)
        seen.append(key)
    assert seen == keys
    assert list(store.scan()) == []
    disk.close()


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


def frame(data: bytes) -> bytes:
    return struct.pack("!I", len(data)) + data


HELLO = frame(msgspec.msgpack.encode(Hello("far/peer", 1)))


def call_in(bench: Bench, data: bytes) -> socket.socket:
    """Connect to the device's node as `far`, and say something."""
    bench.run(lambda: True)
    caller = socket.socket()
    caller.bind((THERE, 0))
    caller.connect((HERE, bench.ports["node"]))
    caller.sendall(data)
    caller.setblocking(False)
    return caller


def ended(caller: socket.socket) -> bool:
    """Whether the other side closed or reset the connection."""
    try:
        return caller.recv(1) == b""
    except BlockingIOError:
        return False
    except ConnectionResetError:
        return True


def test_a_stream_carries_messages_both_ways_and_its_end_is_told(start: Callable[..., Bench]) -> None:
    def answer(ctx: Context, sender: str, message: Message) -> None:
        assert isinstance(message, Sentence)
        ctx.send(sender, Sentence(message.text.upper()))

    node = Scripted(message=answer)
    bench = start({"node": node})
    messages = [Scripted.protocol.encode(Sentence(text)) for text in ("one", "two")]
    caller = call_in(bench, HELLO + b"".join(map(frame, messages)))
    got = bytearray()

    def answered() -> bool:
        with suppress(BlockingIOError):
            got.extend(caller.recv(65_536))
        return len(got) >= sum(4 + len(m) for m in messages)

    bench.run(answered)
    caller.close()
    bench.run(lambda: len(node.happened) == 3)
    assert bytes(got) == b"".join(frame(Scripted.protocol.encode(Sentence(t))) for t in ("ONE", "TWO"))
    assert node.happened == [
        ("far/peer", Sentence("one")),
        ("far/peer", Sentence("two")),
        ("down", "far/peer"),
    ]


@pytest.mark.parametrize(
    "data",
    [
        frame(b"no hello"),
        frame(msgspec.msgpack.encode(Hello("here/node", 1))),
        frame(msgspec.msgpack.encode(Hello("nobody/node", 1))),
        HELLO + struct.pack("!I", MESSAGE_BYTES_MAX + 1),
        b"GET / HTTP/1.1\r\n\r\n",
    ],
    ids=["no hello", "a false name", "an unknown name", "a frame too long", "another protocol"],
)
def test_a_stream_that_breaks_the_rules_is_reset(data: bytes, start: Callable[..., Bench]) -> None:
    bench = start({"node": Scripted()})
    with call_in(bench, data) as caller:
        bench.run(lambda: ended(caller))
    bench.run(lambda: [r for r in bench.records() if r["event"] == "malformed"])


def test_a_newer_incarnation_of_a_peer_ends_the_streams_of_the_older(start: Callable[..., Bench]) -> None:
    node = Scripted()
    bench = start({"node": node})
    word = frame(Scripted.protocol.encode(Sentence("hi")))
    with (
        call_in(bench, HELLO + word),
        call_in(bench, frame(msgspec.msgpack.encode(Hello("far/peer", 2))) + word),
    ):
        bench.run(lambda: len(node.happened) == 3)
    assert sorted(map(str, node.happened)) == sorted(
        map(str, [("far/peer", Sentence("hi")), ("far/peer", Sentence("hi")), ("down", "far/peer")])
    )


def test_nobody_listening_is_a_peer_that_is_down(start: Callable[..., Bench]) -> None:
    node = Scripted(start=lambda ctx: ctx.send("far/peer", Sentence("anybody?")))
    bench = start({"node": node})
    bench.run(lambda: node.happened)
    assert node.happened == [("down", "far/peer")]


def test_a_peer_that_does_not_read_is_reset_before_memory_runs_out(start: Callable[..., Bench]) -> None:
    def flood(ctx: Context, _: object = None) -> None:
        ctx.send("far/peer", Sentence("x" * 60_000))
        ctx.set_timer("again", 0.0)

    node = Scripted(
        start=flood, timer=lambda ctx, timer: None if ("down", "far/peer") in node.happened else flood(ctx)
    )
    bench = start({"node": node})
    with socket.create_server((THERE, bench.ports["peer"])):
        bench.run(lambda: ("down", "far/peer") in node.happened)
    assert len(node.happened) > QUEUE_BYTES_MAX / 60_000


# --------------------------------------------------------------------------------------- callers from outside

FROM_OUTSIDE = frame(msgspec.msgpack.encode(Hello("", 1)))


def sentence(text: str) -> bytes:
    return frame(Scripted.protocol.encode(Sentence(text)))


def shouter() -> Scripted:
    """Answers in capitals."""

    def answer(ctx: Context, sender: str, message: Message) -> None:
        assert isinstance(message, Sentence)
        ctx.send(sender, Sentence(message.text.upper()))

    return Scripted(message=answer)


def read(caller: socket.socket, into: bytearray) -> bytearray:
    with suppress(BlockingIOError):
        while data := caller.recv(65_536):
            into += data
    return into


def test_a_caller_from_outside_is_answered_by_the_handle_it_arrived_under(
    start: Callable[..., Bench],
) -> None:
    node = shouter()
    bench = start({"node": node})
    with (
        call_in(bench, FROM_OUTSIDE + sentence("one")) as first,
        call_in(bench, FROM_OUTSIDE + sentence("two")) as second,
    ):
        one, two = bytearray(), bytearray()
        bench.run(lambda: len(read(first, one)) >= len(sentence("ONE")) <= len(read(second, two)))
    assert one == sentence("ONE")
    assert two == sentence("TWO")
    handles = [sender for sender, message in node.happened[:2]]
    assert len(set(handles)) == 2
    assert all("/" not in handle for handle in handles)


def test_what_is_sent_to_a_caller_that_left_is_dropped_and_the_node_was_told(
    start: Callable[..., Bench],
) -> None:
    def later(ctx: Context, sender: str, message: Message) -> None:
        ctx.set_timer(sender, 0.05)

    node = Scripted(message=later, timer=lambda ctx, timer: ctx.send(str(timer), Sentence("too late")))
    bench = start({"node": node})
    call_in(bench, FROM_OUTSIDE + sentence("hi")).close()
    bench.run(lambda: len(node.happened) == 3)
    bench.run(lambda: [r for r in bench.records() if r["event"] == "messages-sent"])
    caller = node.happened[0][0]
    assert node.happened == [(caller, Sentence("hi")), ("down", caller), ("timer", caller)]


def test_a_caller_that_reads_slowly_gets_every_answer_and_keeps_nobody_else_waiting(
    start: Callable[..., Bench], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It asks for 64 MB of answers before it reads: it is made to wait, which its own sends notice."""
    monkeypatch.setattr(driver, "INBOX_MAX", 50)
    node = Scripted(message=lambda ctx, sender, message: ctx.send(sender, Sentence("x" * 50_000)))
    bench = start({"node": node})
    asked, wanted, got = 0, 1280, 0
    question = sentence("?")
    greedy = call_in(bench, FROM_OUTSIDE)
    greedy.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)

    def ask() -> bool:
        nonlocal asked
        with suppress(BlockingIOError):
            while asked < wanted * len(question):
                part = (question * (wanted - asked // len(question)))[asked % len(question) :]
                asked += greedy.send(part)
        return True

    bench.run(ask)
    with call_in(bench, FROM_OUTSIDE + question) as polite:
        answer = bytearray()
        bench.run(lambda: len(read(polite, answer)) == len(sentence("x" * 50_000)))

    def take() -> bool:
        nonlocal got
        ask()
        got += len(read(greedy, bytearray()))
        return got == wanted * len(sentence("x" * 50_000))

    bench.run(take, patience_s=30.0)
    greedy.close()


def test_who_connects_and_says_nothing_is_reset(
    start: Callable[..., Bench], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "HELLO_TIMEOUT_S", 0.05)
    bench = start({"node": Scripted()})
    with call_in(bench, b"") as silent:
        bench.run(lambda: ended(silent))


def test_more_callers_than_are_allowed_are_reset_and_peers_still_come_in(
    start: Callable[..., Bench], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "CALLERS_MAX", 3)
    node = shouter()
    bench = start({"node": node})
    callers = [call_in(bench, FROM_OUTSIDE + sentence("hi")) for _ in range(3)]
    bench.run(lambda: len(node.happened) == 3)
    with call_in(bench, b"") as one_more:
        bench.run(lambda: ended(one_more))
    callers.pop().close()
    bench.run(lambda: len(node.happened) == 4)
    with call_in(bench, HELLO + sentence("hi")):
        bench.run(lambda: ("far/peer", Sentence("hi")) in node.happened)
    for caller in callers:
        caller.close()


def test_connections_are_made_and_accepted_with_keepalives() -> None:
    with streams.bound_socket(HERE, 0) as listener, streams.bound_socket(HERE, 0) as caller:
        listener.listen()
        caller.setblocking(True)
        caller.connect(listener.getsockname())
        listener.setblocking(True)
        accepted, _ = listener.accept()
        with accepted:
            for end in (caller, accepted):
                assert end.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
                idle_s = end.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE)
                assert idle_s == streams.KEEPALIVE_IDLE_S


# ------------------------------------------------------------------------------------ timers, clock, counters


def test_timers_move_when_set_again_and_a_cancelled_one_never_comes(start: Callable[..., Bench]) -> None:
    def on_start(ctx: Context) -> None:
        ctx.set_timer("moved", 0.01)
        ctx.set_timer("moved", 0.06)
        ctx.set_timer("cancelled", 0.02)
        ctx.cancel_timer("cancelled")
        ctx.set_timer(("a", "tuple"), 0.03)

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


def _same(node: Node) -> Node:
    return node


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HERE, 0))
        port: int = probe.getsockname()[1]
        return port
