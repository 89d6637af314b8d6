"""A job on a running deployment, over its gateway's HTTP door.

Owns the questions and the waiting; where the gateway is, the caller knows. Everything a gateway says that is
no answer is a `JobFailed` with its sentence.
"""

from __future__ import annotations

import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from http.client import HTTPException
from pathlib import Path
from typing import Any

import msgspec

from gateway.mapreduce.errors import JobFailed
from gateway.mapreduce.job import JobSource
from gateway.mapreduce.messages import JobState, SplitPlan
from gateway.mapreduce.results import Result

LOOK_S = 0.3
TIMEOUT_S = 30.0
PATIENCE_S = 60.0
"""A gateway that does not answer for so long while a job runs is given up; the job goes on."""


class Gateway:
    """One gateway's job engine.

    Args:
        url: such as `http://127.0.0.1:8080`.
        token: where it wants one.
    """

    def __init__(self, url: str, token: str = "") -> None:
        self._root = url.rstrip("/") + "/api/v1"
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}

    def submit(self, source: JobSource, paths: Sequence[Path] = ()) -> JobState:
        """Raises JobFailed with what is wrong with the job."""
        document = {
            "name": source.name,
            "source": source.text,
            "file": source.file,
            "parameters": source.parameters,
            "paths": [str(path.absolute()) for path in paths],
        }
        return _state(self._ask("POST", "/jobs", msgspec.json.encode(document)))

    def job(self, id_: str) -> JobState:
        """How it is."""
        return _state(self._ask("GET", f"/jobs/{id_}"))

    def jobs(self) -> dict[str, Any]:
        """All jobs, newest first, the workers, and the ready-made jobs."""
        found: dict[str, Any] = msgspec.json.decode(self._ask("GET", "/jobs"))
        return found

    def cancel(self, id_: str) -> JobState:
        """Stop it."""
        return _state(self._ask("DELETE", f"/jobs/{id_}"))

    def result(self, state: JobState) -> Result:
        """Of a job that is done."""
        parts = tuple(self._ask("GET", f"/jobs/{state.id}/parts/{part}") for part in range(len(state.chunks)))
        return Result(
            state.key_names,
            state.window_s,
            parts,
            state.records,
            state.bad_records,
            state.bad,
            state.counters,
        )

    def follow(self, id_: str, told: Callable[[JobState], None] = lambda _: None) -> JobState:
        """Wait for its end, telling how it is; raises JobFailed if it does not end well."""
        heard_s = time.monotonic()
        while True:
            try:
                state = self.job(id_)
                heard_s = time.monotonic()
            except JobFailed:
                if time.monotonic() - heard_s > PATIENCE_S:
                    raise
                time.sleep(LOOK_S)
                continue
            told(state)
            if state.state == "done":
                return state
            if state.state in ("failed", "cancelled"):
                raise JobFailed(state.problem or f"job {state.name} ({state.id}) was cancelled")
            time.sleep(LOOK_S)

    def splits(self, first: int, last: int) -> list[SplitPlan]:
        """How a job over these slots would be split."""
        data = self._ask("GET", f"/splits?first={first}&last={last}")
        return msgspec.json.decode(data, type=list[SplitPlan])

    def _ask(self, method: str, path: str, body: bytes | None = None) -> bytes:
        request = urllib.request.Request(self._root + path, body, self._headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT_S) as response:
                data: bytes = response.read()
                return data
        except urllib.error.HTTPError as error:
            raise JobFailed(_problem(error)) from error
        except (OSError, HTTPException, ValueError) as error:
            reason = getattr(error, "reason", error)
            raise JobFailed(
                f"no gateway answers at {self._root} ({reason}); `birdhouse up` brings one up"
            ) from error


def run_deployed(
    gateway: Gateway,
    source: JobSource,
    paths: Sequence[Path] = (),
    told: Callable[[JobState], None] = lambda _: None,
) -> tuple[JobState, Result]:
    """Submit, follow, fetch. Ctrl-C cancels the job."""
    id_ = gateway.submit(source, paths).id
    try:
        state = gateway.follow(id_, told)
    except KeyboardInterrupt:
        gateway.cancel(id_)
        raise
    return state, gateway.result(state)


def _state(data: bytes) -> JobState:
    return msgspec.convert(_finite(msgspec.json.decode(data)), JobState)


def _finite(document: dict[str, Any]) -> dict[str, Any]:
    """JSON has no infinity: what is none is what was not said."""
    return {name: value for name, value in document.items() if value is not None}


def _problem(error: urllib.error.HTTPError) -> str:
    try:
        document = msgspec.json.decode(error.read(), type=dict[str, Any])
        return str(document["problem"])
    except (msgspec.DecodeError, KeyError):
        return f"the gateway answered {error.code} {error.reason}"
