"""What an operation costs on the key-value machine: executed, and brought to records afterwards.

Usage: `python -m bench.machine`. Prints the table of docs/kv-commands.md: microseconds an operation, median
of five runs in one process, records taken after every 1,000 operations.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from random import Random
from statistics import median

from kv.machine import KeyValueMachine
from kv.operations import Command, Operation

OPERATIONS = 50_000
SESSIONS = 64
TAKEN_EVERY = 1_000
VALUE = b"x" * 64

MIXES: dict[str, Callable[[bytes, int], Command]] = {
    "SET": lambda key, number: (b"SET", key, VALUE),
    "SET with a deadline": lambda key, number: (b"SET", key, VALUE, b"PX", b"60000"),
    "APPEND of 3 bytes": lambda key, number: (b"APPEND", key, b"abc"),
    "INCR": lambda key, number: (b"INCR", key),
    "SET and DEL by turns": lambda key, number: (b"DEL", key) if number % 2 else (b"SET", key, VALUE),
}


def measure(make: Callable[[bytes, int], Command], tagged: bool, seed: int) -> tuple[float, float]:
    """Microseconds an operation to execute it, and to take its records."""
    rng = Random(seed)
    pattern = b"{a}key:%03d" if tagged else b"key:%03d"
    operations = [
        Operation(make(pattern % rng.randrange(1000), number), 1 + number % SESSIONS, number + 1)
        for number in range(OPERATIONS)
    ]
    machine = KeyValueMachine()
    executed_s = taken_s = 0.0
    gc.collect()
    for first in range(0, OPERATIONS, TAKEN_EVERY):
        began_s = time.perf_counter()
        for number in range(first, first + TAKEN_EVERY):
            machine.execute(operations[number], number / 10_000)
        executed_s += time.perf_counter() - began_s
        began_s = time.perf_counter()
        machine.take_changes()
        taken_s += time.perf_counter() - began_s
    return executed_s / OPERATIONS * 1e6, taken_s / OPERATIONS * 1e6


def main() -> None:
    """Print the table."""
    print("| 1,000 keys, 64 sessions | execute, one slot | execute, 1,000 slots | its records |")
    print("|---|---|---|---|")
    for name, make in MIXES.items():
        together = [measure(make, True, seed) for seed in range(5)]
        apart = [measure(make, False, seed) for seed in range(5)]
        one, many = median(e for e, _ in together), median(e for e, _ in apart)
        taken = median(t for _, t in together)
        print(f"| {name} | {one:.1f} µs | {many:.1f} µs | {taken:.1f} µs |")
    machine = KeyValueMachine()
    for number in range(1000):
        machine.execute(Operation((b"SET", b"key:%d" % number, VALUE)), 1.0)
    reads = [(b"GET", b"key:%d" % (number % 1000)) for number in range(OPERATIONS)]
    began_s = time.perf_counter()
    for read in reads:
        machine.query(read)
    print(f"| GET, asked | {(time.perf_counter() - began_s) / OPERATIONS * 1e6:.1f} µs | the same | - |")


if __name__ == "__main__":
    main()
