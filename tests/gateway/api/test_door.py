"""The HTTP door under clients that mean no good: it answers others, and the device's nodes never notice."""

from __future__ import annotations

import asyncio
import json
import select
import socket
from collections.abc import Iterator
from contextlib import AsyncExitStack, ExitStack, suppress

import httpx
import pytest
from fastapi import Request
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.api.app import make_app
from gateway.api.desk import Desk
from gateway.api.door import HttpConfig
from gateway.api.job_desk import JobDesk
from gateway.api.problems import SMALL_BYTES, Bodies, Problem
from gateway.api.running import Place as OnPaper
from gateway.api.running import Running
from tests.gateway.api.hosting import Place, document, running

CONNECTIONS_MAX = 20
WAIT_S = 20.0

NO_JOBS = JobDesk(lambda _: None)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    config = HttpConfig(request_s=2.0, connections_max=CONNECTIONS_MAX)
    with running(Place(tmp_path_factory.mktemp("door"), http=config)) as made:
        yield made


def still_serves(place: Place) -> bool:
    """The same process as ever answers a new client."""
    with place.client() as client:
        return client.get("/healthz").status_code == 200 and not place.hosts.ended()


def connected(place: Place) -> socket.socket:
    return socket.create_connection(place.address, timeout=WAIT_S)


def test_what_is_no_http_is_told_as_every_other_problem(place: Place) -> None:
    with connected(place) as bad:
        bad.sendall(b"WHAT IS THIS\r\n\r\n")
        answer = b""
        while more := bad.recv(65536):
            answer += more
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 Bad Request\r\ncontent-type: application/json")
    assert json.loads(body)["problem"]
    assert still_serves(place)


CHUNKED = b" HTTP/1.1\r\nHost: x\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    "request_line",
    [b"POST /api/v1/observations", b"GET /api/v1/events"],
    ids=["it was answered early", "its answer goes on"],
)
def test_a_body_that_breaks_once_the_answer_has_begun_ends_that_connection_only(
    place: Place, request_line: bytes
) -> None:
    with connected(place) as bad:
        bad.sendall(request_line + CHUNKED)
        assert bad.recv(12).startswith(b"HTTP/1.1 ")
        bad.sendall(b"no size\r\n\r\n")
        with suppress(ConnectionResetError):
            while bad.recv(65536):
                pass
    assert still_serves(place)


FRAGMENTS = st.sampled_from(
    [
        b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /api/v1/events HTTP/1.1\r\nHost: x\r\n",
        b"POST /api/v1/observations HTTP/1.1\r\nHost: x\r\n",
        b"POST /nowhere" + CHUNKED,
        b"Transfer-Encoding: chunked\r\n",
        b"Content-Length: 7\r\n",
        b"Expect: 100-continue\r\n",
        b"Connection: Upgrade\r\nUpgrade: websocket\r\n",
        b"Connection: close\r\n",
        b"Host: [x\r\n",
        b"\r\n",
        b'5\r\n{"a":\r\n',
        b"0\r\n\r\n",
        b"fffffffffffffffffff\r\n",
        b"\x00\xff",
    ]
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(FRAGMENTS, min_size=1, max_size=8), st.booleans())
def test_no_bytes_end_the_gateway(place: Place, fragments: list[bytes], in_pieces: bool) -> None:
    with connected(place) as bad:
        bad.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with suppress(ConnectionError):
            for part in fragments if in_pieces else [b"".join(fragments)]:
                bad.sendall(part)
                if select.select([bad], [], [], 0.01)[0] and not bad.recv(65536):
                    break  # it has been cut off
    assert still_serves(place)


def test_when_too_many_are_connected_those_without_a_request_make_room(place: Place) -> None:
    with ExitStack() as open_sockets:
        idle = [open_sockets.enter_context(connected(place)) for _ in range(3 * CONNECTIONS_MAX)]
        assert still_serves(place)
        watch = select.poll()
        for each in idle[: 2 * CONNECTIONS_MAX]:
            watch.register(each, select.POLLIN)
        assert len(watch.poll(0)) == 2 * CONNECTIONS_MAX  # those who came first have been let go


