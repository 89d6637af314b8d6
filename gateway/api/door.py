"""The binding: uvicorn in the device's own event loop, on the sockets that this door has bound.

Owns sockets, the number of connections and how long a client may take; what is said over them is `app`'s.
A client that has not completed a request in time, or does not read its answer, is cut off, whatever it sends
meanwhile. Nothing that a client sends may raise in the loop, which is that of the device's nodes.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import h11
import msgspec
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from gateway.api.app import make_app
from gateway.api.desk import Desk
from gateway.api.job_desk import JobDesk
from gateway.api.running import Place, Running
from gateway.mapreduce.messages import JOBS
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
    """Beyond it, the one that has been without a request for longest makes room."""
    request_s: float = 20.0
    """A client must have completed its request so long after it connected, or after the last answer; and read
    on, if it has stopped reading an answer."""


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
        self._jobs = JobDesk(lambda message: host.deliver(JOBS, message))
        app = make_app(self._desk, running, self._jobs, token=config.token, trusted=frozenset([host.ip]))
        listener = socket.create_server((config.ip or host.ip, config.port), backlog=128)
        self.address: tuple[str, int] = listener.getsockname()

        logging.getLogger("uvicorn.error").addHandler(logging.NullHandler())  # a client's fault is no news
        crowd = _Crowd(config.connections_max)

        def protocol(*args: Any, **kwargs: Any) -> _Impatient:
            return _Impatient(crowd, config.request_s, *args, **kwargs)

        self._server = _Server(
            uvicorn.Config(
                app,
                http=protocol,  # type: ignore[arg-type] # it says class, and calls it
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                timeout_graceful_shutdown=1,
                h11_max_incomplete_event_size=16 * 1024,
                server_header=False,
            )
        )
        self._task = asyncio.get_running_loop().create_task(self._server.serve([listener]))

    def send(self, node: str, message: Message) -> None:
        self._desk.hear(message)
        self._jobs.hear(message)

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


class _Crowd:
    """Who is connected, those first who have been without a request for longest.

    uvicorn's own limit answers 503 to everybody for as long as too many are connected, and goes on accepting.
    """

    def __init__(self, members_max: int) -> None:
        self._members_max = members_max
        self._members: dict[_Impatient, None] = {}

    def enter(self, member: _Impatient) -> None:
        """One came, or has been answered."""
        self._members.pop(member, None)
        self._members[member] = None
        if len(self._members) > self._members_max:
            idle = next((each for each in self._members if not each.waits_for_us), member)
            self.leave(idle)
            idle.transport.abort()

    def leave(self, member: _Impatient) -> None:
        """One went."""
        self._members.pop(member, None)


class _Impatient(H11Protocol):
    """Gives a client so long for a request, and for an answer that it does not read."""

    def __init__(self, crowd: _Crowd, patience_s: float, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._crowd = crowd
        self._patience_s = patience_s
        self._deadline: asyncio.TimerHandle | None = None
        self._unread: asyncio.TimerHandle | None = None

    @property
    def waits_for_us(self) -> bool:
        """Its request is complete, and not answered yet."""
        cycle = cast("Any", self.cycle)  # None before the first request, whatever uvicorn declares
        return cycle is not None and not cycle.more_body and not cycle.response_complete

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._begin()

    def connection_lost(self, exc: Exception | None) -> None:
        self._crowd.leave(self)
        self._end()
        self.resume_writing()
        super().connection_lost(exc)

    def on_response_complete(self) -> None:
        if not self.transport.is_closing():
            self._begin()
        super().on_response_complete()

    def send_400_response(self, msg: str) -> None:
        """As every other problem is told. uvicorn answers in plain text, and even where an answer is under
        way or complete, which raises in the loop."""
        if self.conn.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            self.transport.abort()
            return
        body = msgspec.json.encode({"problem": msg})
        headers = [
            ("content-type", "application/json"),
            ("content-length", str(len(body))),
            ("connection", "close"),
        ]
        answer = h11.Response(status_code=400, headers=headers, reason=b"Bad Request")
        for event in (answer, h11.Data(data=body), h11.EndOfMessage()):
            self.transport.write(self.conn.send(event) or b"")
        self.transport.close()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._unread = self.loop.call_later(self._patience_s, self.transport.abort)

    def resume_writing(self) -> None:
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None
        super().resume_writing()

    def _begin(self) -> None:
        self._end()
        self._deadline = self.loop.call_later(self._patience_s, self._judge)
        self._crowd.enter(self)

    def _end(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _judge(self) -> None:
        if self.waits_for_us:
            self._deadline = self.loop.call_later(self._patience_s, self._judge)
        else:
            self.transport.abort()
