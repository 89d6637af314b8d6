"""Finds code whose result depends on the order of a set.

Strings hash differently in every process, so a loop over a set of node names runs in a different order each
time, and a trace that should be a function of its seed is not. This check reads the source only; it owns no
other rule of determinism (ruff's banned-api holds clocks, sockets and global randomness).

What counts as a set: a set display or comprehension, ``set()``, ``frozenset()``, set operators and methods,
views combined with ``|&-^``, a name or attribute annotated as a set or last assigned one, a function that is
annotated to return one, and an element of ``dict[K, set[T]]`` or ``list[set[T]]``. Attributes and functions
are known by name across all files of one run, where every annotation of that name agrees.

What may be done with one: membership, comparison, ``len any all sum frozenset set``, set operations, updating
another set, and ``sorted``, ``min`` or ``max`` without ``key`` (with one, ties come out in the set's order).
``sum`` of floats depends on order too: use ``math.fsum``. Everything that walks the set in its own order is
reported, ``pop()`` included, and so are ``hash()`` and ``id()`` outside ``__hash__``, which put the same
accident in a number.

A loop whose order truly cannot matter says why on its line: ``# set order: each element is handled alone``.

Usage: ``python tools/check_set_iteration.py [PATH...]``. Exit codes: 0 clean, 1 findings, 2 a bad path.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

DEFAULT_PATHS = ("underlay", "edge", "gateway", "kv", "topologies")
REAL_TIME = Path("underlay/emulation")  # its order is the kernel's; nothing replays it from a seed
EXCUSE = "# set order:"

SET_NAMES = {"set", "frozenset", "Set", "FrozenSet", "AbstractSet", "MutableSet"}
MAP_NAMES = {"dict", "Dict", "defaultdict", "DefaultDict", "OrderedDict", "Mapping", "MutableMapping"}
SEQUENCE_NAMES = {
    "list",
    "List",
    "tuple",
    "Tuple",
    "deque",
    "Deque",
    "Sequence",
    "Iterable",
    "Iterator",
    "Collection",
}

SET_METHODS = {"union", "intersection", "difference", "symmetric_difference", "copy"}
SET_OPERATORS = (ast.BitOr, ast.BitAnd, ast.Sub, ast.BitXor)
ORDER_FREE_CALLS = {
    "len",
    "any",
    "all",
    "sum",
    "set",
    "frozenset",
    "bool",
    "isinstance",
    "fsum",
    "sorted",
    "min",
    "max",
}
ORDERED_CALLS = {
    *("list", "tuple", "iter", "enumerate", "zip", "map", "filter", "reversed", "deque", "dict", "Counter"),
    *("join", "extend", "extendleft", "fromkeys", "chain", "from_iterable", "islice", "reduce", "accumulate"),
    *("product", "permutations", "combinations", "cycle", "batched", "pairwise"),
}  # fmt: skip


@dataclass(frozen=True)
class Finding:
    path: str
    line: int
    what: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.what}"


@dataclass(frozen=True)
class Kind:
    """As much of a type as the check needs: a set, a view of keys, or a container and its elements' kind."""

    name: str  # "set", "keys", "map", "sequence"
    element: Kind | None = None


SET = Kind("set")
KEYS = Kind("keys")


@dataclass(frozen=True)
class Declarations:
    """What annotations say about attributes (``x.peers``) and about the results of functions, by name."""

    attributes: dict[str, Kind | None]
    results: dict[str, Kind | None]


def main(arguments: list[str]) -> int:
    paths = [Path(argument) for argument in arguments or DEFAULT_PATHS]
    missing = [path for path in paths if not path.exists()]
    if missing:
        print(f"check_set_iteration: no such path: {missing[0]}", file=sys.stderr)
        return 2
    sources = {str(file): file.read_text(encoding="utf-8") for path in paths for file in python_files(path)}
    findings = check(sources)
    for finding in findings:
        print(finding)
    return 1 if findings else 0


def python_files(path: Path) -> list[Path]:
    files = sorted(path.rglob("*.py")) if path.is_dir() else [path]
    return [file for file in files if REAL_TIME not in file.parents]


def check(sources: dict[str, str]) -> list[Finding]:
    """All findings in ``sources`` (path -> text), in the order of the files and their lines."""
    trees = {path: ast.parse(text, path) for path, text in sources.items()}
    declarations = declared(trees.values())
    findings: list[Finding] = []
    for path, tree in trees.items():
        walker = Walker(path, sources[path].splitlines(), declarations)
        walker.visit(tree)
        findings += sorted(walker.findings, key=lambda finding: finding.line)
    return findings


def declared(trees: Iterable[ast.Module]) -> Declarations:
    attributes: dict[str, Kind | None] = {}
    results: dict[str, Kind | None] = {}
    for tree in trees:
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                declare(results, node.name, annotated_kind(node.returns))
            elif isinstance(node, ast.ClassDef):
                for name, kind in class_attributes(node):
                    declare(attributes, name, kind)
    return Declarations(attributes, results)


