"""Operations and their outcomes: what a client asks of the store, and what goes through every log.

A command is what Redis calls one: its name, then its arguments, all bytes. The same tuple is what a client
sends, what a log holds and what a state machine executes; there is no second language.
"""

from __future__ import annotations

from typing import Any

import msgspec

Command = tuple[bytes, ...]
"""`(b"SET", b"obs:{cam3}:temperature", b"21.5")`. Names are upper case; those that begin with `@` belong to
the service itself and are refused from clients."""


class Operation(msgspec.Struct, frozen=True, array_like=True):
    """One command, and who must have it executed only once.

    An operation with a session is executed at most once, however often it is proposed, and a repetition gets
    the first outcome. A session has one operation under way at a time, so its highest sequence number and the
    outcome of that are all that must be remembered.
    """

    command: Command
    session: int = 0
    """64 random bits of the client's choice; 0: none, the operation is executed as often as it arrives."""
    sequence: int = 0
    """Counts the session's operations from 1."""


class Outcome(msgspec.Struct, frozen=True, array_like=True):
    """What became of an operation: a value, or a failure."""

    value: Any = None
    """None, int, bytes, a list of these, or str where Redis answers with a simple string ("OK")."""
    failure: str = ""
    """As RESP has it, without the dash: a code and a sentence ("WRONGTYPE ..."). Empty: none."""

    @property
    def executed(self) -> bool:
        """Whether the operation took place, well or badly; False if it must be tried elsewhere or later."""
        return self.failure.partition(" ")[0] not in ELSEWHERE


ELSEWHERE = ("MOVED", "ASK", "TRYAGAIN", "CLUSTERDOWN", "LOADING")
"""Failure codes that say: nothing happened here. MOVED and ASK go on with the slot's number."""

OK = Outcome("OK")
