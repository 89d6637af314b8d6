"""What a client is told instead of what it asked for: one JSON object with a sentence, and nothing else.

Owns the form of every answer that is JSON, the bounds on bodies, and which exception is which status.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from math import ceil
from typing import Any

import msgspec
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from gateway.api.desk import Refused, Unanswered
from gateway.api.running import NotRunning

SMALL_BYTES = 64 * 1024
"""A body has room for so much, whatever others send."""
LARGE_BYTES_IN_ALL = 16 * 1024 * 1024
"""Of all bodies together, beyond what is small of each. While it is decoded a body takes several times its
size."""


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


class Bodies:
    """What clients are sending, and what has been sent and is not dealt with yet: bounded each and in all."""

    def __init__(self, large_bytes_in_all: int = LARGE_BYTES_IN_ALL) -> None:
        self.large_bytes = 0
        self._large_bytes_in_all = large_bytes_in_all

    @asynccontextmanager
    async def of(self, request: Request, bytes_max: int) -> AsyncIterator[bytes]:
        """The whole body, which counts as long as the block lasts; raises Problem as soon as it is too large,
        or there is no room for it."""
        too_large = Problem(413, f"a body has {bytes_max} bytes at most")
        length = request.headers.get("content-length", "0")
        if not length.isdecimal() or int(length) > bytes_max:
            raise too_large
        body = bytearray()
        counted = 0
        try:
            async for chunk in request.stream():
                body += chunk
                if len(body) > bytes_max:
                    raise too_large
                more = max(0, len(body) - SMALL_BYTES) - counted
                if more and self.large_bytes + more > self._large_bytes_in_all:
                    raise Problem(503, "others are sending too much at once", retry_after_s=1.0)
                counted += more
                self.large_bytes += more
            whole = bytes(body)
            del body
            yield whole
        finally:
            self.large_bytes -= counted


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

    @app.exception_handler(ClientDisconnect)
    async def gone(_: Request, error: ClientDisconnect) -> Response:
        return Response(status_code=400)  # which nobody hears, and the log need not know

    @app.exception_handler(Exception)
    async def bug(_: Request, error: Exception) -> Response:
        return json_response({"problem": "the gateway has a bug; its log tells more"}, 500)
