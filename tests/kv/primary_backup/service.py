"""A primary/backup service in the simulation, and what tests do to it and ask of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from kv.machine import KeyValueMachine
from kv.messages import Answered, NotHere, Status, Submit
from kv.operations import Command, Outcome
from kv.primary_backup import PrimaryBackup, Settings, ViewService, primary_backup
from kv.primary_backup.messages import View
from kv.server import Server
from tests.kv.small import Ask, Asker, submit
from underlay.clock import DeviceClock
from underlay.faults import AnyFault
from underlay.link import LinkSpec
from underlay.messages import Message
from underlay.node import Address, Node
from underlay.simulation import Rule, World, every_pair, plan_of

LAN = LinkSpec(rate_kbps=100_000.0, delay_ms=1.0)


class Service:
    """Servers on `s1`, `s2`, ..., the view service on `v`, a client on `c`, everybody linked with everybody.

    The first view begins when all servers are there, so the one in office after `run` is `s1`.
    """

    def __init__(
        self,
        size: int = 3,
        *,
        seed: int = 0,
        settings: Settings | None = None,
        clocks: Mapping[str, DeviceClock] | None = None,
        tamper: Sequence[Rule] = (),
        more: Mapping[str, Mapping[str, Callable[[], Node]]] | None = None,
        faults: Sequence[tuple[float, AnyFault]] = (),
        disk_sync_ms: float = 1.0,
    ) -> None:
        self.names = [f"s{number}" for number in range(1, size + 1)]
        servers = [f"{name}/g1" for name in self.names]
        replicate = primary_backup("v/views", settings)
        hosts: dict[str, Mapping[str, Callable[[], Node]]] = {
            name: {"g1": lambda: Server("g1", replicate, KeyValueMachine())} for name in self.names
        }
        hosts["v"] = {"views": lambda: ViewService(servers, settings)}
        hosts["c"] = {"asker": Asker}
        hosts.update(more or {})
        plan = plan_of(
            hosts,
            every_pair(hosts),
            link=LAN,
            clocks=clocks,
            faults=faults,
            seed=seed,
            route_convergence_s=None,
            disk_sync_ms=disk_sync_ms,
        )
        self.world = World(plan, check_codec=True, tamper=tamper)
        self._number = 0

    # ------------------------------------------------------------------------------------- what is done to it

    def run(self, duration_s: float) -> None:
        self.world.run_until(self.world.now + duration_s)

    def apply(self, *faults: AnyFault) -> None:
        for fault in faults:
            self.world.apply(fault)

    def send(
        self, name: str, *commands: Command, session: int = 0, sequence: int = 0, stale: bool = False
    ) -> int:
        """Ask a server; returns the question's number."""
        self._number += 1
        operations = submit(0, *commands, session=session, sequence=sequence).operations
        self.world.inject("c/asker", Ask(f"{name}/g1", Submit(self._number, operations, stale)))
        return self._number

    def do(self, *commands: Command, within_s: float = 1.0) -> list[object]:
        """Have the primary execute commands; returns values and failures."""
        return self.do_at(self.primary(), *commands, within_s=within_s)

    def do_at(self, name: str, *commands: Command, within_s: float = 1.0) -> list[object]:
        """Have that server execute commands."""
        number = self.send(name, *commands)
        self.run(within_s)
        outcomes = self.outcomes(number)
        assert outcomes is not None, f"no answer within {within_s} s: {self.view()}"
        return [outcome.failure or outcome.value for outcome in outcomes]

    def inject(self, name: str, message: Message, sender: Address) -> None:
        """A message that arrives from another server, whenever that sent it."""
        self.world.inject(f"{name}/g1", message, sender)

    # ------------------------------------------------------------------------------------ what is asked of it

    def replies(self, number: int) -> list[Answered | NotHere | Status]:
        node = self.world.node("c/asker")
        assert isinstance(node, Asker)
        return node.answers.get(number, [])

    def outcomes(self, number: int) -> tuple[Outcome, ...] | None:
        """Of the operations of a question, if anybody answered it."""
        for reply in self.replies(number):
            if isinstance(reply, Answered):
                return reply.outcomes
        return None

    def views(self) -> ViewService:
        node = self.world.node("v/views")
        assert isinstance(node, ViewService)
        return node

    def view(self) -> View:
        return self.views().standing.view

    def roles(self) -> tuple[str, str]:
        """The devices of primary and backup, as the view service has it; empty: none."""
        view = self.view()
        names = [m.address.partition("/")[0] if m is not None else "" for m in (view.primary, view.backup)]
        return names[0], names[1]

    def replica(self, name: str) -> PrimaryBackup:
        node = self.world.node(f"{name}/g1")
        assert isinstance(node, Server)
        assert isinstance(node.replication, PrimaryBackup)
        return node.replication

    def records(self, name: str) -> list[tuple[bytes, bytes]]:
        """The state of a server's machine."""
        return list(self.replica(name).journal.machine.freeze())

    def up(self) -> list[str]:
        return [name for name in self.names if self.world.endpoints[f"{name}/g1"].live is not None]

    def leading(self) -> list[str]:
        """All who believe to be primary."""
        return [name for name in self.up() if self.replica(name).leading]

    def primary(self) -> str:
        (primary,) = self.leading()
        return primary

    def synced(self) -> bool:
        return self.views().standing.synced


def ready(size: int = 3, settings: Settings | None = None, **more: object) -> Service:
    """A service whose primary is `s1`, and whose backup, if there is one, is ready."""
    service = Service(size, settings=settings, **more)  # type: ignore[arg-type]
    service.run(1.0)
    assert service.primary() == "s1"
    assert service.synced() == (size > 1)
    return service
