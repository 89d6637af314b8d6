"""What can be wrong with a job, said so that its author finds the place: the job, the line, the record."""

from __future__ import annotations

import traceback

from underlay.errors import BirdhouseError


class JobFailed(BirdhouseError):
    """A job cannot be run, or has failed. The text names the job, and where it is known the file's line and
    the record."""


def told(error: BaseException, file: str, where: str = "", record: str = "") -> str:
    """An error of a user's function in one line.

    Args:
        file: the job's file: the innermost line in it is the one that is named.
        where: which function was being called.
        record: which record it was given.

    >>> try:
    ...     exec(compile("{}['celsius']", "hourly.py", "exec"))
    ... except KeyError as error:
    ...     told(error, "hourly.py", "mapper", "cam3:17")
    "hourly.py:1: KeyError: 'celsius', in the mapper, at the record cam3:17"
    """
    line = 0
    for frame in traceback.extract_tb(error.__traceback__):
        if frame.filename == file:
            line = frame.lineno or 0
    if isinstance(error, SyntaxError) and error.filename == file:
        line = error.lineno or 0
    text = str(error.msg if isinstance(error, SyntaxError) else error)
    place = f"{file}:{line}" if line else file
    return "".join(
        (
            f"{place}: {type(error).__name__}: {text}" if text else f"{place}: {type(error).__name__}",
            f", in the {where}" if where else "",
            f", at the record {record}" if record else "",
        )
    )
