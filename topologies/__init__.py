"""Experiments: from a spec to a network, a plan, a run, its metrics and a report; the command line and the
Python API.

    >>> import topologies
    >>> comparison = topologies.compare("my.toml", fabric="simulation")        # doctest: +SKIP
    >>> [(row["architecture"], row["delivery_ratio"]) for row in comparison.table()]   # doctest: +SKIP

Every command of `birdhouse` is one function here; they are loaded when first used, for `birdhouse --help` is
to be quick.
"""

from __future__ import annotations

from importlib import import_module, resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from topologies.api import (
        Checked,
        Comparison,
        Run,
        check,
        compare,
        diff,
        load,
        load_spec,
        new,
        report,
        run,
        up,
    )

__all__ = [
    "Checked",
    "Comparison",
    "Run",
    "check",
    "compare",
    "diff",
    "load",
    "load_spec",
    "new",
    "quickstart",
    "report",
    "run",
    "up",
]


def quickstart() -> Path:
    """The bundled spec that `birdhouse compare` runs when it is given none."""
    return Path(str(resources.files("topologies") / "quickstart.toml"))


def __getattr__(name: str) -> Any:
    if name in __all__:
        return getattr(import_module("topologies.api"), name)
    raise AttributeError(f"module 'topologies' has no attribute {name!r}")
