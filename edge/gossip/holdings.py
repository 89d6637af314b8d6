"""What a gossiping node holds: observations by origin, whole or in part, within a byte budget.

Pure data structure. Knows nothing of peers or time; `digest` and `difference` are what anti-entropy compares.
Which sequence numbers were ever held is remembered after the bytes were evicted, so nothing is delivered
twice.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterator

from edge.gossip.messages import ALL_PARTS, OriginDigest, PartId


class Intervals:
    """A set of integers as ascending, disjoint, non-adjacent intervals `[first, last]`.

    >>> held = Intervals()
    >>> for n in (3, 1, 2, 7): held.add(n)
    >>> held.bounds()
    (1, 3, 7, 7)
    """

    __slots__ = ("_first", "_last")

    def __init__(self, bounds: tuple[int, ...] = ()) -> None:
        self._first = list(bounds[0::2])
        self._last = list(bounds[1::2])

    def __contains__(self, number: int) -> bool:
        i = bisect_right(self._first, number) - 1
        return i >= 0 and number <= self._last[i]

    def __len__(self) -> int:
        return sum(last - first + 1 for first, last in zip(self._first, self._last, strict=True))

    def add(self, number: int) -> None:
        """Insert; merging with neighbours."""
        i = bisect_right(self._first, number) - 1
        if i >= 0 and number <= self._last[i]:
            return
        joins_left = i >= 0 and self._last[i] == number - 1
        joins_right = i + 1 < len(self._first) and self._first[i + 1] == number + 1
        if joins_left and joins_right:
            self._last[i] = self._last[i + 1]
            del self._first[i + 1], self._last[i + 1]
        elif joins_left:
            self._last[i] = number
        elif joins_right:
            self._first[i + 1] = number
        else:
            self._first.insert(i + 1, number)
            self._last.insert(i + 1, number)

    def bounds(self) -> tuple[int, ...]:
        """`first, last, first, last, ...`."""
        return tuple(n for pair in zip(self._first, self._last, strict=True) for n in pair)

    def missing_from(self, other: Intervals) -> Iterator[int]:
        """Ascending numbers that are in `self` and not in `other`."""
        for first, last in zip(self._first, self._last, strict=True):
            n = first
            while n <= last:
                i = bisect_right(other._first, n) - 1
                if i >= 0 and n <= other._last[i]:
                    n = other._last[i] + 1
                    continue
                end = min(last, other._first[i + 1] - 1) if i + 1 < len(other._first) else last
                yield from range(n, end + 1)
                n = end + 1


class Assembly:
    """An observation that is (or was, on arrival) held in chunks."""

    __slots__ = ("chunks", "count", "held")

    def __init__(self, count: int) -> None:
        self.count = count
        self.chunks: dict[int, bytes] = {}
        self.held = 0

    def add(self, index: int, data: bytes) -> bool:
        """Whether the chunk was new."""
        if index in self.chunks or not 0 <= index < self.count:
            return False
        self.chunks[index] = data
        self.held |= 1 << index
        return True

    @property
    def complete(self) -> bool:
        return len(self.chunks) == self.count

    def joined(self) -> bytes:
        """The whole observation's bytes; only when complete."""
        return b"".join(self.chunks[i] for i in range(self.count))


