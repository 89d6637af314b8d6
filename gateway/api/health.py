"""For those who watch over a gateway: is it there, does it work, how much does it do."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from fastapi import FastAPI, Response

from gateway.api.desk import Desk
from gateway.api.problems import json_response
from gateway.messages import DestinationStates, Devices, DeviceState, Fetch, RouteStates


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
        devices: tuple[DeviceState, ...] = await desk.ask(Devices())
        lines = [
            *_metrics("device", _DEVICE, devices),
            *_metrics("route", _ROUTE, await desk.ask(RouteStates())),
            *_metrics("destination", _DESTINATION, await desk.ask(DestinationStates())),
        ]
        return Response("\n".join(lines) + "\n", media_type="text/plain; version=0.0.4; charset=utf-8")


_Figure = tuple[str, str, str]
"""An attribute, the metric's name without its prefix, and what it is."""

_DEVICE: tuple[_Figure, ...] = (
    ("kept", "kept_total", "Observations that were kept."),
    ("duplicates", "duplicates_total", "Observations that came again."),
    ("dead_letters", "dead_letters_total", "Observations that became dead letters."),
    ("age_s", "age_seconds", "Age of information, seconds."),
)
_ROUTE: tuple[_Figure, ...] = (
    ("matched", "matched_total", "Observations that were acknowledged for a route's destination."),
    ("written", "written_total", "Of these, observations that the destination has."),
    ("waiting", "waiting", "Observations that wait."),
    ("dropped", "dropped_total", "Acknowledged observations that gave way to newer ones (drop-oldest)."),
    ("dead_lettered", "dead_lettered_total", "Observations that the destination will never take."),
    ("refused", "refused_total", "Offers that were answered with busy because of a route."),
)
_DESTINATION: tuple[_Figure, ...] = (
    ("taken", "taken_total", "Observations for a destination."),
    ("delivered", "delivered_total", "Observations that it has."),
    ("failures", "failures_total", "Attempts that failed."),
    ("waiting", "waiting", "Observations that wait."),
    ("waiting_bytes", "waiting_bytes", "Bytes that wait."),
)


def _metrics(label: str, figures: tuple[_Figure, ...], items: Iterable[Any]) -> Iterator[str]:
    """Of devices, routes, destinations: one metric after another, as the format wants them."""
    found = list(items)
    for attribute, name, help_ in figures:
        metric = f"birdhouse_{label}_{name}"
        yield f"# HELP {metric} {help_}"
        yield f"# TYPE {metric} {'counter' if name.endswith('_total') else 'gauge'}"
        for each in found:
            yield f'{metric}{{{label}="{_escaped(each.name)}"}} {getattr(each, attribute)}'


def _escaped(label: str) -> str:
    return label.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
