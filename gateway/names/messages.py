"""What devices announce to the name servers, and what a name server's node and its sockets say to each other.

Owns the limits of an announcement. It says everything about its device every time: a name server that lost
its memory, or missed some of them, needs one to be complete again.
"""

from __future__ import annotations

import re
from typing import Literal

import msgspec

from underlay.messages import Message

NAMES = "names"
"""The node on a name server's device."""
ANNOUNCER = "announcer"
"""The node on every device that has a name."""

LEASE_S_MAX = 3600.0
NAME_CHARACTERS_MAX = 180
"""Of a name within the zone; a whole name in DNS ends at 253."""
ALIASES_MAX = 16
SERVICES_MAX = 64
TEXTS_MAX = 16
TEXT_BYTES_MAX = 255
"""RFC 1035, 3.3: a character-string."""
_NUMBER_MAX = 0xFFFF
_LABEL = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?")


class Service(msgspec.Struct, frozen=True, array_like=True):
    """A port at which the device serves, as an SRV record says it (RFC 2782)."""

    name: str
    """Within the zone: `_mqtt._tcp`, `_redis._tcp.g1.kv`. Devices that announce the same one share it."""
    port: int
    weight: int = 1
    priority: int = 0


class Announce(Message, frozen=True, array_like=True, tag=1):
    """I am here, and for `lease_s` from now this is true of me, unless I say something else meanwhile."""

    name: str
    """Within the zone: `cam3`. One device at a time has it."""
    lease_s: float
    generation: int = 0
    """Of several devices that announce the same name, the highest has it: that of a replacement is one more
    than that of what it replaces. Among equals it stays with who has it, while his lease runs."""
    aliases: tuple[str, ...] = ()
    """Further names of its address, which it may share with others: `gateway`."""
    services: tuple[Service, ...] = ()
    texts: tuple[str, ...] = ()
    """`key=value` (RFC 6763, 6.3), in the TXT record of its name: `role=birdhouse`."""


class Asked(Message, frozen=True, array_like=True, tag=2):
    """The sockets had a DNS message; `Answered` follows."""

    transport = "local"
    token: int
    over: Literal["udp", "tcp"]
    wire: bytes


class Answered(Message, frozen=True, array_like=True, tag=3):
    """What to send back; empty: nothing."""

    transport = "local"
    token: int
    wire: bytes


def labels_of(name: str) -> tuple[bytes, ...]:
    """A name within the zone as DNS compares it; raises ValueError where it cannot be one.

    >>> labels_of("_redis._tcp.KV")
    (b'_redis', b'_tcp', b'kv')
    """
    if len(name) > NAME_CHARACTERS_MAX:
        raise ValueError(f"a name of {len(name)} characters: they end at {NAME_CHARACTERS_MAX}")
    labels = name.split(".")
    for label in labels:
        if not _LABEL.fullmatch(label):
            raise ValueError(f"{name!r}: {label!r} is no label: letters, digits, - and _, 63 at most")
    return tuple(label.lower().encode() for label in labels)


def check(announced: Announce) -> None:
    """Raises ValueError where this cannot be put into a zone."""
    if not 0.0 < announced.lease_s <= LEASE_S_MAX:  # false for NaN too
        raise ValueError(f"a lease of {announced.lease_s} s: it must be above 0, and {LEASE_S_MAX} at most")
    for what, given, most in (
        ("aliases", announced.aliases, ALIASES_MAX),
        ("services", announced.services, SERVICES_MAX),
        ("texts", announced.texts, TEXTS_MAX),
    ):
        if len(given) > most:
            raise ValueError(f"{len(given)} {what}: there may be {most}")
    for name in (announced.name, *announced.aliases, *(service.name for service in announced.services)):
        labels_of(name)
    for service in announced.services:
        numbers = service.port - 1, service.weight, service.priority
        if not all(0 <= number <= _NUMBER_MAX for number in numbers) or service.port > _NUMBER_MAX:
            raise ValueError(f"{service.name}: ports are 1 to 65535, weights and priorities 0 to 65535")
    if any(len(text.encode("utf-8", "surrogatepass")) > TEXT_BYTES_MAX for text in announced.texts):
        raise ValueError(f"a text of more than {TEXT_BYTES_MAX} bytes")
