"""Messages that get lost, doubled or delayed above the transport, by rule and by the seed.

Links lose packets, and TCP repairs that: nothing that a link does loses one message in the middle of a
stream. In a real network a proxy, a queue or a peer that is about to die does. This stands for them: it takes
messages as nodes send them to other devices, streams' as well as datagrams', and owns what becomes of each. A
run without rules pays nothing for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from math import inf
from random import Random
from typing import TYPE_CHECKING

import msgspec

from underlay.messages import Message
from underlay.node import Address
from underlay.simulation.agenda import Agenda

if TYPE_CHECKING:
    from underlay.simulation.incarnation import Incarnation
    from underlay.simulation.ways import Way


class Rule(msgspec.Struct, frozen=True):
    """What happens to some of the messages that nodes of different devices send each other.

    >>> requests_lost = Rule((Message,), target="store?/g1", lost_ratio=0.1)
    """

    messages: tuple[type[Message], ...] = ()
    """Of these types; none named: of all."""
    source: str = "*"
    """Pattern (`fnmatch`) of the senders' addresses."""
    target: str = "*"
    """Pattern of the addresses they send to."""
    lost_ratio: float = 0.0
    duplicated_ratio: float = 0.0
    """Of those that are not lost: they are sent twice."""
    delayed_ratio: float = 0.0
    """Of what is left, doubles included: these wait, and may be overtaken by any other."""
    delay_s: float = 0.1
    """The longest of these waits; they are uniform."""
    from_s: float = 0.0
    to_s: float = inf
    """Global time within which the rule holds."""

    def concerns(self, source: Address, target: Address) -> bool:
        """Whether it is about messages from there to there."""
        return fnmatchcase(source, self.source) and fnmatchcase(target, self.target)

    def holds(self, message: Message, t_s: float) -> bool:
        """Whether it is about this message, sent at `t_s`."""
        return self.from_s <= t_s < self.to_s and (not self.messages or isinstance(message, self.messages))


class Tamper:
    """The rules of a run. For each message the first that holds is the one that counts."""

    def __init__(self, rules: Sequence[Rule], rng: Random, agenda: Agenda) -> None:
        self.rng = rng
        self.agenda = agenda
        self._rules = rules

    def on(self, way: Way, source: Address, target: Address) -> Way:
        """`way`, with whatever the rules do to it."""
        rules = [rule for rule in self._rules if rule.concerns(source, target)]
        return _TamperedWay(self, way, rules) if rules else way


class _TamperedWay:
    __slots__ = ("_rules", "_tamper", "_way")

    def __init__(self, tamper: Tamper, way: Way, rules: Sequence[Rule]) -> None:
        self._tamper = tamper
        self._way = way
        self._rules = rules

    def send(self, sender: Incarnation, message: Message) -> None:
        now_s = self._tamper.agenda.now
        rule = next((rule for rule in self._rules if rule.holds(message, now_s)), None)
        if rule is None:
            self._way.send(sender, message)
            return
        chance = self._tamper.rng.random
        if chance() < rule.lost_ratio:
            return
        for _ in range(2 if chance() < rule.duplicated_ratio else 1):
            if chance() < rule.delayed_ratio:
                self._tamper.agenda.at(now_s + rule.delay_s * chance(), self._send_late, sender, message)
            else:
                self._way.send(sender, message)

    def _send_late(self, sender: Incarnation, message: Message) -> None:
        if sender.alive:
            self._way.send(sender, message)
