"""What the storage tier writes to the trace. Metrics read these records and nothing else of the store."""

from __future__ import annotations

from underlay.trace import Event


class TookOffice(Event, frozen=True, tag="took-office"):
    """The record's node serves its group from now on: it leads, or is primary."""

    group: str
    ballot: str
    """Ballot, or view, as text."""


class LeftOffice(Event, frozen=True, tag="left-office"):
    """It serves no more."""

    group: str
    unanswered: int
    """Questions that it had taken and could not answer."""


class ViewBegan(Event, frozen=True, tag="view-began"):
    """The view service decided on a new view."""

    view: int
    primary: str
    backup: str
    """Empty: none."""


class ViewsLost(Event, frozen=True, tag="views-lost"):
    """A server knows a later view than the view service, which has lost its disk or was given an old one. It
    decides nothing more."""

    view: int
    known: int
