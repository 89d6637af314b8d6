"""The document that the dashboard is fed with: the network, devices, storage, routes, destinations as one.

Made at most twice a second, however many look at it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec

from gateway.api.desk import Desk, Refused, Unanswered
from gateway.api.running import NotRunning, Running
from gateway.messages import (
    DestinationStates,
    Devices,
    DeviceState,
    GroupState,
    Latest,
    RouteStates,
    StorageState,
)
from gateway.readings import meaning

INTERVAL_S = 0.5
STORAGE_INTERVAL_S = 2.0
"""Replicas are asked less often: that is traffic on the tier's links."""
WATCHERS_MAX = 50


class TooMany(Exception):
    """Enough look already."""


class Feed:
    """Makes the document, and wakes those who wait for it."""

    def __init__(self, desk: Desk, running: Running) -> None:
        self._desk = desk
        self._running = running
        self._document: dict[str, Any] = {}
        self._made_s = -INTERVAL_S
        self._making = asyncio.Lock()
        self._storage: list[dict[str, Any]] = []
        self._storage_s = -STORAGE_INTERVAL_S
        self._watchers = 0

    @asynccontextmanager
    async def watching(self) -> AsyncIterator[None]:
        """Count one who looks, as long as the block lasts; raises TooMany."""
        if self._watchers >= WATCHERS_MAX:
            raise TooMany(f"{WATCHERS_MAX} look already")
        self._watchers += 1
        try:
            yield
        finally:
            self._watchers -= 1

    async def document(self) -> dict[str, Any]:
        """Not older than the interval."""
        async with self._making:
            if asyncio.get_running_loop().time() - self._made_s >= INTERVAL_S:
                self._document = await self._make()
                self._made_s = asyncio.get_running_loop().time()
            return self._document

    async def _make(self) -> dict[str, Any]:
        problems = []
        try:
            seen = await self._running.look()
        except NotRunning as error:
            seen = {"t_s": 0.0, "run": "", "devices": [], "links": []}
            problems.append(str(error))
        heard: tuple[DeviceState, ...] = await self._desk.ask(Devices())
        await self._ask_storage(problems)
        routes = await self._desk.ask(RouteStates())
        destinations = await self._desk.ask(DestinationStates())
        return {
            "now": seen["t_s"],
            "run": {
                "name": self._running.place.name or "gateway",
                "fabric": "mininet" if seen["run"] else "",
            },
            "devices": _devices(seen["devices"], heard),
            "links": seen["links"],
            "storage": self._storage,
            "routes": [msgspec.to_builtins(route) for route in routes],
            "destinations": [msgspec.to_builtins(destination) for destination in destinations],
            "events": list(self._running.faults),
            "problems": problems,
        }

    async def _ask_storage(self, problems: list[str]) -> None:
        if asyncio.get_running_loop().time() - self._storage_s < STORAGE_INTERVAL_S:
            return
        self._storage_s = asyncio.get_running_loop().time()
        try:
            groups: tuple[GroupState, ...] = await self._desk.ask(StorageState())
        except (Refused, Unanswered) as error:
            problems.append(str(error))
        else:
            self._storage = [group_document(group) for group in groups]


def group_document(group: GroupState) -> dict[str, Any]:
    """A storage group in JSON."""
    replicas = [{"address": address, "answers": answers} for address, answers in group.replicas.items()]
    return {**msgspec.structs.asdict(group), "replicas": replicas}


def latest_document(latest: Latest) -> dict[str, Any]:
    """A device's newest observation of a kind in JSON: a reading's value, or the key to fetch it by."""
    small = bool(latest.payload)
    return {
        "kind": latest.kind,
        "id": latest.id,
        "t_event": latest.t_event,
        "t_gen": latest.t_gen,
        "size_bytes": latest.size_bytes,
        "value": meaning(latest.kind, latest.payload) if small else None,
        "object_key": None if small else latest.key.decode(),
    }


def device_document(state: DeviceState) -> dict[str, Any]:
    """A device as the gateway knows it, in JSON."""
    latest = [latest_document(each) for each in state.latest]
    return {**msgspec.structs.asdict(state), "latest": latest}


_SILENT: dict[str, Any] = {
    "kept": 0,
    "duplicates": 0,
    "dead_letters": 0,
    "last_heard": None,
    "age_s": None,
    "latest": [],
}


def _devices(seen: list[dict[str, Any]], heard: tuple[DeviceState, ...]) -> list[dict[str, Any]]:
    """Those of the network in its order, then those that only the gateway has heard."""
    told = {state.name: device_document(state) for state in heard}
    found = [{**_SILENT, **told.pop(device["name"], {}), **device} for device in seen]
    blank = {"role": "", "x": None, "y": None, "up": True, "paused": False}
    return [*found, *({**blank, **document} for document in told.values())]
