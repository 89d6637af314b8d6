"""What was kept, asked for by HTTP: devices, observations in pages and as exports, photographs, storage."""

from __future__ import annotations

import csv
import io
from collections.abc import AsyncIterator
from hashlib import sha256
from typing import Annotated

import msgspec
from fastapi import FastAPI, Query, Request, Response
from fastapi.responses import StreamingResponse

from edge.observation import Observation
from gateway.api import state
from gateway.api.desk import Desk
from gateway.api.problems import Problem, json_response
from gateway.api.reading import to_document
from gateway.inquiry import prefix_of
from gateway.messages import (
    DeadLetters,
    DestinationStates,
    Devices,
    DeviceState,
    Fetch,
    Page,
    RouteStates,
    StorageState,
    Stretch,
)

EXPORT_PAGE = 500
JPEG_START = b"\xff\xd8"


def add_reads(app: FastAPI, desk: Desk) -> None:
    """Their endpoints."""

    @app.get("/api/v1/devices")
    async def devices() -> Response:
        """All that were heard of."""
        return json_response([state.device_document(each) for each in await desk.ask(Devices())])

    @app.get("/api/v1/devices/{device}")
    async def one_device(device: str) -> Response:
        """One of them."""
        return json_response(state.device_document(await _device(desk, device)))

    @app.get("/api/v1/devices/{device}/{kind}/latest")
    async def latest(device: str, kind: str) -> Response:
        """The newest observation of a kind, whole."""
        return json_response(to_document(await _latest(desk, device, kind)))

    @app.get("/api/v1/devices/{device}/{kind}/latest.jpg")
    async def picture(request: Request, device: str, kind: str) -> Response:
        """The newest one's payload, where that is a photograph."""
        return _image(request, await _latest(desk, device, kind))

    @app.get("/api/v1/objects/{key:path}")
    async def stored(request: Request, key: str) -> Response:
        """One observation by its storage key: a photograph as such, anything else as JSON."""
        observation = await _fetch(desk, key.encode())
        if observation.payload.startswith(JPEG_START):
            return _image(request, observation)
        return json_response(to_document(observation))

    @app.get("/api/v1/devices/{device}/{kind}/observations")
    async def stretch(
        device: str,
        kind: str,
        since: float = 0.0,
        until: float = 9_999_999_999.0,
        limit: Annotated[int, Query(ge=1, le=1000)] = 100,
        after: str = "",
        format: str = "json",  # noqa: A002 - the parameter's name in the address
    ) -> Response:
        """In order of `t_event`: a page (json), or all that there is as a stream (ndjson, csv)."""
        if after and not after.encode().startswith(prefix_of(device, kind)):
            raise Problem(422, "after is the `next` of a page of this device and kind", where="after")
        wanted = Stretch(device, kind, since, until, limit, after.encode())
        if format == "json":
            page: Page = await desk.ask(wanted)
            following = page.next.decode() or None
            return json_response(
                {"observations": [to_document(each) for each in page.observations], "next": following}
            )
        if format not in ("ndjson", "csv"):
            raise Problem(422, "a format is json, ndjson or csv", where="format")
        first = await desk.ask(msgspec.structs.replace(wanted, limit=EXPORT_PAGE))
        write, media_type = {
            "ndjson": (_ndjson, "application/x-ndjson"),
            "csv": (_csv, "text/csv; charset=utf-8"),
        }[format]
        return StreamingResponse(write(_pages_of(desk, wanted, first)), media_type=media_type)

    @app.get("/api/v1/routes")
    async def routes() -> Response:
        """Where observations go, and what became of them."""
        return json_response([msgspec.to_builtins(route) for route in await desk.ask(RouteStates())])

    @app.get("/api/v1/destinations")
    async def destinations() -> Response:
        """How the destinations do, and how much waits for each."""
        return json_response([msgspec.to_builtins(each) for each in await desk.ask(DestinationStates())])

    @app.get("/api/v1/dead-letters")
    async def dead_letters(limit: Annotated[int, Query(ge=1, le=1000)] = 100) -> Response:
        """What was not stored, and why; newest first."""
        return json_response([msgspec.to_builtins(letter) for letter in await desk.ask(DeadLetters(limit))])

    @app.get("/api/v1/storage")
    async def storage() -> Response:
        """The storage groups."""
        return json_response([state.group_document(group) for group in await desk.ask(StorageState())])


async def _device(desk: Desk, name: str) -> DeviceState:
    heard: tuple[DeviceState, ...] = await desk.ask(Devices())
    for device in heard:
        if device.name == name:
            return device
    raise Problem(404, f"nothing has come from {name!r}")


async def _latest(desk: Desk, device: str, kind: str) -> Observation:
    for latest in (await _device(desk, device)).latest:
        if latest.kind == kind:
            return await _fetch(desk, latest.key)
    raise Problem(404, f"no {kind!r} has come from {device!r}")


async def _fetch(desk: Desk, key: bytes) -> Observation:
    observation: Observation | None = await desk.ask(Fetch(key))
    if observation is None:
        raise Problem(404, "there is no such observation, or it is not stored yet")
    return observation


def _image(request: Request, observation: Observation) -> Response:
    if not observation.payload.startswith(JPEG_START):
        raise Problem(415, f"a {observation.kind} is no photograph")
    etag = f'"{sha256(observation.payload).hexdigest()[:32]}"'
    headers = {"ETag": etag, "Cache-Control": "no-cache", "X-Content-Type-Options": "nosniff"}
    if request.headers.get("if-none-match") == etag:
        return Response(status_code=304, headers=headers)
    return Response(observation.payload, 200, headers, "image/jpeg")


async def _pages_of(desk: Desk, wanted: Stretch, page: Page) -> AsyncIterator[Page]:
    yield page
    while page.next:
        page = await desk.ask(msgspec.structs.replace(wanted, limit=EXPORT_PAGE, after=page.next))
        yield page


async def _ndjson(pages: AsyncIterator[Page]) -> AsyncIterator[bytes]:
    async for page in pages:
        yield b"".join(msgspec.json.encode(to_document(each)) + b"\n" for each in page.observations)


async def _csv(pages: AsyncIterator[Page]) -> AsyncIterator[bytes]:
    columns = ("device", "sequence", "kind", "t_event", "t_gen", "payload")
    yield (",".join(columns) + "\r\n").encode()
    async for page in pages:
        text = io.StringIO()
        rows = csv.writer(text)
        for observation in page.observations:
            *plain, payload = to_document(observation).values()
            is_text = isinstance(payload, str)
            rows.writerow([*plain, payload if is_text else msgspec.json.encode(payload).decode()])
        yield text.getvalue().encode()
