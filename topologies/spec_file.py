"""Reads specs: TOML, then overrides, then types, and says exactly what is wrong with which key.

Owns errors of form (syntax, unknown keys, types, bounds) and the rules between keys of the spec alone.
Whether devices and links exist is checked where the network is built (`topologies.topology`).
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any

import msgspec
from msgspec import inspect

from gateway.routing.routing import Routing
from topologies.architectures import VARIANTS
from topologies.architectures.options import OPTIONS
from topologies.profiles import link_profile, unknown
from topologies.spec import Spec
from underlay.errors import InputError, nearest

Override = tuple[str, Any]
"""A dotted key and its value."""


def load_spec(path: Path | str, overrides: Iterable[Override] = ()) -> Spec:
    """The spec in a TOML file, with `overrides` put in; raises InputError.

    >>> from topologies import quickstart
    >>> load_spec(quickstart(), [("duration_s", 50.0)]).duration_s
    50.0
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "is not UTF-8 text"
        raise InputError(f"cannot read the spec: {reason}", file=path) from error
    return parse_spec(text, overrides, file=path)


def parse_spec(text: str, overrides: Iterable[Override] = (), file: Path | str | None = None) -> Spec:
    """The spec in `text`; errors name `file`."""
    with naming(file):
        try:
            raw = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise InputError(f"is no TOML: {error}") from error
        for key, value in overrides:
            _put(raw, key, value)
        _check_keys(inspect.type_info(Spec), raw, "")
        spec = _convert(raw)
        _check_rules(spec)
        return spec


@contextmanager
def naming(file: Path | str | None) -> Iterator[None]:
    """Errors raised within name `file` where they name none themselves."""
    try:
        yield
    except InputError as error:
        if file is None or error.file is not None:
            raise
        raise InputError(error.problem, file=file, key=error.key, hint=error.hint) from error


def to_toml(spec: Spec) -> str:
    """The spec as TOML, every key written out: what a run's folder keeps. Reading it gives an equal spec."""
    return "\n".join(_toml_table(msgspec.to_builtins(spec), "")) + "\n"


# --------------------------------------------------------------------------------------------- keys and types


def _put(raw: dict[str, Any], key: str, value: Any) -> None:
    """Set the dotted `key`; `sensor[0].period_s` and `sensor.0.period_s` name an element of a list."""
    *above, last = re.sub(r"\[(\d+)\]", r".\1", key).split(".")
    # A link profile or variant may have dots in its name, keys of the spec have none.
    at: Any = raw
    for n, part in enumerate(above):
        if isinstance(at, list):
            at = at[_index(at, part, key)]
        else:
            following = ([*above, last])[n + 1]
            at = at.setdefault(part, [] if following.isdigit() else {})
        if not isinstance(at, dict | list):
            raise InputError(f"{part!r} is a value, not a table", key=key)
    if isinstance(at, list):
        at[_index(at, last, key)] = value
    else:
        at[last] = value


def _index(items: list[Any], part: str, key: str) -> int:
    if not part.isdigit() or int(part) >= len(items):
        there = f"0 to {len(items) - 1}" if items else "none: the spec has no such table"
        raise InputError(f"there is no element {part!r}", key=key, hint=f"there are {there}")
    return int(part)


