"""Observations that come by HTTP."""

from __future__ import annotations

from collections.abc import Callable
from math import ceil

import msgspec
from fastapi import FastAPI, Request, Response

from edge.observation import Observation
from gateway.api.desk import Desk
from gateway.api.problems import Bodies, Problem, json_response
from gateway.api.reading import Malformed, from_json, from_msgpack

BODY_BYTES_MAX = 4 * 1024 * 1024
READERS: dict[str, Callable[[bytes, float], list[Observation]]] = {
    "application/json": from_json,
    "application/msgpack": from_msgpack,
    "application/x-msgpack": from_msgpack,
    "application/vnd.msgpack": from_msgpack,
}


def add_ingest(app: FastAPI, desk: Desk, bodies: Bodies) -> None:
    """Its endpoint."""

    @app.post("/api/v1/observations")
    async def offer(request: Request) -> Response:
        """One observation or a batch, in JSON or msgpack; 200 once every one is durable."""
        media_type = request.headers.get("content-type", "application/json").partition(";")[0].strip().lower()
        if media_type not in READERS:
            raise Problem(415, f"{media_type} is not understood: application/json or application/msgpack")
        async with bodies.of(request, BODY_BYTES_MAX) as body:
            try:
                observations = READERS[media_type](body, desk.now())
            except Malformed as error:
                client = request.client.host if request.client else ""
                desk.unreadable(client, f"{error.problem} {error.where}".strip(), body)
                raise Problem(400, error.problem, where=error.where) from error
            verdicts = await desk.offer(observations)
        document = {"verdicts": [msgspec.structs.asdict(verdict) for verdict in verdicts]}
        busy = [verdict for verdict in verdicts if verdict.outcome == "busy"]
        if not busy:
            return json_response(document)
        after_s = max(verdict.retry_after_s for verdict in busy)
        fair = all("share" in verdict.reason for verdict in busy)
        return json_response(document, 429 if fair else 503, {"Retry-After": str(ceil(after_s))})
