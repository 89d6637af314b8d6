"""The key-value state machine: deterministic, multi-version, expiring by log time, exactly-once by session.

`machine` is the whole; `commands` is the table of what it understands; `slot` and `keyspace` are its state,
`records` the state as bytes; `strings`, `keys` and `reading` are the commands.
"""

from kv.machine.commands import COMMANDS, CommandSpec, keys_of, malformed
from kv.machine.machine import KeyValueMachine
from kv.machine.slot import KEY_BYTES_MAX, VALUE_BYTES_MAX, Reference

__all__ = [
    "COMMANDS",
    "KEY_BYTES_MAX",
    "VALUE_BYTES_MAX",
    "CommandSpec",
    "KeyValueMachine",
    "Reference",
    "keys_of",
    "malformed",
]
