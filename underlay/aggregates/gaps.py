"""Which numbers of a sequence were seen: what was lost between the first and the last, and what came
twice."""

from __future__ import annotations

from typing import Any

from underlay.aggregates.aggregate import Aggregate, Unsuitable, decode, encode


class Gaps(Aggregate["dict[int, int]", int, "dict[str, int]"]):
    """Of whole numbers: the first and the last, how many different ones were seen, how many between are
    missing, and how many came again.

    A state holds every number with its count until it is packed, as runs of neighbours with the same count:
    three whole numbers a run.
    """

    def zero(self) -> dict[int, int]:
        return {}

    def add(self, state: dict[int, int], value: int) -> dict[int, int]:
        if type(value) is not int or not -(1 << 63) <= value < 1 << 63:
            raise Unsuitable(f"{value!r} is no number of a sequence")
        state[value] = state.get(value, 0) + 1
        return state

    def merge(self, a: dict[int, int], b: dict[int, int]) -> dict[int, int]:
        for value, count in b.items():
            a[value] = a.get(value, 0) + count
        return a

    def finish(self, state: dict[int, int]) -> Any:
        if not state:
            return None
        first, last = min(state), max(state)
        return {
            "first": first,
            "last": last,
            "seen": len(state),
            "missing": last - first + 1 - len(state),
            "repeated": sum(state.values()) - len(state),
        }

    def pack(self, state: dict[int, int]) -> bytes:
        runs: list[list[int]] = []
        for value in sorted(state):
            if runs and runs[-1][1] == value - 1 and runs[-1][2] == state[value]:
                runs[-1][1] = value
            else:
                runs.append([value, value, state[value]])
        return encode(runs)

    def unpack(self, data: bytes) -> dict[int, int]:
        runs: list[tuple[int, int, int]] = decode(data, list[tuple[int, int, int]])
        state: dict[int, int] = {}
        for first, last, count in runs:
            if not 0 <= last - first <= 1 << 24 or count < 1 or first in state:
                raise Unsuitable(f"{data[:20]!r} holds no runs of numbers")
            state.update(dict.fromkeys(range(first, last + 1), count))
        return state
