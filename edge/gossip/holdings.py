"""What a gossiping node holds: items by stream, whole or in part, within a byte budget.

Pure data structure: knows nothing of peers, and time only as stamps it is given. `digest` and `rest` are what
anti-entropy compares (Demers et al., PODC 1987, with intervals in place of checksums over time). Which
numbers were ever held is remembered after the bytes were evicted, so nothing is delivered twice.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Collection, Iterator
from itertools import islice
from zlib import crc32

from edge.gossip.messages import BOUNDS_MAX, ItemId, StreamDigest, StreamId
from edge.intervals import Intervals

STREAMS_KNOWN_MAX = 65_536
"""Streams that are told apart; beyond it the one unchanged for longest is forgotten."""
_RECENT_MAX = 256
_ITEM_BYTES = 300
"""Of an item without its data, in CPython."""


class Stream:
    """One stream as known here."""

    __slots__ = ("_digest", "changed_s", "floor", "hash", "held", "id", "seed")

    def __init__(self, key: StreamId) -> None:
        self.id = key
        self.held = Intervals()
        self.floor = 0
        """Items below it were evicted."""
        self.changed_s = 0.0
        self.hash = 0
        """Of the set of numbers held: the exclusive or of a mark of each."""
        self.seed = crc32(f"{key.device}\x1f{key.epoch}".encode())

        self._digest: StreamDigest | None = None

    def add(self, number: int, now: float) -> int:
        """A number is held from now on; its mark."""
        self.held.add(number)
        self.changed_s = now
        self._digest = None
        mark = self.hash_of(number)
        self.hash ^= mark
        return mark

    def evict(self, number: int) -> None:
        """A number cannot be given any more, nor any below it."""
        self.floor = max(self.floor, number + 1)
        self._digest = None

    def digest(self) -> StreamDigest:
        """What a neighbour is told of it."""
        if self._digest is None:
            self._digest = StreamDigest(self.id, self.floor, self.held.bounds(BOUNDS_MAX))
        return self._digest

    def hash_of(self, number: int) -> int:
        """32 bits; the finalizer of MurmurHash3 spreads neighbouring numbers."""
        x = (self.seed + number * 0x9E3779B1) & 0xFFFFFFFF
        x = ((x ^ x >> 16) * 0x85EBCA6B) & 0xFFFFFFFF
        x = ((x ^ x >> 13) * 0xC2B2AE35) & 0xFFFFFFFF
        return x ^ x >> 16


class Item:
    """An item that is held, or was begun."""

    __slots__ = ("_absent", "chunks", "eager", "hops", "since_s", "size_bytes")

    def __init__(self, count: int, since_s: float) -> None:
        self.chunks: list[bytes | None] = [None] * count
        self.size_bytes = _ITEM_BYTES + 8 * count
        """Memory it takes, about."""
        self.since_s = since_s
        """When its last chunk came."""
        self.hops = 0
        """Transmissions that brought it here."""
        self.eager = True
        """Whether it came along the tree."""
        self._absent = count

    @property
    def whole(self) -> bool:
        """Whether nothing is missing."""
        return not self._absent

    def put(self, chunk: int, data: bytes, now: float) -> None:
        """Fill a place that is empty."""
        self.chunks[chunk] = data
        self.size_bytes += len(data)
        self.since_s = now
        self._absent -= 1

    def missing(self) -> Iterator[int]:
        """Ascending chunks that are not here."""
        return (chunk for chunk, data in enumerate(self.chunks) if data is None)

    def joined(self) -> bytes:
        """The observation's bytes, of a whole item."""
        return b"".join(data for data in self.chunks if data is not None)


