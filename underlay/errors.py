"""The errors a user can cause or meet. Everything else is a bug and crashes loudly with a traceback.

The command line turns `InputError` into one line on stderr and exit code 2, `RunFailed` into exit code 1.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path


class BirdhouseError(Exception):
    """Base of every error that is shown to a user as one message, without a traceback."""

    exit_code = 1


class InputError(BirdhouseError):
    """The input is wrong: says which file, which key, what was wrong and what would be right."""

    exit_code = 2

    def __init__(
        self, problem: str, *, file: Path | str | None = None, key: str | None = None, hint: str | None = None
    ) -> None:
        self.problem = problem
        self.file = str(file) if file is not None else None
        self.key = key
        self.hint = hint
        where = ": ".join(part for part in (self.file, key) if part)
        text = f"{where}: {problem}" if where else problem
        super().__init__(f"{text} ({hint})" if hint else text)


class Unavailable(InputError):
    """This machine cannot do what was asked (no root, no Mininet, no netem); says what would make it
    possible."""


class RunFailed(BirdhouseError):
    """The run itself failed: a process died by itself, the disk filled up, the links broke their promise."""


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known word that `word` was probably meant to be, or None.

    >>> nearest("losss_ratio", ["loss_ratio", "rate_kbps"])
    'loss_ratio'
    """
    matches = difflib.get_close_matches(word, sorted(known), n=1, cutoff=0.5)
    return matches[0] if matches else None
