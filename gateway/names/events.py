"""What a name server writes to the trace."""

from __future__ import annotations

from underlay.trace import Event


class NameFound(Event, frozen=True, tag="name-found"):
    """A device announced what it had not announced before, or not within its lease."""

    name: str
    holder: str
    """The device."""


class NameLost(Event, frozen=True, tag="name-lost"):
    """The lease of a device is over: its records are gone."""

    name: str
    holder: str


class AnnouncementRefused(Event, frozen=True, tag="announcement-refused"):
    """A device announced what cannot be put into a zone."""

    sender: str
    reason: str
