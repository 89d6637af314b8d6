"""The spool: nothing lost, nothing twice, each device's order kept, turns taken."""

from __future__ import annotations

from collections import defaultdict

from hypothesis import given
from hypothesis import strategies as st

from edge.observation import Observation, ObservationId
from gateway.lane import Entry
from gateway.routing.routes import Route
from gateway.spool import Bounds, Spool
from underlay.store import OrderedMap


def seen(device: str, sequence: int, size_bytes: int = 10) -> Observation:
    return Observation(ObservationId(device, sequence), "temperature", 1e6 - sequence, 0.0, b"x" * size_bytes)


def spooled(store: OrderedMap, spool: Spool, *observations: Observation) -> None:
    for observation in observations:
        spool.add(store, observation, observation.encode(), 0.0)


def refused(
    spool: Spool, device: str, size_bytes: int = 20, now: float = 0.0, route: str = "unmatched"
) -> str:
    """Why; empty: it is not."""
    refusal = spool.refusal(device, size_bytes, now, route)
    return refusal.reason if refusal else ""


def by(
    store: OrderedMap, spool: Spool, route: str, *observations: Observation, now: float = 0.0
) -> list[str]:
    """Spooled by that route; what gave way."""
    dropped = [spool.add(store, each, each.encode(), now, route) for each in observations]
    return [entry.id for entries in dropped for entry in entries]


def ids(batch: tuple[Entry, ...]) -> list[str]:
    return [entry.id for entry in batch]


def test_devices_take_turns_and_each_has_one_batch_under_way() -> None:
    store, spool = OrderedMap(), Spool(Bounds(batch_max=2))
    spooled(store, spool, *(seen("a", n) for n in range(5)), seen("b", 1))
    assert ids(spool.batch(0.0)) == ["a:0", "a:1"]
    assert ids(spool.batch(0.0)) == ["b:1"]
    assert spool.batch(0.0) == ()
    spool.done(store, "a")
    spooled(store, spool, seen("c", 1))
    assert ids(spool.batch(0.0)) == ["a:2", "a:3"]
    assert ids(spool.batch(0.0)) == ["c:1"]
    spool.done(store, "b")
    assert set(spool.waiting()) == {"a", "c"}


def test_a_large_observation_goes_alone() -> None:
    store, spool = OrderedMap(), Spool(Bounds(batch_bytes_max=1000))
    spooled(store, spool, seen("a", 1), seen("a", 2, 5000), seen("a", 3), seen("a", 4))
    batches = []
    while batch := spool.batch(0.0):
        batches.append(ids(batch))
        spool.done(store, "a")
    assert batches == [["a:1"], ["a:2"], ["a:3", "a:4"]]


def test_of_a_batch_that_is_taken_apart_the_rest_waits_on() -> None:
    store, spool = OrderedMap(), Spool()
    spooled(store, spool, seen("a", 1), seen("a", 2))
    spool.batch(0.0)
    assert spool.first_alone("a").id == "a:1"
    spool.done(store, "a")
    assert ids(spool.batch(0.0)) == ["a:2"]


def test_it_comes_back_from_the_disk_in_the_order_in_which_it_came() -> None:
    """Which is not that of the keys, nor of the times of the observations."""
    store, spool = OrderedMap(), Spool()
    spooled(store, spool, *(seen(device, n) for n in (3, 1, 2) for device in "ba"))
    spool.batch(0.0)
    spool.done(store, "b")
    after = Spool()
    after.load(store, 9.0)
    assert (len(after), after.size_bytes, after.oldest_s()) == (3, spool.size_bytes, 9.0)
    assert ids(after.batch(0.0)) == ["a:3", "a:1", "a:2"]
    spooled(store, after, seen("a", 7))
    assert seen("a", 7).key() in after


def test_a_device_with_more_than_its_share_is_refused_before_the_others() -> None:
    size_bytes = len(seen("a", 1).encode())
    store, spool = OrderedMap(), Spool(Bounds(bytes_max=100 * size_bytes))
    while not refused(spool, "a", size_bytes):
        spooled(store, spool, seen("a", len(spool)))
    assert len(spool) == 51
    assert "share" in refused(spool, "a", size_bytes)
    for n in range(25):
        assert not refused(spool, "b", size_bytes), n
        spooled(store, spool, seen("b", n))
    assert "share" in refused(spool, "b", size_bytes)
    assert not refused(spool, "c", size_bytes)


def test_the_number_of_those_that_wait_is_bounded_too() -> None:
    store, spool = OrderedMap(), Spool(Bounds(entries_max=2))
    spooled(store, spool, seen("a", 1), seen("b", 1))
    assert refused(spool, "c", 1) == "the spool is full"


