"""A router in the simulation between clients and replicas that are played by a test."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TypeVar

from kv.messages import CLIENT_MESSAGES, Answered, AskStatus, NotHere, Status, Submit
from kv.operations import OK, Command, Outcome
from kv.redis.directory import Directory
from kv.redis.messages import Asked, Closed, Opened, Replied
from kv.redis.router import PATIENCE_S, Router
from kv.sharding.config import Configuration, join
from underlay.messages import Message, Protocol
from underlay.node import Address, Context, Node, device_of
from underlay.plan import BindingPlan
from underlay.simulation import World, every_pair, plan_of

Taken = TypeVar("Taken", bound=Message)

ADVERTISED = {"s1": ("10.0.0.1", 6379), "s2": ("10.0.0.2", 6379), "s3": ("10.0.0.3", 6379)}


class Played(Node):
    """Keeps what it is told. A replica says how it is, when asked; `leaders` are the groups'."""

    protocol = Protocol("played", *CLIENT_MESSAGES)

    def __init__(self, leaders: Mapping[str, Address] | None = None) -> None:
        self.heard: list[Message] = []
        self.leaders = leaders or {}

    def on_message(self, ctx: Context, sender: Address, message: Message) -> None:
        if isinstance(message, AskStatus):
            group = ctx.address.partition("/")[2]
            leader = self.leaders.get(group, "")
            role = "leader" if leader == ctx.address else "follower"
            ctx.send(
                sender,
                Status(message.number, group, role, leader, "1", (), 7, 6, 1, 5, 3, ((0, 16383),)),
            )
        else:
            self.heard.append(message)


class Desk:
    """The router on `s1`, and what surrounds it.

    Args:
        groups: devices of each group's replicas; those on `s1` are played by the test.
        leaders: address of each group's leader, as its replicas tell who ask for their status.
        controller: replicas of a shard controller, on devices that are there.
    """

    def __init__(
        self,
        groups: Mapping[str, Sequence[str]],
        leaders: Mapping[str, str] | None = None,
        controller: Sequence[Address] = (),
    ) -> None:
        self.configuration = configuration_of(groups)
        nodes: dict[str, dict[str, Callable[[], Node]]] = {
            device: {group: partial(Played, leaders) for group, on in groups.items() if device in on}
            for device in ADVERTISED
        }
        for replica in controller:
            nodes[device_of(replica)]["ctl"] = Played
        for there in nodes.values():
            there["redis"] = lambda: Router(Directory(self.configuration, controller))
        plan = plan_of(
            nodes,
            every_pair(nodes),
            bindings={"s1": [BindingPlan("@redis", Played, Played, 6379)]},  # type: ignore[arg-type]
        )
        self.world = World(plan)
        self.run()

    def run(self, duration_s: float = 0.01) -> None:
        self.world.run_until(self.world.now + duration_s)

    def open(self, *connections: int, advertised: Mapping[str, tuple[str, int]] = ADVERTISED) -> None:
        """Clients come."""
        for connection in connections:
            self._tell(Opened(connection, "10.0.9.9:5", "10.0.0.1:6379", advertised))

    def close(self, connection: int) -> None:
        self._tell(Closed(connection))

    def ask(self, *batches: Sequence[Command]) -> None:
        """The first batch is connection 1's, the second 2's, and so on; all in one turn."""
        self._tell(
            Asked(
                tuple(
                    (number, list(commands), sum(map(len, sum(commands, ()))))
                    for number, commands in enumerate(batches, 1)
                    if commands
                )
            )
        )

    def replies(self) -> list[tuple[int, bytes]]:
        """What went to clients since the last call."""
        return [batch for message in self._taken("s1/@redis", Replied) for batch in message.batches]

    def submits(self, replica: Address = "s1/g1") -> list[Submit]:
        """What a replica was asked since the last call."""
        return self._taken(replica, Submit)

    def answer(self, submit: Submit, *outcomes: Outcome, replica: Address = "s1/g1") -> None:
        """A replica answers; without outcomes: everything is OK."""
        told = outcomes or (OK,) * len(submit.operations)
        self._tell(Answered(submit.number, tuple(told)), replica)

    def turn_away(
        self, submit: Submit, leader: Address = "", reason: str = "not leading", replica: Address = "s1/g1"
    ) -> None:
        """A replica says that it is not here."""
        self._tell(NotHere(submit.number, leader, reason), replica)

    def _tell(self, message: Message, sender: Address = "@redis") -> None:
        self.world.inject("s1/redis", message, sender)
        self.run()

    def _taken(self, address: Address, kind: type[Taken]) -> list[Taken]:
        node = self.world.node(address)
        assert isinstance(node, Played)
        taken = [message for message in node.heard if isinstance(message, kind)]
        node.heard.clear()
        return taken


def configuration_of(groups: Mapping[str, Sequence[str]]) -> Configuration:
    """Groups that share the slots."""
    configuration = Configuration()
    for group, devices in groups.items():
        configuration = join(configuration, group, [f"{device}/{group}" for device in devices])
    return configuration


def commands_of(submit: Submit) -> list[Command]:
    return [operation.command for operation in submit.operations]


__all__ = ["ADVERTISED", "PATIENCE_S", "Desk", "commands_of", "configuration_of"]
