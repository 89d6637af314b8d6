"""How objects come to every disk: kept by a majority before the log refers to them, fetched by the rest.

The leader sends the chunks of a new object to all members and proposes the reference when a majority (itself
counted, once its disk has them) has said `Kept`. A replica that executes a reference to what it does not have
asks the others for it, one after another. What nobody refers to is deleted long after it was last heard of:
longer than a leader waits between keeping an object and proposing its reference (`KEEPING_S`), so an object
that is about to be referred to again is never lost on the way.

A slot that moves brings references to what its former group keeps. The receiver's leader has `secure` tell it
when a majority of its own group has everything, and the former group deletes nothing before it has said so.

Because objects are named by their content, everything here may happen twice, in any order.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from hashlib import sha256
from typing import Any, Protocol

from kv.machine import Reference
from kv.objects.messages import AskKept, Fetch, Keep, Kept, KeptHere, KeptOf, Lacking
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
FETCHES_MAX = 4
"""Objects that are asked for at a time."""
FETCH_S = 3.0
"""After so long without an answer another replica is asked; a thin link must not be filled with
repetitions."""
ASKED_MAX = 1000
"""Objects that one `AskKept` asks about."""

_CHECK: Timer = ("objects", "check")
_SWEEP_CHECKS = 20

Then = Callable[[Context, Reference | None], None]


class Referring(Protocol):
    """What a machine says of the objects it refers to."""

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
        self._missing: dict[bytes, int] = {}
        """What the machine refers to and is not here, and how many have said that they lack it too."""
        self._fetching: dict[bytes, float] = {}
        """When it was asked for, of what may still come."""
        self._secured: dict[bytes, None] = {}
        """What a majority has, as far as this leader knows."""
        self._insecure: dict[bytes, dict[Address, None]] = {}
        self._securing: list[Callable[[Context], None]] = []
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
                    self._arrived(ctx, digest)
            case Kept(digest):
                self._kept(ctx, digest, sender)
                self._has(ctx, sender, (digest,))
            case KeptHere(digest):
                self._kept(ctx, digest, ctx.address)
            case Fetch(digest):
                self._give(ctx, sender, digest)
            case Lacking(digest):
                self._fetching.pop(digest, None)
                self._fetch_elsewhere(ctx, digest)
            case AskKept(digests):
                kept = tuple(digest for digest in digests if digest in self._shelf)
                self._touched_s.update(dict.fromkeys(kept, ctx.now))
                ctx.send(sender, KeptOf(kept))
            case KeptOf(digests):
                self._has(ctx, sender, digests)
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
        self._ask_kept(ctx)
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

    def secure(self, ctx: Context, then: Callable[[Context], None]) -> None:
        """Call `then(ctx)` once a majority has everything that the machine refers to now; only while
        leading."""
        known = (self._secured, self._insecure)
        for digest in sorted(self._machine.referenced()):
            if not any(digest in digests for digests in known):
                self._insecure[digest] = {}
        self._securing.append(then)
        self._look(ctx)
        self._ask_kept(ctx)
        self._secure_if_all(ctx)

    def left_office(self) -> None:
        """Nobody waits any more, and others may be asked from now on."""
        self._keeping.clear()
        self._secured.clear()
        self._insecure.clear()
        self._securing.clear()

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
        """What is missing; asked for at every look until it is here."""
        # Whether anything changed is not asked: a slot that arrives need not change the machine's revision.
        self._missing = dict.fromkeys(
            sorted(d for d in self._machine.referenced() if d not in self._shelf), 0
        )
        self._fetching = {d: at_s for d, at_s in self._fetching.items() if ctx.now - at_s < FETCH_S}
        self._fetch_more(ctx)

    def _fetch_more(self, ctx: Context) -> None:
        for digest in self._missing:
            if len(self._fetching) >= FETCHES_MAX:
                return
            if digest not in self._fetching:
                self._fetch(ctx, digest)

    def _fetch(self, ctx: Context, digest: bytes) -> None:
        others = [holder for holder in self._holders() if holder != ctx.address]
        if others:
            self._turn += 1
            self._fetching[digest] = ctx.now
            ctx.send(others[self._turn % len(others)], Fetch(digest))

    def _fetch_elsewhere(self, ctx: Context, digest: bytes) -> None:
        """Ask the next one at once, until all were asked; then again at the next look."""
        lacked = self._missing.get(digest)
        if lacked is not None and lacked + 1 < len(self._holders()):
            self._missing[digest] = lacked + 1
            self._fetch(ctx, digest)

    def _arrived(self, ctx: Context, digest: bytes) -> None:
        self._fetching.pop(digest, None)
        if self._missing.pop(digest, None) is not None:
            self._fetch_more(ctx)
        self._has(ctx, ctx.address, (digest,))

    def _give(self, ctx: Context, to: Address, digest: bytes) -> None:
        if digest not in self._shelf:
            ctx.send(to, Lacking(digest))
            return
        self._touched_s[digest] = ctx.now
        chunks = list(self._shelf.chunks(Checked(ctx.store), digest))
        for number, data in chunks:
            ctx.send(to, Keep(digest, number, len(chunks), data))

    def _ask_kept(self, ctx: Context) -> None:
        """Ask the members that have not said so which of the insecure objects they have."""
        if not self._securing:
            return
        self._has(ctx, ctx.address, tuple(digest for digest in self._insecure if digest in self._shelf))
        for member in self._members():
            if member != ctx.address:
                asked = [digest for digest, holders in self._insecure.items() if member not in holders]
                if asked:
                    ctx.send(member, AskKept(tuple(asked[:ASKED_MAX])))

    def _has(self, ctx: Context, who: Address, digests: Iterable[bytes]) -> None:
        members = self._members()
        for digest in digests:
            holders = self._insecure.get(digest)
            if holders is not None:
                holders[who] = None
                if 2 * sum(1 for member in members if member in holders) > len(members):
                    del self._insecure[digest]
                    self._secured[digest] = None
        self._secure_if_all(ctx)

    def _secure_if_all(self, ctx: Context) -> None:
        referenced = self._machine.referenced() if self._insecure else ()
        if any(digest in referenced for digest in self._insecure):
            return
        self._insecure.clear()
        securing, self._securing = self._securing, []
        for then in securing:
            then(ctx)

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
