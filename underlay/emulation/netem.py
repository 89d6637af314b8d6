"""netem as the enforcer of a run: the kernel delays and loses, we tell it what and count what it did.

Owns `NetemLink`, a veth pair whose ends carry the disciplines of `netem_qdisc`; and `Netem`, which does for a
whole network of them what the ether does for TAPs: faults, `LinkUsage` every interval, the books at the end.
What the kernel cannot tell is not made up: users' bytes are not told from others (`data_bytes` is 0), and
bytes of lost frames are reckoned at the mean size of the others.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from time import monotonic
from typing import Any

from underlay.emulation import netem_qdisc as qdisc
from underlay.emulation import rtnetlink
from underlay.emulation.ether_hops import HopTotals
from underlay.emulation.hosts import namespace_of
from underlay.emulation.links import VethLink, take_specs
from underlay.emulation.namespace import Namespace
from underlay.emulation.net import Network
from underlay.emulation.reactor import Reactor
from underlay.errors import InputError
from underlay.faults import Degrade
from underlay.link import LinkSpec
from underlay.plan import Plan
from underlay.trace import LinkUsage, TraceWriter


class NetemLink(VethLink):
    """A wire with what the spec says, in the kernel. Takes the same parameters as `TapLink`, and so
    TCLink's.

    Raises InputError for what netem cannot do, NetlinkError where the kernel has no netem.
    """

    def __init__(self, node1: Any, node2: Any, *, name: str | None = None, **params: Any) -> None:
        self.name = name or f"{node1}-{node2}"
        (self.forward, self.backward), rest = take_specs(self.name, params)
        for spec in (self.forward, self.backward):
            qdisc.refuse(spec, self.name)
        super().__init__(node1, node2, **rest)
        for interface, spec in ((self.intf1, self.forward), (self.intf2, self.backward)):
            # One segment at a time, as on a wire: netem would delay and lose 64 KiB of TCP as one frame.
            one_by_one = rtnetlink.set_link(interface.index, segments_max=1)
            namespace_of(interface.node).submit(one_by_one, *qdisc.make(interface.index, spec))


class Netem:
    """The links of a built network.

    Args:
        network: built with `NetemLink` throughout.
        reactor: calls us every `usage_interval_s` once the run has started.
        trace: the file our records go to.
    """

    pid = None
    """There is no process to watch."""
    unknown = ("netem does not tell observations from other bytes: how many were payload is unknown",)
    """What a run's report must say is missing."""

    def __init__(
        self, network: Network, reactor: Reactor, trace: Path, *, usage_interval_s: float = 1.0
    ) -> None:
        self.directions = [
            Direction(link, interface, spec)
            for link in network.links
            for interface, spec in ((link.intf1, link.forward), (link.intf2, link.backward))
        ]
        self._by_pair = {(each.source, each.target): each for each in self.directions}
        self._reactor = reactor
        self._file = trace.open("wb")
        self._trace = TraceWriter(self._file)
        self._interval_s = usage_interval_s
        self._t0_s: float | None = None
        self._stopped = False

    # ---------------------------------------------------------------------------- what the ether is told, too

    def start(self, t0_s: float) -> None:
        """Begin the run at `t0_s` of `time.monotonic()`: the planned specs, and counters from zero."""
        for direction in self.directions:
            direction.reshape(direction.planned)
        self._update()
        for direction in self.directions:
            direction.begin()
        self._t0_s = t0_s
        self._reactor.at(t0_s + self._interval_s, lambda: self._end_interval(t0_s + self._interval_s))

    def cut(self, pairs: Collection[tuple[str, str]]) -> None:
        """Let nothing pass from the first to the second device of each pair; what is under way is lost
        too."""
        self._change(pairs, Direction.cut)

    def mend(self, pairs: Collection[tuple[str, str]]) -> None:
        """Undo `cut`."""
        self._change(pairs, Direction.mend)

    def check(self, medium: str, spec: LinkSpec) -> None:
        """Raise InputError if a link cannot become that."""
        qdisc.refuse(spec, medium)

    def reshape(self, medium: str, source: str, target: str, spec: LinkSpec) -> None:
        """Give one direction another spec, as a `Degrade` does."""
        self.check(medium, spec)
        self._by_pair[source, target].reshape(spec)

    def rehearse(self, specs: Mapping[tuple[str, str], LinkSpec]) -> None:
        """Use other specs until `start`, by `(medium, source)`."""
        for direction in self.directions:
            if (direction.medium, direction.source) in specs:
                direction.reshape(specs[direction.medium, direction.source])

    def capture(self, _folder: Path) -> None:
        """Raises InputError: nobody here sees the frames."""
        raise InputError("netem captures no frames", key="--pcap", hint=qdisc.HINT)

    def totals(self) -> list[HopTotals]:
        """What became of the frames of each direction, since the run's start or since it was made."""
        self._update()
        return [direction.totals() for direction in self.directions]

    def stop(self) -> list[HopTotals]:
        """Let nothing pass any more, finish the trace, tell the totals."""
        self._stopped = True
        self.cut(self._by_pair)
        totals = self.totals()
        self._write_usage()
        self._file.close()
        return totals

    def kernel_counters(self) -> dict[tuple[str, str], rtnetlink.LinkState]:
        """State of each interface by `(medium, device)`."""
        return {
            (each.medium, each.source): each.namespace.links()[each.interface] for each in self.directions
        }

    def kill(self) -> None:
        """The disciplines go with their interfaces; only the records end."""
        self._stopped = True
        self._file.close()

    # ------------------------------------------------------------------------------------------------ records

    def _change(self, pairs: Iterable[tuple[str, str]], how: Callable[[Direction], None]) -> None:
        self._update()  # until now frames were dropped for one reason, from now on for another
        for pair in pairs:
            how(self._by_pair[pair])

    def _update(self) -> None:
        """Read all counters, one list a device."""
        namespaces = {direction.namespace.inode: direction.namespace for direction in self.directions}
        counters = {inode: _read(namespace) for inode, namespace in namespaces.items()}
        for direction in self.directions:
            direction.update(counters[direction.namespace.inode][direction.index])

    def _end_interval(self, due_s: float) -> None:
        if self._stopped:
            return
        self._update()
        self._write_usage()
        next_s = due_s + self._interval_s
        self._reactor.at(next_s, lambda: self._end_interval(next_s))

    def _write_usage(self) -> None:
        if self._t0_s is None:
            return
        t_s = monotonic() - self._t0_s
        for direction in self.directions:
            usage = direction.usage()
            if usage is not None:
                self._trace.write(t_s, usage)
        self._trace.flush()


