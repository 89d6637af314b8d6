"""OrderedMap against a plain dictionary, sorted."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from underlay.store import OrderedMap, prefix_end

KEYS = st.binary(max_size=3)
WRITES = st.lists(st.tuples(KEYS, st.one_of(st.none(), st.binary(max_size=3))), max_size=40)


def written(writes: list[tuple[bytes, bytes | None]]) -> tuple[OrderedMap, dict[bytes, bytes]]:
    store, model = OrderedMap(), dict[bytes, bytes]()
    for key, value in writes:
        if value is None:
            store.delete(key)
            model.pop(key, None)
        else:
            store.put(key, value)
            model[key] = value
    return store, model


@given(WRITES, KEYS, st.one_of(st.none(), KEYS))
def test_it_reads_like_a_sorted_dictionary(
    writes: list[tuple[bytes, bytes | None]], start: bytes, end: bytes | None
) -> None:
    store, model = written(writes)
    inside = [(k, v) for k, v in sorted(model.items()) if k >= start and (end is None or k < end)]
    assert list(store.scan(start, end)) == inside
    assert len(store) == len(model)
    assert [store.get(key) for key, _ in writes] == [model.get(key) for key, _ in writes]


@given(WRITES, WRITES)
def test_its_batches_applied_in_order_make_the_same_map(
    first: list[tuple[bytes, bytes | None]], second: list[tuple[bytes, bytes | None]]
) -> None:
    store, _ = written(first)
    batches = [store.take_batch()]
    for key, value in second:
        if value is None:
            store.delete(key)
        else:
            store.put(key, value)
    batches.append(store.take_batch())
    durable: dict[bytes, bytes] = {}
    for batch in batches:
        for key, value in batch.items():
            if value is None:
                durable.pop(key, None)
            else:
                durable[key] = value
    assert sorted(durable.items()) == list(store.scan())
    assert not store.dirty


def test_a_scan_is_not_disturbed_by_writes_to_what_it_has_not_reached() -> None:
    store = OrderedMap({b"a": b"1", b"b": b"2", b"c": b"3"})
    seen = []
    for key, _ in store.scan():
        seen.append(key)
        store.put(b"z" + key, b"new")
    assert seen == [b"a", b"b", b"c"]


@pytest.mark.parametrize(
    ("prefix", "end"),
    [(b"obs:", b"obs;"), (b"a\xff", b"b"), (b"\xff\xff", None), (b"", None), (b"a\x00", b"a\x01")],
)
def test_the_end_of_a_prefix_is_the_first_key_behind_it(prefix: bytes, end: bytes | None) -> None:
    assert prefix_end(prefix) == end


def test_a_scan_goes_on_while_what_it_finds_is_deleted() -> None:
    store = OrderedMap({b"%04d" % n: b"" for n in range(1000)})
    seen = []
    for key, _ in store.scan():
        store.delete(key)
        store.delete(b"%04d" % (int(key) + 1))
        seen.append(int(key))
    assert seen == list(range(0, 1000, 2))
    assert list(store.scan()) == []


@given(WRITES, WRITES)
def test_after_a_wipe_there_is_what_was_written_since(
    before: list[tuple[bytes, bytes | None]], since: list[tuple[bytes, bytes | None]]
) -> None:
    store, _ = written(before)
    store.wipe()
    assert list(store.scan()) == []
    for key, value in since:
        if value is None:
            store.delete(key)
        else:
            store.put(key, value)
    assert list(store.scan()) == list(written(since)[0].scan())
