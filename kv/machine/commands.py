"""The registry of commands: what each is called, how many arguments it takes, where its keys are.

Owns the table, which the machine executes by and `kv.redis` describes to its clients (COMMAND), and the
errors that need no look at the data. Names, arities, key positions and error texts are those of Redis 7
(its documentation, "COMMAND" and the page of each command); names that begin with `BH.` are our own, and
those that begin with `@` are the service's, refused from clients by the server.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from kv.machine.keyspace import Keyspace
from kv.machine.slot import Slot
from kv.operations import Command, Outcome
from kv.slots import slot_of

Execute = Callable[[Keyspace, Slot, Command], Outcome]
"""Gets the slot of the command's keys (an empty one where it has none). Raises `Refused`, before it changes
anything, for what a client did wrong."""


class CommandSpec(NamedTuple):
    """One line of the table."""

    name: str
    """In upper case."""
    arity: int
    """Length of the command, its name included; negative: at least so much."""
    writes: bool
    first_key: int
    """Where the keys are: the first, the last (-1: the command's last argument) and the step from one to the
    next; all 0: the command has none."""
    last_key: int
    key_step: int
    execute: Execute

    @property
    def flags(self) -> tuple[str, ...]:
        """As COMMAND shows them."""
        return ("write", "denyoom") if self.writes else ("readonly",)


COMMANDS: dict[bytes, CommandSpec] = {}
"""By name, in upper case; filled by the modules that implement them."""


class Refused(Exception):
    """A client asked for what cannot be; the text is the reply."""


SYNTAX = "ERR syntax error"
NOT_AN_INTEGER = "ERR value is not an integer or out of range"


def command(
    name: str, arity: int, *, writes: bool = False, keys: tuple[int, int, int] = (1, 1, 1)
) -> Callable[[Execute], Execute]:
    """Enter a function into the table; `keys` are first, last, step."""

    def enter(execute: Execute) -> Execute:
        COMMANDS[name.encode()] = CommandSpec(name, arity, writes, *keys, execute)
        return execute

    return enter


def malformed(command: Command) -> Outcome | None:
    """What is wrong with a command whatever the data are: unknown, or not the right number of arguments.

    >>> malformed((b"NOSUCH", b"x"))
    Outcome(value=None, failure="ERR unknown command 'NOSUCH', with args beginning with: 'x' ")
    """
    spec = COMMANDS.get(command[0]) if command else None
    if spec is None:
        name, *arguments = [argument[:128].decode("utf-8", "replace") for argument in command[:20] or (b"",)]
        shown = "".join(f"'{argument}' " for argument in arguments)[:128]
        return Outcome(failure=f"ERR unknown command '{name}', with args beginning with: {shown}")
    if len(command) != spec.arity and (spec.arity > 0 or len(command) < -spec.arity):
        return Outcome(failure=f"ERR wrong number of arguments for '{spec.name.lower()}' command")
    return None


def keys_of(command: Command) -> tuple[bytes, ...]:
    """The keys that a well-formed command names.

    >>> keys_of((b"MSET", b"a", b"1", b"b", b"2"))
    (b'a', b'b')
    """
    spec = COMMANDS[command[0]]
    last = spec.last_key if spec.last_key > 0 else len(command) + spec.last_key
    return command[spec.first_key : last + 1 : spec.key_step] if spec.first_key else ()


def slot_of_keys(command: Command) -> int | None:
    """The one slot of a well-formed command's keys, None where it has no keys. Raises `Refused` where they
    are in several slots."""
    if COMMANDS[command[0]].last_key == 1:
        return slot_of(command[1])
    slots = [slot_of(key) for key in keys_of(command)]
    if any(slot != slots[0] for slot in slots):
        raise Refused("CROSSSLOT Keys in request don't hash to the same slot")
    return slots[0] if slots else None


def integer(argument: bytes, error: str = NOT_AN_INTEGER) -> int:
    """A signed 64-bit number as Redis reads it: no blanks, no plus sign, no leading zeros.

    >>> integer(b"-12")
    -12
    """
    try:
        number = int(argument)
    except ValueError:
        raise Refused(error) from None
    if b"%d" % number != argument or not -(1 << 63) <= number < 1 << 63:
        raise Refused(error)
    return number
