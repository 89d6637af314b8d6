"""Paxos: a replicated log with a stable leader, and the classic single-decree interface for teaching.

`paxos(members)` is what a `kv.server.Server` takes as its replication. `kv.paxos.replica` is where to begin
to read; docs/kv-paxos.md tells the story and the invariants.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from kv.paxos.replica import Paxos
from kv.paxos.settings import Settings
from kv.replication import Machine, Owner
from underlay.node import Address

__all__ = ["Paxos", "Settings", "paxos"]


def paxos(
    members: Sequence[Address], settings: Settings | None = None, *, replaces: Address = ""
) -> Callable[[Owner, Machine], Paxos]:
    """The replication of a group: `Server("g1", paxos(["store1/g1", "store2/g1", "store3/g1"]), machine)`.

    Args:
        members: all replicas of the group when it is founded.
        settings: alike on all of them.
        replaces: this replica takes that member's place in a running group.
    """
    return lambda owner, machine: Paxos(owner, machine, members, settings, replaces)
