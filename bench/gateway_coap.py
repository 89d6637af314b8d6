"""Load for the gateway's CoAP door: many devices, each with one confirmable POST under way (NSTART = 1).

Owns the clients; they are sockets and hand-written datagrams, because a client library for each would be what
is measured.
"""

from __future__ import annotations

import selectors
import socket
import time
from collections.abc import Sequence

from edge.observation import Observation, ObservationId

CLIENTS = 16
PATIENCE_S = 20.0
_HEAD = b"\x40\x02"
_OPTIONS = b"\xbc" + b"observations" + b"\x11\x2a" + b"\xff"
_CONFIRMABLE, _CHANGED, _EMPTY = 0, 0x44, 0


def observations(count: int, round_: int, payload: bytes) -> list[list[bytes]]:
    """So many encoded observations in all, for each client."""
    return [
        [
            Observation(
                ObservationId(f"c{round_}d{client}", n), "temperature", 60.0 * n, 0.0, payload
            ).encode()
            for n in range(count // CLIENTS)
        ]
        for client in range(CLIENTS)
    ]


def load(address: tuple[str, int], work: Sequence[Sequence[bytes]], rate_per_s: float | None) -> list[float]:
    """Seconds from when each POST was due (sent, without a rate) to its 2.04."""
    selector = selectors.DefaultSelector()
    clients = [_Client(address, bodies) for bodies in work]
    for client in clients:
        selector.register(client.socket, selectors.EVENT_READ, client)
    began_s = time.perf_counter()
    interval_s = 0.0 if rate_per_s is None else len(clients) / rate_per_s
    for n, client in enumerate(clients):
        client.first_due_s = began_s + n * interval_s / len(clients)
    waits_s: list[float] = []
    while any(client.left for client in clients):
        now_s = time.perf_counter()
        idle = [client for client in clients if client.left and not client.waiting]
        for client in idle:
            if rate_per_s is None or client.due_s(interval_s) <= now_s:
                client.send(now_s if rate_per_s is None else client.due_s(interval_s))
        upcoming = [client.due_s(interval_s) for client in clients if client.left and not client.waiting]
        timeout_s = max(0.0, min(upcoming) - now_s) if upcoming else PATIENCE_S
        ready = selector.select(timeout_s)
        assert ready or upcoming, "the gateway does not answer"
        for key, _ in ready:
            wait_s = key.data.receive()
            if wait_s is not None:
                waits_s.append(wait_s)
    for client in clients:
        client.socket.close()
    return waits_s


class _Client:
    def __init__(self, address: tuple[str, int], bodies: Sequence[bytes]) -> None:
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.connect(address)
        self.first_due_s = 0.0
        self.waiting = False
        self._bodies = bodies
        self._next = 0
        self._since_s = 0.0

    @property
    def left(self) -> int:
        return len(self._bodies) - self._next + self.waiting

    def due_s(self, interval_s: float) -> float:
        return self.first_due_s + self._next * interval_s

    def send(self, since_s: float) -> None:
        mid = (self._next & 0xFFFF).to_bytes(2, "big")
        self.socket.send(_HEAD + mid + _OPTIONS + self._bodies[self._next])
        self._since_s, self.waiting = since_s, True
        self._next += 1

    def receive(self) -> float | None:
        answer = self.socket.recv(2048)
        if answer[1] == _EMPTY:
            return None  # acknowledged; the answer comes by itself
        if answer[0] >> 4 & 3 == _CONFIRMABLE:
            self.socket.send(b"\x60\x00" + answer[2:4])
        assert answer[1] == _CHANGED, answer
        self.waiting = False
        return time.perf_counter() - self._since_s
