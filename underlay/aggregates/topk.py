"""The most frequent items, exactly: every item's count is kept until the end."""

from __future__ import annotations

from typing import Any

import msgspec

from underlay.aggregates.aggregate import Aggregate, Unsuitable, decode, encode


class TopK(Aggregate["dict[bytes, int]", Any, "list[list[Any]]"]):
    """The k items with the highest counts, and these; of equal counts the one with the smaller packed bytes.

    A state holds each different item once: it grows with them (some 10 bytes and the item, packed). A value
    is an item, or a pair (item, count).

    Args:
        k: how many.
        weighted: values are pairs (item, whole number to count).
    """

    def __init__(self, k: int = 10, *, weighted: bool = False) -> None:
        if k < 1:
            raise ValueError(f"the top {k} are none")
        self.k = k
        self.weighted = weighted

    def zero(self) -> dict[bytes, int]:
        return {}

    def add(self, state: dict[bytes, int], value: Any) -> dict[bytes, int]:
        by = 1
        if self.weighted:
            try:
                value, by = value
            except (TypeError, ValueError):
                raise Unsuitable(f"{value!r} is no pair of an item and a count") from None
            if not isinstance(by, int) or by < 1:
                raise Unsuitable(f"{by!r} is no count")
        try:
            item = encode(value)
        except (TypeError, OverflowError) as error:
            raise Unsuitable(f"{value!r} is no item: {error}") from error
        state[item] = state.get(item, 0) + by
        return state

    def merge(self, a: dict[bytes, int], b: dict[bytes, int]) -> dict[bytes, int]:
        for item, count in b.items():
            a[item] = a.get(item, 0) + count
        return a

    def finish(self, state: dict[bytes, int]) -> list[list[Any]]:
        ranked = sorted(state.items(), key=lambda each: (-each[1], each[0]))
        return [[msgspec.msgpack.decode(item), count] for item, count in ranked[: self.k]]

    def pack(self, state: dict[bytes, int]) -> bytes:
        return encode([[item, state[item]] for item in sorted(state)])

    def unpack(self, data: bytes) -> dict[bytes, int]:
        pairs: list[tuple[bytes, int]] = decode(data, list[tuple[bytes, int]])
        state = dict(pairs)
        if len(state) != len(pairs) or any(count < 1 for count in state.values()):
            raise Unsuitable(f"{data[:20]!r} holds an item twice, or not at all")
        return state
