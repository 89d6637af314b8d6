"""A birdhouse as a CoAP server: its log and its latest observations, each with ETag, Max-Age and Observe.

- `/log`: the newest entry of its log (`edge.caching.log.Entry`); whoever observes it hears of everything.
- `/log/<position>`: an entry by its position. It never changes.
- `/<kind>`: the payload of the latest observation of a kind; a photograph is a JPEG.

The paths may also begin with the device's own name, as they do on every cache.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from edge.caching.log import Log
from edge.coap.messages import (
    CONTENT,
    ENDPOINT,
    JPEG,
    NOT_FOUND,
    OCTET_STREAM,
    VALID,
    Path,
    Representation,
    Respond,
    Tuning,
    code_text,
)
from edge.events import OriginServed
from edge.observation import Observation
from underlay.node import Context

LOG = "log"
ENTRY_MAX_AGE_S = 3600
"""Of one entry. It is right for ever; caches may forget it."""


class OriginConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How a birdhouse serves what it observes."""

    max_age_s: Mapping[str, int]
    """By kind: how long an observation counts as the latest."""
    log_bytes: int = 4_000_000
    """Of payloads; the oldest goes first."""
    tuning: Tuning = Tuning()


class Origin:
    """The resources of one device, and who observes them."""

    def __init__(self, config: OriginConfig) -> None:
        self._config = config
        self._log = Log(config.log_bytes)
        self._latest: dict[str, tuple[Observation, int]] = {}
        self._observers: dict[int, Path] = {}

    def on_start(self, ctx: Context) -> None:
        self._log.open(ctx.store)

    def paths(self) -> list[Path]:
        """Resources worth discovering."""
        return [(LOG,), *((kind,) for kind in self._config.max_age_s)]

    def has(self, path: Path) -> bool:
        """Whether a path is one of its own, without the device's name."""
        return bool(path) and (path[0] == LOG or path[0] in self._config.max_age_s)

    def on_observed(self, ctx: Context, observation: Observation) -> None:
        """The sensor has something new: log it, notify."""
        position = self._log.append(ctx.store, observation)
        self._latest[observation.kind] = (observation, position)
        for exchange, path in self._observers.items():
            if path in ((LOG,), (observation.kind,)):
                self._respond(ctx, exchange, self._represent(path), observed=True)

    def ask(self, ctx: Context, exchange: int, path: Path, etags: tuple[bytes, ...], observe: bool) -> None:
        """Somebody asks; `path` is without the device's name."""
        shown = self._represent(path)
        observed = observe and len(path) == 1 and shown.code == CONTENT
        if observed:
            self._observers[exchange] = path
        if shown.code == CONTENT and shown.etag in etags:
            shown = Representation(VALID, etag=shown.etag, max_age_s=shown.max_age_s)
        ctx.emit(OriginServed("/".join((ctx.device, *path)), code_text(shown.code)))
        self._respond(ctx, exchange, shown, observed)

    def withdraw(self, exchange: int) -> None:
        """An observer is gone."""
        self._observers.pop(exchange, None)

    def _represent(self, path: Path) -> Representation:
        match path:
            case ("log",):
                newest = self._log.newest()
                payload = newest.encode() if newest else b""
                position = newest.position + 1 if newest else 0
                max_age_s = min(self._config.max_age_s.values())
                return Representation(CONTENT, payload, _etag(position), max_age_s, OCTET_STREAM)
            case ("log", text) if text.isascii() and text.isdecimal():
                entry = self._log.at(int(text))
                if entry is not None:
                    etag = _etag(entry.position + 1)
                    return Representation(CONTENT, entry.encode(), etag, ENTRY_MAX_AGE_S, OCTET_STREAM)
            case (kind,) if kind in self._latest:
                observation, position = self._latest[kind]
                content_format = JPEG if kind == "photograph" else OCTET_STREAM
                max_age_s = self._config.max_age_s[kind]
                etag = _etag(position + 1)
                return Representation(CONTENT, observation.payload, etag, max_age_s, content_format)
        return Representation(NOT_FOUND)

    def _respond(self, ctx: Context, exchange: int, representation: Representation, observed: bool) -> None:
        ctx.send(ENDPOINT, Respond(exchange, representation, observed, self._config.tuning))


def _etag(number: int) -> bytes:
    return number.to_bytes(max(1, (number.bit_length() + 7) // 8))
