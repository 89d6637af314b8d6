"""The Redis port with clients that mean no good, or are slow, or many: real sockets, one host."""

from __future__ import annotations

import random
import select
import socket
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from kv.redis.binding import PORT, Bounds
from kv.redis.resp import Limits
from tests.kv.redis.hosting import Cluster, running
from tests.kv.redis.test_resp import request

BOUNDS = Bounds(
    clients=8,
    unread_bytes=64 * 1024,
    held_bytes_in_all=800 * 1024,
    limits=Limits(bulk_bytes=300 * 1024, request_bytes=400 * 1024),
)


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with running(Cluster(tmp_path_factory.mktemp("host"), {"g1": ["s1"]}, bounds=BOUNDS)) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def impatient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A host that cuts off soon who is stuck."""
    bounds = Bounds(stuck_s=0.4, unread_bytes=64 * 1024)
    with running(Cluster(tmp_path_factory.mktemp("impatient"), {"g1": ["s1"]}, bounds=bounds)) as cluster:
        yield cluster


class Caller:
    """A client that writes what it likes."""

    def __init__(self, host: Cluster) -> None:
        self.socket = socket.create_connection((host.addresses["s1"], PORT), timeout=20.0)

    def __enter__(self) -> Caller:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def say(self, data: bytes) -> None:
        self.socket.sendall(data)

    def hear(self, size: int) -> bytes:
        """So many bytes, or fewer if the connection ends."""
        heard = b""
        while len(heard) < size and (part := self.socket.recv(min(size - len(heard), 65536))):
            heard += part
        return heard

    def hear_all(self) -> bytes:
        """Everything, to the connection's end."""
        heard = b""
        try:
            while part := self.socket.recv(65536):
                heard += part
        except ConnectionResetError:
            pass
        return heard


def test_bytes_may_come_one_at_a_time(host: Cluster) -> None:
    with Caller(host) as caller:
        for byte in request(b"SET", b"k", b"a\r\nb") + b"GET k\r\n":
            caller.say(bytes([byte]))
        assert caller.hear(15) == b"+OK\r\n$4\r\na\r\nb\r\n"


def test_replies_come_in_order_whoever_makes_them(host: Cluster) -> None:
    with Caller(host) as caller:
        caller.say(
            b"PING 1\r\nSET k 2\r\nPING 3\r\nGET k\r\nCLUSTER KEYSLOT k\r\n"
            b"NOSUCH\r\nDBSIZE\r\nPING 4\r\nQUIT\r\n"
        )
        replies = caller.hear_all()
    assert replies.startswith(
        b"$1\r\n1\r\n+OK\r\n$1\r\n3\r\n$1\r\n2\r\n:7629\r\n-ERR unknown command 'NOSUCH'"
    )
    assert replies.endswith(b":1\r\n$1\r\n4\r\n+OK\r\n")


def test_after_a_protocol_error_the_connection_ends_with_what_was_asked_before(host: Cluster) -> None:
    with Caller(host) as caller:
        caller.say(
            request(b"SET", b"k", b"v") + request(b"GET", b"k") + b"*1\r\n$999999999\r\n" + b"x" * 1000
        )
        assert caller.hear_all() == b"+OK\r\n$1\r\nv\r\n-ERR Protocol error: invalid bulk length\r\n"


def test_a_browser_is_hung_up_on(host: Cluster) -> None:
    with Caller(host) as caller:
        caller.say(b"POST / HTTP/1.1\r\nHost: x\r\n\r\nSET k stolen\r\n")
        assert caller.hear_all() == b""
    with host.client() as client:
        assert client.get("k") != b"stolen"


def test_there_may_be_only_so_many_clients(host: Cluster) -> None:
    callers = [Caller(host) for _ in range(BOUNDS.clients)]
    for caller in callers:
        caller.say(b"PING\r\n")
        assert caller.hear(7) == b"+PONG\r\n"
    with Caller(host) as late:
        assert late.hear_all() == b"-ERR max number of clients reached\r\n"
    callers[0].say(b"QUIT\r\n")
    assert callers[0].hear_all() == b"+OK\r\n"
    with Caller(host) as next_:
        next_.say(b"PING\r\n")
        assert next_.hear(7) == b"+PONG\r\n"
    for caller in callers:
        caller.socket.close()


