"""The checks can fail: each rule of a move, broken on purpose, is caught within a few seeds."""

from collections.abc import Callable, Iterator
from random import Random

import pytest

from kv.machine import KeyValueMachine
from kv.operations import OK, Outcome
from kv.sharding import machine as machines
from kv.sharding.machine import SlotState
from kv.sharding.moves import Timings
from kv.slots import SLOTS, slot_of
from tests.kv.sharding.service import Service, appends, keys_in
from underlay.simulation import Rule

SEEDS = 8
COMMANDS = 120
"""Of each clerk."""
KEYS = keys_in(0, SLOTS - 1, 3, b"hot")

Break = Callable[[pytest.MonkeyPatch], None]


def forget_sessions(patch: pytest.MonkeyPatch) -> None:
    """The session table stays behind."""
    whole = KeyValueMachine.slot_records

    def without(self: KeyValueMachine, slot: int, after: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        return (record for record in whole(self, slot, after) if record[0][3:4] != b"s")

    patch.setattr(KeyValueMachine, "slot_records", without)


def serve_frozen_slots(patch: pytest.MonkeyPatch) -> None:
    """The source goes on serving what it has released."""
    patch.setattr(machines, "SERVED", (SlotState.OWNED, SlotState.LEAVING, SlotState.FROZEN))


def serve_arriving_slots(patch: pytest.MonkeyPatch) -> None:
    """The receiver serves what has not arrived."""
    patch.setattr(machines, "SERVED", (SlotState.OWNED, SlotState.LEAVING, SlotState.ARRIVING))


def drop_at_once(patch: pytest.MonkeyPatch) -> None:
    """The source deletes what it has released, whether or not it has arrived."""
    kept = machines.ShardMachine._release

    def dropped(self: machines.ShardMachine, number: bytes, ranges: bytes) -> Outcome:
        kept(self, number, ranges)
        self._drop(number, ranges)
        return OK

    patch.setitem(machines._COMMANDS, b"@release", dropped)


def run(seed: int) -> None:
    """Appends while slots go to and fro and replies get lost."""
    rules = [
        Rule(target="clerk*", lost_ratio=0.18),
        Rule(source="s*", target="s*", duplicated_ratio=0.3, delayed_ratio=0.3, delay_s=0.2),
    ]
    service = Service(
        *[appends(KEYS, COMMANDS)] * 5,
        groups={"g1": ["s1"], "g2": ["s2"]},
        seed=seed,
        tamper=rules,
        timings=Timings(retry_s=0.1),
        pause_s=0.01,
    )
    service.settle(1)
    rng = Random(seed)
    hot = b",".join(b"%d" % slot_of(key) for key in KEYS)
    for number in range(2, 10):
        service.run(rng.uniform(0.1, 0.5))
        service.order((b"BH.MOVE", hot, b"g%d" % (number % 2 + 1)))
    while any(len(service.clerk(number).calls) < COMMANDS for number in range(1, 6)):
        assert service.world.now < 60.0, "a clerk waits for ever"
        service.run(1.0)
    service.check()


def test_what_is_not_broken_passes() -> None:
    for seed in range(SEEDS):
        run(seed)


@pytest.mark.parametrize(
    "break_it",
    [forget_sessions, serve_frozen_slots, serve_arriving_slots, drop_at_once],
    ids=lambda break_it: break_it.__name__,
)
def test_what_is_broken_is_caught(break_it: Break, monkeypatch: pytest.MonkeyPatch) -> None:
    break_it(monkeypatch)
    for seed in range(SEEDS):
        try:
            run(seed)
        except (AssertionError, LookupError):
            return
    pytest.fail(f"{break_it.__doc__} Nobody noticed in {SEEDS} seeds.")
