"""The checker of histories: it must accept what one object could have done, and nothing else."""

from __future__ import annotations

from itertools import permutations
from random import Random

import msgspec
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from kv.checking.history import Call
from kv.checking.linearizability import Undecided, find_violation
from kv.checking.register import Register
from kv.operations import OK, Command, Outcome
from tests.kv.histories import Draw, appends, counts, linearizable, mixed


def call(words: str, begin_s: float, end_s: float | None, value: object = None, client: str = "c") -> Call:
    """`call("SET x 1", 0, 1, "OK")`; without an end its outcome is unknown."""
    outcome = None if end_s is None else OK if value == "OK" else Outcome(value)
    return Call(client, tuple(words.encode().split()), begin_s, end_s, outcome)


GOOD = {
    "nothing": [],
    "a read of what was written": [call("SET x 1", 0, 1, "OK"), call("GET x", 2, 3, b"1")],
    "a read beside a write sees it": [call("SET x 1", 0, 5, "OK"), call("GET x", 1, 2, b"1")],
    "a read beside a write does not see it": [call("SET x 1", 0, 5, "OK"), call("GET x", 1, 2)],
    "what begins as another ends is beside it": [call("SET x 1", 0, 1, "OK"), call("GET x", 1, 2)],
    "a lost write is seen": [call("SET x 1", 0, None), call("GET x", 2, 3, b"1")],
    "a lost write is never seen": [call("SET x 1", 0, None), call("GET x", 2, 3)],
    "a lost write is seen late": [
        call("SET x 1", 0, None),
        call("SET x 2", 1, 2, "OK"),
        call("GET x", 3, 4, b"2"),
        call("GET x", 5, 6, b"1"),
    ],
    "two lost appends, the later one first": [
        call("APPEND x a", 0, None),
        call("APPEND x b", 1, None),
        call("GET x", 2, 3, b"b"),
        call("GET x", 4, 5, b"ba"),
    ],
    "a lost deletion lets a conditional write through": [
        call("SET x 1", 0, 1, "OK"),
        call("DEL x", 2, None),
        call("SET x 2 NX", 3, 4, "OK"),
    ],
    "keys are apart": [call("SET x 1", 0, 1, "OK"), call("SET y 2", 2, 3, "OK"), call("GET x", 4, 5, b"1")],
    "two writes, each seen by its own reader": [
        call("SET x 1", 0, 10, "OK"),
        call("SET x 2", 0, 10, "OK"),
        call("GET x", 1, 2, b"2"),
        call("GET x", 3, 4, b"1"),
    ],
    "exchange": [call("SET x 1 GET", 0, 5), call("SET x 2 GET", 0, 5, b"1"), call("GET x", 6, 7, b"2")],
    "one of two conditional writes": [call("SET x 1 NX", 0, 5), call("SET x 2 NX", 0, 5, "OK")],
    "a counter": [call("INCRBY x 2", 0, 5, 5), call("INCRBY x 3", 0, 5, 3), call("GET x", 6, 7, b"5")],
}

BAD = {
    "a read of what nobody wrote": [call("GET x", 0, 1, b"1")],
    "a stale read": [
        call("SET x 1", 0, 1, "OK"),
        call("SET x 2", 2, 3, "OK"),
        call("GET x", 4, 5, b"1"),
    ],
    "a lost acknowledged write": [call("SET x 1", 0, 1, "OK"), call("GET x", 2, 3)],
    "time runs backwards between readers": [
        call("SET x 1", 0, 1, "OK"),
        call("SET x 2", 2, 20, "OK"),
        call("GET x", 3, 4, b"2", "c1"),
        call("GET x", 5, 6, b"1", "c2"),
    ],
    "an append that happened twice": [call("APPEND x a", 0, 1, 1), call("GET x", 2, 3, b"aa")],
    "a lost append that happened twice": [call("APPEND x a", 0, None), call("GET x", 2, 3, b"aa")],
    "both conditional writes": [call("SET x 1 NX", 0, 5, "OK"), call("SET x 2 NX", 0, 5, "OK")],
    "a write seen before it was asked for": [call("GET x", 0, 1, b"<1>"), call("SET x <1>", 2, None)],
    "a lost write undone": [
        call("SET x 1", 0, 1, "OK"),
        call("SET x 2", 2, None),
        call("GET x", 3, 4, b"2"),
        call("GET x", 5, 6, b"1"),
    ],
    "appends in two orders": [
        call("APPEND x a", 0, None),
        call("APPEND x b", 0, None),
        call("GET x", 1, 2, b"ab"),
        call("GET x", 3, 4, b"ba"),
    ],
    "a count too many": [call("INCRBY x 1", 0, 1, 1), call("INCRBY x 1", 2, 3, 3)],
}


