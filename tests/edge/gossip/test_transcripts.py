"""Plumtree's moves as transcripts: a scenario of a few lines, and every message that it causes.

The expected transcripts are in `transcripts/`, one file a scenario. After a wanted change write them anew
with `python -m tests.edge.gossip.test_transcripts` and review the difference as code.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest

from edge.gossip import GossipConfig, GossipPeer
from edge.gossip.messages import Gossip, Graft, IHave, ItemId, Offer, Prune, Want
from edge.observation import Observation, ObservationId, Observed
from tests.edge.gossip.networks import WIRE, Town, line
from underlay.faults import Crash, LinkDown, LinkUp, Restart
from underlay.messages import Message
from underlay.node import Address, Context
from underlay.simulation import every_pair

FOLDER = Path(__file__).parent / "transcripts"


class Log(Town):
    """A town that writes down who receives what from whom, from when it is told to."""

    def __init__(self, edges: object) -> None:
        super().__init__(edges, link=WIRE)  # type: ignore[arg-type]
        self.lines: list[str] = []
        for endpoint in self.world.endpoints.values():
            assert endpoint.live is not None
            self._tap(endpoint.host.name, endpoint.live)

    def _tap(self, device: str, live: object) -> None:
        handle = live.handle  # type: ignore[attr-defined]

        def logged(ctx: Context, sender: Address, message: Message) -> None:
            if not isinstance(message, Observed):
                peer = sender.partition("/")[0]
                self.lines.append(f"{1e3 * self.world.now:8.0f} ms  {peer} > {device}  {told(message)}")
            handle(ctx, sender, message)

        live.handle = logged  # type: ignore[attr-defined]

    def note(self, text: str) -> None:
        """A remark in the transcript."""
        self.lines.append(f"-- {text}")


def told(message: Message) -> str:
    """A message as a line of the transcript."""
    match message:
        case Gossip(item, chunk, count, hops, eager, _):
            part = f" chunk {chunk + 1}/{count}" if count > 1 else ""
            return f"Gossip {name(item)}{part} hops={hops}{'' if eager or part else ' repair'}"
        case Offer(item, count, hops, eager):
            return f"Offer {name(item)} of {count} chunks hops={hops}{'' if eager else ' repair'}"
        case IHave(streams, _, _, answer):
            held = ", ".join(f"{stream.stream.device} {list(stream.bounds)}" for stream in streams)
            return f"IHave {held or 'nothing new'}{' answer!' if answer else ''}"
        case Graft(wants, eager):
            wanted = ", ".join(want_of(want) for want in wants)
            return f"Graft{' eager' if eager else ''}{' ' + wanted if wanted else ''}"
    assert isinstance(message, Prune)
    return "Prune"


def name(item: ItemId) -> str:
    """Without the epoch, which is a random number."""
    return f"{item.stream.device}:{item.number}"


def want_of(want: Want) -> str:
    """An item, and which chunks of it."""
    bits = int.from_bytes(want.chunks, "little")
    return name(want.item) + (f" chunks {bits:b}" if bits else "")


def a_triangle_becomes_a_tree() -> Log:
    """All three are eager with each other; the first broadcast prunes the redundant edge."""
    town = Log(every_pair("abc"))
    town.run(0.15)
    town.note("a tells")
    town.tell("a")
    town.run(0.2)
    town.note("a tells again")
    town.tell("a")
    town.run(0.2)
    return town


def a_lost_item_is_announced_and_asked_for() -> Log:
    """The link is down for a moment while an item passes."""
    town = Log(line("a", "b"))
    town.run(0.5)
    town.world.apply(LinkDown("a", "b"))
    town.note("the link is down; a tells")
    town.tell("a")
    town.run(0.1)
    town.world.apply(LinkUp("a", "b"))
    town.note("the link is up")
    town.run(2.0)
    return town


def a_large_item_is_offered_and_fetched_in_windows() -> Log:
    """Six chunks over two hops: c asks b before b has them."""
    town = Log(line("a", "b", "c"))
    town.run(0.2)
    town.note("a tells 6000 bytes")
    town.tell("a", Random(1).randbytes(6000))
    town.run(0.6)
    return town


def a_silent_parent_is_replaced() -> Log:
    """b hears all from a, until a has no power; c knows what b lacks."""
    town = Log([("a", "b"), ("a", "c"), ("b", "c")])
    for _ in range(40):
        town.tell("a")
        town.run(0.1)
    town.lines.clear()
    town.world.apply(Crash("a"))
    town.note("a has no power; c tells from now on")
    for _ in range(12):
        town.tell("c")
        town.run(0.1)
    return town


SCENARIOS: dict[str, Callable[[], Log]] = {
    "prune": a_triangle_becomes_a_tree,
    "repair": a_lost_item_is_announced_and_asked_for,
    "large": a_large_item_is_offered_and_fetched_in_windows,
    "silence": a_silent_parent_is_replaced,
}


def written(scenario: str) -> str:
    """The transcript as in its file."""
    make = SCENARIOS[scenario]
    return f"# {make.__doc__}\n" + "\n".join(make().lines) + "\n"


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_transcript(scenario: str) -> None:
    """Message for message."""
    assert written(scenario) == (FOLDER / f"{scenario}.txt").read_text()


def test_strangers_and_malformed_observations_change_nothing() -> None:
    """Only neighbours are heard, and what is no observation is passed on but not delivered."""
    town = Log(line("a", "b"))
    town.run(0.2)
    peer = town.peer("b")
    stream = town.peer("a")._stream
    town.world.inject("b/gossip", Gossip(ItemId(stream, 0), 0, 1, 1, True, b"junk"), sender="mallory/gossip")
    town.run(0.1)
    assert not peer.holdings.items
    town.world.inject("b/gossip", Gossip(ItemId(stream, 0), 0, 1, 1, True, b"junk"), sender="a/gossip")
    town.run(0.1)
    assert len(peer.holdings.items) == 1
    assert not town.delivered()
    assert [record["reason"] for record in town.records("discarded")] == ["malformed"]


def test_a_restarted_origin_counts_anew_and_nothing_is_mistaken() -> None:
    """Its items of both lives are told apart."""
    town = Log(line("a", "b"))
    town.tell("a")
    town.run(1.0)
    town.world.apply(Crash("a"))
    town.world.apply(Restart("a"))
    town.run(1.0)
    town.tell("a")
    town.run(3.0)
    assert set(town.delivered()) == {"a:0", "a:1"}
    assert len(town.hashes()) == 1


def test_config_is_public() -> None:
    """What builders of experiments use."""
    observation = Observation(ObservationId("a", 0), "motion", 0.0, 0.0, b"")
    assert GossipPeer(GossipConfig(("b",))).protocol.types
    assert Observed(observation).transport == "local"


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for each in SCENARIOS:
        (FOLDER / f"{each}.txt").write_text(written(each))
