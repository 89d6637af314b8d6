"""Configurations: balanced within one slot, with the fewest moves, and small enough for a message."""

from collections.abc import Callable
from itertools import combinations
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kv.sharding.config import (
    ENCODED_BYTES_MAX,
    Configuration,
    balance,
    compact,
    expand,
    join,
    leave,
    move,
    read_ranges,
)
from kv.slots import SLOTS
from underlay.errors import InputError


def replicas(group: str) -> list[str]:
    return [f"{group}-{host}/{group}" for host in "abc"]


def joined(*groups: str) -> Configuration:
    configuration = Configuration()
    for group in groups:
        configuration = join(configuration, group, replicas(group))
    return configuration


def sizes(configuration: Configuration) -> dict[str, int]:
    return {
        group: sum(last - first + 1 for first, last in configuration.slots_of(group))
        for group in configuration.groups
    }


def moved(before: Configuration, after: Configuration) -> int:
    return sum(old != new for old, new in zip(before.table(), after.table(), strict=True))


def fewest_moves(held: list[int]) -> int:
    """By trying every choice of the groups that get the odd slots."""
    share, odd = divmod(SLOTS, len(held))
    return SLOTS - max(
        sum(min(count, share + (place in lucky)) for place, count in enumerate(held))
        for lucky in combinations(range(len(held)), odd % len(held))
    )


def test_the_first_group_gets_everything() -> None:
    assert list(joined("g1").ranges()) == [(0, SLOTS - 1, "g1")]


def test_a_third_group_takes_its_share_from_both_others() -> None:
    two, three = joined("g1", "g2"), joined("g1", "g2", "g3")
    assert sorted(sizes(three).values()) == [5461, 5461, 5462]
    assert moved(two, three) == sizes(three)["g3"]


def test_a_group_that_leaves_moves_only_what_it_had() -> None:
    three = joined("g1", "g2", "g3")
    two = leave(three, "g2")
    assert moved(three, two) == sizes(three)["g2"]
    assert sizes(two) == {"g1": 8192, "g3": 8192}


def test_a_move_moves_what_it_says() -> None:
    before = joined("g1", "g2")
    after = move(before, [(5, 9), (16_000, 16_000)], "g2")
    assert after.slots_of("g2") == ((5, 9), (8192, SLOTS - 1))
    assert moved(before, after) == 5


def test_a_group_that_joins_again_gets_new_replicas_and_keeps_its_slots() -> None:
    before = joined("g1", "g2")
    after = join(before, "g1", ["spare/g1"])
    assert (after.groups["g1"], after.number, moved(before, after)) == (("spare/g1",), before.number + 1, 0)


@given(st.lists(st.sampled_from(["join", "leave", "move"]), max_size=12), st.integers(0, 2**32))
def test_every_join_and_leave_balances_with_the_fewest_moves(verbs: list[str], seed: int) -> None:
    rng = Random(seed)
    before = joined("g0")
    for number, verb in enumerate(verbs, 1):
        groups = sorted(before.groups)
        if verb == "move":
            first = rng.randrange(SLOTS)
            before = move(before, [(first, rng.randrange(first, SLOTS))], rng.choice(groups))
            continue
        if verb == "join" and len(groups) < 9:
            after = join(before, f"g{number}", replicas(f"g{number}"))
        elif len(groups) > 1:
            after = leave(before, rng.choice(groups))
        else:
            continue
        held = sizes(after)
        assert sum(held.values()) == SLOTS
        assert max(held.values()) - min(held.values()) <= 1
        kept = [sizes(before).get(group, 0) for group in sorted(after.groups)]
        assert moved(before, after) == fewest_moves(kept)
        before = after


@given(st.integers(0, 2**32))
def test_any_table_is_balanced_with_the_fewest_moves(seed: int) -> None:
    rng = Random(seed)
    names = [f"g{n}" for n in range(rng.randint(1, 7))]
    owners = [*names, "", "gone"]
    table = [owner for _ in range(64) for owner in [rng.choice(owners)] * (SLOTS // 64)]
    balanced = balance(table, names)
    kept = [table.count(name) for name in names]
    assert sum(old != new for old, new in zip(table, balanced, strict=True)) == fewest_moves(kept)


def test_the_most_fragmented_map_fits_a_message() -> None:
    configuration = joined(*(f"g{n}" for n in range(100)))
    odd = [(slot, slot) for slot in range(0, SLOTS, 2)]
    configuration = move(configuration, odd, "g7")
    configuration = move(configuration, [(slot + 1, slot + 1) for slot, _ in odd[::2]], "g9")
    data = configuration.encode()
    assert len(configuration.runs) > SLOTS
    assert len(data) <= ENCODED_BYTES_MAX
    assert Configuration.decode(data) == configuration


def test_an_owner_is_found_by_slot_and_by_table() -> None:
    configuration = joined("g1", "g2", "g3")
    table = configuration.table()
    for slot in (0, 5460, 5461, 8191, 8192, SLOTS - 1):
        assert configuration.owner_of(slot) == table[slot]


@given(st.sets(st.integers(0, SLOTS - 1), max_size=200))
def test_ranges_are_slots_and_slots_are_ranges(slots: set[int]) -> None:
    assert list(expand(compact(sorted(slots)))) == sorted(slots)


@pytest.mark.parametrize(
    "wrong",
    [
        pytest.param(lambda: join(Configuration(), "G 1", ["a/b"]), id="a name with a blank is no group"),
        pytest.param(lambda: join(Configuration(), "g1", []), id="a group has replicas"),
        pytest.param(lambda: join(Configuration(), "g1", ["a/b", "a/b"]), id="a replica is named once"),
        pytest.param(
            lambda: join(Configuration(), "g1", ["nowhere"]), id="an address has a device and a node"
        ),
        pytest.param(lambda: leave(joined("g1"), "g1"), id="the last group cannot leave"),
        pytest.param(lambda: leave(joined("g1"), "g2"), id="an unknown group cannot leave"),
        pytest.param(lambda: move(joined("g1"), [(0, 0)], "g2"), id="an unknown group gets no slots"),
        pytest.param(lambda: move(joined("g1"), [(0, SLOTS)], "g1"), id="slots end at 16383"),
        pytest.param(lambda: read_ranges("3-"), id="a range has two ends"),
    ],
)
def test_what_makes_no_sense_is_refused(wrong: Callable[[], object]) -> None:
    with pytest.raises(InputError):
        wrong()