def test_who_does_not_finish_a_request_is_cut_off(impatient: Cluster) -> None:
    with Caller(impatient) as caller:
        caller.say(b"*2\r\n$3\r\nGET\r\n$1")
        assert caller.hear_all() == b""


def test_who_does_not_read_is_cut_off_and_holds_up_nobody(impatient: Cluster) -> None:
    with Caller(impatient) as deaf, Caller(impatient) as other:
        other.say(request(b"SET", b"large", b"x" * 30_000))
        assert other.hear(5) == b"+OK\r\n"
        with pytest.raises((ConnectionResetError, BrokenPipeError)):
            deaf.say(request(b"GET", b"large") * 1_000_000)
        other.say(b"PING\r\n")
        assert other.hear(7) == b"+PONG\r\n"


def test_a_client_that_asks_faster_than_it_reads_gets_all_its_replies(host: Cluster) -> None:
    """The host stops reading, so writing ahead would block: this one reads whenever it cannot write."""
    count = 20_000
    with Caller(host) as caller:
        caller.socket.setblocking(False)
        to_say, heard = request(b"PING", b"x" * 50) * count, bytearray()
        while len(heard) < count * len(b"$50\r\n" + b"x" * 50 + b"\r\n"):
            with suppress(BlockingIOError):
                to_say = to_say[caller.socket.send(to_say[:100_000]) :] if to_say else to_say
            with suppress(BlockingIOError):
                heard += caller.socket.recv(1000)
        assert heard == (b"$50\r\n" + b"x" * 50 + b"\r\n") * count


def test_who_holds_more_than_a_share_of_too_much_is_cut_off(host: Cluster) -> None:
    """Three unfinished requests, each allowed, are more together than the host wants to hold."""
    begun = b"*2\r\n$3\r\nGET\r\n$300000\r\n" + b"x" * 290_000
    callers = [Caller(host) for _ in range(3)]
    for caller in callers:
        with suppress(ConnectionResetError, BrokenPipeError):
            caller.say(begun)
    assert select.select([caller.socket for caller in callers], [], [], 20.0)[0], "one is cut off"
    with Caller(host) as other:
        other.say(b"PING\r\n")
        assert other.hear(7) == b"+PONG\r\n"
    for caller in callers:
        caller.socket.close()


@pytest.mark.sweep(3)
def test_garbage_never_reaches_another_client(host: Cluster, seed: int) -> None:
    """Whatever is sent, the host lives, and everybody hears answers to his own questions only."""
    rng = random.Random(seed)
    pieces = [
        b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n",
        b"*1\r\n$4\r\nPING\r\n",
        b"*-1\r\n",
        b"$5\r\n",
        b"\r\n",
        b"GET k\r\n",
        b"*2\r\n$4\r\nECHO\r\n$3\r\nbad\r\n",
        b"CLUSTER SLOTS\r\n",
        b"HELLO 3\r\n",
        b"SCAN 0\r\n",
        b"ASKING\r\n",
        b"*1000000\r\n",
    ]
    with Caller(host) as honest:
        for number in range(60):
            with Caller(host) as fool:
                for _ in range(rng.randrange(12)):
                    piece = rng.choice([*pieces, rng.randbytes(rng.randrange(40))])
                    try:
                        fool.say(piece)
                    except (ConnectionResetError, BrokenPipeError):
                        break
            mine = b"mine:%d" % number
            honest.say(request(b"SET", mine, mine) + request(b"GET", mine) + request(b"ECHO", mine))
            shown = b"$%d\r\n%b\r\n" % (len(mine), mine)
            assert honest.hear(5 + 2 * len(shown)) == b"+OK\r\n" + 2 * shown
    assert host.hosts.ended() == []


def test_a_restart_keeps_what_was_acknowledged(tmp_path: Path) -> None:
    with running(Cluster(tmp_path, {"g1": ["s1"]})) as cluster:
        with Caller(cluster) as caller:
            caller.say(request(b"SET", b"k", b"v"))
            assert caller.hear(5) == b"+OK\r\n"
        cluster.hosts.kill("s1")
        cluster.hosts.start("s1")
        cluster.await_leaders()
        with Caller(cluster) as caller:
            caller.say(b"GET k\r\n")
            assert caller.hear(7) == b"$1\r\nv\r\n"
