"""The command line, `birdhouse`. Exit codes: 0 done, 1 the run failed, 2 the input is wrong, 130
interrupted."""

from __future__ import annotations

import signal
from typing import NoReturn

from topologies.cli.app import app


def main() -> NoReturn:
    """What the console script calls."""
    signal.signal(signal.SIGTERM, _interrupt)
    app()
    raise SystemExit(0)


def _interrupt(_number: int, _frame: object) -> NoReturn:
    """SIGTERM cleans up like Ctrl-C."""
    raise KeyboardInterrupt
