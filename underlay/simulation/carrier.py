"""Carries IP packets hop by hop over the media, along the routes.

Owns machines as forwarders (power, next hops, TTL) and when routes follow a change; knows nothing of nodes or
messages. A packet is handed to whoever waits for it by a call, at the moment it arrives.
"""

from __future__ import annotations

from collections.abc import Iterable

from underlay.faults import Degrade
from underlay.network import Network
from underlay.routes import Router, hop_weight
from underlay.simulation.agenda import Agenda, Call
from underlay.simulation.media import Antenna, Hop, Media

TTL = 64
"""Linux's default (RFC 1700)."""

INTERFACE_MTU_BYTES = 1500
IP_HEADER_BYTES = 20


class Packet:
    """An IP packet under way to `machine`, where `call(a, b)` receives it."""

    __slots__ = ("a", "b", "call", "data", "machine", "size_bytes")

    def __init__(
        self, machine: Machine, size_bytes: int, data: bool, call: Call, a: object, b: object
    ) -> None:
        self.machine = machine
        self.size_bytes = size_bytes
        self.data = data
        self.call = call
        self.a = a
        self.b = b


class Machine:
    """A device as the network sees it: it has power or not, and it forwards."""

    __slots__ = ("_agenda", "_carrier", "_next", "antennas", "name", "up")

    def __init__(self, name: str, carrier: Carrier, agenda: Agenda) -> None:
        self.name = name
        self.up = True
        self.antennas: list[Antenna] = carrier.media.antennas[name]
        self._carrier = carrier
        self._agenda = agenda
        self._next: dict[Machine, tuple[Hop, Machine] | None] = {}

    def launch(self, target: Machine, size_bytes: int, data: bool, call: Call, a: object, b: object) -> bool:
        """Send a packet of at most the interface's MTU; False where there is no route."""
        return self.relay(Packet(target, size_bytes, data, call, a, b), TTL)

    def launch_large(
        self, target: Machine, size_bytes: int, data: bool, call: Call, a: object, b: object
    ) -> bool:
        """Send a datagram of any size, in IP fragments where it exceeds the MTU (RFC 791 §2.3).

        The datagram arrives with its last fragment, or not at all.
        """
        if size_bytes <= INTERFACE_MTU_BYTES:
            return self.relay(Packet(target, size_bytes, data, call, a, b), TTL)
        sizes = fragment_sizes(size_bytes)
        whole = _Reassembly(len(sizes), call, a, b)
        routed = [self.launch(target, size, data, whole.arrived, None, None) for size in sizes]
        return all(routed)

    def relay(self, packet: Packet, ttl: int) -> bool:
        """Take a packet that arrived or starts here one hop further; False where there is no route."""
        if not self.up:
            return True
        if packet.machine is self:
            packet.call(packet.a, packet.b)
            return True
        step = self.next_step(packet.machine)
        if step is None:
            return False
        hop, following = step
        if not hop.open:
            hop.swallow()
        elif ttl:
            arrival_s = hop.offer(self._agenda.now, packet.size_bytes, packet.data)
            if arrival_s >= 0.0:
                self._agenda.at(arrival_s, following.relay, packet, ttl - 1, hop)
        return True

    def next_step(self, target: Machine) -> tuple[Hop, Machine] | None:
        """The hop and the neighbour on the way to `target`; None without a route."""
        try:
            return self._next[target]
        except KeyError:
            return self._next.setdefault(target, self._carrier.find_step(self.name, target.name))

    def forget_routes(self) -> None:
        """Routes changed."""
        self._next.clear()


class Carrier:
    """All machines, the media between them, and the routes."""

    def __init__(self, network: Network, seed: int, agenda: Agenda) -> None:
        self.media = Media(network, seed)
        self._agenda = agenda
        self._router = Router(network)
        self._cut: dict[tuple[str, str], None] = {}
        self.machines = {device.name: Machine(device.name, self, agenda) for device in network.devices}

    def find_step(self, source: str, target: str) -> tuple[Hop, Machine] | None:
        """See `Machine.next_step`."""
        following = self._router.next_hop(source, target)
        if following is None:
            return None
        hops = self.media.between(source, following)
        return min(hops, key=_weight), self.machines[following]

    def hops_to(self, source: str, target: str) -> int:
        """How many hops the routes take; 0 without a route."""
        hops = self._router.path(source, target)
        return len(hops) - 1 if hops else 0

    def cut(self, pairs: Iterable[tuple[str, str]]) -> None:
        """Let nothing pass over these directed hops."""
        self._cut.update(dict.fromkeys(pairs))
        self._reopen()

    def mend(self, pairs: Iterable[tuple[str, str]] | None = None) -> None:
        """Undo cuts; None undoes all."""
        for pair in list(self._cut) if pairs is None else pairs:
            self._cut.pop(pair, None)
        self._reopen()

    def set_power(self, device: str, up: bool) -> None:
        """Power fails or returns."""
        self.machines[device].up = up
        self._reopen()

    def degrade(self, fault: Degrade, nth: int) -> None:
        """Both directions between two neighbours change."""
        for source, target in ((fault.a, fault.b), (fault.b, fault.a)):
            for hop in self.media.between(source, target):
                hop.degrade(fault, nth)

    def converge(self) -> int:
        """Recompute the routes over what is up now; returns how many were known before."""
        entries = self._router.entries
        self._router.change([name for name, machine in self.machines.items() if not machine.up], self._cut)
        for machine in self.machines.values():
            machine.forget_routes()
        return entries

    def _reopen(self) -> None:
        machines, cut = self.machines, self._cut
        closed: dict[Hop, None] = {}
        for source, targets in self.media.hops.items():
            for target, hops in targets.items():
                passable = machines[source].up and machines[target].up and (source, target) not in cut
                for hop in hops:
                    if hop.open and not passable:
                        closed[hop] = None
                    hop.open = passable
        for hop in self._agenda.lose(closed):
            hop.swallow()


def fragment_sizes(size_bytes: int) -> list[int]:
    """Sizes of the IP packets that carry a datagram of `size_bytes` (with its one IP header).

    >>> fragment_sizes(3028)
    [1500, 1500, 68]
    """
    payload_max = (INTERFACE_MTU_BYTES - IP_HEADER_BYTES) // 8 * 8
    rest = size_bytes - IP_HEADER_BYTES
    sizes = [INTERFACE_MTU_BYTES] * (rest // payload_max)
    if rest % payload_max:
        sizes.append(rest % payload_max + IP_HEADER_BYTES)
    return sizes


def _weight(hop: Hop) -> float:
    return hop_weight(hop.spec)


class _Reassembly:
    __slots__ = ("_a", "_b", "_call", "_missing")

    def __init__(self, fragments: int, call: Call, a: object, b: object) -> None:
        self._missing = fragments
        self._call = call
        self._a = a
        self._b = b

    def arrived(self, _: object, __: object) -> None:
        self._missing -= 1
        if not self._missing:
            self._call(self._a, self._b)