def declare(table: dict[str, Kind | None], name: str, kind: Kind | None) -> None:
    """Two classes that use one name for different things leave the name unknown."""
    table[name] = kind if table.get(name, kind) == kind else None


def class_attributes(node: ast.ClassDef) -> Iterator[tuple[str, Kind | None]]:
    for child in ast.walk(node):
        match child:
            case ast.AnnAssign(target=ast.Name(id=name)) if child in node.body:
                yield name, annotated_kind(child.annotation)
            case ast.AnnAssign(target=ast.Attribute(value=ast.Name(id="self"), attr=name)):
                yield name, annotated_kind(child.annotation)
            case ast.Assign(targets=[ast.Attribute(value=ast.Name(id="self"), attr=name)], value=value):
                kind = literal_kind(value)
                if kind:
                    yield name, kind


def annotated_kind(annotation: ast.expr | None) -> Kind | None:
    match annotation:
        case ast.Constant(value=str(text)):
            return annotated_kind(ast.parse(text, mode="eval").body)
        case ast.BinOp(left=left, op=ast.BitOr(), right=right):  # set[str] | None
            return annotated_kind(left) or annotated_kind(right)
        case ast.Subscript(value=ast.Name(id="Literal") | ast.Attribute(attr="Literal")):
            return None  # its strings are values, not annotations
        case ast.Subscript(value=value, slice=parameter):
            name = last_name(value)
            inner = parameter.elts[-1] if isinstance(parameter, ast.Tuple) else parameter
            if name in {"Final", "ClassVar", "Annotated", "Optional"}:
                return annotated_kind(parameter.elts[0] if isinstance(parameter, ast.Tuple) else parameter)
            if name in SEQUENCE_NAMES and isinstance(parameter, ast.Tuple):
                inner = parameter.elts[0]  # tuple[set[str], ...]
            return container_kind(name, annotated_kind(inner))
        case ast.Name() | ast.Attribute():
            return container_kind(last_name(annotation), None)
    return None


def container_kind(name: str, element: Kind | None) -> Kind | None:
    if name in SET_NAMES:
        return SET
    if name in MAP_NAMES:
        return Kind("map", element)
    return Kind("sequence", element) if element and name in SEQUENCE_NAMES else None


def literal_kind(node: ast.expr) -> Kind | None:
    """The kind an expression shows by itself, without knowing any name."""
    match node:
        case ast.Set() | ast.SetComp():
            return SET
        case ast.Dict() | ast.DictComp():
            values = node.values if isinstance(node, ast.Dict) else [node.value]
            return Kind("map", literal_kind(values[0]) if values else None)
        case ast.ListComp(elt=element):
            inner = literal_kind(element)
            return Kind("sequence", inner) if inner else None
        case ast.Call(func=ast.Name(id="defaultdict"), args=[ast.Name(id=factory), *_]):
            return Kind("map", SET if factory in SET_NAMES else None)
        case ast.Call(func=ast.Name(id="set" | "frozenset")):
            return SET
    return None


def last_name(node: ast.expr) -> str:
    match node:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name
    return ""