class Holdings:
    """All observations a node holds, at most `bytes_max` of data; the longest held go first."""

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._bytes = 0
        self._complete: dict[str, Intervals] = {}
        self._assemblies: OrderedDict[tuple[str, int], Assembly] = OrderedDict()
        self.evicted = 0

    def __contains__(self, part: PartId) -> bool:
        if part.sequence in self._complete.get(part.device, _NONE):
            return True
        assembly = self._assemblies.get((part.device, part.sequence))
        return assembly is not None and bool(assembly.held >> part.chunk & 1)

    def whole(self, device: str, sequence: int) -> bool:
        """Whether the observation was ever held whole."""
        return sequence in self._complete.get(device, _NONE)

    def add(self, part: PartId, count: int, data: bytes) -> bytes | None:
        """Take a new part; the observation's bytes if that completed it, else None. Known or impossible
        parts change nothing."""
        key = (part.device, part.sequence)
        if part in self:
            return None
        assembly = self._assemblies.get(key)
        if assembly is None:
            assembly = self._assemblies[key] = Assembly(count)
        if assembly.count != count or not assembly.add(part.chunk, data):
            return None
        self._bytes += len(data)
        whole = None
        if assembly.complete:
            self._complete.setdefault(part.device, Intervals()).add(part.sequence)
            whole = assembly.joined()
        self._evict()
        return whole

    def parts_of(self, part: PartId) -> list[PartId]:
        """Those parts of the observation that can still be given: one, or with `ALL_PARTS` all."""
        assembly = self._assemblies.get((part.device, part.sequence))
        if assembly is None:
            return []
        wanted = assembly.held if part.chunk == ALL_PARTS else assembly.held & 1 << max(0, part.chunk)
        return list(_parts(part.device, part.sequence, wanted))

    def get(self, part: PartId) -> tuple[int, bytes] | None:
        """(count, data) of a part, or None where it was never held or was evicted."""
        assembly = self._assemblies.get((part.device, part.sequence))
        data = assembly.chunks.get(part.chunk) if assembly else None
        return (assembly.count, data) if assembly is not None and data is not None else None

    def origins(self) -> list[str]:
        """Devices of which anything is held, sorted."""
        return sorted({*self._complete, *(device for device, _ in self._assemblies)})

    def digest(self, origins: list[str]) -> tuple[OriginDigest, ...]:
        """What is held of those origins."""
        partial: dict[str, list[tuple[int, int]]] = {}
        for (device, sequence), assembly in self._assemblies.items():
            if not assembly.complete:
                partial.setdefault(device, []).append((sequence, assembly.held))
        return tuple(
            OriginDigest(
                device, self._complete.get(device, _NONE).bounds(), tuple(sorted(partial.get(device, ())))
            )
            for device in origins
        )

    def lacking(self, theirs: OriginDigest) -> Iterator[PartId]:
        """Parts that the peer holds and this node does not (`ALL_PARTS` of an observation unknown here)."""
        mine = self._complete.get(theirs.device, _NONE)
        for sequence in Intervals(theirs.complete).missing_from(mine):
            assembly = self._assemblies.get((theirs.device, sequence))
            if assembly is None:
                yield PartId(theirs.device, sequence, ALL_PARTS)
            else:
                yield from _parts(theirs.device, sequence, ~assembly.held & ((1 << assembly.count) - 1))
        for sequence, bitmap in theirs.partial:
            if sequence not in mine:
                assembly = self._assemblies.get((theirs.device, sequence))
                yield from _parts(theirs.device, sequence, bitmap & ~(assembly.held if assembly else 0))

    def surplus(self, theirs: OriginDigest) -> Iterator[PartId]:
        """Parts that this node can still give and the peer does not hold, ascending by sequence."""
        held = Intervals(theirs.complete)
        partial = dict(theirs.partial)
        for sequence in self._complete.get(theirs.device, _NONE).missing_from(held):
            assembly = self._assemblies.get((theirs.device, sequence))
            if assembly is not None:
                yield from _parts(theirs.device, sequence, assembly.held & ~partial.get(sequence, 0))

    def _evict(self) -> None:
        while self._bytes > self._bytes_max and len(self._assemblies) > 1:
            _, assembly = self._assemblies.popitem(last=False)
            self._bytes -= sum(len(chunk) for chunk in assembly.chunks.values())
            self.evicted += 1


_NONE = Intervals()


def _parts(device: str, sequence: int, bitmap: int) -> Iterator[PartId]:
    """The parts whose bits are set, ascending."""
    while bitmap:
        lowest = bitmap & -bitmap
        yield PartId(device, sequence, lowest.bit_length() - 1)
        bitmap ^= lowest
