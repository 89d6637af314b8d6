"""Who has which slot, and who leads: what a router knows of the other hosts.

Owns the last configuration heard of and a guess of every group's leader. A guess may be wrong: then the
client is redirected once more than needed, and never answered wrongly, because only a replica that leads
answers.

Where there is one group, the configuration is given once. Where there are several, it comes from the shard
controller: any of its replicas is asked now and then, and at once when a replica disowned a slot.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from kv.messages import Answered, AskStatus, Status, Submit
from kv.operations import Operation
from kv.sharding.config import Configuration, join
from underlay.node import Address, Context, device_of

PAUSE_S = 0.05
"""Between two questions to the controller."""

_QUERY = (Operation((b"BH.QUERY",)),)


class Directory:
    """Args:
    configuration: what is known before anybody is asked.
    controller: replicas of the shard controller; none: the configuration stays.
    """

    def __init__(self, configuration: Configuration, controller: Iterable[Address] = ()) -> None:
        self.controller = tuple(controller)
        self._leaders: dict[str, str] = {}
        self._asked: dict[str, bool] = {}
        """Groups whose leader was asked for and has not been heard of since."""
        self._place = 0
        self._asked_controller_s = float("-inf")
        self._here: dict[str, dict[str, Address]] = {}
        self.configuration = configuration
        self._table = configuration.table()
        self._adopt(configuration)

    @classmethod
    def of_one_group(cls, group: str, replicas: Iterable[Address]) -> Directory:
        """All slots are one group's."""
        return cls(join(Configuration(), group, replicas))

    @property
    def only(self) -> str | None:
        """The group that has all slots and always will, or None."""
        return self._only

    def group_of(self, slot: int) -> str:
        """The group of a slot; empty: nobody's yet."""
        return self._table[slot]

    def leader_of(self, group: str) -> str | None:
        """The device that leads a group, as far as anybody said."""
        return self._leaders.get(group)

    def replicas_of(self, group: str) -> tuple[Address, ...]:
        """Addresses of a group's replicas."""
        return self.configuration.groups.get(group, ())

    def here(self, device: str) -> Mapping[str, Address]:
        """The replicas on that device, by group."""
        found = self._here.get(device)
        if found is None:
            found = self._here[device] = {
                group: replica
                for group, replicas in self.configuration.groups.items()
                for replica in replicas
                if device_of(replica) == device
            }
        return found

    def on_its_way(self, slot: int) -> bool:
        """Whether a slot has changed hands lately, so that its new owner may make us wait for it."""
        return slot in self._moving

    # ----------------------------------------------------------------------------------------------- learning

    def ask(self, ctx: Context) -> None:
        """Ask for news: the controller for the configuration, and of every group without a replica here the
        leader, or all replicas where it did not answer last time."""
        if self.controller:
            self.ask_controller(ctx)
        here = self.here(ctx.device)
        for group, replicas in self.configuration.groups.items():
            if group in here:
                continue
            leader = self._leaders.get(group)
            silent = self._asked.get(group, True)
            for replica in replicas:
                if silent or device_of(replica) == leader:
                    ctx.send(replica, AskStatus(0))
            self._asked[group] = True

    def ask_controller(self, ctx: Context) -> None:
        """Ask the next of the controller's replicas for its latest configuration, unless that was done just
        now."""
        if self.controller and ctx.now - self._asked_controller_s >= PAUSE_S:
            self._asked_controller_s = ctx.now
            self._place = (self._place + 1) % len(self.controller)
            ctx.send(self.controller[self._place], Submit(0, _QUERY, stale=True))

    def heard(self, status: Status) -> None:
        """A replica said how it is."""
        if status.leader:
            self.leads(status.group, status.leader)
            self._asked[status.group] = False
        elif status.role == "leader":
            self._asked[status.group] = False

    def answered(self, answer: Answered) -> None:
        """The controller answered."""
        encoded = answer.outcomes[0].value
        if isinstance(encoded, bytes):
            configuration = Configuration.decode(encoded)
            if configuration.number > self.configuration.number:
                self._adopt(configuration)

    def served(self, slot: int) -> None:
        """A replica executed something about a slot: nobody has to wait for it any more."""
        self._moving.discard(slot)

    def leads(self, group: str, leader: Address) -> None:
        """Somebody said who leads a group; empty: that nobody does."""
        if leader:
            self._leaders[group] = device_of(leader)
        else:
            self._leaders.pop(group, None)

    def _adopt(self, configuration: Configuration) -> None:
        before, self._table = self._table, configuration.table()
        self._moving = {
            slot for slot, (old, new) in enumerate(zip(before, self._table, strict=True)) if old != new
        }
        self.configuration, self._here = configuration, {}
        groups = list(configuration.groups)
        self._only = groups[0] if len(groups) == 1 and not self.controller else None