def _check_keys(kind: inspect.Type, value: Any, path: str) -> None:
    """Unknown keys, and unknown words where only some are known; what msgspec itself says less well."""
    match kind:
        case inspect.StructType(fields=fields) if isinstance(value, dict):
            known = {field.encode_name: field for field in fields}
            tag = {kind.tag_field} if kind.tag_field else set()
            for key, item in value.items():
                if key in known:
                    _check_keys(known[key].type, item, _join(path, key))
                elif key not in tag:
                    _unknown_key(_join(path, key), key, [*known, *sorted(tag)])
        case inspect.UnionType(types=types):
            tagged = {str(t.tag): t for t in types if isinstance(t, inspect.StructType) and t.tag}
            if tagged and isinstance(value, dict):
                field = next(t.tag_field for t in tagged.values())
                tag_value = value.get(str(field))
                if tag_value is None:
                    raise InputError(
                        "is missing", key=_join(path, str(field)), hint=f"one of {', '.join(tagged)}"
                    )
                if tag_value not in tagged:
                    raise unknown(str(field), str(tag_value), tagged, _join(path, str(field)))
                _check_keys(tagged[tag_value], value, path)
            elif not tagged and len(types) == 2 and any(isinstance(t, inspect.NoneType) for t in types):
                _check_keys(next(t for t in types if not isinstance(t, inspect.NoneType)), value, path)
        case inspect.VarTupleType(item_type=item_type) if isinstance(value, list):
            for n, item in enumerate(value):
                _check_keys(item_type, item, f"{path}[{n}]")
        case inspect.DictType(value_type=value_type) if isinstance(value, dict):
            for key, item in value.items():
                _check_keys(value_type, item, _join(path, key))
        case inspect.LiteralType(values=values) if value not in values:
            near = (
                nearest(value, [v for v in values if isinstance(v, str)]) if isinstance(value, str) else None
            )
            one_of = ", ".join(str(v) for v in values)
            raise InputError(
                f"{value!r} is not known",
                key=path,
                hint=f"did you mean {near!r}?" if near else f"one of {one_of}",
            )


def _unknown_key(path: str, key: str, known: list[str]) -> None:
    near = nearest(key, known)
    raise InputError(
        "unknown key", key=path, hint=f"did you mean {near!r}?" if near else f"known are {', '.join(known)}"
    )


def _convert(raw: dict[str, Any]) -> Spec:
    try:
        return msgspec.convert(raw, Spec)
    except msgspec.ValidationError as error:
        problem, _, path = str(error).partition(" - at `$")
        key = _exact(raw, path.rstrip("`").lstrip("."))
        missing = re.search(r"missing required field `(\w+)`", problem)
        if missing:
            raise InputError("is missing", key=_join(key, missing[1])) from error
        found = _at(raw, key)
        raise InputError(_worded(problem, found), key=key or None) from error


def _exact(raw: dict[str, Any], path: str) -> str:
    """msgspec does not say under which of a user's own names (`destination[...]`) it met what it tells of."""
    while _ANY in path:
        above, _, below = path.partition(_ANY)
        for name in _at(raw, above) or ():
            trial = deepcopy(raw)
            table = _at(trial, above)
            for other in [each for each in table if each != name]:
                del table[other]
            try:
                msgspec.convert(trial, Spec)
            except msgspec.ValidationError:
                path = f"{above}.{name}{below}"
                break
        else:
            return path
    return path


_ANY = "[...]"


def _worded(problem: str, found: Any) -> str:
    """msgspec's sentence in the words of someone who writes TOML.

    >>> _worded("Expected `float | null` <= 1.0", 1.5)
    'expected a number <= 1.0, got 1.5'
    """
    if problem.startswith("Invalid enum value"):
        return f"{_shown(found)} is not known"
    problem = re.sub(r", got `.*`$", "", problem).replace(" | null", "").replace("matching regex", "matching")
    words = re.sub(r"`(\w+)`", lambda match: _TYPE_WORDS.get(match[1], match[1]), problem).replace("`", "")
    return f"{words[0].lower()}{words[1:]}, got {_shown(found)}"


_TYPE_WORDS = {
    "float": "a number",
    "int": "a whole number",
    "str": "text",
    "bool": "true or false",
    "array": "a list",
    "object": "a table",
}


def _at(raw: Any, key: str) -> Any:
    try:
        for part in re.findall(r"\w[\w-]*", key):
            raw = raw[int(part)] if isinstance(raw, list) else raw[part]
    except (KeyError, IndexError, ValueError, TypeError):
        return None
    return raw


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


