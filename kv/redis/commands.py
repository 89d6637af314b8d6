"""The commands that there are: those about keys (`kv.machine` has them), and those a host answers by itself.

Owns what is needed to know of a command before it is handed on, and what COMMAND tells: its arity and where
its keys are.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from kv.machine import COMMANDS
from kv.operations import Command, Operation
from kv.slots import slot_of


class Shape(msgspec.Struct, frozen=True):
    """What COMMAND says about a command."""

    arity: int
    """Number of arguments, the name included; negative: at least so many."""
    flags: tuple[str, ...] = ()
    first_key: int = 0
    """0: it has no keys."""
    last_key: int = 0
    """Negative: counted from the end."""
    step: int = 0
    summary: str = ""
    tips: tuple[str, ...] = ()
    """For clients of a cluster: which hosts to ask, and how to make one reply of theirs."""

    def accepts(self, count: int) -> bool:
        """Whether a command may have so many arguments, the name included."""
        return count == self.arity if self.arity >= 0 else count >= -self.arity

    def keys(self, command: Command) -> Command:
        """The keys among a command's arguments."""
        if not self.first_key:
            return ()
        last = self.last_key if self.last_key >= 0 else len(command) + self.last_key
        return command[self.first_key : last + 1 : self.step]


_ALL_SHARDS = "request_policy:all_shards"
_SUM = "response_policy:agg_sum"
_BY_SLOT = "request_policy:multi_shard"
_ALL_SUCCEEDED = "response_policy:all_succeeded"

_FAST = ("fast", "loading", "stale")

OWN: Mapping[bytes, Shape] = {
    b"PING": Shape(-1, _FAST, summary="Answers PONG, or its argument.", tips=(_ALL_SHARDS, _ALL_SUCCEEDED)),
    b"ECHO": Shape(2, _FAST, summary="Answers its argument."),
    b"HELLO": Shape(-1, _FAST, summary="Chooses the version of the protocol."),
    b"AUTH": Shape(-2, _FAST, summary="There are no passwords here."),
    b"SELECT": Shape(2, _FAST, summary="There is one database, 0."),
    b"RESET": Shape(1, _FAST, summary="Makes the connection as if it were new."),
    b"QUIT": Shape(-1, _FAST, summary="Ends the connection."),
    b"READONLY": Shape(1, _FAST, summary="Lets replicas answer reads from what they have."),
    b"READWRITE": Shape(1, _FAST, summary="Takes READONLY back."),
    b"ASKING": Shape(1, _FAST, summary="Follows an ASK redirection."),
    b"CLIENT": Shape(-2, (), summary="About connections: ID, GETNAME, SETNAME, SETINFO, INFO, LIST."),
    b"COMMAND": Shape(-1, ("loading", "stale"), summary="About commands: COUNT, INFO, DOCS, LIST, GETKEYS."),
    b"CONFIG": Shape(-2, ("admin", "loading", "stale"), summary="GET tells what programs like to know."),
    b"INFO": Shape(
        -1,
        ("loading", "stale"),
        summary="How the host and its groups are.",
        tips=(_ALL_SHARDS, "response_policy:special"),
    ),
    b"CLUSTER": Shape(-2, (), summary="SLOTS, SHARDS, NODES, INFO, KEYSLOT, MYID, COUNTKEYSINSLOT."),
    b"DBSIZE": Shape(
        1,
        ("readonly",),
        summary="Counts the keys in the slots that this host leads.",
        tips=(_ALL_SHARDS, _SUM),
    ),
    b"KEYS": Shape(
        2, ("readonly",), summary="The keys, where they are few, in the slots that this host leads."
    ),
    b"SCAN": Shape(
        -2,
        ("readonly",),
        summary="Goes through the keys in the slots that this host leads.",
        tips=("request_policy:special", "response_policy:special"),
    ),
}
"""Answered by the router, or put together by it from what several groups say."""

_SPLIT = {
    b"DEL": (_BY_SLOT, _SUM),
    b"EXISTS": (_BY_SLOT, _SUM),
    b"MGET": (_BY_SLOT,),
    b"MSET": (_BY_SLOT, _ALL_SUCCEEDED),
    b"TOUCH": (_BY_SLOT, _SUM),
    b"UNLINK": (_BY_SLOT, _SUM),
}
"""Commands that clients may take apart by slot."""

KEYED: Mapping[bytes, Shape] = {
    name: Shape(
        spec.arity, spec.flags, spec.first_key, spec.last_key, spec.key_step, tips=_SPLIT.get(name, ())
    )
    for name, spec in COMMANDS.items()
    if spec.first_key and not name.startswith(b"@")
}
"""About keys, and so for the group that has their slot."""

SHAPES: Mapping[bytes, Shape] = {**OWN, **KEYED}
"""All that COMMAND knows."""


def slot_of_operation(operation: Operation) -> int:
    """The slot of an operation that is about keys."""
    command = operation.command
    return slot_of(command[SHAPES[command[0]].first_key])
