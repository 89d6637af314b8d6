"""`--set KEY=VALUE`: a key of the spec by its dotted name, and a TOML value; several, separated by commas,
make a sweep."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Iterator
from typing import Any

from underlay.errors import InputError


def parse_settings(arguments: Iterable[str]) -> dict[str, list[Any]]:
    """Each key with its values.

    >>> parse_settings(["links.radio.loss_ratio=0,0.05", "name=night", "architectures=['star', 'gossip']"])
    {'links.radio.loss_ratio': [0, 0.05], 'name': ['night'], 'architectures': [['star', 'gossip']]}
    """
    settings: dict[str, list[Any]] = {}
    for argument in arguments:
        key, equals, text = argument.partition("=")
        if not equals or not key.strip() or not text.strip():
            raise InputError(f"{argument!r} sets nothing", key="--set", hint="KEY=VALUE, such as seed=7")
        if key.strip() in settings:
            raise InputError(
                f"{key.strip()} is set twice", key="--set", hint="several values are separated by commas"
            )
        settings[key.strip()] = [_value(part) for part in _split(text)]
    return settings


def parse_ports(arguments: Iterable[str]) -> dict[str, int]:
    """Ports by the names of the ways in.

    >>> parse_ports(["http=9000"])
    {'http': 9000}
    """
    ports: dict[str, int] = {}
    for argument in arguments:
        name, _, port = argument.partition("=")
        if not name or not port.isdecimal():
            raise InputError(f"{argument!r} names no port", key="--port", hint="NAME=PORT, such as http=9000")
        ports[name] = int(port)
    return ports


def single_settings(arguments: Iterable[str]) -> dict[str, Any]:
    """The same where a sweep makes no sense."""
    settings = parse_settings(arguments)
    for key, values in settings.items():
        if len(values) > 1:
            raise InputError(
                f"{key} has {len(values)} values", key="--set", hint="`birdhouse compare` runs sweeps"
            )
    return {key: values[0] for key, values in settings.items()}


def _value(text: str) -> Any:
    """A TOML value; what is none is a word."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _split(text: str) -> Iterator[str]:
    """At commas outside brackets and quotes."""
    depth, quote, part = 0, "", ""
    for c in text:
        if quote:
            quote = "" if c == quote else quote
        elif c in "\"'":
            quote = c
        elif c in "[{":
            depth += 1
        elif c in "]}":
            depth -= 1
        if c == "," and depth == 0 and not quote:
            yield part.strip()
            part = ""
        else:
            part += c
    yield part.strip()