class Walker(ast.NodeVisitor):
    """Reads one file from top to bottom, keeping the kind each name was last given."""

    def __init__(self, path: str, lines: list[str], declarations: Declarations) -> None:
        self.path = path
        self.lines = lines
        self.declarations = declarations
        self.names: dict[str, Kind | None] = {}
        self.order_free: list[ast.expr] = []  # generators whose consumer does not care
        self.in_hash = False
        self.findings: list[Finding] = []

    # -- what an expression is

    def kind(self, node: ast.expr | None) -> Kind | None:
        match node:
            case None:
                return None
            case ast.Name(id=name):
                return self.names.get(name)
            case ast.Attribute(attr=name):
                return self.declarations.attributes.get(name)
            case ast.BinOp(left=left, op=op, right=right) if isinstance(op, SET_OPERATORS):
                sides = (self.kind(left), self.kind(right))
                return SET if SET in sides or KEYS in sides else None
            case ast.IfExp(body=one, orelse=other):
                return self.kind(one) or self.kind(other)
            case ast.BoolOp(values=values):
                return next((kind for kind in map(self.kind, values) if kind), None)
            case ast.NamedExpr(value=value) | ast.Await(value=value):
                return self.kind(value)
            case ast.Subscript(value=value, slice=index):
                container = self.kind(value)
                if container and isinstance(index, ast.Slice):
                    return container
                return container.element if container else None
            case ast.Call():
                return self.call_kind(node)
        return literal_kind(node)

    def call_kind(self, node: ast.Call) -> Kind | None:
        match node.func:
            case ast.Attribute(value=owner, attr=method):
                container = self.kind(owner)
                if container == SET:
                    return SET if method in SET_METHODS else None
                if container and container.name == "map":
                    if method in {"get", "setdefault", "pop"}:
                        return container.element or (self.kind(node.args[1]) if len(node.args) > 1 else None)
                    return {"keys": KEYS, "values": Kind("sequence", container.element)}.get(method)
                if method == "keys":
                    return KEYS
                return self.declarations.results.get(method)
            case ast.Name(id=name):
                return literal_kind(node) or self.declarations.results.get(name)
        return None

    # -- where names get their kinds

    def visit_Assign(self, node: ast.Assign) -> None:
        self.visit(node.value)
        for target in node.targets:
            if isinstance(target, ast.Tuple | ast.List) and self.kind(node.value) == SET:
                self.report(node, "unpacks a set")
            self.bind(target, self.kind(node.value))
            self.visit(target)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        if node.value:
            self.visit(node.value)
        self.bind(node.target, annotated_kind(node.annotation) or self.kind(node.value))

    def visit_NamedExpr(self, node: ast.NamedExpr) -> None:
        self.visit(node.value)
        self.bind(node.target, self.kind(node.value))

    def bind(self, target: ast.expr, kind: Kind | None) -> None:
        if isinstance(target, ast.Name):
            self.names[target.id] = kind
        elif isinstance(target, ast.Tuple | ast.List):
            for element in target.elts:
                self.bind(element, None)

    def bind_element(self, target: ast.expr, iterable: ast.expr) -> None:
        """Gives a loop's variables the kind of what is looped over."""
        match iterable, target:
            case (
                ast.Call(func=ast.Attribute(value=owner, attr="items"), args=[]),
                ast.Tuple(elts=[key, value]),
            ):
                self.bind(key, None)
                container = self.kind(owner)
                self.bind(value, container.element if container else None)
            case _:
                container = self.kind(iterable)
                self.bind(target, container.element if container and container.name == "sequence" else None)

    def visit_FunctionDef(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        self.names[node.name] = None
        outer, was_in_hash = self.names, self.in_hash
        self.names, self.in_hash = dict(outer), node.name == "__hash__"
        arguments = node.args
        for argument in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs):
            self.names[argument.arg] = annotated_kind(argument.annotation)
        self.generic_visit(node)
        self.names, self.in_hash = outer, was_in_hash

    visit_AsyncFunctionDef = visit_FunctionDef

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        outer, self.names = self.names, dict(self.names)
        self.generic_visit(node)
        self.names = outer

    # -- where order comes out

    def visit_For(self, node: ast.For | ast.AsyncFor) -> None:
        self.visit(node.iter)
        if self.kind(node.iter) == SET:
            self.report(node, "loops over a set")
        self.bind_element(node.target, node.iter)
        for statement in (*node.body, *node.orelse):
            self.visit(statement)

    visit_AsyncFor = visit_For

    def visit_comprehension_of(
        self, node: ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp
    ) -> None:
        outer, self.names = self.names, dict(self.names)
        order_free = isinstance(node, ast.SetComp) or node in self.order_free
        for generator in node.generators:
            self.visit(generator.iter)
            if self.kind(generator.iter) == SET and not order_free:
                self.report(generator.iter, "makes an ordered result from a set")
            self.bind_element(generator.target, generator.iter)
            for condition in generator.ifs:
                self.visit(condition)
        for result in (node.key, node.value) if isinstance(node, ast.DictComp) else (node.elt,):
            self.visit(result)
        self.names = outer

    visit_ListComp = visit_SetComp = visit_DictComp = visit_GeneratorExp = visit_comprehension_of

    def visit_Call(self, node: ast.Call) -> None:
        name = last_name(node.func)
        method_of_set = isinstance(node.func, ast.Attribute) and self.kind(node.func.value) == SET
        has_key = any(keyword.arg == "key" for keyword in node.keywords)
        takes_sets = [argument for argument in node.args if self.kind(argument) == SET]

        if method_of_set and name == "pop":
            self.report(node, "pops from a set, which element is an accident")
        elif isinstance(node.func, ast.Name) and name in {"hash", "id"} and not self.in_hash:
            self.report(node, f"{name}() is different in every process")
        elif takes_sets and has_key and name in {"sorted", "min", "max"}:
            self.report(node, f"{name}(set, key=...) leaves ties in the set's order: sort the set first")
        elif takes_sets and name in ORDERED_CALLS:
            self.report(node, f"{name}() takes a set in its own order")
        if (name in ORDER_FREE_CALLS and not has_key) or method_of_set:
            self.order_free += node.args
        self.generic_visit(node)

    def visit_Starred(self, node: ast.Starred) -> None:
        if self.kind(node.value) == SET and node not in self.order_free:
            self.report(node, "unpacks a set")
        self.generic_visit(node)

    def visit_Set(self, node: ast.Set) -> None:
        self.order_free += node.elts
        self.generic_visit(node)

    def visit_YieldFrom(self, node: ast.YieldFrom) -> None:
        if self.kind(node.value) == SET:
            self.report(node, "yields a set in its own order")
        self.generic_visit(node)

    def report(self, node: ast.AST, what: str) -> None:
        line: int = getattr(node, "lineno", 0)
        if EXCUSE not in self.lines[line - 1]:
            self.findings.append(Finding(self.path, line, what))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