# --------------------------------------------------------------------------------------------- routes' terms


def test_the_higher_priority_goes_first_with_what_is_before_it() -> None:
    routes = [Route("store", "calm"), Route("store", "urgent", priority=5)]
    store, spool = OrderedMap(), Spool(routes=routes)
    by(store, spool, "calm", seen("a", 1), seen("b", 1), seen("c", 1))
    by(store, spool, "urgent", seen("c", 2))
    assert [ids(spool.batch(0.0)) for _ in range(4)] == [["c:1", "c:2"], ["a:1"], ["b:1"], []]
    spool.done(store, "c")
    by(store, spool, "calm", seen("c", 3))
    spool.done(store, "a")
    assert ids(spool.batch(0.0)) == ["c:3"]


def test_the_highest_priority_has_room_when_the_others_have_none_left() -> None:
    routes = [Route("store", "low", priority=-1), Route("store", "mid"), Route("store", "high", priority=1)]
    store, spool = OrderedMap(), Spool(Bounds(entries_max=12), routes=routes)
    number = 0
    for route, fit in (("low", 8), ("mid", 2), ("high", 2)):
        for _ in range(fit):
            assert not refused(spool, f"d{number}", route=route)
            by(store, spool, route, seen(f"d{number}", 1))
            number += 1
        assert refused(spool, "z", route=route) == "the spool is full"


def test_a_rate_is_kept_and_holds_up_what_the_device_handed_over_later() -> None:
    routes = [Route("store", "slow", rate_limit_per_s=1.0), Route("store", "free")]
    store, spool = OrderedMap(), Spool(routes=routes)
    by(store, spool, "slow", seen("a", 1), seen("a", 2))
    by(store, spool, "free", seen("a", 3), seen("b", 1))
    assert [ids(spool.batch(0.0)) for _ in range(3)] == [["a:1"], ["b:1"], []]
    assert spool.wait_s(0.0) is None  # a batch of it is under way
    spool.done(store, "a")
    assert spool.batch(0.5) == ()
    assert spool.wait_s(0.5) == 0.5
    assert ids(spool.batch(1.0)) == ["a:2", "a:3"]
    assert spool.wait_s(1.0) is None


def test_devices_share_a_rate_in_turns() -> None:
    store, spool = OrderedMap(), Spool(routes=[Route("store", "slow", rate_limit_per_s=2.0, rate_burst=1)])
    by(store, spool, "slow", *(seen(device, n) for n in (1, 2) for device in "abc"))
    left = []
    for tick in range(6):
        batch = spool.batch(tick / 2)
        left += ids(batch)
        assert spool.batch(tick / 2) == ()
        spool.done(store, batch[0].device)
    assert left == ["a:1", "b:1", "c:1", "a:2", "b:2", "c:2"]


def test_a_route_that_blocks_says_when_there_is_a_place_in_its_rate() -> None:
    route = Route("store", "pushed", rate_limit_per_s=4.0, rate_burst=2, overflow="block")
    store, spool = OrderedMap(), Spool(routes=[route])
    for n in (1, 2):
        assert spool.refusal("a", 20, 0.0, "pushed") is None
        by(store, spool, "pushed", seen("a", n))
    refusal = spool.refusal("a", 20, 0.1, "pushed")
    assert refusal is not None
    assert (refusal.reason, refusal.retry_after_s) == ("the route pushed takes 4 a second", 0.15)
    assert spool.refusal("a", 20, 0.25, "pushed") is None
    assert ids(spool.batch(0.1)) == ["a:1", "a:2"]  # what came in leaves as it can


def test_a_share_bounds_what_waits_for_its_turn() -> None:
    store, spool = (
        OrderedMap(),
        Spool(routes=[Route("store", "few", spool_max_observations=2), Route("store")]),
    )
    by(store, spool, "few", seen("a", 1))
    spool.batch(0.0)
    by(store, spool, "few", seen("a", 2), seen("b", 1))
    assert refused(spool, "b", route="few") == "2 wait by the route few already"
    assert not refused(spool, "b", route="")
    spool.batch(0.0)
    assert not refused(spool, "b", route="few")


