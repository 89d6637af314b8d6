"""How a replica without a group comes to one: founding it together, or asking to be let in.

An empty store can mean that the group begins, or that this replica's disk is lost; the second must never
found a group beside the one there is. So a group is founded by one member only, the first by name, and only
when all the others have told it that they are empty too; any that is not answers with the group, or lets its
leader admit the newcomer under its new identity. A member that answers binds itself to the founder's disk, so
that what an earlier life of the founder sent cannot make a second founding of the same name.
"""

from __future__ import annotations

from collections.abc import Sequence

from kv.paxos.messages import Empty, Founded, Greet, Member, Members
from underlay.node import Address, Context


class Newcomer:
    """A replica that votes in no group yet."""

    def __init__(self, me: Member, members: Sequence[Address], replaces: Address) -> None:
        self._me = me
        self._others = [address for address in sorted(members) if address != me.address]
        self._replaces = replaces
        self._founds = not replaces and me.address == min(members)
        self._empty: dict[Address, int] = {}
        self._bound_to: int | None = None

    def greet(self, ctx: Context, *, empty: bool) -> None:
        """Ask everybody."""
        for address in self._others:
            ctx.send(address, Greet(self._me.disk, self._replaces, empty))

    def greeted(self, ctx: Context, sender: Address, greet: Greet) -> None:
        """Another asks, and there is no group here."""
        if sender in self._others:
            self._bound_to = greet.disk if sender == self._others[0] else self._bound_to
            ctx.send(sender, Empty(self._me.disk, greet.disk))

    def founders(self) -> Members | None:
        """The founders, as soon as all are known and this is the one to found."""
        if not self._founds or len(self._empty) < len(self._others):
            return None
        others = [Member(address, disk) for address, disk in self._empty.items()]
        return tuple(sorted([self._me, *others]))

    def found_empty(self, sender: Address, empty: Empty) -> None:
        """Another is empty too."""
        if sender in self._others and empty.founder == self._me.disk:
            self._empty[sender] = empty.disk

    def accepts(self, founded: Founded) -> bool:
        """Whether that founding counted this disk, and the founder's disk is the one that was answered."""
        founder = founded.members[0].disk
        return self._me in founded.members and self._bound_to in (None, founder)