class Holdings:
    """All items a node holds, at most `bytes_max` of memory; those that came first go first."""

    def __init__(self, bytes_max: int) -> None:
        self.bytes = 0
        self.evicted = 0
        self.hash = 0
        """Of everything ever held."""
        self.items: OrderedDict[ItemId, Item] = OrderedDict()
        self._bytes_max = bytes_max
        self._streams: OrderedDict[StreamId, Stream] = OrderedDict()
        """That changed last, last."""
        self._recent: deque[tuple[float, StreamId, int]] = deque(maxlen=_RECENT_MAX)

    def whole(self, item: ItemId) -> bool:
        """Whether the item was ever held whole."""
        stream = self._streams.get(item.stream)
        return stream is not None and item.number in stream.held

    def has(self, item: ItemId, chunk: int) -> bool:
        """Whether that chunk was ever held."""
        if self.whole(item):
            return True
        begun = self.items.get(item)
        return begun is not None and chunk < len(begun.chunks) and begun.chunks[chunk] is not None

    def add(self, key: ItemId, chunk: int, count: int, data: bytes, now: float) -> Item | None:
        """Take a chunk that `has` denied; the item if that completed it, else None. What contradicts the
        chunks that are here changes nothing."""
        item = self.items.get(key)
        if item is None:
            item = self.items[key] = Item(count, now)
            self.bytes += item.size_bytes
        if len(item.chunks) != count or chunk >= count:
            return None
        item.put(chunk, data, now)
        self.bytes += len(data)
        if item.whole:
            self._complete(key, now)
        if self.bytes > self._bytes_max:
            self._evict()
        return item if item.whole else None

    def streams(self) -> list[StreamId]:
        """All known, that changed last, last."""
        return list(self._streams)

    def changed_since(self, t_s: float, at_most: int) -> list[StreamId]:
        """Those that changed after `t_s`, newest change first."""
        newest = islice(reversed(self._streams.items()), at_most)
        return [key for key, stream in newest if stream.changed_s > t_s]

    def digest(self, streams: Collection[StreamId]) -> tuple[StreamDigest, ...]:
        """What is known of those streams."""
        return tuple([self._streams[key].digest() for key in streams])

    def differing(self, theirs: Collection[StreamDigest]) -> list[StreamDigest]:
        """Those of a peer's digests that say other than what would be said here."""
        streams = self._streams
        return [
            their
            for their in theirs
            if (mine := streams.get(their.stream)) is None or mine.digest().bounds != their.bounds
        ]

    def rest(self, listed: Collection[StreamId]) -> int:
        """Hash of everything but the listed streams."""
        rest = self.hash
        for key in listed:
            stream = self._streams.get(key)
            if stream is not None:
                rest ^= stream.hash
        return rest

    def agrees(self, rest: int, listed: Collection[StreamId], since_s: float) -> bool:
        """Whether a peer whose `rest` that is holds the same of the streams it did not list, apart from what
        came here after `since_s` and may be on its way there."""
        difference = rest ^ self.rest(listed)
        for t_s, stream, mark in reversed(self._recent):
            if not difference or t_s < since_s:
                break
            if stream not in listed:
                difference ^= mark
        return not difference

    def lacking(self, theirs: StreamDigest) -> Iterator[ItemId]:
        """Items that the peer can give and that are not whole here, ascending."""
        stream = self._streams.get(theirs.stream)
        mine = _NOTHING if stream is None else stream.held
        for number in Intervals(theirs.bounds).minus(mine, theirs.floor):
            yield ItemId(theirs.stream, number)

    def surplus(self, theirs: StreamDigest) -> Iterator[tuple[ItemId, Item]]:
        """Items that are whole here and that the peer does not know, ascending."""
        stream = self._streams.get(theirs.stream)
        if stream is not None:
            for number in stream.held.minus(Intervals(theirs.bounds), stream.floor):
                key = ItemId(theirs.stream, number)
                item = self.items.get(key)
                if item is not None and item.whole:
                    yield key, item

    def _complete(self, key: ItemId, now: float) -> None:
        stream = self._streams.get(key.stream)
        if stream is None:
            stream = self._streams[key.stream] = Stream(key.stream)
            if len(self._streams) > STREAMS_KNOWN_MAX:
                _, forgotten = self._streams.popitem(last=False)
                self.hash ^= forgotten.hash
        else:
            self._streams.move_to_end(key.stream)
        mark = stream.add(key.number, now)
        self.hash ^= mark
        self._recent.append((now, key.stream, mark))

    def _evict(self) -> None:
        while self.bytes > self._bytes_max and len(self.items) > 1:
            key, item = self.items.popitem(last=False)
            self.bytes -= item.size_bytes
            self.evicted += 1
            stream = self._streams.get(key.stream)
            if stream is not None and item.whole:
                stream.evict(key.number)


_NOTHING = Intervals()
