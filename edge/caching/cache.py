"""A response cache: what is fresh, what has to be validated, what must go. Pure data structure.

Owns the rules of RFC 7252 §5.6 about which responses may be stored and for how long: content for its Max-Age,
60 s where it has none; 2.03 Valid makes the stored content fresh again, for its own Max-Age and not the old
one; an error only where it says for how long; any other response of class 2 never. What is served again has
its Max-Age reduced by the time it was here. Knows no network and no clock.
"""

from __future__ import annotations

from collections import OrderedDict

import msgspec

from edge.coap.messages import CONTENT, VALID, Path, Representation, is_success

MAX_AGE_DEFAULT_S = 60
"""Of a response without Max-Age (RFC 7252 §5.10.5)."""


class Stored(msgspec.Struct, frozen=True):
    """A response and since when it is here."""

    representation: Representation
    since_s: float

    @property
    def lifetime_s(self) -> int:
        """How long it is fresh, counted from `since_s`."""
        given_s = self.representation.max_age_s
        return MAX_AGE_DEFAULT_S if given_s is None else given_s

    def age_s(self, now_s: float) -> float:
        """How long it has been here."""
        return max(0.0, now_s - self.since_s)

    def is_fresh(self, now_s: float) -> bool:
        """Whether it may be served without asking."""
        return self.age_s(now_s) < self.lifetime_s

    def served(self, now_s: float) -> Representation:
        """What a client gets: Max-Age is what is left of it, nothing once it is stale.

        To the nearest second, which is all that the option can say: cut off, a notification passed on over
        three caches would lose three seconds. An error that came without the option goes on without it: the
        next cache would store what this one may not.
        """
        if not may_be_stored(self.representation):
            return self.representation
        left_s = round(max(0.0, self.lifetime_s - self.age_s(now_s)))
        return msgspec.structs.replace(self.representation, max_age_s=left_s)

    def size_bytes(self, path: Path) -> int:
        """What it counts against the budget."""
        names = sum(len(segment.encode()) for segment in path)
        return names + len(self.representation.payload) + len(self.representation.etag or b"")


class Cache:
    """Responses by resource, at most `budget_bytes` of them; the least recently used goes first."""

    def __init__(self, budget_bytes: int) -> None:
        self._budget_bytes = budget_bytes
        self._stored: OrderedDict[Path, Stored] = OrderedDict()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._stored)

    @property
    def size_bytes(self) -> int:
        """What all that is stored counts."""
        return self._bytes

    def get(self, path: Path) -> Stored | None:
        """What is stored, fresh or not; it counts as used."""
        stored = self._stored.get(path)
        if stored is not None:
            self._stored.move_to_end(path)
        return stored

    def take_in(self, path: Path, response: Representation, now_s: float) -> Stored | None:
        """A response arrived: what answers the resource's clients now.

        None for a 2.03 without anything stored that it could be about.
        """
        if response.code == VALID:
            return self._refresh(path, response, now_s)
        taken = Stored(response, now_s)
        if may_be_stored(response):
            self._put(path, taken)
        else:
            self._remove(path)
        return taken

    def _refresh(self, path: Path, valid: Representation, now_s: float) -> Stored | None:
        old = self._stored.get(path)
        if old is None or old.representation.etag != valid.etag:
            return None
        again = msgspec.structs.replace(old.representation, max_age_s=valid.max_age_s)
        stored = Stored(again, now_s)
        self._put(path, stored)
        return stored

    def _put(self, path: Path, stored: Stored) -> None:
        self._remove(path)
        size_bytes = stored.size_bytes(path)
        if size_bytes > self._budget_bytes:
            return
        self._stored[path] = stored
        self._bytes += size_bytes
        while self._bytes > self._budget_bytes:
            self._remove(next(iter(self._stored)))

    def _remove(self, path: Path) -> None:
        stored = self._stored.pop(path, None)
        if stored is not None:
            self._bytes -= stored.size_bytes(path)


def may_be_stored(response: Representation) -> bool:
    """Whether a response may answer a later request."""
    if response.code == CONTENT:
        return True
    return not is_success(response.code) and response.max_age_s is not None
