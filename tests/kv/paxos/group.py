"""A group of Paxos replicas in the simulation, and what tests do to it and ask of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial

from kv.messages import Answered, NotHere, Status, Submit
from kv.operations import Command, Outcome
from kv.paxos import Paxos, Settings, paxos
from kv.paxos.log import decode_entry
from kv.paxos.messages import Entry
from kv.server import Server
from tests.kv.small import Ask, Asker, SmallMachine, submit
from underlay.clock import DeviceClock
from underlay.faults import AnyFault, Crash, Restart
from underlay.link import LinkSpec
from underlay.node import Node
from underlay.simulation import World, every_pair, plan_of

LAN = LinkSpec(rate_kbps=100_000.0, delay_ms=1.0)


class Group:
    """Replicas on `s1`, `s2`, ..., a client on `c`, everybody linked with everybody.

    Args:
        size: members at the founding.
        replacing: further hosts, which are down at first, and whose place each is to take.
        clerks: further clients.
    """

    def __init__(
        self,
        size: int = 3,
        *,
        seed: int = 0,
        settings: Settings | None = None,
        link: LinkSpec = LAN,
        clocks: Mapping[str, DeviceClock] | None = None,
        replacing: Mapping[str, str] | None = None,
        check_codec: bool = True,
        disk_sync_ms: float = 1.0,
        clerks: Mapping[str, Callable[[], Node]] | None = None,
    ) -> None:
        self.names = [f"s{number}" for number in range(1, size + 1)]
        members = [f"{name}/g1" for name in self.names]
        replacing = replacing or {}
        hosts: dict[str, dict[str, Callable[[], Node]]] = {}
        for name in [*self.names, *replacing]:
            old = replacing.get(name)
            hosts[name] = {"g1": partial(_server, members, settings, f"{old}/g1" if old else "")}
        hosts["c"] = {"asker": Asker}
        self.clerks = list(clerks or ())
        hosts |= {name: {"clerk": make} for name, make in (clerks or {}).items()}
        plan = plan_of(
            hosts,
            every_pair(hosts),
            link=link,
            clocks=clocks,
            seed=seed,
            route_convergence_s=None,
            disk_sync_ms=disk_sync_ms,
        )
        self.world = World(plan, check_codec=check_codec)
        self.settings = settings or Settings()
        self._number = 0
        self._hosts = [*self.names, *replacing]
        for name in replacing:
            self.world.apply(Crash(name))

    # ------------------------------------------------------------------------------------- what is done to it

    def run(self, duration_s: float) -> None:
        self.world.run_until(self.world.now + duration_s)

    def apply(self, *faults: AnyFault) -> None:
        for fault in faults:
            self.world.apply(fault)

    def send(self, name: str, *commands: Command, session: int = 0, sequence: int = 0) -> int:
        """Ask a replica; returns the question's number."""
        return self.ask(name, submit(0, *commands, session=session, sequence=sequence))

    def ask(self, name: str, question: Submit) -> int:
        self._number += 1
        question = Submit(self._number, question.operations, question.stale)
        self.world.inject("c/asker", Ask(f"{name}/g1", question))
        return self._number

    def do(self, *commands: Command, within_s: float = 1.0) -> tuple[Outcome, ...]:
        """Have the leader execute commands; returns their outcomes."""
        number = self.send(self.leader(), *commands)
        self.run(within_s)
        outcomes = self.outcomes(number)
        assert outcomes is not None, f"no answer within {within_s} s"
        return outcomes

    # ------------------------------------------------------------------------------------ what is asked of it

    def replies(self, number: int) -> list[Answered | NotHere | Status]:
        node = self.world.node("c/asker")
        assert isinstance(node, Asker)
        return node.answers.get(number, [])

    def outcomes(self, number: int) -> tuple[Outcome, ...] | None:
        for reply in self.replies(number):
            if isinstance(reply, Answered):
                return reply.outcomes
        return None

    def replica(self, name: str) -> Paxos:
        replication = self.server(name).replication
        assert isinstance(replication, Paxos)
        return replication

    def server(self, name: str) -> Server:
        node = self.world.node(f"{name}/g1")
        assert isinstance(node, Server)
        return node

    def machine(self, name: str) -> SmallMachine:
        machine = self.server(name).machine
        assert isinstance(machine, SmallMachine)
        return machine

    def up(self) -> list[str]:
        return [name for name in self._hosts if self.world.endpoints[f"{name}/g1"].live is not None]

    def leaders(self) -> list[str]:
        return [name for name in self.up() if self.replica(name).leading]

    def leader(self) -> str:
        (leader,) = self.leaders()
        return leader

    def followers(self) -> list[str]:
        return [name for name in self.up() if not self.replica(name).leading]

    def messages_sent(self) -> dict[str, int]:
        """How many of each kind, the last second's not all among them."""
        counts: dict[str, int] = {}
        for record in self.world.records():
            if record["event"] == "messages-sent":
                counts[record["message"]] = counts.get(record["message"], 0) + record["count"]
        return counts

    def restart(self, names: Iterable[str]) -> None:
        self.apply(*[Restart(name) for name in names])


class Agreement:
    """What was chosen, as every replica tells it over a whole run: no two may ever differ at a position, and
    whatever has executed as far must be in the same state."""

    def __init__(self, group: Group) -> None:
        self._group = group
        self.chosen: dict[int, Entry] = {}
        self._states: dict[int, tuple[str, dict[bytes, bytes]]] = {}
        self._looked: dict[str, int] = {}

    def look(self) -> None:
        """Compare what can be seen now."""
        for name in self._group.up():
            replica = self._group.replica(name)
            acceptor = replica.acceptor
            for position in range(acceptor.log.first, acceptor.chosen + 1):
                slot = acceptor.log.get(position)
                if slot is None:
                    continue
                entry = decode_entry(slot.entry)
                known = self.chosen.setdefault(position, entry)
                assert known == entry, f"position {position}: {name} has {entry}, somebody had {known}"
            applied = replica.execution.applied
            records = self._group.machine(name).records
            other, state = self._states.setdefault(applied, (name, dict(records)))
            assert state == records, f"after {applied} entries {name} and {other} differ"

    def run(self, duration_s: float, every_s: float = 0.1) -> None:
        """Let time pass, looking often."""
        end_s = self._group.world.now + duration_s
        while self._group.world.now < end_s:
            self._group.run(min(every_s, end_s - self._group.world.now))
            self.look()


def _server(members: Sequence[str], settings: Settings | None, replaces: str) -> Server:
    return Server("g1", paxos(members, settings, replaces=replaces), SmallMachine())


def commands(name: bytes, count: int, first: int = 0) -> Sequence[Command]:
    """Appends of distinct numbers to a key."""
    return [(b"APPEND", name, b"%d," % number) for number in range(first, first + count)]
