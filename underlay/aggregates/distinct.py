"""How many different values, about: HyperLogLog.

Source: Flajolet et al., "HyperLogLog" (AofA 2007), with 64-bit hashes, so that no correction for large
numbers is needed (Heule, Nunkesser, Hall, "HyperLogLog in Practice", EDBT 2013, §5.1), and linear counting
for small ones. Hashes are BLAKE2b of the packed value: the same in every process.
"""

from __future__ import annotations

from hashlib import blake2b
from math import log, sqrt
from typing import Any

from underlay.aggregates.aggregate import Aggregate, Unsuitable, decode, encode

_HASH_BITS = 64


class Distinct(Aggregate["dict[int, int]", Any, int]):
    """The number of different values; its standard error is `standard_error`. Packs to the smaller of two
    bytes for each register in use and 2**precision.

    Args:
        precision: of 2**precision registers, 4 to 16; 12 has a standard error of 1.6 percent.
    """

    safe_under_duplicates = True

    def __init__(self, precision: int = 12) -> None:
        if not 4 <= precision <= 16:
            raise ValueError(f"a precision is between 4 and 16, and this is {precision}")
        self.precision = precision

    @property
    def standard_error(self) -> float:
        """Relative."""
        return 1.04 / sqrt(1 << self.precision)

    def zero(self) -> dict[int, int]:
        return {}

    def add(self, state: dict[int, int], value: Any) -> dict[int, int]:
        if isinstance(value, bool | float) and value == value // 1 and abs(value) < 1 << 53:
            value = int(value)  # equal numbers are one
        try:
            data = encode(value)
        except (TypeError, OverflowError) as error:
            raise Unsuitable(f"{value!r} cannot be told from others: {error}") from error
        hashed = int.from_bytes(blake2b(data, digest_size=8).digest(), "big")
        low_bits = _HASH_BITS - self.precision
        register, rest = hashed >> low_bits, hashed & ((1 << low_bits) - 1)
        rank = low_bits - rest.bit_length() + 1
        if rank > state.get(register, 0):
            state[register] = rank
        return state

    def merge(self, a: dict[int, int], b: dict[int, int]) -> dict[int, int]:
        for register, rank in b.items():
            if rank > a.get(register, 0):
                a[register] = rank
        return a

    def finish(self, state: dict[int, int]) -> int:
        registers = 1 << self.precision
        empty = registers - len(state)
        alpha = {4: 0.673, 5: 0.697, 6: 0.709}.get(self.precision, 0.7213 / (1 + 1.079 / registers))
        ranks: dict[int, int] = {}
        for rank in state.values():
            ranks[rank] = ranks.get(rank, 0) + 1
        total = empty + sum(ranks[rank] * 2.0**-rank for rank in sorted(ranks))
        estimate = alpha * registers * registers / total
        if estimate <= 2.5 * registers and empty:
            estimate = registers * log(registers / empty)
        return round(estimate)

    def pack(self, state: dict[int, int]) -> bytes:
        if 4 * len(state) < 1 << self.precision:
            return encode([0, sorted(state.items())])
        return encode([1, bytes(state.get(register, 0) for register in range(1 << self.precision))])

    def unpack(self, data: bytes) -> dict[int, int]:
        dense, found = decode(data, tuple[int, bytes | list[tuple[int, int]]])
        pairs = list(enumerate(found)) if dense else found
        if dense and (not isinstance(found, bytes) or len(found) != 1 << self.precision):
            raise Unsuitable(f"{len(found)} registers, and {1 << self.precision} were expected")
        state = {register: rank for register, rank in pairs if rank}
        highest = _HASH_BITS - self.precision + 1
        if any(
            not (0 <= register < 1 << self.precision and 1 <= rank <= highest)
            for register, rank in state.items()
        ):
            raise Unsuitable(f"{data[:20]!r} is no packed Distinct({self.precision})")
        return state
