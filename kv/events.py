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