class Direction:
    """One direction of a link: its disciplines, and the books kept of them."""

    def __init__(self, link: NetemLink, interface: Any, spec: LinkSpec) -> None:
        self.medium = link.name
        self.source: str = interface.node.name
        self.target: str = (link.intf2 if interface is link.intf1 else link.intf1).node.name
        self.namespace: Namespace = namespace_of(interface.node)
        self.index: int = interface.index
        self.interface: str = interface.name
        self.planned = self.spec = spec
        self.is_cut = False
        self.sent = self.ip_bytes = self.lost = self.queue_dropped = self.swallowed = self.under_way = 0
        """Since the interface was made; `swallowed` by faults."""
        self.was_reshaped = False
        """Since the run began."""
        self._life = 0
        self._read = qdisc.Counters()
        self._begun = self._reported = self._books()

    def update(self, counters: qdisc.Counters) -> None:
        """Enter what the kernel counted since the last time."""
        before, self._read = self._read, counters
        self.sent += counters.frames - before.frames
        self.ip_bytes += counters.ip_bytes - before.ip_bytes
        lost = counters.lost - before.lost
        queue_dropped = counters.queue_dropped - before.queue_dropped
        if self.is_cut:
            self.swallowed += lost + queue_dropped
        else:
            self.lost += lost
            self.queue_dropped += queue_dropped
        self.under_way = counters.waiting

    def begin(self) -> None:
        """The run's counters begin here."""
        self._begun = self._reported = self._books()
        self.was_reshaped = False

    def cut(self) -> None:
        """Let nothing pass."""
        self.is_cut = True
        self.namespace.submit(*qdisc.cut(self.index, self._life))

    def mend(self) -> None:
        """Begin anew, with nothing queued: what was under way when it was cut never arrives."""
        self.swallowed += self.under_way
        self.under_way = 0
        self._life += 1
        self._read = qdisc.Counters()
        self.is_cut = False
        self.namespace.submit(*qdisc.make(self.index, self.spec, self._life))

    def reshape(self, spec: LinkSpec) -> None:
        """Another spec; a direction that is cut stays so."""
        self.spec = spec
        self.was_reshaped = True
        if not self.is_cut:
            self.namespace.submit(*qdisc.change(self.index, spec, self._life))

    def totals(self) -> HopTotals:
        """Since the run began."""
        sent, _, lost, queue_dropped, swallowed = self._since(self._begun)
        return HopTotals(
            medium=self.medium,
            source=self.source,
            target=self.target,
            offered=sent + lost + queue_dropped + swallowed + self.under_way,
            dropped=lost + queue_dropped,
            cut=swallowed,
            refused=0,
            written=sent,
            under_way=self.under_way,
        )

    def run_losses(self) -> tuple[int, int]:
        """Frames lost on the air since the run began, and of how many."""
        sent, _, lost, _, _ = self._since(self._begun)
        return lost, sent + lost

    def usage(self) -> LinkUsage | None:
        """What it carried since the last time, or None."""
        sent, ip_bytes, lost, queue_dropped, swallowed = self._since(self._reported)
        self._reported = self._books()
        if not (sent or lost or queue_dropped or swallowed):
            return None
        frames = sent + lost
        mean_bytes = ip_bytes / sent if sent else self.ip_bytes / self.sent if self.sent else 0.0
        on_air = ip_bytes + round(lost * mean_bytes) + frames * self.spec.overhead_bytes
        airtime_s = round(on_air * 8e-3 / self.spec.rate_kbps, 9)
        return LinkUsage(
            link=self.medium,
            source=self.source,
            target=self.target,
            frames=frames,
            bytes_on_air=on_air,
            airtime_s=airtime_s,
            received_s=airtime_s,
            lost=lost,
            queue_dropped=queue_dropped,
            cut=swallowed,
        )

    def _books(self) -> tuple[int, int, int, int, int]:
        return self.sent, self.ip_bytes, self.lost, self.queue_dropped, self.swallowed

    def _since(self, before: tuple[int, int, int, int, int]) -> tuple[int, int, int, int, int]:
        sent, ip_bytes, lost, queue_dropped, swallowed = before
        return (
            self.sent - sent,
            self.ip_bytes - ip_bytes,
            self.lost - lost,
            self.queue_dropped - queue_dropped,
            self.swallowed - swallowed,
        )


def refuse(plan: Plan) -> None:
    """Raise InputError where a plan has what netem cannot be: a channel, a recorded trace, fragments."""
    for channel in plan.network.channels:
        raise InputError("netem cannot be a shared channel", key=channel.name, hint=qdisc.HINT)
    degrades = [timed.fault for timed in plan.faults if isinstance(timed.fault, Degrade)]
    for link in plan.network.links:
        changes = [fault for fault in degrades if {fault.a, fault.b} == {link.a, link.b}]
        for spec in (link.forward, link.backward):
            for enforced in (spec, *(fault.applied_to(spec) for fault in changes)):
                qdisc.refuse(enforced, link.name)


def _read(namespace: Namespace) -> dict[int, qdisc.Counters]:
    with namespace.enter(), rtnetlink.RouteSocket() as route_socket:
        return qdisc.read(route_socket)
