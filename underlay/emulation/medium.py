"""The state of the network under faults: which devices have no power, which hops are cut, where packets then
go.

Owns that state and carries every change of it to the enforcer and, `route_convergence_s` later, to the
kernels' routes. Knows nothing of processes. The same state machine as the simulation's carrier: a hop passes
packets while both its ends have power and nothing cuts it; LinkUp mends a pair whatever cut it, Heal mends
everything but power.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from underlay.emulation.enforcers import Enforcer
from underlay.emulation.net import Network
from underlay.emulation.unnumbered import replace_routes, route_table
from underlay.errors import InputError, nearest
from underlay.faults import (
    AnyFault,
    Crash,
    Degrade,
    FailDisk,
    Heal,
    LinkDown,
    LinkUp,
    LoseDisk,
    OneWayCut,
    Partition,
    Pause,
    Restart,
    Resume,
    RotDisk,
    SlowDisk,
    cut_edges,
)
from underlay.link import LinkSpec
from underlay.network import Network as Graph
from underlay.routes import Routes, shortest_paths

Pair = tuple[str, str]


class Medium:
    """A built network with whoever enforces its links."""

    def __init__(self, graph: Graph, network: Network, enforcer: Enforcer, routes: Routes) -> None:
        self.routes = routes
        self._graph = graph
        self._network = network
        self._enforcer = enforcer
        self._neighbours = graph.neighbours()
        self._down: dict[str, None] = {}
        self._cut: dict[Pair, None] = {}
        self._closed: dict[Pair, None] = {}

    @property
    def down(self) -> tuple[str, ...]:
        """Devices without power."""
        return tuple(self._down)

    @property
    def cut(self) -> tuple[Pair, ...]:
        """Hops that a fault of links keeps from passing anything, whoever has power."""
        return tuple(self._cut)

    def problem_with(self, fault: AnyFault) -> str:
        """Why this network cannot have that fault; empty if it can."""
        known = self._neighbours
        match fault:
            case Crash(device) | Restart(device) | Pause(device) | Resume(device):
                named: tuple[str, ...] = (device,)
            case SlowDisk(device) | FailDisk(device) | LoseDisk(device) | RotDisk(device):
                named = (device,)
            case LinkDown(a, b) | LinkUp(a, b) | OneWayCut(a, b) | Degrade(a, b):
                named = (a, b)
            case Partition(groups):
                named = tuple(device for group in groups for device in group)
            case _:
                named = ()
        for device in named:
            if device not in known:
                near = nearest(device, known)
                return f"there is no device {device!r}" + (f", did you mean {near!r}?" if near else "")
        match fault:
            case LinkDown(a, b) | LinkUp(a, b) | OneWayCut(a, b) | Degrade(a, b) if b not in known[a]:
                return f"{a} and {b} are no neighbours"
            case Degrade():
                try:
                    for medium, _, _, spec in self._changed_specs(fault):
                        self._enforcer.check(medium, spec)
                except (ValueError, TypeError, InputError) as error:
                    return str(error)
        return ""

    def set_power(self, device: str, up: bool) -> None:
        """A device's links go silent, or carry again what no other fault keeps cut."""
        if up:
            self._down.pop(device, None)
        else:
            self._down[device] = None
        self._enforce()

    def apply(self, fault: AnyFault) -> bool:
        """Carry out a fault of links; returns whether routes can change by it."""
        match fault:
            case LinkDown(a, b):
                self._cut.update(dict.fromkeys(((a, b), (b, a))))
            case LinkUp(a, b):
                self._mend(((a, b), (b, a)))
            case OneWayCut(source, target):
                self._cut[source, target] = None
            case Partition():
                for a, b in cut_edges(fault, self._graph):
                    self._cut.update(dict.fromkeys(((a, b), (b, a))))
            case Heal():
                self._cut.clear()
            case Degrade():
                self._degrade(fault)
                return False
            case _:
                raise TypeError(f"{type(fault).__name__} is no fault of links")
        self._enforce()
        return True

    def converge(self) -> int:
        """Give every living device the routes over what is up now; returns how many entries there are."""
        self.routes = shortest_paths(self._graph, down=self._down, cut=self._cut)
        replace_routes(self._network, route_table(self._network, self.routes))
        return sum(len(table) for table in self.routes.values())

    def _mend(self, pairs: Iterable[Pair]) -> None:
        for pair in pairs:
            self._cut.pop(pair, None)

    def _enforce(self) -> None:
        closed = dict(self._cut)
        for device in self._down:
            for other in self._neighbours[device]:
                closed[device, other] = closed[other, device] = None
        newly = [pair for pair in closed if pair not in self._closed]
        again = [pair for pair in self._closed if pair not in closed]
        self._closed = closed
        if newly:
            self._enforcer.cut(newly)
        if again:
            self._enforcer.mend(again)

    def _degrade(self, fault: Degrade) -> None:
        for medium, source, target, spec in self._changed_specs(fault):
            self._enforcer.reshape(medium, source, target, spec)

    def _changed_specs(self, fault: Degrade) -> list[tuple[str, str, str, LinkSpec]]:
        found = []
        for source, target in ((fault.a, fault.b), (fault.b, fault.a)):
            link = self._graph.link(source, target)
            if link is not None:
                found.append((link.name, source, target, fault.applied_to(link.spec_from(source))))
            found += [
                (channel.name, source, target, fault.applied_to(channel.spec))
                for channel in self._graph.channels
                if (source, target) in channel.pairs or (target, source) in channel.pairs
            ]
        return found


def hop_counts(routes: Routes) -> dict[str, dict[str, int]]:
    """How many hops a packet takes, for each source and each destination that it can reach.

    >>> hop_counts({"a": {"b": "b", "c": "b"}, "b": {"a": "a", "c": "c"}, "c": {}})["a"]
    {'b': 1, 'c': 2}
    """
    counts: dict[str, dict[str, int]] = {source: {} for source in routes}
    for source, table in routes.items():
        for destination in table:
            _count(routes, counts, source, destination)
    return counts


def _count(routes: Routes, counts: Mapping[str, dict[str, int]], source: str, destination: str) -> None:
    passed: list[str] = []
    here = source
    while here != destination and destination not in counts.get(here, {}):
        following = routes.get(here, {}).get(destination)
        if following is None or here in passed:
            return
        passed.append(here)
        here = following
    rest = 0 if here == destination else counts[here][destination]
    for distance, device in enumerate(reversed(passed), rest + 1):
        counts[device][destination] = distance