@pytest.mark.parametrize("history", GOOD.values(), ids=GOOD.keys())
def test_an_order_is_found(history: list[Call]) -> None:
    assert find_violation(history) is None


@pytest.mark.parametrize("history", BAD.values(), ids=BAD.keys())
def test_no_order_is_found(history: list[Call]) -> None:
    assert find_violation(history) is not None


def test_a_violation_shows_the_window_and_leaves_out_what_it_does_not_need() -> None:
    history = [
        call("SET x 0", 0, 1, "OK"),
        call("GET x", 1.5, 1.6, b"0"),
        call("SET x 1", 2, 4, "OK", "c1"),
        call("SET x 2", 3, 5, "OK", "c2"),
        call("GET x", 4.5, 6, b"2", "c1"),
        call("GET x", 5.5, 7, b"0", "c3"),
        call("GET x", 8, 9, b"2"),
    ]
    violation = find_violation(history)
    assert violation is not None
    assert violation.culprit == history[5]
    assert history[1] not in violation.calls
    assert history[4] not in violation.calls
    text = str(violation)
    assert "[5.500000 .. 7.000000] c3: GET x -> 0" in text
    assert "SET x 1 -> OK" in text


def test_a_search_without_end_says_so() -> None:
    lost = [call(f"SET x {number} GET", 0, None) for number in range(20)]
    with pytest.raises(Undecided):
        find_violation([*lost, call("INCRBY x 1", 1, 2, 7), call("GET x", 3, 4, b"3")], configurations_max=10)


def test_an_unknown_command_is_refused() -> None:
    with pytest.raises(ValueError, match="FLUSHALL"):
        find_violation([call("FLUSHALL x", 0, 1)])


# --------------------------------------------------------------------------------against trying every order

_SMALL: list[Command] = [
    (b"GET", b"k"),
    (b"EXISTS", b"k"),
    (b"STRLEN", b"k"),
    (b"SET", b"k", b"1"),
    (b"SET", b"k", b"2", b"NX"),
    (b"SET", b"k", b"3", b"XX"),
    (b"SET", b"k", b"4", b"GET"),
    (b"SET", b"k", b"5", b"NX", b"GET"),
    (b"SET", b"k", b"<1>"),
    (b"SET", b"k", b"<2>", b"NX"),
    (b"APPEND", b"k", b"<3>"),
    (b"APPEND", b"k", b"<4>"),
    (b"APPEND", b"k", b"7"),
    (b"DEL", b"k"),
    (b"INCRBY", b"k", b"1"),
    (b"INCRBY", b"k", b"-2"),
]


def explained_by_some_order(history: list[Call]) -> bool:
    """By trying them all."""
    sure = [number for number, one in enumerate(history) if one.returned_s is not None]
    lost = [number for number, one in enumerate(history) if one.returned_s is None]
    for chosen in range(2 ** len(lost)):
        extra = [number for bit, number in enumerate(lost) if chosen >> bit & 1]
        for order in permutations(sure + extra):
            if explains([history[number] for number in order]):
                return True
    return False


def explains(order: list[Call]) -> bool:
    state = Register.initial
    begun_s = -1.0
    for one in order:
        begun_s = max(begun_s, one.invoked_s)
        if one.returned_s is not None and one.returned_s < begun_s:
            return False
        state, outcome = Register().step(state, one.command)
        if one.outcome is not None and one.outcome != outcome:
            return False
    return True


@given(st.randoms(use_true_random=False), st.sampled_from([0.0, 0.3, 0.7]), st.booleans())
def test_it_agrees_with_trying_every_order(rng: Random, lost_ratio: float, atoms: bool) -> None:
    """The object now and then answers from an earlier state, or forgets a write: some are linearizable."""
    model = Register()
    states: list[bytes | None] = [None]
    history = []
    for number in range(rng.randint(1, 6)):
        command = mixed(rng, number) if atoms else rng.choice(_SMALL)
        state = rng.choice(states) if rng.random() < 0.3 else states[-1]
        after, outcome = model.step(state, command)
        states.append(after)
        begin_s = number * 1.0
        end_s = begin_s + rng.choice([0.5, 1.5, 2.5, 5.0])
        lost = rng.random() < lost_ratio
        history.append(Call("c", command, begin_s, None if lost else end_s, None if lost else outcome))
    rng.shuffle(history)
    assert (find_violation(history) is None) == explained_by_some_order(history)


