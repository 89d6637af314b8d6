"""The check of set iteration finds what depends on a set's order, and leaves alone what does not."""

from pathlib import Path

import pytest

from tools.check_set_iteration import check, main

DEPENDS_ON_ORDER = {
    "a loop over a display": "for x in {1, 2}: print(x)",
    "a loop over set()": "for x in set(names): print(x)",
    "a loop over a set comprehension": "for x in {n.peer for n in nodes}: print(x)",
    "a loop over a name that was assigned a set": "peers = set()\nfor x in peers: print(x)",
    "a loop over an annotated name": "peers: frozenset[str] = load()\nfor x in peers: print(x)",
    "a loop over an argument": "def f(peers: set[str] | None) -> None:\n    for x in peers: print(x)",
    "a loop over a quoted annotation": "def f(peers: 'set[str]') -> None:\n    for x in peers: print(x)",
    "a loop over an attribute assigned in __init__": (
        "class N:\n def __init__(self): self.eager = set()\n def go(self):\n  for x in self.eager: print(x)"
    ),
    "a loop over a field of a struct": (
        "class N:\n eager: set[str]\ndef go(n):\n for x in n.eager: print(x)"
    ),
    "a loop over a difference": "a = {1}\nfor x in a - {2}: print(x)",
    "a loop over a method's result": "a = {1}\nfor x in a.union([2]): print(x)",
    "a loop over the common keys of two dictionaries": "for x in a.keys() & b.keys(): print(x)",
    "a loop over what a function returns": "def f() -> set[int]: ...\nfor x in f(): print(x)",
    "a loop over an element of a dictionary of sets": (
        "def f(m: dict[str, set[str]]):\n for x in m['a']: print(x)"
    ),
    "a loop over a default of a dictionary of sets": (
        "m = defaultdict(set)\nfor x in m.get('a', ()): print(x)"
    ),
    "a loop over each of the sets in a dictionary": (
        "def f(m: dict[str, set[str]]):\n for k, s in m.items():\n  for x in s: print(x)"
    ),
    "a loop over each of a list of sets": (
        "def f(groups: list[set[str]]):\n for group in groups:\n  for x in group: print(x)"
    ),
    "an asynchronous loop": "async def f(s: set[int]):\n async for x in s: print(x)",
    "a list comprehension": "a = {1}\nb = [x for x in a]",
    "a dictionary comprehension": "a = {1}\nb = {x: 0 for x in a}",
    "a generator given to a list": "a = {1}\nb = list(x for x in a)",
    "list()": "b = list({1, 2})",
    "next(iter())": "b = next(iter({1, 2}))",
    "join()": "b = ','.join({'a', 'b'})",
    "dict.fromkeys()": "b = dict.fromkeys({'a', 'b'})",
    "a starred argument": "a = {1}\nprint(*a)",
    "a starred list": "a = {1}\nb = [*a]",
    "unpacking": "a, b = {1, 2}",
    "pop()": "a = {1}\nb = a.pop()",
    "yield from": "def f():\n yield from {1, 2}",
    "min() whose key may tie": "a = {1}\nb = min(a, key=cost)",
    "sorted() whose key may tie": "a = {1}\nb = sorted(a, key=cost)",
    "hash() of anything": "b = hash(name)",
    "id() of anything": "b = id(node)",
}

DOES_NOT = {
    "a loop over a literal's strings that name a set": (
        "def f(words: Literal['set of words', 'set']) -> None:\n    for x in words: print(x)"
    ),
    "sorted()": "for x in sorted({1, 2}): print(x)",
    "min() by the elements themselves": "a = {1}\nb = min(a)",
    "membership": "a = {1}\nb = 1 in a",
    "len(), any() and all() of a generator": "a = {1}\nb = len(a), any(x for x in a), all(x for x in a)",
    "sorted() of a generator": "a = {1}\nb = sorted(x + 1 for x in a)",
    "a set made from a set": "a = {1}\nb = {x + 1 for x in a}\nc = {*a, 2}",
    "updating a set from a set": "a = {1}\na.update(x for x in {2})",
    "a name that holds a sorted list by now": "a = {1}\na = sorted(a)\nfor x in a: print(x)",
    "a dictionary, which keeps its order": "m = {'a': 1}\nfor k in m: print(k)\nfor k in m.keys(): print(k)",
    "the keys of a dictionary of sets": "def f(m: dict[str, set[str]]):\n for k in m: print(k)",
    "a set in a neighbouring scope": "def f(): a = {1}\ndef g(a):\n for x in a: print(x)",
    "an attribute that is a set in one class only": (
        "class A:\n peers: set[str]\nclass B:\n peers: list[str]\ndef f(b: B):\n for x in b.peers: print(x)"
    ),
    "the pop() of a list": "a = [1]\nb = a.pop()",
    "hash() where Python asks for it": "class A:\n def __hash__(self): return hash(self.name)",
    "a loop that says why its order cannot matter": "for x in {1, 2}:  # set order: each alone\n  close(x)",
}


@pytest.mark.parametrize("source", DEPENDS_ON_ORDER.values(), ids=DEPENDS_ON_ORDER.keys())
def test_finds(source: str) -> None:
    assert check({"node.py": source})


@pytest.mark.parametrize("source", DOES_NOT.values(), ids=DOES_NOT.keys())
def test_leaves_alone(source: str) -> None:
    assert check({"node.py": source}) == []


def test_an_attribute_declared_in_one_file_is_known_in_another() -> None:
    declares = "class Plan:\n    down: frozenset[str]"
    loops = "def f(plan):\n    for x in plan.down: print(x)"
    assert [str(finding) for finding in check({"plan.py": declares, "run.py": loops})] == [
        "run.py:2: loops over a set"
    ]


def test_the_command_line_reports_and_fails(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bad, good = tmp_path / "bad.py", tmp_path / "good.py"
    bad.write_text("x = list({1})\n")
    good.write_text("x = sorted({1})\n")
    assert main([str(good)]) == 0
    assert main([str(tmp_path)]) == 1
    assert capsys.readouterr().out == f"{bad}:1: list() takes a set in its own order\n"
    assert main([str(tmp_path / "absent")]) == 2
