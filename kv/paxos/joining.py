"""How a replica without a group comes to one: founding it together, or asking to be let in.

An empty store can mean that the group begins, or that this replica's disk is lost; the second must never
found a group beside the one there is. So a group is founded by one member only, the first by name, and only
when all the others have told it that they are empty too; any that is not answers with the group, or lets its
leader admit the newcomer under its new identity. A member that answers binds itself, durably, to the
founder's disk, so that what an earlier life of the founder said cannot make a second founding; from another
member it takes any, because one that has a group never told a later founder that it is empty, and so that one
cannot found.
"""

from __future__ import annotations

from collections.abc import Sequence

from kv.paxos.messages import Empty, Founded, Greet, Member, Members
from underlay.node import Address, Context
from underlay.store import Store

_BOUND_TO = b"pf"


class Newcomer:
    """A replica that votes in no group yet."""

    def __init__(self, me: Member, members: Sequence[Address], replaces: Address, store: Store) -> None:
        self._me = me
        self._others = [address for address in sorted(members) if address != me.address]
        self._replaces = replaces
        self._founds = not replaces and me.address == min(members)
        self._empty: dict[Address, int] = {}
        bound_to = store.get(_BOUND_TO)
        self._bound_to = int.from_bytes(bound_to, "big") if bound_to else 0

    def greet(self, ctx: Context, *, empty: bool) -> None:
        """Ask everybody."""
        for address in self._others:
            ctx.send(address, Greet(self._me.disk, self._replaces, empty))

    def greeted(self, ctx: Context, store: Store, sender: Address, greet: Greet) -> None:
        """Another asks, and there is no group here."""
        if sender in self._others:
            if sender == self._others[0] and greet.disk != self._bound_to:
                self._bound_to = greet.disk
                store.put(_BOUND_TO, greet.disk.to_bytes(8, "big"))
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

    def accepts(self, sender: Address, founded: Founded) -> bool:
        """Whether that founding counted this disk, and is not of an earlier life of the founder."""
        founder = founded.members[0]
        return self._me in founded.members and (sender != founder.address or self._bound_to == founder.disk)
