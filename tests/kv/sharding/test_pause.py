"""How long keys pause while 10,000 of them move, between groups of three by Paxos on links of 1 ms. Times are
the simulation's, whatever the machine is."""

from collections.abc import Iterator
from random import Random

import pytest

from kv.operations import Command
from tests.kv.sharding.clerk import Script
from tests.kv.sharding.service import Groups, Service

GROUPS: Groups = {"g1": ["s1", "s2", "s3"], "g2": ["s4", "s5", "s1"]}
KEYS = 10_000
PAUSE_S_MAX = 0.3


def load(tags: int) -> Script:
    """All keys, evenly in so many slots, some at a time."""

    def script(rng: Random) -> Iterator[Command]:
        for tag in range(tags):
            keys = list(keys_of(tag, tags))
            for first in range(0, len(keys), 50):
                yield b"MSET", *(word for key in keys[first : first + 50] for word in (key, b"v" * 100))

    return script


def keys_of(tag: int, tags: int) -> Iterator[bytes]:
    return (b"{%d}%d" % (tag, number) for number in range(KEYS // tags))


def use(keys: list[bytes]) -> Script:
    def script(rng: Random) -> Iterator[Command]:
        while True:
            key = rng.choice(keys)
            yield (b"APPEND", key, b"<%08x>" % rng.getrandbits(32)) if rng.random() < 0.5 else (b"GET", key)

    return script


@pytest.mark.timeout(120)
@pytest.mark.parametrize("tags", [400, 1], ids=["in 400 slots", "in one slot"])
def test_10_000_keys_move_without_a_failure_or_a_long_pause(tags: int) -> None:
    hot = [key for tag in range(0, tags, 4) for key in keys_of(tag, tags)][:: 100 if tags == 1 else 25]
    service = Service(
        load(tags), *[use(hot)] * 8, groups=GROUPS, joined=["g1"], controllers=["s2"], pause_s=0.001
    )
    service.settle(1)
    service.do((b"BH.JOIN", b"g2", *(replica.encode() for replica in service.groups["g2"])))
    service.do((b"BH.MOVE", b"0-16383", b"g1"))
    service.settle(3)
    while service.leader("g1").status(0).keys < KEYS:  # type: ignore[union-attr]
        service.run(0.2)
    began_s = service.world.now
    service.do((b"BH.MOVE", b"0-16383", b"g2"))
    service.settle(4)
    ended_s = service.world.now
    service.run(0.2)
    service.check_slots()
    assert service.leader("g2").status(0).keys == KEYS  # type: ignore[union-attr]
    calls = [call for call in service.calls() if call.returned_s is not None and call.returned_s > began_s]
    during = [call for call in calls if call.invoked_s < ended_s]
    assert len(during) > 400
    assert not [call for call in calls if call.outcome is None or call.outcome.failure]
    slowest = max(during, key=lambda call: (call.returned_s or 0.0) - call.invoked_s)
    print(f"moved in {ended_s - began_s:.2f} s; the slowest of {len(during)} operations: {slowest}")
    assert (slowest.returned_s or 0.0) - slowest.invoked_s < PAUSE_S_MAX
