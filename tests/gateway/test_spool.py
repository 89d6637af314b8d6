"""The spool: nothing lost, nothing twice, each device's order kept, turns taken."""

from __future__ import annotations

from collections import defaultdict

from hypothesis import given
from hypothesis import strategies as st

from edge.observation import Observation, ObservationId
from gateway.spool import Bounds, Entry, Spool
from underlay.store import OrderedMap


def seen(device: str, sequence: int, size_bytes: int = 10) -> Observation:
    return Observation(ObservationId(device, sequence), "temperature", 1e6 - sequence, 0.0, b"x" * size_bytes)


def spooled(store: OrderedMap, spool: Spool, *observations: Observation) -> None:
    for observation in observations:
        spool.add(store, observation, observation.encode(), 0.0)


def ids(batch: tuple[Entry, ...]) -> list[str]:
    return [entry.id for entry in batch]


def test_devices_take_turns_and_each_has_one_batch_under_way() -> None:
    store, spool = OrderedMap(), Spool(Bounds(batch_max=2))
    spooled(store, spool, *(seen("a", n) for n in range(5)), seen("b", 1))
    assert ids(spool.batch()) == ["a:0", "a:1"]
    assert ids(spool.batch()) == ["b:1"]
    assert spool.batch() == ()
    spool.done(store, "a")
    spooled(store, spool, seen("c", 1))
    assert ids(spool.batch()) == ["a:2", "a:3"]
    assert ids(spool.batch()) == ["c:1"]
    spool.done(store, "b")
    assert set(spool.waiting()) == {"a", "c"}


def test_a_large_observation_goes_alone() -> None:
    store, spool = OrderedMap(), Spool(Bounds(batch_bytes_max=1000))
    spooled(store, spool, seen("a", 1), seen("a", 2, 5000), seen("a", 3), seen("a", 4))
    batches = []
    while batch := spool.batch():
        batches.append(ids(batch))
        spool.done(store, "a")
    assert batches == [["a:1"], ["a:2"], ["a:3", "a:4"]]


def test_of_a_batch_that_is_taken_apart_the_rest_waits_on() -> None:
    store, spool = OrderedMap(), Spool()
    spooled(store, spool, seen("a", 1), seen("a", 2))
    spool.batch()
    assert spool.first_alone("a").id == "a:1"
    spool.done(store, "a")
    assert ids(spool.batch()) == ["a:2"]


def test_it_comes_back_from_the_disk_in_the_order_in_which_it_came() -> None:
    """Which is not that of the keys, nor of the times of the observations."""
    store, spool = OrderedMap(), Spool()
    spooled(store, spool, *(seen(device, n) for n in (3, 1, 2) for device in "ba"))
    spool.batch()
    spool.done(store, "b")
    after = Spool()
    after.load(store, 9.0)
    assert (len(after), after.size_bytes, after.oldest_s()) == (3, spool.size_bytes, 9.0)
    assert ids(after.batch()) == ["a:3", "a:1", "a:2"]
    spooled(store, after, seen("a", 7))
    assert seen("a", 7).key() in after


def test_a_device_with_more_than_its_share_is_refused_before_the_others() -> None:
    size_bytes = len(seen("a", 1).encode())
    store, spool = OrderedMap(), Spool(Bounds(bytes_max=100 * size_bytes))
    while not spool.refusal("a", size_bytes):
        spooled(store, spool, seen("a", len(spool)))
    assert len(spool) == 51
    assert "share" in spool.refusal("a", size_bytes)
    for n in range(25):
        assert not spool.refusal("b", size_bytes), n
        spooled(store, spool, seen("b", n))
    assert "share" in spool.refusal("b", size_bytes)
    assert not spool.refusal("c", size_bytes)


def test_the_number_of_those_that_wait_is_bounded_too() -> None:
    store, spool = OrderedMap(), Spool(Bounds(entries_max=2))
    spooled(store, spool, seen("a", 1), seen("b", 1))
    assert spool.refusal("c", 1) == "the spool is full"


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.sampled_from("abc"), st.integers(1, 400)),
        st.tuples(st.just("batch"), st.just(""), st.just(0)),
        st.tuples(st.sampled_from(["done", "apart"]), st.sampled_from("abc"), st.just(0)),
        st.tuples(st.just("crash"), st.just(""), st.just(0)),
    ),
    max_size=60,
)


@given(STEPS)
def test_nothing_is_lost_nothing_leaves_twice_and_devices_keep_their_order(
    steps: list[tuple[str, str, int]],
) -> None:
    bounds = Bounds(batch_max=3, batch_bytes_max=500)
    store, spool = OrderedMap(), Spool(bounds)
    came: dict[str, list[str]] = defaultdict(list)
    left: dict[str, list[str]] = defaultdict(list)
    under_way: dict[str, list[str]] = {}
    for number, (do, device, size_bytes) in enumerate(steps):
        if do == "add":
            spooled(store, spool, seen(device, number, size_bytes))
            came[device].append(f"{device}:{number}")
        elif do == "batch":
            batch = spool.batch()
            if batch:
                assert batch[0].device not in under_way
                under_way[batch[0].device] = ids(batch)
        elif do == "crash":
            under_way.clear()
            spool = Spool(bounds)
            spool.load(store, 0.0)
        elif device in under_way:
            if do == "apart":
                under_way[device] = [spool.first_alone(device).id]
            spool.done(store, device)
            left[device] += under_way.pop(device)
    for device in list(under_way):
        spool.done(store, device)
        left[device] += under_way.pop(device)
    while batch := spool.batch():
        spool.done(store, batch[0].device)
        left[batch[0].device] += ids(batch)
    assert left == came
    assert (len(spool), spool.size_bytes, list(store.scan())) == (0, 0, [])