def test_a_client_that_does_not_read_is_cut_off(place: Place) -> None:
    """Its answers fill every buffer on the way, and then it is given the same time as for a request."""
    with socket.socket() as deaf:
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        deaf.connect(place.address)
        deaf.setblocking(False)
        watch = select.poll()
        watch.register(deaf, select.POLLOUT)
        asks = b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n" * 20_000
        with suppress(ConnectionError):
            while asks and watch.poll(1000):
                asks = asks[deaf.send(asks) :]
            watch.modify(deaf, 0)  # errors only
            assert watch.poll(WAIT_S * 1000), "it is still connected"
    assert still_serves(place)


def request_with(*chunks: bytes) -> Request:
    """A request whose body comes in these chunks."""
    left = list(chunks)

    async def receive() -> dict[str, object]:
        chunk = left.pop(0)
        return {"type": "http.request", "body": chunk, "more_body": bool(left)}

    return Request({"type": "http", "headers": []}, receive)


def test_large_bodies_share_a_bound_and_small_ones_always_have_room() -> None:
    large, small = b"x" * (2 * SMALL_BYTES), b"x" * SMALL_BYTES

    async def go() -> None:
        bodies = Bodies(large_bytes_in_all=2 * SMALL_BYTES)
        async with AsyncExitStack() as held:
            for _ in range(2):
                assert await held.enter_async_context(bodies.of(request_with(large), 1 << 20)) == large
            with pytest.raises(Problem) as refused:
                await held.enter_async_context(bodies.of(request_with(small, b"x"), 1 << 20))
            assert refused.value.status == 503
            assert refused.value.headers == {"Retry-After": "1"}
            assert await held.enter_async_context(bodies.of(request_with(small), 1 << 20)) == small
            assert bodies.large_bytes == 2 * SMALL_BYTES
        assert bodies.large_bytes == 0
        async with bodies.of(request_with(large), 1 << 20) as body:
            assert body == large

    asyncio.run(go())


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Host": "localhost:8080"}, 200),
        ({"Host": "sink.birdhouse.test"}, 200),
        ({"Host": "127.0.0.1:8080", "Origin": "http://127.0.0.1:8080"}, 200),
        ({"Host": "127.0.0.1:8080", "Origin": "http://127.0.0.1:9"}, 403),
        ({"Host": "127.0.0.1:8080", "Origin": "https://evil.example"}, 403),
        ({"Host": "127.0.0.1:8080", "Origin": "null"}, 403),
        ({"Host": "evil.example:8080", "Origin": "http://evil.example:8080"}, 403),
        ({"Host": "evil.example:8080", "Authorization": "Bearer secret"}, 200),
        ({"Host": "evil.example:8080", "Authorization": "Bearer guess"}, 403),
    ],
)
def test_a_foreign_page_in_a_browser_that_is_near_is_not(headers: dict[str, str], status: int) -> None:
    app = make_app(
        Desk(lambda _: None, "http", lambda: 0.0), Running(OnPaper(), None), NO_JOBS, token="secret"
    )

    async def ask() -> int:
        transport = httpx.ASGITransport(app=app, client=("127.0.0.1", 4711))
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            return (await client.get("/healthz", headers=headers)).status_code

    assert asyncio.run(ask()) == status


def test_faults_are_healed_by_delete_and_pages_begin_in_their_stretch(place: Place) -> None:
    with place.client() as client:
        assert client.delete("/api/v1/faults").status_code == 503  # it is in no run
        client.post("/api/v1/observations", json=document(1, "a"))
        for after in ("garbage", "obs:{b}:temperature:1", "\x00"):
            answer = client.get("/api/v1/devices/a/temperature/observations", params={"after": after})
            assert (answer.status_code, answer.json()["where"]) == (422, "after")
