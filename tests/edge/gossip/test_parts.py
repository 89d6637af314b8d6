"""The parts of a gossiping node, each alone: intervals, holdings, digests, the tree's choices, messages."""

from __future__ import annotations

import struct
from itertools import pairwise
from random import Random

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.gossip.fetch import Fetch
from edge.gossip.frames import carries_payload
from edge.gossip.holdings import Holdings
from edge.gossip.messages import (
    CHUNKS_MAX,
    GOSSIP_PROTOCOL,
    STREAMS_MAX,
    Gossip,
    Graft,
    IHave,
    ItemId,
    Prune,
    StreamDigest,
    StreamId,
    Want,
)
from edge.gossip.tree import Tree
from edge.intervals import Intervals
from underlay.messages import MalformedMessage

NUMBERS = st.sets(st.integers(0, 40))
CAM = StreamId("cam1", 7)


@given(NUMBERS, NUMBERS, st.integers(0, 40))
def test_intervals_are_sets(mine: set[int], theirs: set[int], floor: int) -> None:
    """Membership, size, difference and bounds agree with Python's sets, whatever the order of insertion."""
    a, b = Intervals(), Intervals()
    for number in mine:
        a.add(number)
    for number in sorted(theirs, reverse=True):
        b.add(number)
    assert [n for n in range(42) if n in a] == sorted(mine)
    assert len(a) == len(mine)
    assert list(a.minus(b, floor)) == sorted(n for n in mine - theirs if n >= floor)
    assert Intervals(a.bounds()).bounds() == a.bounds()


@given(st.lists(st.integers(0, 1 << 40)))
def test_nonsense_bounds_make_valid_intervals(bounds: list[int]) -> None:
    """What a stranger sends cannot break the order on which everything else relies."""
    kept = Intervals(bounds).bounds()
    assert all(a < b or (a == b and i % 2 == 0) for i, (a, b) in enumerate(pairwise(kept)))


def held(numbers: set[int], order: Random | None = None) -> Holdings:
    """Holdings with these items of one stream."""
    holdings = Holdings(1 << 20)
    shuffled = sorted(numbers)
    if order is not None:
        order.shuffle(shuffled)
    for number in shuffled:
        holdings.add(ItemId(CAM, number), 0, 1, b"x", float(number))
    return holdings


@given(NUMBERS, NUMBERS)
def test_a_digest_tells_both_sides_what_the_other_lacks(mine: set[int], theirs: set[int]) -> None:
    """Exchanging what the digests say makes both sides equal."""
    a, b = held(mine), held(theirs)
    if not mine or not theirs:
        return
    (of_a,), (of_b,) = a.digest([CAM]), b.digest([CAM])
    assert {item.number for item in a.lacking(of_b)} == theirs - mine
    assert {item.number for item, _ in a.surplus(of_b)} == mine - theirs
    assert {item.number for item in b.lacking(of_a)} == mine - theirs


@given(NUMBERS, NUMBERS, st.randoms(use_true_random=False))
def test_hashes_are_equal_exactly_for_equal_holdings(mine: set[int], theirs: set[int], order: Random) -> None:
    """In whatever order items came."""
    assert (held(mine).hash == held(theirs, order).hash) == (mine == theirs)


def test_what_is_on_its_way_is_no_disagreement() -> None:
    """A peer that lacks only what came here just now agrees."""
    here, there = held({0, 1, 2}), held({0, 1})
    assert here.agrees(there.rest([]), [], since_s=2.0)
    assert not here.agrees(there.rest([]), [], since_s=3.0)
    assert here.agrees(there.rest([CAM]), [CAM], since_s=9.0)


def test_what_was_evicted_is_known_but_not_offered() -> None:
    """The oldest go; nobody is told to ask for them, and they are not taken again."""
    holdings = Holdings(10_000)
    for number in range(30):
        holdings.add(ItemId(CAM, number), 0, 1, bytes(700), float(number))
    (digest,) = holdings.digest([CAM])
    assert holdings.bytes <= 10_000
    assert digest.floor == 30 - len(holdings.items)
    assert digest.bounds == (0, 29)
    assert holdings.has(ItemId(CAM, 0), 0)
    assert [item.number for item in Holdings(1).lacking(digest)] == list(range(digest.floor, 30))


def test_chunks_that_contradict_each_other_change_nothing() -> None:
    """Neither another count nor a place beyond it."""
    holdings = Holdings(10_000)
    item = ItemId(CAM, 0)
    assert holdings.add(item, 0, 3, b"a", 0.0) is None
    assert holdings.add(item, 1, 2, b"b", 0.0) is None
    assert holdings.add(item, 9, 3, b"b", 0.0) is None
    assert holdings.add(item, 1, 3, b"b", 0.0) is None
    whole = holdings.add(item, 2, 3, b"c", 0.0)
    assert whole is not None
    assert whole.joined() == b"abc"


