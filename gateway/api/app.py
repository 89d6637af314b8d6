"""The endpoints: HTTP's words for what the gateway can do.

Owns status codes and headers. Every problem is one JSON object with a sentence (`{"problem": ..., "where":
...}`); nothing else that went wrong is told to a client. Bodies are bounded while they arrive.
"""

from __future__ import annotations

import asyncio
import csv
import hmac
import io
from collections.abc import AsyncIterator, Awaitable, Callable
from hashlib import sha256
from ipaddress import ip_address
from math import ceil
from typing import Annotated, Any

import msgspec
from fastapi import FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import RedirectResponse, StreamingResponse
from starlette.exceptions import HTTPException

from edge.observation import Observation
from gateway.api import state
from gateway.api.desk import Desk, Refused, Unanswered
from gateway.api.reading import Malformed, from_json, from_msgpack, to_document
from gateway.api.running import NotRunning, Running
from gateway.dashboard import CONTENT_SECURITY_POLICY, page_files
from gateway.messages import (
    DeadLetters,
    Devices,
    DeviceState,
    Fetch,
    Page,
    RouteStates,
    StorageState,
    Stretch,
)
from underlay.errors import BirdhouseError
from underlay.faults import AnyFault

BODY_BYTES_MAX = 4 * 1024 * 1024
FAULT_BYTES_MAX = 64 * 1024
EXPORT_PAGE = 500
KEEPALIVE_S = 5.0
JPEG_START = b"\xff\xd8"

READERS: dict[str, Callable[[bytes, float], list[Observation]]] = {
    "application/json": from_json,
    "application/msgpack": from_msgpack,
    "application/x-msgpack": from_msgpack,
    "application/vnd.msgpack": from_msgpack,
}

Handler = Callable[[Request], Awaitable[Response]]


class Problem(Exception):
    """What a client is told instead of an answer."""

    def __init__(self, status: int, problem: str, *, where: str = "", retry_after_s: float = 0.0) -> None:
        super().__init__(problem)
        self.status = status
        self.document = {"problem": problem, **({"where": where} if where else {})}
        self.headers = {"Retry-After": str(ceil(retry_after_s))} if retry_after_s else {}


def make_app(
    desk: Desk, running: Running, *, token: str = "", trusted: frozenset[str] = frozenset()
) -> FastAPI:
    """The application.

    Args:
        desk: the way to the gateway's node.
        running: the network around it.
        token: whoever comes from elsewhere than this machine or `trusted` has to show it; empty: nobody from
            elsewhere is let in.
        trusted: further addresses that need none.
    """
    app = FastAPI(
        title="Birdhouse gateway", version="1", docs_url=None, redoc_url=None, openapi_url="/openapi.json"
    )
    feed = state.Feed(desk, running)
    _guard(app, token, trusted)
    _explain(app)
    _ingest(app, desk)
    _reads(app, desk)
    _network(app, running, feed)
    _health(app, desk)
    _pages(app)
    return app


