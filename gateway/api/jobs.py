"""Jobs by HTTP: submit, follow, cancel, fetch.

Whoever may submit a job runs a program of theirs on the workers: the guard lets in who is near or shows the
token, as for faults.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from fastapi import FastAPI, Query, Request, Response

from gateway.api.desk import Refused
from gateway.api.job_desk import JobDesk
from gateway.api.problems import Bodies, Problem, json_response
from gateway.mapreduce import jobs as ready
from gateway.mapreduce.errors import JobFailed
from gateway.mapreduce.job import SOURCE_BYTES_MAX, JobSource, Plain
from gateway.mapreduce.messages import JobState
from gateway.mapreduce.results import Result
from kv.slots import SLOTS

BODY_BYTES_MAX = 2 * SOURCE_BYTES_MAX + 16 * 1024
RESULT_BYTES_MAX = 64 << 20
"""Beyond it a result is fetched part by part."""


class Wanted(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A job in JSON: a ready-made one by name, or a file's text."""

    name: str = ""
    source: str = ""
    """The text of a job file; empty: `name` is a ready-made job's."""
    file: str = ""
    """Its name, for error messages."""
    parameters: dict[str, Plain] = {}
    paths: tuple[str, ...] = ()
    """Files of the workers' machine to read instead of the store."""

    def job(self) -> JobSource:
        """Raises JobFailed."""
        if not self.source:
            return ready.ready_made(self.name, self.parameters)
        name = self.name or "job"
        return JobSource(name, self.file or f"{name}.py", self.source, self.parameters)


def add_jobs(app: FastAPI, desk: JobDesk, bodies: Bodies) -> None:
    """Their endpoints."""

    @app.post("/api/v1/jobs", status_code=201)
    async def submit(request: Request) -> Response:
        """Run a job: `{"name": "hourly", "parameters": {"kind": "humidity"}}`, or the `source` of a file."""
        async with bodies.of(request, BODY_BYTES_MAX) as body:
            try:
                wanted = msgspec.json.decode(body, type=Wanted)
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
                raise Problem(400, str(error).replace("`", "")) from error
        try:
            return json_response(msgspec.to_builtins(await desk.submit(wanted.job(), wanted.paths)), 201)
        except (JobFailed, Refused) as error:
            raise Problem(422, str(error)) from error

    @app.get("/api/v1/jobs")
    async def jobs() -> Response:
        """All that are known, newest first; the workers; and the ready-made jobs."""
        told = await desk.jobs()
        return json_response(
            {
                "jobs": [msgspec.to_builtins(each) for each in told.jobs],
                "workers": told.workers,
                "ready_made": {name: ready.about(name) for name in ready.names()},
            }
        )

    @app.get("/api/v1/splits")
    async def splits(
        first: Annotated[int, Query(ge=0, lt=SLOTS)] = 0,
        last: Annotated[int, Query(ge=0, lt=SLOTS)] = SLOTS - 1,
    ) -> Response:
        """How a job over these slots would be split, and who would read each part; nothing is run."""
        if last < first:
            raise Problem(422, "the first slot is not after the last", where="first")
        return json_response([msgspec.to_builtins(each) for each in await desk.plan(((first, last),))])

    @app.get("/api/v1/jobs/{id_}")
    async def job(id_: str) -> Response:
        """One with its tasks."""
        return json_response(msgspec.to_builtins(await _known(desk, id_)))

    @app.delete("/api/v1/jobs/{id_}")
    async def cancel(id_: str) -> Response:
        """Stop it, if it has not ended; it stays in the list."""
        await _known(desk, id_)
        return json_response(msgspec.to_builtins(await desk.cancel(id_)))

    @app.get("/api/v1/jobs/{id_}/result")
    async def result(id_: str, format: str = "json") -> Response:  # noqa: A002 - the parameter's name
        """The rows, in the order of their keys: json, ndjson or csv; or `raw`, the parts' bytes."""
        state = await _done(desk, id_)
        if format not in ("json", "ndjson", "csv", "raw"):
            raise Problem(422, "a format is json, ndjson, csv or raw", where="format")
        if state.result_bytes > RESULT_BYTES_MAX:
            raise Problem(
                413, f"a result of {state.result_bytes} bytes is fetched part by part: /parts/0 ..."
            )
        made = await _result(desk, state)
        if format == "raw":
            return Response(
                made.data, media_type="application/octet-stream", headers={"ETag": f'"{made.digest}"'}
            )
        table = made.table()
        if format == "csv":
            return Response(table.csv(), media_type="text/csv; charset=utf-8")
        if format == "ndjson":
            return Response(table.json_lines(), media_type="application/x-ndjson")
        document: dict[str, Any] = msgspec.to_builtins(table)
        return json_response({**document, "digest": made.digest})

    @app.get("/api/v1/jobs/{id_}/parts/{part}")
    async def one_part(id_: str, part: int) -> Response:
        """The bytes of one part of the result."""
        state = await _done(desk, id_)
        if not 0 <= part < len(state.chunks):
            raise Problem(404, f"there are the parts 0 to {len(state.chunks) - 1}")
        data = b"".join([chunk async for chunk in desk.part(state, part)])
        return Response(data, media_type="application/octet-stream")


async def _known(desk: JobDesk, id_: str) -> JobState:
    try:
        return await desk.job(id_)
    except Refused as error:
        raise Problem(404, str(error)) from error


async def _done(desk: JobDesk, id_: str) -> JobState:
    state = await _known(desk, id_)
    if state.state != "done":
        because = f": {state.problem}" if state.problem else ""
        raise Problem(409, f"there is no result: the job is {state.state}{because}")
    return state


async def _result(desk: JobDesk, state: JobState) -> Result:
    parts = [b"".join([chunk async for chunk in desk.part(state, part)]) for part in range(len(state.chunks))]
    return Result(state.key_names, state.window_s, tuple(parts), state.records, state.bad_records)
