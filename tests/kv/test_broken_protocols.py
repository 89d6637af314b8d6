"""The checks can fail: services that are broken on purpose are caught by what their clients see.

Each break is one rule that a replica forgets; the run is that of `test_faults`, and nothing but the history
judges it. (The owners' tests look inside, at forgotten promises too: `paxos/test_sweeps` and
`sharding/test_broken`.)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from kv.checking.linearizability import find_violation
from kv.machine import KeyValueMachine
from kv.operations import Operation
from kv.paxos.leader import Leader
from kv.paxos.lease import Lease
from kv.primary_backup.primary import Primary
from tests.kv.cluster import Cluster, Kind

SEEDS = 40

Patch = pytest.MonkeyPatch


def serves_reads_after_the_lease(patch: Patch) -> None:
    """It answers reads for as long as it believes to lead."""
    patch.setattr(Lease, "holds", lambda *_: True)
    patch.setattr(Leader, "has_majority", lambda *_: True)


def forgets_sessions(patch: Patch) -> None:
    """The machine executes a repetition again."""
    execute = KeyValueMachine.execute

    def forgetful(self: KeyValueMachine, operation: Operation, time_s: float) -> Any:
        return execute(self, Operation(operation.command), time_s)

    patch.setattr(KeyValueMachine, "execute", forgetful)


def leaves_sessions_behind(patch: Patch) -> None:
    """A slot moves without its session table."""
    whole = KeyValueMachine.slot_records

    def without(self: KeyValueMachine, slot: int, after: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        return (record for record in whole(self, slot, after) if record[0][3:4] != b"s")

    patch.setattr(KeyValueMachine, "slot_records", without)


def answers_before_it_forwards(patch: Patch) -> None:
    """The primary answers when its own disk has it, whatever the backup has."""
    choose = Primary.choose

    def hastily(self: Primary) -> None:
        choose(self)
        self.chosen = max(self.chosen, self._logged)

    patch.setattr(Primary, "choose", hastily)


BREAKS: list[tuple[Callable[[Patch], None], Kind]] = [
    (serves_reads_after_the_lease, "paxos"),
    (forgets_sessions, "paxos"),
    (leaves_sessions_behind, "sharded"),
    (answers_before_it_forwards, "primary-backup"),
]


@pytest.mark.timeout(120)
@pytest.mark.parametrize(("break_", "kind"), BREAKS, ids=lambda value: getattr(value, "__name__", value))
def test_a_broken_service_is_caught(break_: Callable[[Patch], None], kind: Kind, monkeypatch: Patch) -> None:
    break_(monkeypatch)
    for seed in range(SEEDS):
        cluster = Cluster(kind, seed, hosts=5 if kind == "sharded" else 3, lossy=kind == "sharded")
        cluster.run()
        if find_violation(cluster.history()) is not None:
            return
    pytest.fail(f"{SEEDS} seeds show nothing")
