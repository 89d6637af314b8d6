"""Forwarding from 127.0.0.1 into a namespace, with a service on either side of it."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from threading import Thread

import pytest

from underlay.emulation.forwarding import HERE, Transport, Wanted, forward, take
from underlay.emulation.processes import run_to_end
from underlay.errors import InputError

FIRST = 21_000 + os.getpid() % 4000


def wanted(name: str, port: int, *transports: Transport, insists: bool = False) -> Wanted:
    return Wanted(name, "device", port, FIRST, transports or ("tcp",), insists)


@contextmanager
def forwarded(port: int, *transports: Transport) -> Iterator[tuple[str, int]]:
    """A way to `port` of 127.0.0.1, which plays the device here: its namespace is our own."""
    (way,) = take([wanted("way", port, *transports)])
    with open("/proc/self/ns/net", "rb") as namespace:
        pid = os.fork()
        if pid == 0:
            run_to_end(lambda: forward([way], {"device": namespace.fileno()}, {"device": HERE}))
        way.close()
        try:
            yield HERE, way.local_port
        finally:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


@pytest.fixture
def service() -> Iterator[socket.socket]:
    """Somebody who listens."""
    with socket.create_server((HERE, 0)) as listener:
        listener.settimeout(20.0)
        yield listener


def test_a_port_that_is_taken_is_passed_over_unless_somebody_insists() -> None:
    (first,) = take([wanted("first", 1)])
    with closing(first):
        (second,) = take([wanted("second", 1)])
        with closing(second):
            assert second.local_port > first.local_port
        with pytest.raises(InputError, match=f"third: port {first.local_port} of 127.0.0.1 is taken"):
            take([insisting(first.local_port)])
    again = take([insisting(first.local_port)])
    again[0].close()


def insisting(port: int) -> Wanted:
    """Nothing but that port will do."""
    return Wanted("third", "device", 1, port, ("tcp",), insists=True)


def test_where_one_way_cannot_be_had_no_port_stays_taken() -> None:
    (taken,) = take([wanted("taken", 1)])
    with closing(taken):
        free = Wanted("free", "device", 1, taken.local_port + 1, ("tcp", "udp"), insists=True)
        with pytest.raises(InputError):
            take([free, insisting(taken.local_port)])
    (now,) = take([free])
    now.close()


@pytest.mark.emulation
def test_bytes_pass_both_ways_and_an_end_of_one_way_is_passed_on(service: socket.socket) -> None:
    with forwarded(service.getsockname()[1]) as address, socket.create_connection(address, 20.0) as client:
        far, _ = service.accept()
        with far:
            far.settimeout(20.0)
            client.sendall(b"question" * 10_000)
            client.shutdown(socket.SHUT_WR)
            assert _all(far) == b"question" * 10_000
            far.sendall(b"answer")
            far.shutdown(socket.SHUT_WR)
            assert _all(client) == b"answer"


@pytest.mark.emulation
def test_whoever_does_not_read_holds_the_other_side_back(service: socket.socket) -> None:
    with forwarded(service.getsockname()[1]) as address, socket.create_connection(address, 20.0) as client:
        far, _ = service.accept()
        with far:
            far.settimeout(0.5)
            with pytest.raises(TimeoutError):
                far.sendall(b"x" * 500_000_000)
            assert client.recv(10) == b"x" * 10


@pytest.mark.emulation
def test_where_nobody_listens_a_client_is_hung_up_on() -> None:
    with socket.create_server((HERE, 0)) as gone:
        port = gone.getsockname()[1]
    with (
        forwarded(port) as address,
        socket.create_connection(address, 20.0) as client,
        suppress(ConnectionResetError),
    ):
        assert client.recv(1) == b""


@pytest.mark.emulation
def test_datagrams_find_back_to_whom_they_answer() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as service:
        service.bind((HERE, 0))
        service.settimeout(20.0)

        def echo() -> None:
            for _ in range(4):
                data, sender = service.recvfrom(100)
                service.sendto(data.upper(), sender)

        answering = Thread(target=echo)
        answering.start()
        with forwarded(service.getsockname()[1], "udp") as address:
            clients = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2)]
            for _ in range(2):
                for n, client in enumerate(clients):
                    client.settimeout(20.0)
                    client.sendto(b"abc"[n : n + 1], address)
                assert [client.recv(100) for client in clients] == [b"A", b"B"]
            for client in clients:
                client.close()
        answering.join()


def _all(connection: socket.socket) -> bytes:
    found = bytearray()
    while data := connection.recv(65_536):
        found += data
    return bytes(found)
