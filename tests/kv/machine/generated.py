"""Operations that Hypothesis makes up: few keys in few slots, so that everything happens to each of them."""

from __future__ import annotations

from hypothesis import strategies as st

from kv.machine import KeyValueMachine
from kv.operations import Command, Operation, Outcome

KEYS = [b"{a}1", b"{a}2", b"{a}10", b"{a}", b"{b}1", b"{b}\xff\x00"]
DIGESTS = [bytes([number]) * 32 for number in range(3)]

keys = st.sampled_from(KEYS)
values = st.sampled_from([b"", b"7", b"-3", b"many words", b"\x00\xff"])
lifetimes = st.sampled_from([b"1", b"2", b"3", b"1000", b"2500"])
references = st.sampled_from([digest + (100_000).to_bytes(8, "big") for digest in DIGESTS])
neighbours = st.lists(st.sampled_from(KEYS[:4]), min_size=1, max_size=3)


def _command(name: bytes, *arguments: st.SearchStrategy[bytes]) -> st.SearchStrategy[Command]:
    return st.tuples(st.just(name), *arguments)


def _several(name: bytes) -> st.SearchStrategy[Command]:
    return neighbours.map(lambda several: (name, *several))


writes: st.SearchStrategy[Command] = st.one_of(
    _command(b"SET", keys, values),
    _command(b"SET", keys, values, st.sampled_from([b"NX", b"xx", b"GET", b"KEEPTTL"])),
    _command(b"SET", keys, values, st.sampled_from([b"EX", b"PX"]), lifetimes),
    _command(b"SET", keys, values, st.just(b"NX"), st.just(b"GET")),
    _command(b"APPEND", keys, values),
    _command(b"INCRBY", keys, values),
    _command(b"DECR", keys),
    _command(b"GETDEL", keys),
    _several(b"DEL"),
    st.tuples(st.just(b"MSET"), keys.filter(lambda key: b"{a}" in key), values, st.just(b"{a}2"), values),
    _command(b"EXPIRE", keys, lifetimes),
    _command(b"PEXPIREAT", keys, lifetimes),
    _command(b"PERSIST", keys),
)
reads: st.SearchStrategy[Command] = st.one_of(
    _command(b"GET", keys),
    _command(b"STRLEN", keys),
    _command(b"PTTL", keys),
    _several(b"MGET"),
    _several(b"EXISTS"),
    st.just((b"DBSIZE",)),
)
objects: st.SearchStrategy[Command] = st.one_of(
    _command(b"@SET", keys, references),
    _command(b"@SET", keys, references, st.just(b"GET")),
)

Step = tuple[Operation, float]
"""An operation, and its log time."""


@st.composite
def histories(draw: st.DrawFn, commands: st.SearchStrategy[Command], steps_max: int = 40) -> list[Step]:
    """Operations of three sessions and of none, some of them repeated, while time goes on by nothing, by
    milliseconds, or by more than a session's day."""
    sequences = [0, 0, 0]
    time_s = 1.0
    steps: list[Step] = []
    for command in draw(st.lists(commands, max_size=steps_max)):
        time_s += draw(st.sampled_from([0.0, 0.0, 0.0004, 0.9, 1.7, 90_000.0]))
        session = draw(st.integers(0, 3))
        if session and not draw(st.sampled_from([False, False, True])):
            sequences[session - 1] += 1
        steps.append((Operation(command, session, sequences[session - 1] if session else 0), time_s))
    return steps


def execute(machine: KeyValueMachine, steps: list[Step]) -> list[Outcome]:
    """All of them, in order."""
    return [machine.execute(operation, time_s) for operation, time_s in steps]