@pytest.mark.parametrize("nodes", [2, 9, 25, 100], ids="{} in range of each other".format)
def test_the_first_tree_spans_a_clique_with_bounded_degree(nodes: int) -> None:
    """Everybody but the root has one parent, nobody more than eight neighbours, and no way is long."""
    names = [f"n{i}" for i in range(nodes)]
    parents = {
        name: Tree([n for n in names if n != name], 8, 0.0, Random(0)).first_choices(name) for name in names
    }
    if nodes <= 9:
        assert all(len(chosen) == nodes - 1 for chosen in parents.values())
        return
    assert sorted(len(chosen) for chosen in parents.values()) == [0] + [1] * (nodes - 1)
    children = [chosen[0] for chosen in parents.values() if chosen]
    assert max(children.count(name) for name in names) <= 7

    def depth(name: str) -> int:
        return 1 + depth(parents[name][0]) if parents[name] else 0

    assert max(map(depth, names)) <= (2 if nodes <= 57 else 3)


def test_silence_is_suspicious_after_six_gaps_then_fatal() -> None:
    """An edge fed ten times a second is suspected after 0.6 s; without an answer it becomes lazy."""
    tree = Tree(["a", "b"], 8, 0.0, Random(0))
    tree.attach("a", 0.0)
    for i in range(1, 101):
        tree.fed("a", i / 10)
    assert tree.suspects(10.55) == []
    assert tree.suspects(10.65) == ["a"]
    tree.asked("a", 10.65)
    assert tree.take_dead(10.8, answer_s=0.3) == []
    assert tree.take_dead(10.96, answer_s=0.3) == ["a"]
    assert tree.eager == {}
    assert tree.next_turn(11.0, 5) == ["b"]
    tree.heard("a", 11.1)
    assert sorted(tree.next_turn(11.2, 5)) == ["a", "b"]


def test_the_window_shrinks_when_answers_queue_and_grows_when_they_do_not() -> None:
    """Two parts at a time on a slow way, up to the limit on a quick one."""
    for delay_s, expected in ((0.05, 16), (0.5, 2)):
        fetch = Fetch(0.5, 16)
        holdings = Holdings(1 << 20)
        item = ItemId(CAM, 0)
        fetch.offered(item, "a", 2000, 1, 0.0)
        now, asked = 0.0, 0
        for _ in range(30):
            wants = fetch.due(now, holdings)
            chunks = [i for want in wants.get("a", ()) for i in range(2000) if _bit(want.chunks, i)]
            asked = len(chunks)
            for n, chunk in enumerate(chunks):
                # On the slow way each part waits for those before it.
                at_s = now + 0.02 + delay_s * (n if expected == 2 else 0)
                holdings.add(item, chunk, 2000, b"x", at_s)
                fetch.arrived(item, chunk, "a", at_s)
            now += 2.0
        assert expected <= asked <= expected + 1


def _bit(bitmap: bytes, index: int) -> bool:
    return bool(int.from_bytes(bitmap, "little") >> index & 1)


GOOD = Gossip(ItemId(CAM, 0), 0, 1, 1, True, b"x")
TOO_MUCH = {
    "more chunks than an item may have": msgspec.structs.replace(GOOD, count=CHUNKS_MAX + 1),
    "a chunk beyond all counts": msgspec.structs.replace(GOOD, chunk=CHUNKS_MAX),
    "a negative number": msgspec.structs.replace(GOOD, item=ItemId(CAM, -1)),
    "a name without end": msgspec.structs.replace(GOOD, item=ItemId(StreamId("x" * 65, 0), 0)),
    "too many wants": Graft((Want(ItemId(CAM, 0), b""),) * 65, False),
    "a bitmap that is too long": Graft((Want(ItemId(CAM, 0), bytes(CHUNKS_MAX)),), False),
    "too many streams": IHave((StreamDigest(CAM, 0, ()),) * (STREAMS_MAX + 1), 0, 0),
    "too many intervals": IHave((StreamDigest(CAM, 0, tuple(range(100))),), 0, 0),
}


@pytest.mark.parametrize("message", TOO_MUCH.values(), ids=TOO_MUCH.keys())
def test_what_exceeds_the_bounds_is_no_message(message: Gossip | Graft | IHave) -> None:
    """The codec refuses it, so that no handler ever sees it."""
    with pytest.raises(MalformedMessage):
        GOSSIP_PROTOCOL.decode(msgspec.msgpack.encode(message))


def test_a_full_digest_fits_one_datagram() -> None:
    """48 streams of devices with ordinary names, some with gaps."""
    digests = tuple(
        StreamDigest(StreamId(f"cam{i}", 4_000_000_000), 100, (100, 2000)) for i in range(STREAMS_MAX)
    )
    assert GOSSIP_PROTOCOL.size(IHave(digests, 4_000_000_000, 500)) < 1400


@pytest.mark.parametrize(
    ("message", "port", "expected"),
    [(GOOD, 7000, True), (GOOD, 7001, False), (Prune(), 7000, False), (IHave((), 0, 500), 7000, False)],
    ids=["a payload", "another port", "a prune", "an announcement"],
)
def test_frames_with_payload_are_told_by_their_bytes(
    message: Gossip | Prune | IHave, port: int, expected: bool
) -> None:
    """As the ether sees them: IPv4, UDP, msgpack."""
    data = GOSSIP_PROTOCOL.encode(message)
    udp = struct.pack("!HHHH", 7000, 7000, 8 + len(data), 0) + data
    packet = struct.pack("!BBHHHBBH8s", 0x45, 0, 20 + len(udp), 0, 0, 64, 17, 0, bytes(8)) + udp
    assert carries_payload(memoryview(packet), port) is expected
