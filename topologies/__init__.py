"""Experiments: from a spec to a network, a plan, a run, its metrics and a report; the command line and the
Python API."""

from importlib import resources
from pathlib import Path


def quickstart() -> Path:
    """The bundled spec that `birdhouse compare` runs when it is given none."""
    return Path(str(resources.files("topologies") / "quickstart.toml"))
