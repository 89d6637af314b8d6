"""A job: what a user's file defines, and how a worker gets it from that file.

A job file is Python that defines `job`: a `Job`, or a function that returns one (its arguments are the job's
parameters). The file travels as text, so that every worker runs the same lines and every error names them;
nothing is pickled.
"""

from __future__ import annotations

import inspect
import linecache
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any
from zlib import crc32

import msgspec

from gateway.mapreduce.errors import JobFailed, told
from gateway.mapreduce.inputs import Selection
from gateway.mapreduce.keys import Key
from gateway.mapreduce.operators import Combiner, Functions, Mapper, Operator, Reducer
from underlay.errors import nearest

SOURCE_BYTES_MAX = 40 * 1024
"""Of a job's file: it travels in one message."""
REDUCES = 4
BAD_RECORDS_MAX = 100

Plain = str | int | float | bool | None
Partition = Callable[[Any, int], Any]


@dataclass(frozen=True)
class Job:
    """What is done with which records.

    Args:
        mapper, reducer, combiner: the user's functions (`operators.Functions`); or else
        operator: what to do.
        source: which observations; a job over a text file takes all lines, whatever this says.
        reduces: how many reduce tasks, R; the result has as many parts.
        partition: which part a key is in, `partition(key, reduces)`; by default CRC-32 of the packed key.
        bad_records_max: so many records that a function fails on, twice each, are left out; one more, and the
            job fails.
        deadline_s: of one attempt at a task, seconds.
        memory_mb: of one attempt's process, beside what the interpreter itself takes.
        key_names: of the parts of the key, for tables.
        window_s: length of the windows that are the key's last part; 0: there are none.
    """

    mapper: Mapper | None = None
    reducer: Reducer | None = None
    combiner: Combiner | None = None
    source: Selection = field(default_factory=Selection)
    reduces: int = REDUCES
    partition: Partition | None = None
    bad_records_max: int = BAD_RECORDS_MAX
    deadline_s: float = 600.0
    memory_mb: int = 512
    operator: Operator | None = None
    key_names: tuple[str, ...] = ("key",)
    window_s: float = 0.0

    def __post_init__(self) -> None:
        own = self.mapper is not None and self.reducer is not None
        if own == (self.operator is not None):
            raise TypeError("a job has a mapper and a reducer")
        for name in ("mapper", "reducer", "combiner", "partition"):
            given = getattr(self, name)
            if given is not None and not callable(given):
                raise TypeError(f"{name} is a function, and this is {given!r}")
        if not 1 <= self.reduces <= 1000:
            raise ValueError(f"reduces is between 1 and 1000, and this is {self.reduces}")
        for name in ("deadline_s", "memory_mb"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} is above 0, and this is {getattr(self, name)}")

    @property
    def does(self) -> Operator:
        """What is done."""
        if self.operator is not None:
            return self.operator
        assert self.mapper is not None
        assert self.reducer is not None
        return Functions(self.mapper, self.reducer, self.combiner)

    def part_of(self, key: Key, packed: bytes) -> int:
        """Which of the parts a key is in. Raises ValueError where the user's function says nonsense."""
        if self.partition is None:
            return crc32(packed) % self.reduces
        part = self.partition(key, self.reduces)
        if not isinstance(part, int) or not 0 <= part < self.reduces:
            raise ValueError(f"the partition of {key!r} is {part!r}, and there are 0 to {self.reduces - 1}")
        return part


class JobSource(msgspec.Struct, frozen=True, array_like=True):
    """A job as it travels: a file's text and its parameters."""

    name: str
    file: str
    """For error messages; not opened."""
    text: str
    parameters: dict[str, Plain] = {}


_loaded: dict[bytes, Job] = {}
_LOADED_MAX = 32


def load(source: JobSource) -> Job:
    """Run the file and take its job. Raises JobFailed for whatever is wrong with it, which names the line."""
    digest = msgspec.msgpack.encode(source)
    job = _loaded.get(digest)
    if job is None:
        if len(_loaded) >= _LOADED_MAX:
            _loaded.clear()
        job = _loaded[digest] = _job_of(source, _executed(source))
    return job


def parameters_of(text: str, file: str) -> dict[str, Plain]:
    """The parameters that a job file takes, with their defaults (None: there is none). Raises JobFailed."""
    made = _executed(JobSource(file, file, text)).__dict__.get("job")
    if not inspect.isfunction(made):
        return {}
    return {
        name: None if each.default is inspect.Parameter.empty else each.default
        for name, each in inspect.signature(made).parameters.items()
    }


# ---------------------------------------------------------------------------------------------------- helpers


def _executed(source: JobSource) -> ModuleType:
    if len(source.text.encode(errors="replace")) > SOURCE_BYTES_MAX:
        raise JobFailed(f"{source.file}: a job's file has at most {SOURCE_BYTES_MAX} bytes")
    module = ModuleType(f"birdhouse_job_{crc32(source.text.encode(errors='replace')):08x}")
    module.__file__ = source.file
    lines = source.text.splitlines(keepends=True)
    linecache.cache[source.file] = (len(source.text), None, lines, source.file)
    sys.modules[module.__name__] = module  # dataclasses of a job look their module up
    try:
        exec(compile(source.text, source.file, "exec", dont_inherit=True), module.__dict__)
    except ModuleNotFoundError as error:
        raise JobFailed(
            f"job {source.name}: {told(error, source.file)} (is it installed on every worker?)"
        ) from error
    except Exception as error:
        raise JobFailed(f"job {source.name}: {told(error, source.file)}") from error
    except SystemExit as error:
        raise JobFailed(f"job {source.name}: {source.file} ends the process") from error
    return module


def _job_of(source: JobSource, module: ModuleType) -> Job:
    made = module.__dict__.get("job")
    if made is None:
        names = [name for name, value in vars(module).items() if isinstance(value, Job)]
        hint = f"; it defines {names[0]}" if names else ""
        raise JobFailed(f"job {source.name}: {source.file} defines no `job`{hint}")
    if isinstance(made, Job):
        if source.parameters:
            raise JobFailed(f"job {source.name}: it takes no parameters: `job` is no function")
        return made
    if not callable(made):
        raise JobFailed(f"job {source.name}: `job` is a Job or a function that returns one, not {made!r}")
    return _called(source, made)


def _called(source: JobSource, make: Callable[..., Any]) -> Job:
    known = inspect.signature(make).parameters
    for name in source.parameters:
        if name not in known:
            close = nearest(name, known)
            hint = f"did you mean {close}?" if close else f"it takes {', '.join(known) or 'none'}"
            raise JobFailed(f"job {source.name}: there is no parameter {name!r} ({hint})")
    given = _typed(source, known)
    try:
        made = make(**given)
    except Exception as error:
        raise JobFailed(f"job {source.name}: {told(error, source.file)}") from error
    if not isinstance(made, Job):
        raise JobFailed(f"job {source.name}: `job()` returned {made!r}, and a Job was expected")
    return made


def _typed(source: JobSource, known: Mapping[str, inspect.Parameter]) -> dict[str, Plain]:
    """Parameters that came as text, in the types of their defaults."""
    given: dict[str, Plain] = {}
    for name, value in source.parameters.items():
        default = known[name].default
        kind = type(default)
        if isinstance(value, str) and kind in (int, float):
            try:
                value = kind(value)
            except ValueError:
                raise JobFailed(
                    f"job {source.name}: {name}={value!r}, and a number such as {default} was expected"
                ) from None
        given[name] = value
    return given
