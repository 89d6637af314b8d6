"""Destinations as a user writes them, each with what may be wrong with it."""

from __future__ import annotations

import re
from posixpath import normpath
from typing import Annotated

import msgspec

from edge.mqtt.messages import topic_matches
from edge.star import FILTER
from underlay.errors import InputError

_FIELD = re.compile(r"\{([^{}]*)\}")
_TOPIC_BYTES_MAX = 1000
"""A template's; names are filled in, and MQTT's own limit is 65,535."""


class Lines(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="lines", tag_field="type"):
    """A file of JSON lines."""

    file: str
    rotate_bytes: Annotated[int, msgspec.Meta(ge=1)] | None = None
    """Before it grows beyond that it is put aside, under a number; left out: it only grows."""
    rotate_s: Annotated[float, msgspec.Meta(gt=0, le=1e9)] | None = None
    """With the first line so long after its first line it is put aside; a restart begins that time anew."""


class Images(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="images", tag_field="type"):
    """A folder of payloads by their content's hash, with an index: what is large, apart from readings."""

    folder: str


class Columnar(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="columnar", tag_field="type"):
    """Parquet files by kind and day, written by DuckDB (the extra `columnar`)."""

    folder: str
    rows_max: Annotated[int, msgspec.Meta(ge=1, le=1_000_000)] = 10_000
    """With so many a file is written at once."""
    gather_s: Annotated[float, msgspec.Meta(ge=0, le=3600)] = 5.0
    """For so long observations are gathered first; they are in the gateway's spool meanwhile."""


class Topic(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="mqtt", tag_field="type"):
    """A topic of an MQTT broker, QoS 1; each message is what a JSON line would be."""

    topic: str
    """`{device}` and `{kind}` are filled in."""
    broker: str = "hub"
    """A device or a role; there will be a broker on it, whatever the architecture."""
    retain: bool = False
    """The broker keeps the last one of each topic for whoever subscribes later."""

    def topic_of(self, device: str, kind: str) -> str:
        """Filled in.

        >>> Topic("garden/{kind}/{device}").topic_of("cam3", "motion")
        'garden/motion/cam3'
        """
        return self.topic.replace("{device}", device).replace("{kind}", kind)


class Nested(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="gateway", tag_field="type"):
    """Another gateway, to which observations are handed on."""

    device: str
    """A device or a role, with a gateway of its own."""


OnDisk = Lines | Images | Columnar
"""Written by the binding `@files` (`gateway.destinations.disk`)."""
Destination = OnDisk | Topic | Nested


def type_of(destination: Destination) -> str:
    """As the user writes it: `lines`."""
    return str(destination.__struct_config__.tag)


def check_target(destination: Destination, key: str) -> None:
    """Raises InputError where it can be no destination; `key` is where it is in the user's file."""
    match destination:
        case Topic(topic):
            _check_topic(topic, f"{key}.topic")
        case Lines(file):
            _check_place(file, f"{key}.file")
        case Images(folder) | Columnar(folder):
            _check_place(folder, f"{key}.folder")


def place_of(destination: Destination) -> str | None:
    """The file or folder that it alone may write to; None: there is none."""
    match destination:
        case Lines(file=name) | Images(folder=name) | Columnar(folder=name):
            return normpath(name)
        case _:
            return None


def _check_place(name: str, key: str) -> None:
    if not name or normpath(name) in (".", "/") or "\0" in name:
        raise InputError(f"{name!r} is no name to write to", key=key, hint="for example 'alarms'")


def _check_topic(topic: str, key: str) -> None:
    for field in _FIELD.findall(topic):
        if field not in ("device", "kind"):
            raise InputError(
                f"there is nothing to fill {{{field}}} with", key=key, hint="{device} and {kind}"
            )
    rest = _FIELD.sub("x", topic)
    if not topic or rest.startswith("$") or any(mark in rest for mark in "+#{}\0"):
        raise InputError(
            f"{topic!r} is no topic to publish under",
            key=key,
            hint="without +, # and a leading $: 'garden/{device}/{kind}'",
        )
    if len(topic.encode()) > _TOPIC_BYTES_MAX:
        raise InputError("is too long", key=key, hint=f"at most {_TOPIC_BYTES_MAX} bytes")
    if topic_matches(FILTER, rest):
        raise InputError(
            f"{topic!r} is where the birdhouses publish: what goes there comes back to the gateway",
            key=key,
            hint="for example 'garden/{device}/{kind}'",
        )
