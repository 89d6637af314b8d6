"""Ready-made jobs: each module is a job file as a user would write it, and is read as text.

The first line of a file's docstring says what it answers.
"""

from __future__ import annotations

from importlib.resources import files

from gateway.mapreduce.errors import JobFailed
from gateway.mapreduce.job import JobSource, Plain
from underlay.errors import nearest


def names() -> tuple[str, ...]:
    """All of them, in the order of the alphabet."""
    found = (path.name for path in files(__name__).iterdir() if path.name.endswith(".py"))
    return tuple(sorted(name.removesuffix(".py") for name in found if not name.startswith("_")))


def ready_made(name: str, parameters: dict[str, Plain] | None = None) -> JobSource:
    """One of them. Raises JobFailed where there is none of that name."""
    if name not in names():
        close = nearest(name, names())
        hint = f"did you mean {close}?" if close else f"there are {', '.join(names())}"
        raise JobFailed(f"there is no ready-made job {name!r} ({hint})")
    text = files(__name__).joinpath(f"{name}.py").read_text()
    return JobSource(name, f"{name}.py", text, parameters or {})


def about(name: str) -> str:
    """What a ready-made job answers."""
    first = ready_made(name).text.splitlines()[0]
    return first.strip().strip('"').rstrip(".")
