"""What a mapper is given: a record, made of a stored observation, of a row of a file, or of a line of text.

Owns the two types and nothing of where they come from (`inputs`).
"""

from __future__ import annotations

from functools import cached_property
from math import inf
from typing import Any

from edge.observation import Observation
from gateway.readings import meaning


class Record:
    """One observation, as jobs see it.

    Attributes:
        device, kind: as stored.
        sequence: the device's own number of it.
        t_event: time in the data set, Unix seconds.
        t_gen: the device's own clock when it observed, seconds.
        payload: bytes, as the device made them.
    """

    def __init__(
        self, device: str, sequence: int, kind: str, t_event: float, t_gen: float, payload: bytes
    ) -> None:
        self.device = device
        self.sequence = sequence
        self.kind = kind
        self.t_event = t_event
        self.t_gen = t_gen
        self.payload = payload

    @classmethod
    def of(cls, observation: Observation) -> Record:
        """As the store has it."""
        id_ = observation.id
        return cls(
            id_.device,
            id_.sequence,
            observation.kind,
            observation.t_event,
            observation.t_gen,
            observation.payload,
        )

    @cached_property
    def fields(self) -> dict[str, Any]:
        """What a reading says, by names with units: `{"celsius": 3.9}`; empty where the payload is none."""
        meant = meaning(self.kind, self.payload)
        return meant if isinstance(meant, dict) else {}

    @cached_property
    def value(self) -> Any:
        """The first of `fields`: degrees of a temperature, percent of a humidity, seconds of a motion. None
        where there is none."""
        return next(iter(self.fields.values()), None)

    def __str__(self) -> str:
        return f"{self.device}:{self.sequence}"

    def __repr__(self) -> str:
        return f"<Record {self.device}:{self.sequence} {self.kind} at {self.t_event:.3f}>"


class Row(Record):
    """One line of a CSV file with columns `device`, `kind`, `t_event`, `value` and perhaps more."""

    def __init__(
        self, device: str, sequence: int, kind: str, t_event: float, t_gen: float, fields: dict[str, Any]
    ) -> None:
        # All that is there, at once: there are millions of them, and a cached property is not cheap.
        self.__dict__ = {
            "device": device,
            "sequence": sequence,
            "kind": kind,
            "t_event": t_event,
            "t_gen": t_gen,
            "payload": b"",
            "fields": fields,
            "value": next(iter(fields.values()), None),
        }


class Line:
    """One line of a text file.

    Attributes:
        text: without its end.
        file: its name, without folders.
        offset: of its first byte in the file.
    """

    __slots__ = ("file", "offset", "text")
    t_event = -inf
    """It has no time."""

    def __init__(self, text: str, file: str, offset: int) -> None:
        self.text = text
        self.file = file
        self.offset = offset

    def __str__(self) -> str:
        return f"{self.file} byte {self.offset}"

    def __repr__(self) -> str:
        return f"<Line {self}: {self.text[:40]!r}>"


AnyRecord = Record | Line
