"""The binding: uvicorn in the device's own event loop, on the sockets that this door has bound.

Owns sockets, the number of connections and how long a client may take; what is said over them is `app`'s.
A client that has not completed a request in time is cut off, whatever it sends meanwhile.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import msgspec
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from gateway.api.app import make_app
from gateway.api.desk import Desk
from gateway.api.running import Place, Running
from gateway.messages import NODE
from underlay.messages import Message
from underlay.node import Node
from underlay.plan import BindingHost, BindingPlan

NAME = "@http"
PORT = 8080


class HttpConfig(msgspec.Struct, frozen=True):
    """One gateway's HTTP door."""

    port: int = PORT
    ip: str = ""
    """Empty: the device's own address."""
    token: str = ""
    """What clients from other machines must show; empty: none is let in."""
    connections_max: int = 200
    request_s: float = 20.0
    """A client must have completed its request so long after it connected, or after the last answer."""


class HttpDoor:
    """`underlay.plan.Binding` for HTTP."""

    def __init__(self, config: HttpConfig | None = None, place: Place | None = None) -> None:
        self._config = config or HttpConfig()
        self._place = place or Place()
        self._server: _Server | None = None

    async def start(self, host: BindingHost) -> None:
        config = self._config
        self._desk = Desk(lambda message: host.deliver(NODE, message), "http", host.now)
        running = Running(self._place, host.run)
        app = make_app(self._desk, running, token=config.token, trusted=frozenset([host.ip]))
        listener = socket.create_server((config.ip or host.ip, config.port), backlog=128)
        self.address: tuple[str, int] = listener.getsockname()

        def protocol(*args: Any, **kwargs: Any) -> _Impatient:
            return _Impatient(config.request_s, *args, **kwargs)

        self._server = _Server(
            uvicorn.Config(
                app,
                http=protocol,  # type: ignore[arg-type] # it says class, and calls it
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                limit_concurrency=config.connections_max,
                timeout_graceful_shutdown=1,
                h11_max_incomplete_event_size=16 * 1024,
                server_header=False,
            )
        )
        self._task = asyncio.get_running_loop().create_task(self._server.serve([listener]))

    def send(self, node: str, message: Message) -> None:
        self._desk.hear(message)

    async def close(self) -> None:
        if self._server is not None:
            self._server.should_exit = True
            await self._task


class NoClients(Node):
    """What stands for the door in the simulation, where there are no programs that could connect."""


def http_door(config: HttpConfig | None = None, place: Place | None = None) -> BindingPlan:
    """For the gateway's `DevicePlan`."""
    return BindingPlan(NAME, NoClients, lambda: HttpDoor(config, place), (config or HttpConfig()).port)


class _Server(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals are the device's business."""
        yield


class _Impatient(H11Protocol):
    """Gives a client so long for a request."""

    def __init__(self, patience_s: float, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._patience_s = patience_s
        self._deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._begin()

    def connection_lost(self, exc: Exception | None) -> None:
        self._end()
        super().connection_lost(exc)

    def on_response_complete(self) -> None:
        self._begin()
        super().on_response_complete()

    def _begin(self) -> None:
        self._end()
        self._deadline = self.loop.call_later(self._patience_s, self._judge)

    def _end(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _judge(self) -> None:
        cycle = cast("Any", self.cycle)  # None before the first request, whatever uvicorn declares
        if cycle is not None and not cycle.more_body and not cycle.response_complete:
            self._begin()  # it waits for us
        else:
            self.transport.abort()
