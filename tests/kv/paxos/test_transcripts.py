"""Golden transcripts: what replicas say to each other, word for word, when something typical happens.

A change of the protocol shows here as a difference to be read like code. `TRANSCRIPTS=write pytest
tests/kv/paxos/test_transcripts.py` writes them anew.
"""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from kv.operations import Operation
from kv.paxos import Settings
from kv.paxos.log import Slot, decode_entry, encode_entry
from kv.paxos.messages import PEER_MESSAGES, Ballot, Entry
from kv.records import Checked
from tests.kv.paxos.group import Group
from underlay.faults import Crash, Restart
from underlay.messages import Message
from underlay.node import Address, device_of
from underlay.simulation.incarnation import Incarnation

FOLDER = Path(__file__).parent.parent / "transcripts"
SETTINGS = Settings(heartbeats=3)
"""Fewer heartbeats, less to read."""


class Transcript:
    """Lines `time sender > receiver message`."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.names: dict[int, str] = {}
        self.listening = True

    def note(self, text: str) -> None:
        self.lines += ["", f"# {text}"]

    def heard(self, sender: Incarnation, peer: Address, message: Message) -> None:
        if self.listening and isinstance(message, PEER_MESSAGES):
            t_ms = sender.host.world.now * 1e3
            names = f"{device_of(sender.address)} > {device_of(peer)}"
            self.lines.append(f"{t_ms:7.1f} {names}  {self.told(message)}")

    def told(self, value: Any) -> str:
        """Short, and without what is drawn by lot: disks have the names of their devices."""
        match value:
            case Ballot(round_, disk):
                return f"{round_}.{self.names.get(disk, '-')}"
            case Entry(_, operations, members):
                told = [b" ".join(operation.command).decode() for operation in operations]
                told += [f"members {self.told(members)}"] if members else []
                return "; ".join(told) or "no-op"
            case Message():
                fields = {name: getattr(value, name) for name in value.__struct_fields__}
                told = [
                    f"{name}={self.told(field)}" for name, field in fields.items() if field not in ((), b"")
                ]
                return f"{type(value).__name__} {' '.join(told)}"
            case msgspec.Struct():
                return " ".join(self.told(getattr(value, name)) for name in value.__struct_fields__)
            case tuple():
                return "[" + ", ".join(self.told(item) for item in value) + "]"
            case bytes():
                try:
                    return self.told(decode_entry(value))
                except msgspec.DecodeError:
                    return f"{len(value)} B"
            case int() if value in self.names:
                return self.names[value]
            case _:
                return str(value)


@pytest.fixture
def transcript(monkeypatch: pytest.MonkeyPatch) -> Transcript:
    made, transmit = Transcript(), Incarnation.transmit

    def overheard(self: Incarnation, peer: Address, message: Message) -> None:
        made.heard(self, peer, message)
        transmit(self, peer, message)

    monkeypatch.setattr(Incarnation, "transmit", overheard)
    return made


@pytest.fixture
def golden(transcript: Transcript, request: pytest.FixtureRequest) -> Iterator[Callable[[Group], None]]:
    """Call it with the group as soon as that is there; after the test the transcript is compared."""

    def name_disks(group: Group) -> None:
        for name in group.names:
            transcript.names[group.replica(name).me.disk] = name

    yield name_disks
    path = FOLDER / f"paxos-{request.node.name.removeprefix('test_').replace('_', '-')}.txt"
    text = "\n".join(transcript.lines).strip() + "\n"
    if os.environ.get("TRANSCRIPTS") == "write":
        path.write_text(text)
    assert text == path.read_text(), f"{path.name} is not what was said"


Golden = Callable[[Group], None]


def test_founding_election_and_a_write(transcript: Transcript, golden: Golden) -> None:
    group = Group(settings=SETTINGS)
    golden(group)
    transcript.lines.append("# three empty replicas found a group")
    group.run(0.3)
    transcript.note("one write")
    group.send(group.leader(), (b"SET", b"a", b"1"))
    group.run(0.02)


def test_the_leader_crashes(transcript: Transcript, golden: Golden) -> None:
    group = Group(settings=SETTINGS)
    golden(group)
    transcript.listening = False
    group.run(1.0)
    transcript.listening = True
    transcript.lines.append(f"# {group.leader()} proposes, and crashes before it hears an answer")
    group.send(group.leader(), (b"SET", b"a", b"1"))
    group.run(0.0051)
    group.apply(Crash(group.leader()))
    group.run(1.0)


def test_a_hole_is_filled(transcript: Transcript, golden: Golden) -> None:
    """Our acceptors leave no gap, but Phase 1 must bear one: another implementation's might."""
    group = Group(settings=SETTINGS)
    golden(group)
    transcript.listening = False
    group.run(1.0)
    leader, kept = group.leader(), group.followers()[0]
    acceptor = group.replica(kept).acceptor
    entry = encode_entry(Entry(1.0, (Operation((b"SET", b"a", b"1")),)))
    position = acceptor.chosen + 2
    acceptor.log.add(position, Slot(acceptor.promised, entry, acceptor.chosen))
    live = group.world.endpoints[f"{kept}/g1"].live
    assert live is not None
    acceptor.log.write(Checked(live.store), position)
    transcript.listening = True
    transcript.lines.append(
        f"# {leader} crashes; {kept} has voted for position {position} and not {position - 1}"
    )
    group.apply(Crash(leader))
    group.run(1.0)
    (new,) = group.leaders()
    assert group.machine(new).records[b"ka"] == b"1"


def test_a_follower_is_caught_up_by_a_snapshot(transcript: Transcript, golden: Golden) -> None:
    settings = Settings(heartbeats=3, checkpoint_entries=4, retained_entries=2, message_bytes_max=100)
    group = Group(settings=settings)
    golden(group)
    transcript.listening = False
    group.run(1.0)
    away = group.followers()[0]
    group.apply(Crash(away))
    for number in range(8):
        group.send(group.leader(), (b"SET", b"k%d" % number, bytes(30)))
        group.run(0.02)
    group.apply(Restart(away))
    transcript.listening = True
    transcript.lines.append(f"# {away} comes back, and lacks what the others' logs have no more")
    group.run(0.4)
    assert group.machine(away).records == group.machine(group.leader()).records
