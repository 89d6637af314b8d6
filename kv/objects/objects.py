"""How objects come to every disk: kept by a majority before the log refers to them, fetched by the rest.

The leader sends the chunks of a new object to all members and proposes the reference when a majority (itself
counted, once its disk has them) has said `Kept`. A replica that executes a reference to what it does not have
asks the others for it, one after another. What nobody refers to is deleted long after it was last heard of:
longer than a leader waits between keeping an object and proposing its reference (`KEEPING_S`), so an object
that is about to be referred to again is never lost on the way.

Because objects are named by their content, everything here may happen twice, in any order.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from hashlib import sha256
from typing import Any, Protocol

from kv.machine import Reference
from kv.objects.messages import Fetch, Keep, Kept, KeptHere
from kv.objects.shelf import Shelf, cut
from kv.operations import Outcome
from kv.records import Checked
from underlay.messages import Message
from underlay.node import Address, Context, Timer

KEEPING_S = 30.0
"""How long a leader tries to have an object kept."""
UNREFERENCED_S = 600.0
"""How long an object stays after it was last heard of, if nothing refers to it."""
CHECK_S = 0.5
"""Between two looks at what is missing."""
FETCHES_MAX = 8
"""Objects that are asked for at a time."""

_CHECK: Timer = ("objects", "check")
_SWEEP_CHECKS = 20

Then = Callable[[Context, Reference | None], None]


class Referring(Protocol):
    """What a machine says of the objects it refers to."""

    @property
    def revision(self) -> int: ...

    def referenced(self) -> Collection[bytes]:
        """Digests of all objects that its state names, old versions and remembered outcomes included."""


class Keeping:
    """An object that is being kept, and who waits for that."""

    def __init__(self, content: bytes, until_s: float) -> None:
        self.chunks = cut(content)
        self.reference = Reference(sha256(content).digest(), len(content))
        self.until_s = until_s
        self.kept: dict[Address, None] = {}
        self.waiting: list[Then] = []


class Objects:
    """The objects of one replica, and its part in keeping those of the group.

    Args:
        machine: says what is referred to.
        members: the group's voters, this replica among them; a majority of them must have an object.
        holders: who else may have an object that is missing here.
    """

    def __init__(
        self,
        machine: Referring,
        members: Callable[[], Sequence[Address]],
        holders: Callable[[], Sequence[Address]],
    ) -> None:
        self._machine = machine
        self._members = members
        self._holders = holders
        self._shelf = Shelf()
        self._touched_s: dict[bytes, float] = {}
        self._keeping: dict[bytes, Keeping] = {}
        self._missing: tuple[bytes, ...] = ()
        self._looked_at = -1
        self._checks = 0
        self._turn = 0

    def on_start(self, ctx: Context) -> None:
        """See what is there. To be called when the machine has been restored."""
        self._shelf.load(Checked(ctx.store))
        self._touched_s = dict.fromkeys(self._shelf, ctx.now)
        ctx.set_timer(_CHECK, CHECK_S)

    def on_message(self, ctx: Context, sender: Address, message: Message) -> bool:
        """Take a message; False if it is not about objects."""
        match message:
            case Keep(digest, number, of, data):
                self._touched_s[digest] = ctx.now
                self._shelf.put(Checked(ctx.store), digest, number, of, data)
                if digest in self._shelf:
                    ctx.send(sender, Kept(digest))
            case Kept(digest):
                self._kept(ctx, digest, sender)
            case KeptHere(digest):
                self._kept(ctx, digest, ctx.address)
            case Fetch(digest):
                if digest in self._shelf:
                    chunks = list(self._shelf.chunks(Checked(ctx.store), digest))
                    for number, data in chunks:
                        ctx.send(sender, Keep(digest, number, len(chunks), data))
            case _:
                return False
        return True

    def on_timer(self, ctx: Context, timer: Timer) -> bool:
        """Take a timer; False if it is another's."""
        if timer != _CHECK:
            return False
        ctx.set_timer(_CHECK, CHECK_S)
        self._checks += 1
        self._look(ctx)
        self._keep_again(ctx)
        if self._checks % _SWEEP_CHECKS == 0:
            self._sweep(ctx)
        return True

    @property
    def complete(self) -> bool:
        """Whether everything that the machine refers to is here."""
        return all(digest in self._shelf for digest in self._machine.referenced())

    # ----------------------------------------------------------------------------------------------- writing

    def keep(self, ctx: Context, content: bytes, then: Then) -> None:
        """Have an object kept by a majority; `then(ctx, reference)` follows, or `then(ctx, None)` if that
        takes longer than `KEEPING_S`."""
        digest = sha256(content).digest()
        keeping = self._keeping.get(digest)
        if keeping is None:
            keeping = self._keeping[digest] = Keeping(content, ctx.now + KEEPING_S)
            self._touched_s[digest] = ctx.now
            self._send(ctx, keeping)
            for number, data in enumerate(keeping.chunks):
                self._shelf.put(Checked(ctx.store), digest, number, len(keeping.chunks), data)
            ctx.when_durable(KeptHere(digest))
        keeping.waiting.append(then)

    def left_office(self) -> None:
        """Nobody waits any more."""
        self._keeping.clear()

    # ----------------------------------------------------------------------------------------------- reading

    def resolved(self, ctx: Context, outcomes: Iterable[Outcome]) -> list[Outcome] | None:
        """The outcomes with contents in the place of references; None if an object is not here yet."""
        found = []
        for outcome in outcomes:
            value = outcome.value
            if type(value) is Reference or type(value) in (list, tuple):
                value = self._content(ctx, value)
                if value is _ABSENT:
                    return None
                outcome = Outcome(value, outcome.failure)
            found.append(outcome)
        return found

    def _content(self, ctx: Context, value: Any) -> Any:
        if type(value) is Reference:
            if value.digest in self._shelf:
                return self._shelf.read(Checked(ctx.store), value.digest)
            self._fetch(ctx, value.digest)
            return _ABSENT
        if type(value) in (list, tuple):
            contents = [self._content(ctx, each) for each in value]
            return _ABSENT if any(each is _ABSENT for each in contents) else contents
        return value

    # ----------------------------------------------------------------------------------------------- helpers

    def _kept(self, ctx: Context, digest: bytes, by: Address) -> None:
        keeping = self._keeping.get(digest)
        if keeping is None:
            return
        keeping.kept[by] = None
        members = self._members()
        if 2 * sum(1 for member in members if member in keeping.kept) > len(members):
            del self._keeping[digest]
            for then in keeping.waiting:
                then(ctx, keeping.reference)

    def _send(self, ctx: Context, keeping: Keeping) -> None:
        for member in self._members():
            if member != ctx.address and member not in keeping.kept:
                for number, data in enumerate(keeping.chunks):
                    ctx.send(member, Keep(keeping.reference.digest, number, len(keeping.chunks), data))

    def _keep_again(self, ctx: Context) -> None:
        for digest, keeping in list(self._keeping.items()):
            if ctx.now > keeping.until_s:
                del self._keeping[digest]
                for then in keeping.waiting:
                    then(ctx, None)
            else:
                self._send(ctx, keeping)

    def _look(self, ctx: Context) -> None:
        """What is missing; asked for again at every look until it is here."""
        if self._missing or self._looked_at != self._machine.revision:
            self._looked_at = self._machine.revision
            self._missing = tuple(d for d in sorted(self._machine.referenced()) if d not in self._shelf)
        for digest in self._missing[:FETCHES_MAX]:
            self._fetch(ctx, digest)

    def _fetch(self, ctx: Context, digest: bytes) -> None:
        others = [holder for holder in self._holders() if holder != ctx.address]
        if others:
            self._turn += 1
            ctx.send(others[self._turn % len(others)], Fetch(digest))

    def _sweep(self, ctx: Context) -> None:
        """Delete what nothing refers to and nobody mentioned for long."""
        referenced = self._machine.referenced()
        for digest in list(self._shelf):
            if digest in referenced or digest in self._keeping:
                self._touched_s[digest] = ctx.now
            elif ctx.now - self._touched_s.get(digest, ctx.now) > UNREFERENCED_S:
                self._shelf.delete(Checked(ctx.store), digest)
                self._touched_s.pop(digest, None)


class _Absent:
    """An object that is not here."""


_ABSENT = _Absent()
