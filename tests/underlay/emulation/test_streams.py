"""Streams between nodes, and from callers outside the network, on real sockets of the loopback interface."""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable
from contextlib import suppress

import msgspec
import pytest

from tests.underlay.emulation.device_bench import HERE, THERE, Bench, Scripted, Sentence
from underlay.emulation import driver, streams
from underlay.emulation.streams import QUEUE_BYTES_MAX, Hello
from underlay.messages import MESSAGE_BYTES_MAX, Message
from underlay.node import Context


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
