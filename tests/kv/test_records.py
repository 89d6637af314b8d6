"""Checksums: what was damaged is found when it is read, and named."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kv.records import Checked, Damaged, DamagedRecord
from underlay.store import OrderedMap, Store


def pair() -> tuple[Store, OrderedMap]:
    plain = OrderedMap()
    return Checked(plain), plain


@given(st.dictionaries(st.binary(max_size=8), st.binary(max_size=40)))
def test_what_was_written_is_read(items: dict[bytes, bytes]) -> None:
    store, _ = pair()
    for key, value in items.items():
        store.put(key, value)
    assert list(store.scan()) == sorted(items.items())
    assert all(store.get(key) == value for key, value in items.items())
    for key in items:
        store.delete(key)
    assert list(store.scan()) == []
    assert store.get(b"gone") is None


def test_a_damaged_store_can_be_wiped() -> None:
    store, plain = pair()
    store.put(b"a", b"1")
    plain.put(b"a", b"")
    store.wipe()
    assert list(store.scan()) == []


@given(st.binary(max_size=8), st.binary(max_size=40), st.data())
def test_any_flipped_bit_and_any_torn_tail_is_found(key: bytes, value: bytes, data: st.DataObject) -> None:
    store, plain = pair()
    store.put(key, value)
    stored = plain.get(key)
    assert stored is not None
    bit = data.draw(st.integers(0, 8 * len(stored) - 1))
    flipped = bytearray(stored)
    flipped[bit // 8] ^= 1 << bit % 8
    torn = stored[: data.draw(st.integers(0, len(stored) - 1))]
    for damaged in (bytes(flipped), torn):
        plain.put(key, damaged)
        with pytest.raises(DamagedRecord) as found:
            store.get(key)
        assert found.value.key == key
        with pytest.raises(Damaged):
            list(store.scan())


def test_a_record_in_anothers_place_is_found() -> None:
    store, plain = pair()
    store.put(b"a", b"1")
    plain.put(b"b", plain.get(b"a") or b"")
    with pytest.raises(Damaged, match=r"b'b'"):
        store.get(b"b")


def test_a_scan_finds_damage_when_it_comes_there() -> None:
    store, plain = pair()
    for key in (b"a", b"b", b"c"):
        store.put(key, key)
    plain.put(b"b", b"")
    scan = store.scan()
    assert next(scan) == (b"a", b"a")
    with pytest.raises(Damaged):
        next(scan)
