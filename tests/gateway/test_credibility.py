"""What a gateway believes of an observation."""

from __future__ import annotations

from math import inf, nan
from typing import Any

import msgspec
import pytest

from edge.observation import Observation, ObservationId
from gateway.credibility import EVENT_S_MAX, SEQUENCE_MAX, Limits, problem_of

NOW = 1_000_000.0


def seen(device: str = "cam3", sequence: int = 1, **changed: Any) -> Observation:
    plain = Observation(ObservationId(device, sequence), "temperature", 60.0, NOW, b"")
    return msgspec.structs.replace(plain, **changed)


@pytest.mark.parametrize(
    "observation",
    [
        seen(),
        seen("a.b-c_d9"),
        seen(sequence=0),
        seen(sequence=SEQUENCE_MAX),
        seen(t_event=0.0),
        seen(t_event=EVENT_S_MAX),
        seen(t_gen=NOW + 86_400.0),
        seen(t_gen=-5.0),
    ],
    ids=[
        "plain",
        "all letters",
        "first",
        "last",
        "epoch",
        "end of time",
        "a day ahead",
        "a clock below zero",
    ],
)
def test_is_believed(observation: Observation) -> None:
    assert problem_of(observation, 40, NOW, Limits()) == ""


@pytest.mark.parametrize(
    ("observation", "word"),
    [
        (seen(""), "no name of a device"),
        (seen("cam{3}"), "no name of a device"),
        (seen("../etc"), "no name of a device"),
        (seen("cam3\n"), "no name of a device"),
        (seen("+"), "no name of a device"),
        (seen("x" * 64), "no name of a device"),
        (seen("caméra"), "no name of a device"),
        (seen(kind="a:b"), "no name of a kind"),
        (seen(kind="Temperature"), "no name of a kind"),
        (seen(sequence=-1), "its number is -1"),
        (seen(sequence=SEQUENCE_MAX + 1), "its number is"),
        (seen(t_event=-0.1), "its t_event is"),
        (seen(t_event=nan), "its t_event is nan"),
        (seen(t_event=inf), "its t_event is inf"),
        (seen(t_event=EVENT_S_MAX + 1), "its t_event is"),
        (seen(t_gen=nan), "its t_gen is nan"),
        (seen(t_gen=NOW + 86_401.0), "86401 s from now"),
    ],
)
def test_is_not_believed(observation: Observation, word: str) -> None:
    assert word in problem_of(observation, 40, NOW, Limits())


def test_the_past_is_believed_unless_the_limits_say_otherwise() -> None:
    old = seen(t_gen=NOW - 7200.0)
    assert problem_of(old, 40, NOW, Limits()) == ""
    assert "7200 s ago" in problem_of(old, 40, NOW, Limits(past_s_max=3600.0))


def test_size_is_limited_and_a_hostile_name_is_shown_short() -> None:
    assert "61441 bytes" in problem_of(seen(), 60 * 1024 + 1, NOW, Limits())
    assert len(problem_of(seen("{" * 10_000), 40, NOW, Limits())) < 100
