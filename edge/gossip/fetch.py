"""What is known to exist and is not here: whom to ask for it, when, and how much at a time.

Pure state machine: given times, it says which Grafts to send. A small item that was announced is asked for
once it is later than the tree usually is; a large one that was offered is asked for chunk by chunk, in a
window per neighbour. The window is what keeps readings from drowning in photographs: it grows while answers
come back promptly and shrinks when they queue on the way (after LEDBAT, RFC 6817), so that at no time more
than a tenth of a second of the slowest link is spoken for. Timeouts are those of RFC 6298, so what is still
queued is not asked for again.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import inf

from edge.gossip.holdings import Holdings
from edge.gossip.messages import WANTS_MAX, ItemId, Want

MISSING_MAX = 1024
"""Items that are tracked at a time; the next digest names those beyond it again."""
QUEUEING_S = 0.1
"""Delay above the least seen that a neighbour's answers may have before less is asked of it at a time."""
LIMIT_MAX_S = 10.0
"""Longest that anything is waited for, where messages are not slow themselves."""
TURNS_TO_ANSWER = 3.0
"""Before an answer may be expected: the other's turn may just have passed when it is asked."""
WHATEVER = -1
"""In the place of a chunk: the item, or an Offer of it."""
_TRIES_MAX = 5
_WINDOW_MIN = 2.0
_SHARE = 0.1
_GRANULE_S = 0.05


class Estimate:
    """Mean and deviation of a delay, and the time after which it is exceptional (RFC 6298 §2)."""

    __slots__ = ("_ceiling_s", "_deviation", "_deviations", "_first", "_floor_s", "_mean", "limit_s")

    def __init__(self, first_s: float, floor_s: float, deviations: float = 4.0) -> None:
        self.limit_s = max(first_s, floor_s)
        self._deviations = deviations
        self._floor_s = floor_s
        self._ceiling_s = max(LIMIT_MAX_S, 4 * floor_s)
        self._mean = self._deviation = 0.0
        self._first = True

    def add(self, sample_s: float) -> None:
        """One delay that was observed."""
        if self._first:
            self._mean, self._deviation = sample_s, sample_s / 2
            self._first = False
        else:
            self._deviation += (abs(sample_s - self._mean) - self._deviation) / 4
            self._mean += (sample_s - self._mean) / 8
        self.limit_s = min(
            self._ceiling_s,
            max(self._floor_s, self._mean + max(_GRANULE_S, self._deviations * self._deviation)),
        )

    def exceeded(self) -> None:
        """The limit passed in vain: wait longer next time (RFC 6298 §5.5)."""
        self.limit_s = min(self._ceiling_s, 2 * self.limit_s)


class Source:
    """A neighbour that is asked for parts."""

    __slots__ = ("_least_s", "answer", "asked", "window")

    def __init__(self, turn_s: float) -> None:
        self.asked = 0
        """Parts asked for that have not come."""
        self.window = _WINDOW_MIN
        self.answer = Estimate(1.0, max(0.2, TURNS_TO_ANSWER * turn_s))
        self._least_s = inf

    def answered(self, after_s: float, window_max: int) -> None:
        """A part came."""
        self._least_s = min(self._least_s, after_s)
        self.answer.add(after_s)
        grown = self.window + (1.0 if after_s <= self._least_s + QUEUEING_S else -0.5)
        self.window = max(_WINDOW_MIN, min(float(window_max), grown))

    def failed(self) -> None:
        """A part did not come in time."""
        self.window = max(_WINDOW_MIN, self.window / 2)
        self.answer.exceeded()


class Missing:
    """One item that is not here."""

    __slots__ = ("announced_s", "asked", "count", "due_s", "eager", "hops", "sources", "tries", "waiting")

    def __init__(self, announced_s: float, due_s: float) -> None:
        self.announced_s = announced_s
        self.due_s = due_s
        """When to ask for (more of) it."""
        self.count = 0
        """Chunks, once it was offered; 0 is unknown."""
        self.hops = 0
        self.eager = False
        """Whether the offer came along the tree."""
        self.sources: dict[str, None] = {}
        """Who has it, who is to be asked next first."""
        self.asked: dict[int, tuple[str, float]] = {}
        """Chunk, or WHATEVER -> of whom, and when."""
        self.waiting: dict[int, dict[str, None]] = {}
        """Chunk -> neighbours that get it as soon as it is here."""
        self.tries = 0


