"""Datagrams that nobody should send: the running endpoint answers or ignores them, and goes on."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edge.coap.aiocoap_interface import ANSWERS_MAX, Answers
from tests.edge.caching.asking import birdhouse, observed
from tests.edge.coap.street import Street, free_port
from tests.edge.coap.test_posts import RESOURCES, Clerk
from underlay.node import Node

DEVICES: dict[str, dict[str, Callable[[], Node]]] = {
    "hub": {"caching": partial(birdhouse, 60), "clerk": Clerk}
}
ASK = b"\x41\x01%b\x07\xbbtemperature"
"""A confirmable GET, all but its message id."""


async def bear(folder: Path, datagrams: Sequence[bytes]) -> None:
    """Send all of these to an endpoint, and then something sensible that it must answer; no exception may
    have reached the event loop."""
    complaints: list[dict[str, Any]] = []
    loop = asyncio.get_running_loop()
    async with Street(folder, DEVICES, free_port(), RESOURCES) as street:
        loop.set_exception_handler(lambda _, context: complaints.append(context))
        street.tell("hub", "caching", observed(0, b"21.5"))
        to = (street.addresses["hub"], street.port)
        with (
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as hostile,
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sensible,
        ):
            sensible.setblocking(False)
            sensible.connect(to)
            for n, datagram in enumerate(datagrams):
                hostile.sendto(datagram, to)
                if n % 32 == 31:  # a socket's buffer is no part of this
                    assert await answer(loop, sensible, n)
            assert (await answer(loop, sensible, 0xFFFF)).endswith(b"\xff21.5")
    assert complaints == []


async def answer(loop: asyncio.AbstractEventLoop, sock: socket.socket, mid: int) -> bytes:
    sock.send(ASK % mid.to_bytes(2, "big"))
    async with asyncio.timeout(10.0):
        return await loop.sock_recv(sock, 2048)


def option(delta: int, value: bytes) -> bytes:
    """As RFC 7252 §3.1 says."""

    def split(number: int) -> tuple[int, bytes]:
        if number < 13:
            return number, b""
        if number < 269:
            return 13, bytes([number - 13])
        return 14, (number - 269).to_bytes(2, "big")

    (first, more), (second, length) = split(delta), split(len(value))
    return bytes([first << 4 | second]) + more + length + value


def datagram(
    kind: int, code: int, mid: int, token: bytes, options: list[tuple[int, bytes]], rest: bytes
) -> bytes:
    head = bytes([0x40 | kind << 4 | len(token), code]) + mid.to_bytes(2, "big") + token
    return head + b"".join(option(delta, value) for delta, value in options) + rest


DATAGRAMS = st.one_of(
    st.binary(max_size=64),
    st.builds(
        datagram,
        st.integers(0, 3),
        st.sampled_from([0, 1, 2, 3, 4, 5, 0x1F, 0x44, 0x45, 0x5F, 0x80, 0xA3, 0xE1, 0xFF]),
        st.integers(0, 0xFFFF),
        st.binary(max_size=15),
        st.lists(
            st.tuples(
                # Mostly the options that mean something, from the one before.
                st.sampled_from([0, 1, 3, 4, 6, 11, 12, 16, 5, 23, 27, 35, 60, 292, 65_000]),
                st.sampled_from([b"", b"desk", b"log", b"\xff\xfe", b"\x00" * 9, b"x" * 300])
                | st.binary(max_size=20),
            ),
            max_size=5,
        ),
        st.sampled_from([b"", b"\xff", b"\xff21.5", b"\xf0", b"\xd0", b"\xe0\x01"]),
    ),
)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(DATAGRAMS, min_size=1, max_size=100))
def test_an_endpoint_bears_whatever_comes(
    tmp_path_factory: pytest.TempPathFactory, datagrams: list[bytes]
) -> None:
    asyncio.run(bear(tmp_path_factory.mktemp("street"), datagrams))


def test_an_endpoint_bears_what_scapy_makes(tmp_path: Path) -> None:
    """Well-formed requests, each cut short everywhere, with each byte changed, and with lengths that lie."""
    from scapy.contrib.coap import CoAP

    whole = [
        bytes(
            CoAP(type=0, code=code, msg_id=mid, token=b"\x05", tkl=1, options=options, paymark=mark) / payload
        )
        for mid, (code, options, mark, payload) in enumerate(
            [
                (1, [("Uri-Path", "temperature"), ("Uri-Path", "x")], b"", b""),
                (1, [(6, b""), ("Uri-Path", "log")], b"", b""),
                (2, [("Uri-Path", "desk"), ("Content-Format", b"\x2a")], b"\xff", b"21.5"),
                (2, [("If-Match", b"\x01"), ("Uri-Path", "desk")], b"\xff", b"21.5"),
                (2, [("Uri-Path", "desk"), ("Proxy-Uri", "coap://127.0.0.1/x")], b"", b""),
                (3, [("Uri-Path", b"\xff\xfe\xfd")], b"\xff", b""),
            ]
        )
    ]
    bent = [data[:end] for data in whole for end in range(len(data))]
    bent += [data[:n] + bytes([data[n] ^ 0xFF]) + data[n + 1 :] for data in whole for n in range(len(data))]
    asyncio.run(bear(tmp_path, [*whole, *bent, *[data[:1] + b"\x45" + data[2:] for data in whole]]))


def test_what_was_answered_is_forgotten_in_time_and_for_want_of_room() -> None:
    answers = Answers()
    answers.expect("first", 10.0)
    answers.forget(9.9)
    assert "first" in answers
    answers.forget(10.0)
    assert len(answers) == 0
    for n in range(ANSWERS_MAX + 5):
        answers.forget(0.0)
        answers.expect(n, 10.0)
    assert (len(answers), min(answers)) == (ANSWERS_MAX, 5)