def _json(document: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(msgspec.json.encode(document), status, headers, "application/json")


# ------------------------------------------------------------------------------------------ who, and problems


def _guard(app: FastAPI, token: str, trusted: frozenset[str]) -> None:
    @app.middleware("http")
    async def guard(request: Request, go_on: Handler) -> Response:
        if not _is_near(request, trusted) and not request.url.path.startswith("/dashboard"):
            shown = request.headers.get("authorization", "").removeprefix("Bearer ")
            if not token or not hmac.compare_digest(shown.encode(), token.encode()):
                return _json({"problem": "a token is needed"}, 401, {"WWW-Authenticate": "Bearer"})
        return await go_on(request)


def _is_near(request: Request, trusted: frozenset[str]) -> bool:
    host = request.client.host if request.client else ""
    try:
        return host in trusted or ip_address(host).is_loopback
    except ValueError:
        return False


def _explain(app: FastAPI) -> None:
    """Every error in the same form, and none with more in it than a client may know."""

    @app.exception_handler(Problem)
    async def problem(_: Request, error: Problem) -> Response:
        return _json(error.document, error.status, error.headers)

    @app.exception_handler(Unanswered)
    async def unanswered(_: Request, error: Unanswered) -> Response:
        return _json({"problem": str(error)}, 503, {"Retry-After": "1"})

    @app.exception_handler(Refused)
    async def refused(_: Request, error: Refused) -> Response:
        return _json({"problem": str(error)}, 503, {"Retry-After": "1"})

    @app.exception_handler(NotRunning)
    async def not_running(_: Request, error: NotRunning) -> Response:
        return _json({"problem": str(error)}, 503)

    @app.exception_handler(HTTPException)
    async def http(_: Request, error: HTTPException) -> Response:
        return _json({"problem": str(error.detail)}, error.status_code, dict(error.headers or {}))

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"][1:])
        return _json({"problem": str(first["msg"]), "where": where}, 422)

    @app.exception_handler(Exception)
    async def bug(_: Request, error: Exception) -> Response:
        return _json({"problem": "the gateway has a bug; its log tells more"}, 500)


async def _body(request: Request, bytes_max: int) -> bytes:
    too_large = Problem(413, f"a body has {bytes_max} bytes at most")
    length = request.headers.get("content-length", "0")
    if not length.isdecimal() or int(length) > bytes_max:
        raise too_large
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > bytes_max:
            raise too_large
    return bytes(body)


# -------------------------------------------------------------------------------------------------- endpoints


def _ingest(app: FastAPI, desk: Desk) -> None:
    @app.post("/api/v1/observations")
    async def offer(request: Request) -> Response:
        """One observation or a batch, in JSON or msgpack; 200 once every one is durable."""
        media_type = request.headers.get("content-type", "application/json").partition(";")[0].strip().lower()
        if media_type not in READERS:
            raise Problem(415, f"{media_type} is not understood: application/json or application/msgpack")
        body = await _body(request, BODY_BYTES_MAX)
        try:
            observations = READERS[media_type](body, desk.now())
        except Malformed as error:
            client = request.client.host if request.client else ""
            desk.unreadable(client, f"{error.problem} {error.where}".strip(), body)
            raise Problem(400, error.problem, where=error.where) from error
        verdicts = await desk.offer(observations)
        document = {"verdicts": [msgspec.to_builtins(_named(verdict)) for verdict in verdicts]}
        busy = [verdict for verdict in verdicts if verdict.outcome == "busy"]
        if not busy:
            return _json(document)
        after_s = max(verdict.retry_after_s for verdict in busy)
        fair = all("share" in verdict.reason for verdict in busy)
        return _json(document, 429 if fair else 503, {"Retry-After": str(ceil(after_s))})


def _named(verdict: msgspec.Struct) -> dict[str, Any]:
    return msgspec.structs.asdict(verdict)


def _reads(app: FastAPI, desk: Desk) -> None:
    @app.get("/api/v1/devices")
    async def devices() -> Response:
        """All that were heard of."""
        return _json([state.device_document(each) for each in await desk.ask(Devices())])

    @app.get("/api/v1/devices/{device}")
    async def one_device(device: str) -> Response:
        """One of them."""
        return _json(state.device_document(await _device(desk, device)))

    @app.get("/api/v1/devices/{device}/{kind}/latest")
    async def latest(device: str, kind: str) -> Response:
        """The newest observation of a kind, whole."""
        return _json(to_document(await _latest(desk, device, kind)))

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
        return _json(to_document(observation))

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
        wanted = Stretch(device, kind, since, until, limit, after.encode())
        if format == "json":
            page: Page = await desk.ask(wanted)
            following = page.next.decode() or None
            return _json(
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
        """Where observations go, and how much waits."""
        return _json([msgspec.to_builtins(route) for route in await desk.ask(RouteStates())])

    @app.get("/api/v1/dead-letters")
    async def dead_letters(limit: Annotated[int, Query(ge=1, le=1000)] = 100) -> Response:
        """What was not stored, and why; newest first."""
        return _json([msgspec.to_builtins(letter) for letter in await desk.ask(DeadLetters(limit))])

    @app.get("/api/v1/storage")
    async def storage() -> Response:
        """The storage groups."""
        return _json([state.group_document(group) for group in await desk.ask(StorageState())])

    @app.api_route("/api/v1/jobs", methods=["GET", "POST"], include_in_schema=False)
    async def jobs() -> Response:
        raise Problem(501, "there is no job engine yet")


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


def _network(app: FastAPI, running: Running, feed: state.Feed) -> None:
    @app.get("/api/v1/network")
    async def network() -> Response:
        """The emulated network: who is up, what links carry."""
        return _json(await running.look())

    @app.post("/api/v1/faults")
    async def fault(request: Request) -> Response:
        """Something fails, or is mended, now: `{"fault": "crash", "device": "hub"}`."""
        body = await _body(request, FAULT_BYTES_MAX)
        try:
            wanted = msgspec.json.decode(body, type=AnyFault)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise Problem(400, str(error).replace("`", "")) from error
        try:
            await running.inject(wanted)
        except BirdhouseError as error:
            raise Problem(409, str(error)) from error
        return _json({"done": msgspec.to_builtins(wanted)})

    @app.get("/api/v1/state")
    async def whole() -> Response:
        """What the dashboard shows."""
        return _json(await feed.document())

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


def _health(app: FastAPI, desk: Desk) -> None:
    @app.get("/healthz")
    async def healthy() -> Response:
        """The process serves."""
        return _json({"status": "ok"})

    @app.get("/readyz")
    async def ready() -> Response:
        """The storage tier answers: what comes in goes on."""
        await desk.ask(Fetch(b"ready?"))
        return _json({"status": "ok"})

    @app.get("/metrics")
    async def metrics() -> Response:
        """Prometheus' text format, version 0.0.4."""
        lines = _metrics(await desk.ask(Devices()), await desk.ask(RouteStates()))
        return Response("\n".join(lines) + "\n", media_type="text/plain; version=0.0.4; charset=utf-8")


def _metrics(devices: tuple[DeviceState, ...], routes: Any) -> list[str]:
    lines = []
    for name, kind, help_ in (
        ("kept", "counter", "Observations that were kept."),
        ("duplicates", "counter", "Observations that came again."),
        ("dead_letters", "counter", "Observations that became dead letters."),
        ("age_s", "gauge", "Age of information, seconds."),
    ):
        metric = "birdhouse_device_" + {"age_s": "age_seconds"}.get(name, f"{name}_total")
        lines += [f"# HELP {metric} {help_}", f"# TYPE {metric} {kind}"]
        lines += [f'{metric}{{device="{_escaped(each.name)}"}} {getattr(each, name)}' for each in devices]
    for name, kind, help_ in (
        ("taken", "counter", "Observations that a route took."),
        ("delivered", "counter", "Observations that its destination has."),
        ("dropped", "counter", "Observations that it gave up."),
        ("failures", "counter", "Attempts that failed."),
        ("waiting", "gauge", "Observations that wait."),
        ("waiting_bytes", "gauge", "Bytes that wait."),
    ):
        metric = f"birdhouse_route_{name}" + ("_total" if kind == "counter" else "")
        lines += [f"# HELP {metric} {help_}", f"# TYPE {metric} {kind}"]
        lines += [f'{metric}{{route="{_escaped(each.name)}"}} {getattr(each, name)}' for each in routes]
    return lines


def _escaped(label: str) -> str:
    return label.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def _pages(app: FastAPI) -> None:
    files = page_files()
    etags = {name: f'"{sha256(file.body).hexdigest()[:32]}"' for name, file in files.items()}

    @app.get("/", include_in_schema=False)
    async def home() -> Response:
        return RedirectResponse("/dashboard/")

    @app.get("/dashboard/{name:path}", include_in_schema=False)
    async def page(request: Request, name: str) -> Response:
        name = name or "index.html"
        file = files.get(name)
        if file is None:
            raise Problem(404, "there is no such page")
        headers = {
            "Content-Security-Policy": CONTENT_SECURITY_POLICY,
            "X-Content-Type-Options": "nosniff",
            "Cache-Control": "no-cache",
            "ETag": etags[name],
        }
        if request.headers.get("if-none-match") == etags[name]:
            return Response(status_code=304, headers=headers)
        return Response(file.body, 200, headers, file.media_type)
