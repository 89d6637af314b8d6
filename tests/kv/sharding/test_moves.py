"""Slots on the move, each group being one replica: what is served meanwhile, and what is left behind."""

import pytest

from kv.sharding.machine import SlotState
from kv.slots import SLOTS, slot_of
from tests.kv.sharding.service import Service, appends, keys_in
from underlay.faults import Crash, Heal, Partition, Restart


def test_a_fresh_tier_becomes_ready_by_itself() -> None:
    service = Service()
    service.settle(1)
    service.check_slots()
    assert service.do((b"SET", b"a", b"1"), (b"GET", b"a")) == ["OK", b"1"]


def test_a_group_that_joins_gets_its_share_with_what_is_in_it() -> None:
    service = Service(joined=["g1", "g2"])
    service.settle(1)
    keys = keys_in(0, SLOTS - 1, 200)
    service.do(*((b"SET", key, key) for key in keys), wait_s=60)
    assert service.do((b"BH.JOIN", b"g3", b"s3/g3")) == [2]
    service.settle(2)
    service.check_slots()
    assert sum(service.shards("g3").state(slot_of(key)) is SlotState.OWNED for key in keys) > 20
    assert service.do(*((b"GET", key) for key in keys), wait_s=60) == keys