def _join(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key


# ------------------------------------------------------------------------------- rules between keys of a spec


def _check_rules(spec: Spec) -> None:
    first_s, last_s = spec.counted_s
    if spec.quiet_s < spec.deadline_s:
        raise InputError(
            f"{spec.quiet_s:g} s is below deadline_s = {spec.deadline_s:g}: late ones would count as lost",
            key="cooldown_s",
            hint=f"at least {spec.deadline_s:g}, or leave it out",
        )
    spec.gateway.check("gateway")
    for name, routing in spec.gateways.items():
        routing.check(f"gateways.{name}")
    if spec.gateways and spec.storage.kind == "sink":
        raise InputError("there is a gateway only before a storage tier", key="gateways", hint="[storage]")
    if spec.gateway != Routing() and spec.storage.kind == "sink":
        raise InputError("there is a gateway only before a storage tier", key="gateway", hint="[storage]")
    if spec.storage.kind != "sink" and spec.storage.replicas > spec.storage.hosts:
        raise InputError(
            f"{spec.storage.replicas} replicas of a group need as many hosts",
            key="storage.replicas",
            hint=f"at most storage.hosts = {spec.storage.hosts}",
        )
    for n, job in enumerate(spec.job):
        if spec.storage.kind == "sink":
            raise InputError("jobs run on a storage tier", key=f"job[{n}]", hint="[storage]")
        if job.at_s is not None and job.at_s >= spec.duration_s:
            raise InputError(
                f"{job.at_s:g} s is after the end of the run",
                key=f"job[{n}].at_s",
                hint=f"below {spec.duration_s:g}",
            )
    if last_s <= first_s:
        raise InputError(
            f"{spec.duration_s:g} s leaves nothing to count: the first {first_s:g} s are warm-up, "
            f"the last {spec.quiet_s:g} s cool-down",
            key="duration_s",
            hint=f"more than {first_s + spec.quiet_s:g}, or a shorter deadline_s",
        )
    for name in spec.variant:
        if name in VARIANTS:
            raise InputError("this variant is built in", key=f"variant.{name}", hint="choose another name")
    for n, name in enumerate(spec.architectures):
        if name not in VARIANTS and name not in spec.variant:
            raise unknown("architecture", name, [*VARIANTS, *spec.variant], f"architectures[{n}]")
    if len(set(spec.architectures)) != len(spec.architectures):
        raise InputError("an architecture is named twice", key="architectures")
    for name, variant in spec.variant.items():
        _check_keys(inspect.type_info(OPTIONS[variant.of]), variant.options, f"variant.{name}.options")
    for n, fault in enumerate(spec.fault):
        if fault.at_s >= spec.duration_s:
            raise InputError(
                f"{fault.at_s:g} s is after the end of the run",
                key=f"fault[{n}].at_s",
                hint=f"below {spec.duration_s:g}",
            )
    for key, settings in {"links.radio": spec.links.radio, "links.backhaul": spec.links.backhaul}.items():
        if settings.profile is not None:
            link_profile(settings.profile, f"{key}.profile")
        if settings.duty_cycle_ratio is not None and not settings.shared:
            raise InputError(
                "only a shared channel has one", key=f"{key}.duty_cycle_ratio", hint="set shared = true"
            )


# ----------------------------------------------------------------------------------------------- writing TOML


def _toml_table(table: Mapping[str, Any], path: str) -> Iterator[str]:
    """Plain keys first, then tables, then lists of tables, as TOML wants them."""
    nested = {key: value for key, value in table.items() if isinstance(value, dict) and value}
    lists = {k: v for k, v in table.items() if isinstance(v, list | tuple) and v and isinstance(v[0], dict)}
    for key, value in table.items():
        if value is not None and key not in nested and key not in lists:
            yield f"{_toml_key(key)} = {_toml_value(value)}"
    for key, value in nested.items():
        below = f"{path}.{_toml_key(key)}" if path else _toml_key(key)
        yield f"\n[{below}]"
        yield from _toml_table(value, below)
    for key, values in lists.items():
        below = f"{path}.{_toml_key(key)}" if path else _toml_key(key)
        for value in values:
            yield f"\n[[{below}]]"
            yield from _toml_table(value, below)


def _toml_key(key: str) -> str:
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else _toml_value(key)


def _toml_value(value: Any) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case int() | float():
            return repr(value)
        case str():
            return msgspec.json.encode(value).decode()
        case list() | tuple():
            return f"[{', '.join(_toml_value(item) for item in value)}]"
        case dict():
            return (
                "{ " + ", ".join(f"{_toml_key(k)} = {_toml_value(v)}" for k, v in value.items()) + " }"
                if value
                else "{}"
            )
    raise TypeError(f"no TOML for {type(value).__name__}")
