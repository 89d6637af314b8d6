"""For those who watch over a gateway: is it there, does it work, how much does it do."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI, Response

from gateway.api.desk import Desk
from gateway.api.problems import json_response
from gateway.messages import Devices, DeviceState, Fetch, RouteStates


def add_health(app: FastAPI, desk: Desk) -> None:
    """Its endpoints."""

    @app.get("/healthz")
    async def healthy() -> Response:
        """The process serves."""
        return json_response({"status": "ok"})

    @app.get("/readyz")
    async def ready() -> Response:
        """The storage tier answers: what comes in goes on."""
        await desk.ask(Fetch(b"ready?"))
        return json_response({"status": "ok"})

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