def test_the_oldest_of_the_route_gives_way_and_never_one_that_is_under_way() -> None:
    routes = [
        Route("store", "lossy", overflow="drop-oldest", spool_max_observations=3),
        Route("store", "firm"),
    ]
    store, spool = OrderedMap(), Spool(routes=routes)
    by(store, spool, "lossy", seen("a", 1))
    assert ids(spool.batch(0.0)) == ["a:1"]
    by(store, spool, "firm", seen("a", 2))
    assert by(store, spool, "lossy", *(seen("ab"[n % 2], n) for n in range(3, 8))) == ["b:3", "a:4"]
    spool.done(store, "a")
    assert [ids(spool.batch(0.0)) for _ in range(2)] == [["b:5", "b:7"], ["a:2", "a:6"]]
    spool.done(store, "a")
    spool.done(store, "b")
    assert list(store.scan()) == []


def test_where_others_fill_the_spool_its_own_oldest_give_way_and_then_it_is_refused() -> None:
    routes = [
        Route("store", "lossy", overflow="drop-oldest", spool_max_observations=9),
        Route("store", "firm"),
    ]
    store, spool = OrderedMap(), Spool(Bounds(entries_max=4), routes=routes)
    by(store, spool, "firm", seen("a", 1), seen("b", 1), seen("c", 1))
    by(store, spool, "lossy", seen("d", 1))
    assert not refused(spool, "e", route="lossy")
    assert by(store, spool, "lossy", seen("e", 1)) == ["d:1"]
    assert ids(spool.batch(0.0)) == ["a:1"]
    while spool.batch(0.0):
        pass
    assert refused(spool, "f", route="lossy") == "the spool is full"


def test_routes_are_remembered_on_disk_and_one_that_is_no_more_has_no_terms() -> None:
    slow = Route("store", "slow", rate_limit_per_s=1.0)
    store, spool = OrderedMap(), Spool(routes=[slow])
    by(store, spool, "slow", *(seen("a", n) for n in range(5)))
    after = Spool(routes=[slow])
    after.load(store, 0.0)
    assert (ids(after.batch(0.0)), after.waiting_of("slow")) == (["a:0"], 5)
    without = Spool(routes=[Route("store", "other")])
    without.load(store, 0.0)
    assert (len(without.batch(0.0)), without.waiting_of("unmatched")) == (5, 5)


TERMS = (
    Route("store", "plain", priority=1),
    Route("store", "paced", rate_limit_per_s=3.0, rate_burst=2, priority=2),
    Route("store", "lossy", overflow="drop-oldest", spool_max_observations=4),
)
STEPS = st.lists(
    st.one_of(
        st.tuples(
            st.sampled_from([route.name for route in TERMS]), st.sampled_from("abc"), st.integers(1, 400)
        ),
        st.tuples(st.just("batch"), st.just(""), st.integers(0, 2)),
        st.tuples(st.sampled_from(["done", "apart"]), st.sampled_from("abc"), st.just(0)),
        st.tuples(st.just("crash"), st.just(""), st.just(0)),
    ),
    max_size=60,
)


@given(STEPS)
def test_nothing_is_lost_but_by_choice_nothing_leaves_twice_and_devices_keep_their_order(
    steps: list[tuple[str, str, int]],
) -> None:
    bounds = Bounds(batch_max=3, batch_bytes_max=500)
    store, spool, now = OrderedMap(), Spool(bounds, routes=TERMS), 0.0
    came: dict[str, list[str]] = defaultdict(list)
    left: dict[str, list[str]] = defaultdict(list)
    under_way: dict[str, list[str]] = {}
    for number, (do, device, size_bytes) in enumerate(steps):
        if do == "batch":
            now += size_bytes / 4
            batch = spool.batch(now)
            if batch:
                assert batch[0].device not in under_way
                under_way[batch[0].device] = ids(batch)
        elif do == "crash":
            under_way.clear()
            spool = Spool(bounds, routes=TERMS)
            spool.load(store, 0.0)
        elif do not in ("done", "apart"):
            came[device].append(f"{device}:{number}")
            dropped = by(store, spool, do, seen(device, number, size_bytes), now=now)
            assert do == "lossy" or not dropped
            for id_ in dropped:
                assert all(id_ not in batch for batch in under_way.values())
                came[id_[0]].remove(id_)
        elif device in under_way:
            if do == "apart":
                under_way[device] = [spool.first_alone(device).id]
            spool.done(store, device)
            left[device] += under_way.pop(device)
    for device in list(under_way):
        spool.done(store, device)
        left[device] += under_way.pop(device)
    while len(spool):
        now += 1.0
        while batch := spool.batch(now):
            spool.done(store, batch[0].device)
            left[batch[0].device] += ids(batch)
    assert left == {device: order for device, order in came.items() if order}
    assert (spool.size_bytes, list(store.scan()), [spool.waiting_of(route.name) for route in TERMS]) == (
        0,
        [],
        [0, 0, 0],
    )