# --------------------------------------------------------------------------------------------long histories


@given(
    st.integers(0, 2**32),
    st.sampled_from([mixed, appends, counts]),
    st.integers(1, 8),
    st.sampled_from([0.0, 0.05, 0.1]),
)
def test_what_one_object_did_is_linearizable(seed: int, draw: Draw, clients: int, lost_ratio: float) -> None:
    history = linearizable(Random(seed), 150, clients=clients, draw=draw, lost_ratio=lost_ratio)
    violation = find_violation(history)
    assert violation is None, str(violation)


@given(st.integers(0, 2**32))
def test_a_stale_read_is_found(seed: int) -> None:
    """A read is given what an earlier one saw, though since then a write came and went."""
    rng = Random(seed)
    history = linearizable(rng, 60, lost_ratio=0.05)
    reads = [one for one in history if one.command[0] == b"GET" and one.outcome and one.outcome.value]
    pairs = [
        (earlier, later)
        for earlier in reads
        for later in reads
        if any(
            (earlier.returned_s or 0) < one.invoked_s
            and (one.returned_s or later.invoked_s) < later.invoked_s
            and (one.command[0] in (b"APPEND", b"DEL") or len(one.command) == 3)
            and one.command[0] not in (b"GET", b"STRLEN")
            for one in history
        )
        and (last_write(history, earlier).returned_s or later.invoked_s) < (earlier.invoked_s)
    ]
    assume(pairs)
    earlier, later = rng.choice(pairs)
    broken = [
        msgspec.structs.replace(one, outcome=earlier.outcome) if one is later else one for one in history
    ]
    assert find_violation(broken) is not None


def last_write(history: list[Call], read: Call) -> Call:
    """Whose atom is the last of what was read."""
    assert read.outcome is not None
    atom = b"<" + read.outcome.value.rpartition(b"<")[2]
    return next(one for one in history if len(one.command) > 2 and one.command[2] == atom)


@given(st.integers(0, 2**32))
def test_a_lost_write_is_found(seed: int) -> None:
    """An acknowledged append is missing from a read that began later."""
    rng = Random(seed)
    history = linearizable(rng, 60, draw=appends, lost_ratio=0.05)
    pairs = [
        (write, read)
        for write in history
        for read in history
        if write.command[0] == b"APPEND" and read.command[0] == b"GET" and read.outcome is not None
        and write.returned_s is not None and write.returned_s < read.invoked_s
    ]  # fmt: skip
    assume(pairs)
    write, read = rng.choice(pairs)
    assert read.outcome is not None
    without = Outcome(read.outcome.value.replace(write.command[2], b""))
    broken = [msgspec.structs.replace(one, outcome=without) if one is read else one for one in history]
    assert find_violation(broken) is not None


@given(st.integers(0, 2**32))
def test_an_append_that_happened_twice_is_found(seed: int) -> None:
    """Everybody who reads afterwards sees the value twice."""
    rng = Random(seed)
    history = linearizable(rng, 60, draw=appends, lost_ratio=0.1)
    reads = [one for one in history if one.command[0] == b"GET" and one.outcome and one.outcome.value]
    assume(reads)
    seen = rng.choice(reads)
    assert seen.outcome is not None
    atom = seen.outcome.value[: seen.outcome.value.index(b">") + 1]

    def twice(one: Call) -> Call:
        if one.outcome is None or not isinstance(one.outcome.value, bytes):
            return one
        return msgspec.structs.replace(one, outcome=Outcome(one.outcome.value.replace(atom, atom * 2)))

    assert find_violation([twice(one) for one in history]) is not None


@pytest.mark.parametrize("draw", [mixed, appends, counts])
def test_ten_thousand_calls_on_three_keys_are_decided(draw: Draw) -> None:
    """One in a hundred has an unknown outcome, and may take effect long after."""
    history = []
    for key in range(3):
        part = linearizable(Random(key), 3_334, clients=8, draw=draw, lost_ratio=0.01)
        history += [
            msgspec.structs.replace(one, command=(one.command[0], b"k%d" % key, *one.command[2:]))
            for one in part
        ]
    assert sum(one.returned_s is None for one in history) > 80
    assert find_violation(history) is None
