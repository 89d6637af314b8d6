"""Planning a job over the store: which slots hold keys, and how they are cut into splits.

Every group's leader is asked for its slots and how many keys each holds. Together the groups have to serve
each slot exactly once, or slots are moving just now, and all are asked again. Splits are of one group, of
about the same number of keys, and are read as of the revision of that answer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise
from math import ceil

import msgspec

from gateway.mapreduce.inputs import StoreSplit
from kv.client import Client, Reply
from kv.slots import SLOTS
from underlay.node import Address, Context

KEYS_PER_SPLIT = 20_000
SPLITS_PER_WORKER = 4
"""At most, where there are fewer keys: more splits are more even work, and more overhead."""
KEYS_MIN = 50
"""A split of fewer is not worth a process."""
WINDOW_SLOTS = 2048
"""Asked for at a time, so that the answer fits a message."""
DEADLINE_S = 20.0

Done = Callable[[Context, list[StoreSplit], str], None]
"""The splits, or a problem; "moving" if it may be gone in a moment."""
MOVING = "slots are moving"


class Counted(msgspec.Struct, frozen=True):
    """What a group's leader said of some slots."""

    revision: int
    served: tuple[tuple[int, int], ...]
    keys: dict[int, int]


def plan(
    ctx: Context,
    client: Client[Context],
    workers: int,
    done: Done,
    wanted: Sequence[tuple[int, int]] = ((0, SLOTS - 1),),
) -> None:
    """Ask the tier, and call `done` once.

    Args:
        workers: how many there are to share the work.
        wanted: ranges of slots, both ends included.
    """
    _Planning(client, workers, done, wanted).start(ctx)


class _Planning:
    def __init__(
        self, client: Client[Context], workers: int, done: Done, wanted: Sequence[tuple[int, int]]
    ) -> None:
        self._client = client
        self._workers = workers
        self._done = done
        self._wanted = tuple(wanted)
        self._left = 0
        self._said: dict[str, list[Counted]] = {}
        self._ended = False

    def start(self, ctx: Context) -> None:
        """Any read brings the groups along."""

        def known(ctx: Context, reply: Reply) -> None:
            if reply.outcome is None or not self._client.directory.groups:
                self._end(ctx, [], f"the storage tier does not answer: {reply.trouble or 'nobody is there'}")
                return
            self._ask_all(ctx)

        self._client.call(ctx, (b"EXISTS", b""), known, deadline_s=DEADLINE_S)

    def _ask_all(self, ctx: Context) -> None:
        windows = list(_windows(self._wanted))
        groups = list(self._client.directory.groups)
        self._left = len(windows) * len(groups)
        for group in groups:
            for first, last in windows:
                command = (b"BH.SLOTS", b"%d" % first, b"%d" % last)
                self._client.call(ctx, command, self._heard(group), deadline_s=DEADLINE_S, group=group)

    def _heard(self, group: str) -> Callable[[Context, Reply], None]:
        def heard(ctx: Context, reply: Reply) -> None:
            self._left -= 1
            if reply.outcome is None or reply.outcome.failure:
                said = reply.trouble if reply.outcome is None else reply.outcome.failure
                self._end(ctx, [], f"{group} does not say what it holds: {said}")
                return
            revision, served, slots, keys = msgspec.convert(
                reply.outcome.value, tuple[int, list[int], list[int], list[int]]
            )
            ranges = tuple(zip(served[::2], served[1::2], strict=True))
            counted = Counted(revision, ranges, dict(zip(slots, keys, strict=True)))
            self._said.setdefault(group, []).append(counted)
            if self._left == 0:
                self._finish(ctx)

        return heard

    def _finish(self, ctx: Context) -> None:
        served = sorted(each for said in self._said.values() for part in said for each in part.served)
        if _total(served) != _total(self._wanted) or any(a[1] >= b[0] for a, b in pairwise(served)):
            self._end(ctx, [], MOVING)
            return
        groups = self._client.directory.groups
        keys = sum(count for said in self._said.values() for part in said for count in part.keys.values())
        size = split_size(keys, self._workers)
        splits = [
            split
            for group in sorted(self._said)
            for split in cut(group, tuple(groups.get(group, ())), self._said[group], size)
        ]
        self._end(ctx, splits, "")

    def _end(self, ctx: Context, splits: list[StoreSplit], problem: str) -> None:
        if not self._ended:
            self._ended = True
            self._done(ctx, splits, problem)


def split_size(keys: int, workers: int) -> int:
    """Keys of a split.

    >>> split_size(1000, 4), split_size(4_000_000, 4), split_size(0, 4)
    (63, 20000, 50)
    """
    even = ceil(keys / max(1, SPLITS_PER_WORKER * workers))
    return max(KEYS_MIN, min(KEYS_PER_SPLIT, even))


def cut(
    group: str, replicas: tuple[Address, ...], said: Iterable[Counted], size: int
) -> Iterator[StoreSplit]:
    """Splits of about that many keys of the group's slots that hold any; a slot is in one split whole."""
    said = list(said)
    revision = max((part.revision for part in said), default=0)
    keys = sorted((slot, count) for part in said for slot, count in part.keys.items())
    taken: list[int] = []
    held = 0
    for slot, count in keys:
        if taken and held + count / 2 > size:
            yield StoreSplit(group, replicas, _ranges(taken), revision, held)
            taken, held = [], 0
        taken.append(slot)
        held += count
    if taken:
        yield StoreSplit(group, replicas, _ranges(taken), revision, held)


def _ranges(slots: list[int]) -> tuple[tuple[int, int], ...]:
    found: list[list[int]] = []
    for slot in slots:
        if found and found[-1][1] == slot - 1:
            found[-1][1] = slot
        else:
            found.append([slot, slot])
    return tuple((first, last) for first, last in found)


def _windows(wanted: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    for first, last in wanted:
        for begin in range(first, last + 1, WINDOW_SLOTS):
            yield begin, min(last, begin + WINDOW_SLOTS - 1)


def _total(ranges: Iterable[tuple[int, int]]) -> int:
    return sum(last - first + 1 for first, last in ranges)
