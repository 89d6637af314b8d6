"""A birdhouse's log: positions, budget, restarts."""

from __future__ import annotations

from edge.caching.log import INLINE_BYTES_MAX, Entry, Log
from edge.observation import Observation, ObservationId
from underlay.store import OrderedMap


def observation(sequence: int, size_bytes: int = 10) -> Observation:
    return Observation(ObservationId("cam1", sequence), "temperature", 0.0, 0.0, bytes(size_bytes))


def opened(store: OrderedMap, bytes_max: int = 1000) -> Log:
    log = Log(bytes_max)
    log.open(store)
    return log


def test_an_entry_says_what_older_ones_are_still_there() -> None:
    store = OrderedMap()
    log = opened(store, bytes_max=30)
    first = log.append(store, observation(0))
    last = [log.append(store, observation(sequence)) for sequence in (3, 1, 6)][-1]
    assert last == first + 3
    assert log.newest() == Entry(last, first + 1, observation(6))
    assert log.at(first) is None
    assert log.at(first + 1) == Entry(first + 1, first + 1, observation(3))
    assert log.at(last + 1) is None


def test_a_large_observation_is_announced_and_has_to_be_fetched() -> None:
    store = OrderedMap()
    log = opened(store, bytes_max=10_000)
    photograph = observation(0, INLINE_BYTES_MAX + 1)
    position = log.append(store, photograph)
    assert log.newest() == Entry(position, position, None)
    assert log.at(position) == Entry(position, position, photograph)


def test_a_log_keeps_its_newest_entry_however_large() -> None:
    store = OrderedMap()
    log = opened(store, bytes_max=5)
    log.append(store, observation(0))
    position = log.append(store, observation(1, 500))
    assert log.at(position) is not None
    assert log.at(position - 1) is None


def test_no_position_is_used_again_after_a_restart() -> None:
    store = OrderedMap()
    used = set()
    for _ in range(3):
        log = opened(store)
        for sequence in range(1500):
            position = log.append(store, observation(sequence))
            assert position not in used
            used.add(position)


def test_an_entry_survives_the_wire() -> None:
    entry = Entry(1030, 1024, observation(17))
    assert Entry.decode(entry.encode()) == entry
