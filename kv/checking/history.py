"""What clients saw: calls with the global times of their beginning and end."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from kv.operations import Command, Outcome


class Call(msgspec.Struct, frozen=True):
    """One operation as its client saw it."""

    client: str
    command: Command
    invoked_s: float
    """Global time of the request. No part of the operation happened before."""
    returned_s: float | None = None
    """Global time of the answer; None: it never came, and the operation may take effect at any time since
    its invocation, or never."""
    outcome: Outcome | None = None
    """None: the client does not know it."""

    @property
    def key(self) -> bytes:
        """The key that it is about: all commands that are judged are about one."""
        return self.command[1]

    def __str__(self) -> str:
        """One line: who, from when to when, what, and what came of it."""
        until = "?" if self.returned_s is None else f"{self.returned_s:.6f}"
        words = " ".join(_text(word) for word in self.command)
        return f"[{self.invoked_s:.6f} .. {until}] {self.client}: {words} -> {describe(self.outcome)}"


def by_key(calls: Iterable[Call]) -> dict[bytes, list[Call]]:
    """The calls about each key, in the order given. Keys are objects of their own, and a history of several
    is linearizable exactly if that of each is (Herlihy & Wing 1990, theorem 1)."""
    parts: dict[bytes, list[Call]] = {}
    for call in calls:
        parts.setdefault(call.key, []).append(call)
    return parts


def describe(outcome: Outcome | None) -> str:
    """An outcome for people to read."""
    if outcome is None:
        return "unknown"
    if outcome.failure:
        return f"({outcome.failure})"
    return _text(outcome.value) if isinstance(outcome.value, bytes) else str(outcome.value)


def _text(word: bytes) -> str:
    shown = repr(word)[2:-1]
    return shown if len(shown) <= 60 else f"{shown[:28]}...{shown[-28:]}"