class Fetch:
    """All that is missing."""

    def __init__(self, patience_s: float, window_max: int, turn_s: float = 0.0) -> None:
        self.missing: dict[ItemId, Missing] = {}
        self.sources: dict[str, Source] = {}
        self.lateness = Estimate(patience_s, max(0.15, TURNS_TO_ANSWER * turn_s))
        """How long after an announcement the tree brings what was announced."""
        self.strain = 0.0
        """Share of the items, lately, that did not come by the tree."""
        self.overflowed: dict[str, None] = {}
        """Neighbours that have more than could be tracked."""
        self._window_max = window_max
        self._turn_s = turn_s

    def announced(self, items: Iterable[ItemId], peer: str, now: float, hold_s: float) -> None:
        """`peer` has items that are not whole here; the tree gets `hold_s` to bring them."""
        for key in items:
            missing = self.missing.get(key)
            if missing is None:
                if len(self.missing) >= MISSING_MAX:
                    self.overflowed[peer] = None
                    return
                missing = self.missing[key] = Missing(now, now + hold_s)
            missing.sources[peer] = None

    def offered(
        self, key: ItemId, peer: str, count: int, hops: int, now: float, hold_s: float = 0.0
    ) -> Missing | None:
        """`peer` has, or is getting, a large item; it, if that is news."""
        missing = self.missing.get(key)
        if missing is None:
            missing = self.missing[key] = Missing(now, now + hold_s)
        self._release(missing, WHATEVER, peer, now)
        missing.sources[peer] = None
        if missing.count:
            return None
        missing.count, missing.hops = count, hops
        missing.due_s = now + hold_s
        return missing

    def arrived(self, key: ItemId, chunk: int, peer: str, now: float, hold_s: float = 0.0) -> None:
        """A part came, whether it was asked for or not."""
        missing = self.missing.get(key)
        if missing is None:
            return
        if self._release(missing, chunk if chunk in missing.asked else WHATEVER, peer, now):
            missing.tries = 0
            missing.due_s = now
        else:
            # Somebody else's asking brings it here too (a channel): no need to ask as well.
            missing.due_s = max(missing.due_s, now + hold_s)

    def by_tree(self, key: ItemId, now: float) -> None:
        """A small item came along the tree."""
        self.strain -= _SHARE * self.strain
        missing = self.missing.get(key)
        if missing is not None:
            self.lateness.add(now - missing.announced_s)
            self.done(key)

    def done(self, key: ItemId) -> None:
        """The item is whole here, or given up."""
        missing = self.missing.pop(key, None)
        if missing is not None:
            for whom, _ in missing.asked.values():
                self.sources[whom].asked -= 1

    def due(self, now: float, holdings: Holdings) -> dict[str, list[Want]]:
        """What to ask of whom, now. Small items first; each large one of one neighbour at a time."""
        self._expire(now)
        wants: dict[str, list[Want]] = {}
        due = [(key, missing) for key, missing in self.missing.items() if missing.due_s <= now]
        for key, missing in sorted(due, key=lambda entry: entry[1].count > 1):
            busy = {whom for whom, _ in missing.asked.values()}
            for peer in missing.sources:
                if busy and peer not in busy:
                    continue
                source = self.sources.get(peer)
                if source is None:
                    source = self.sources[peer] = Source(self._turn_s)
                room = int(source.window) - source.asked
                if room > 0 and len(wants.get(peer, ())) < WANTS_MAX:
                    asked = self._ask(key, missing, peer, source, room, now, holdings)
                    if asked is not None:
                        wants.setdefault(peer, []).append(asked)
                    break
        return wants

    def next_due_s(self) -> float:
        """When `due` may have something to ask next; infinite for never."""
        due_s = inf
        for missing in self.missing.values():
            due_s = min(due_s, missing.due_s)
            for whom, asked_s in missing.asked.values():
                due_s = min(due_s, asked_s + self.sources[whom].answer.limit_s)
        return due_s

    def _ask(
        self,
        key: ItemId,
        missing: Missing,
        peer: str,
        source: Source,
        room: int,
        now: float,
        holdings: Holdings,
    ) -> Want | None:
        if missing.count <= 1:
            chunks = [WHATEVER]
            self.strain += _SHARE * (1.0 - self.strain)
        else:
            begun = holdings.items.get(key)
            absent = range(missing.count) if begun is None else begun.missing()
            chunks = [chunk for chunk in absent if chunk not in missing.asked][:room]
        for chunk in chunks:
            missing.asked[chunk] = (peer, now)
        source.asked += len(chunks)
        # The next ones are due when an answer comes or is late.
        missing.due_s = inf
        if not chunks:
            return None
        bits = 0 if chunks == [WHATEVER] else sum(1 << chunk for chunk in chunks)
        return Want(key, bits.to_bytes((bits.bit_length() + 7) // 8, "little"))

    def _release(self, missing: Missing, place: int, peer: str, now: float) -> bool:
        """What was asked for came, from `peer`; whether it was asked for."""
        asked = missing.asked.pop(place, None)
        if asked is not None:
            whom, asked_s = asked
            self.sources[whom].asked -= 1
            if whom == peer:
                self.sources[whom].answered(now - asked_s, self._window_max)
        return asked is not None

    def _expire(self, now: float) -> None:
        failed: dict[str, None] = {}
        for key, missing in list(self.missing.items()):
            late = [
                (chunk, whom)
                for chunk, (whom, asked_s) in missing.asked.items()
                if now - asked_s >= self.sources[whom].answer.limit_s
            ]
            for chunk, whom in late:
                del missing.asked[chunk]
                self.sources[whom].asked -= 1
                failed[whom] = None
                # Its turn comes again after all others'.
                missing.sources.pop(whom, None)
                missing.sources[whom] = None
                missing.due_s = now
            missing.tries += bool(late)
            if missing.tries > _TRIES_MAX:
                self.done(key)
        for whom in failed:
            self.sources[whom].failed()
