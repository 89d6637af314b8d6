"""The emulated network by HTTP: how it is, what fails in it now, and the dashboard's feed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import msgspec
from fastapi import FastAPI, Request, Response
from fastapi.responses import StreamingResponse

from gateway.api import state
from gateway.api.desk import Refused, Unanswered
from gateway.api.problems import Bodies, Problem, json_response
from gateway.api.running import Running
from underlay.errors import BirdhouseError
from underlay.faults import AnyFault, Heal

FAULT_BYTES_MAX = 64 * 1024


def add_network(app: FastAPI, running: Running, feed: state.Feed, bodies: Bodies) -> None:
    """Its endpoints."""

    @app.get("/api/v1/network")
    async def network() -> Response:
        """The emulated network: who is up, what links carry."""
        return json_response(await running.look())

    @app.post("/api/v1/faults")
    async def fault(request: Request) -> Response:
        """Something fails, or is mended, now: `{"fault": "crash", "device": "hub"}`."""
        async with bodies.of(request, FAULT_BYTES_MAX) as body:
            try:
                wanted = msgspec.json.decode(body, type=AnyFault)
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
                raise Problem(400, str(error).replace("`", "")) from error
        return await inject(wanted)

    @app.delete("/api/v1/faults")
    async def heal() -> Response:
        """No link is cut any more. Devices without power stay so: `restart` them."""
        return await inject(Heal())

    async def inject(wanted: AnyFault) -> Response:
        try:
            await running.inject(wanted)
        except BirdhouseError as error:
            raise Problem(409, str(error)) from error
        return json_response({"done": msgspec.to_builtins(wanted)})

    @app.get("/api/v1/state")
    async def whole() -> Response:
        """What the dashboard shows."""
        return json_response(await feed.document())

    @app.get("/api/v1/events")
    async def events(request: Request) -> Response:
        """The same as Server-Sent Events, whenever there is a new one."""
        try:
            watching = feed.watching()
            await watching.__aenter__()
        except state.TooMany as error:
            raise Problem(503, str(error), retry_after_s=5.0) from error

        async def stream() -> AsyncIterator[bytes]:
            try:
                while not await request.is_disconnected():
                    document = msgspec.json.encode(await feed.document())
                    yield b"event: state\ndata: " + document + b"\n\n"
                    await asyncio.sleep(state.INTERVAL_S)
            except (Unanswered, Refused):
                return  # the page asks again
            finally:
                await watching.__aexit__(None, None, None)

        headers = {"Cache-Control": "no-store"}
        return StreamingResponse(stream(), media_type="text/event-stream", headers=headers)
