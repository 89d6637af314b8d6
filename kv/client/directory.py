"""Directories: which group has a slot, and who its replicas are.

A directory is knowledge, perhaps old; the client corrects it by what replicas answer. `Static` is one group
that never changes (primary/backup, Paxos, the shard controller itself): who leads it, its replicas tell.
`Sharded` asks the shard controller for its newest configuration.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import msgspec

from kv.operations import Operation, Outcome
from kv.sharding.config import Configuration
from underlay.node import Address

CONTROLLER = "ctl"
"""The shard controller's group."""

Groups = dict[str, tuple[Address, ...]]
"""Replicas by group."""


class Directory(Protocol):
    """Where to ask."""

    @property
    def groups(self) -> Groups:
        """Those that have slots, in the order of their names."""

    def group_of(self, slot: int) -> str:
        """Whose slot it is; empty: not known yet."""

    def replicas(self, group: str) -> Sequence[Address]:
        """Of a group; empty: not known (yet)."""

    def moved(self, slot: int, group: str) -> None:
        """A replica said so."""

    def question(self) -> tuple[Sequence[Address], Operation] | None:
        """Any of these can answer this, and then more is known; None: there is nothing to learn."""

    def learn(self, outcome: Outcome) -> None:
        """The answer."""


class Static:
    """One group with all slots.

    >>> Static(["store1/g1", "store2/g1"]).group_of(7)
    'g1'
    """

    def __init__(self, replicas: Sequence[Address]) -> None:
        self._group = replicas[0].partition("/")[2]
        self.groups: Groups = {self._group: tuple(replicas)}

    def group_of(self, slot: int) -> str:
        return self._group

    def replicas(self, group: str) -> Sequence[Address]:
        return self.groups.get(group, ())

    def moved(self, slot: int, group: str) -> None:
        """Nobody says so."""

    def question(self) -> None:
        return None

    def learn(self, outcome: Outcome) -> None:
        """Nothing was asked."""


class Sharded:
    """What the shard controller says.

    Args:
        controller: addresses of its replicas.
    """

    def __init__(self, controller: Sequence[Address]) -> None:
        self._controller = tuple(controller)
        self._owners: list[str] = []
        self.configuration = Configuration()

    @property
    def groups(self) -> Groups:
        return self.configuration.groups

    def group_of(self, slot: int) -> str:
        return self._owners[slot] if self._owners else ""

    def replicas(self, group: str) -> Sequence[Address]:
        return self._controller if group == CONTROLLER else self.groups.get(group, ())

    def moved(self, slot: int, group: str) -> None:
        # A late word about a group that has left since would lead nowhere, and no newer map would correct it.
        if self._owners and group in self.groups:
            self._owners[slot] = group

    def question(self) -> tuple[Sequence[Address], Operation]:
        return self._controller, Operation((b"BH.QUERY",))

    def learn(self, outcome: Outcome) -> None:
        if isinstance(outcome.value, bytes):
            try:
                configuration = Configuration.decode(outcome.value)
            except msgspec.DecodeError:
                return
            if configuration.number > self.configuration.number:
                self.configuration, self._owners = configuration, configuration.table()
