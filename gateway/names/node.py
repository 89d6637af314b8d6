"""The name server's node, and the announcer that every device with a name has.

Announcements are datagrams that are repeated; nothing is acknowledged. A device that dies falls silent, and
its records go when its lease is over, wherever they were; one that comes back announces at once. Name servers
do not talk to each other: announcers tell all of them. Nothing is durable: a name server that starts is
complete when everybody has announced once, and until then says of what it does not find that it does not
know, not that it does not exist.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from gateway.names.events import AnnouncementRefused, NameFound, NameLost
from gateway.names.messages import NAMES, Announce, Answered, Asked
from gateway.names.registry import Registry
from gateway.names.zone import Zone, ZoneSettings
from underlay.messages import Message, Protocol
from underlay.node import Address, Context, Node, Timer, address, device_of

PROTOCOL = Protocol("names", Announce)
_SETTLED: Timer = "settled"
_EXPIRY: Timer = "expiry"
_ANNOUNCE: Timer = "announce"


class Settings(msgspec.Struct, frozen=True):
    """How announcers and name servers work together."""

    interval_s: float = 5.0
    """Between two announcements of a device, give or take a tenth so that they do not all come together."""
    leases: float = 3.0
    """A lease is so many intervals: what may be lost of announcements in a row, and one more."""
    zone: ZoneSettings = ZoneSettings()

    @property
    def lease_s(self) -> float:
        """How long a name server goes on believing in a device it does not hear of."""
        return self.interval_s * self.leases


class Names(Node):
    """A name server.

    Args:
        addresses: IPv4 address of every device that may announce something, by its name.
        servers: devices with a name server, this one among them.
    """

    protocol = PROTOCOL

    def __init__(self, addresses: Mapping[str, str], servers: tuple[str, ...], settings: Settings) -> None:
        self._addresses = addresses
        self._settings = settings
        self._registry = Registry()
        self._zone = Zone(self._registry, addresses, servers, settings.zone)
        self._settled = False

    def on_start(self, ctx: Context) -> None:
        ctx.set_timer(_SETTLED, self._settings.lease_s)

    def on_message(self, ctx: Context, sender: Address, message: Message) -> None:
        match message:
            case Announce():
                self._on_announce(ctx, sender, message)
            case Asked(token, over, wire):
                response = self._zone.answer(wire, over, ctx.now, self._settled)
                ctx.send(sender, Answered(token, response or b""))

    def on_timer(self, ctx: Context, timer: Timer) -> None:
        if timer == _SETTLED:
            self._settled = True
            return
        for entry in self._registry.expire(ctx.now):
            ctx.emit(NameLost(entry.announced.name, entry.device))
        self._await_expiry(ctx)

    def _on_announce(self, ctx: Context, sender: Address, announced: Announce) -> None:
        device = device_of(sender)
        if device not in self._addresses:
            ctx.emit(AnnouncementRefused(sender, "no device of the network"))
            return
        before = self._registry.changes
        try:
            self._registry.announce(device, announced, ctx.now)
        except ValueError as error:
            ctx.emit(AnnouncementRefused(sender, str(error)))
            return
        if self._registry.changes != before:
            ctx.emit(NameFound(announced.name, device))
            self._await_expiry(ctx)

    def _await_expiry(self, ctx: Context) -> None:
        """Nothing hangs on this timer but the trace and memory: answers look at the leases themselves."""
        due_s = self._registry.next_expiry_s()
        if due_s is not None:
            ctx.set_timer(_EXPIRY, max(0.0, due_s - ctx.now))


class Announcer(Node):
    """Tells all name servers what its device is called and what it offers.

    Args:
        announced: what it says; its lease is the settings'.
        servers: devices with a name server.
    """

    protocol = PROTOCOL

    def __init__(self, announced: Announce, servers: tuple[str, ...], settings: Settings) -> None:
        self._announced = msgspec.structs.replace(announced, lease_s=settings.lease_s)
        self._servers = servers
        self._interval_s = settings.interval_s

    def on_start(self, ctx: Context) -> None:
        self._announce(ctx)
        # The first one may be lost to a network that has not found its ways yet.
        ctx.set_timer(_ANNOUNCE, self._interval_s * ctx.rng.uniform(0.1, 0.5))

    def on_timer(self, ctx: Context, timer: Timer) -> None:
        self._announce(ctx)
        ctx.set_timer(_ANNOUNCE, self._interval_s * ctx.rng.uniform(0.9, 1.1))

    def _announce(self, ctx: Context) -> None:
        for server in self._servers:
            ctx.send(address(server, NAMES), self._announced)
