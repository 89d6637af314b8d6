"""The published JSON schema of specs, for editors that complete and check TOML while one types.

`python -m topologies.schema` prints it; `docs/spec.schema.json` holds it. Made from the types of
`topologies.spec`: their bounds become the schema's, their docstrings its descriptions (JSON Schema 2020-12).
"""

from __future__ import annotations

import ast
import inspect
from textwrap import dedent
from typing import Any

import msgspec

from topologies.spec import Spec


def schema() -> dict[str, Any]:
    """The schema of a spec."""
    (root,), components = msgspec.json.schema_components([Spec], ref_template="#/$defs/{name}")
    described = {name: _described(name, component) for name, component in components.items()}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A Birdhouse experiment",
        **root,
        "$defs": described,
    }


def schema_text() -> str:
    """The schema as it is published."""
    return msgspec.json.format(msgspec.json.encode(schema(), order="sorted"), indent=2).decode() + "\n"


def field_docs(kind: type[msgspec.Struct]) -> dict[str, str]:
    """What the docstrings below the fields of a struct say, those of its bases included."""
    found: dict[str, str] = {}
    for base in reversed(kind.__mro__):
        if not issubclass(base, msgspec.Struct) or base is msgspec.Struct:
            continue
        (definition,) = ast.parse(dedent(inspect.getsource(base))).body
        assert isinstance(definition, ast.ClassDef)
        for statement, following in zip(definition.body, definition.body[1:], strict=False):
            match statement, following:
                case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                    found[name] = " ".join(text.split())
    return found


def _described(name: str, component: dict[str, Any]) -> dict[str, Any]:
    kind = _STRUCTS.get(name)
    if kind is None or "properties" not in component:
        return component
    docs = field_docs(kind)
    properties = {
        key: {**value, "description": docs[key]} if key in docs else value
        for key, value in component["properties"].items()
    }
    return {**component, "description": " ".join((kind.__doc__ or "").split()), "properties": properties}


def _structs(kind: msgspec.inspect.Type, found: dict[str, type[msgspec.Struct]]) -> None:
    """Every struct that a type mentions, by its name."""
    match kind:
        case msgspec.inspect.StructType(cls=cls, fields=fields):
            if cls.__name__ not in found:
                found[cls.__name__] = cls
                for field in fields:
                    _structs(field.type, found)
        case msgspec.inspect.UnionType(types=types):
            for one in types:
                _structs(one, found)
        case msgspec.inspect.VarTupleType(item_type=item):
            _structs(item, found)
        case msgspec.inspect.DictType(value_type=value):
            _structs(value, found)


_STRUCTS: dict[str, type[msgspec.Struct]] = {}
_structs(msgspec.inspect.type_info(Spec), _STRUCTS)


if __name__ == "__main__":
    print(schema_text(), end="")
