"""What a client is told instead of what it asked for: one JSON object with a sentence, and nothing else.

Owns the form of every answer that is JSON, the bound on bodies while they arrive, and which exception is
which status.
"""

from __future__ import annotations

from math import ceil
from typing import Any

import msgspec
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from gateway.api.desk import Refused, Unanswered
from gateway.api.running import NotRunning


class Problem(Exception):
    """What a client is told instead of an answer."""

    def __init__(self, status: int, problem: str, *, where: str = "", retry_after_s: float = 0.0) -> None:
        super().__init__(problem)
        self.status = status
        self.document = {"problem": problem, **({"where": where} if where else {})}
        self.headers = {"Retry-After": str(ceil(retry_after_s))} if retry_after_s else {}


def json_response(document: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """A document as a response."""
    return Response(msgspec.json.encode(document), status, headers, "application/json")


async def body_of(request: Request, bytes_max: int) -> bytes:
    """The whole body; raises Problem as soon as it is too large."""
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


def explain(app: FastAPI) -> None:
    """Every error in the same form, and none with more in it than a client may know."""

    @app.exception_handler(Problem)
    async def problem(_: Request, error: Problem) -> Response:
        return json_response(error.document, error.status, error.headers)

    @app.exception_handler(Unanswered)
    async def unanswered(_: Request, error: Unanswered) -> Response:
        return json_response({"problem": str(error)}, 503, {"Retry-After": "1"})

    @app.exception_handler(Refused)
    async def refused(_: Request, error: Refused) -> Response:
        return json_response({"problem": str(error)}, 503, {"Retry-After": "1"})

    @app.exception_handler(NotRunning)
    async def not_running(_: Request, error: NotRunning) -> Response:
        return json_response({"problem": str(error)}, 503)

    @app.exception_handler(HTTPException)
    async def http(_: Request, error: HTTPException) -> Response:
        return json_response({"problem": str(error.detail)}, error.status_code, dict(error.headers or {}))

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"][1:])
        return json_response({"problem": str(first["msg"]), "where": where}, 422)

    @app.exception_handler(Exception)
    async def bug(_: Request, error: Exception) -> Response:
        return json_response({"problem": "the gateway has a bug; its log tells more"}, 500)
