"""Which destinations an observation goes to, and why."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from edge.datasets import Measurement
from edge.observation import Observation, ObservationId
from gateway.routing.routes import Condition, Route, Table


def seen(kind: str = "temperature", device: str = "cam3", payload: bytes | None = None) -> Observation:
    if payload is None:
        payload = Measurement(3100, "Cel").encode()
    return Observation(ObservationId(device, 1), kind, 60.0, 0.0, payload)


def led(table: Table, observation: Observation, age_s: float = 0.0) -> list[str]:
    return [route.to for route in table.match(observation, 50, age_s)]


@pytest.mark.parametrize(
    ("route", "takes"),
    [
        pytest.param({}, True, id="a route without conditions takes everything"),
        pytest.param({"kind": "temperature"}, True, id="its kind"),
        pytest.param({"kind": "temp*"}, True, id="a glob that fits its kind"),
        pytest.param({"kind": ["humidity", "temperature"]}, True, id="one of several"),
        pytest.param({"kind": "humidity"}, False, id="another kind"),
        pytest.param({"kind": "temp"}, False, id="a beginning is no glob"),
        pytest.param({"device": "cam?"}, True, id="a glob that fits its device"),
        pytest.param({"device": "cam[12]"}, False, id="one that does not"),
        pytest.param({"size_min_bytes": 50}, True, id="as large as is asked"),
        pytest.param({"size_min_bytes": 51}, False, id="too small"),
        pytest.param({"size_max_bytes": 49}, False, id="too large"),
        pytest.param({"age_max_s": 10.0}, True, id="as old as is allowed"),
        pytest.param({"age_max_s": 9.9}, False, id="too old"),
        pytest.param({"age_min_s": 10.1}, False, id="too young"),
        pytest.param({"where": {"celsius": {"above": 30}}}, True, id="a field above"),
        pytest.param({"where": {"celsius": {"above": 31}}}, False, id="not above what it is"),
        pytest.param({"where": {"celsius": {"above": 30, "below": 31}}}, False, id="both have to hold"),
        pytest.param({"where": {"celsius": {"equals": 31}}}, True, id="a field that equals"),
        pytest.param({"where": {"celsius": {"one_of": [30, 31]}}}, True, id="one of several values"),
        pytest.param({"where": {"celsius": {"one_of": [30]}}}, False, id="none of them"),
        pytest.param({"where": {"percent": {"above": 0}}}, False, id="a field that is not there"),
        pytest.param({"kind": "temperature", "device": "x"}, False, id="everything has to hold"),
    ],
)
def test_a_route_takes(route: dict[str, Any], takes: bool) -> None:
    table = Table((msgspec.convert({"to": "there", **route}, Route),), unmatched="else")
    for _ in range(2):  # the second time from what is remembered of names
        assert led(table, seen(), 10.0) == ["there" if takes else "else"]
    *_, step = table.explain(seen(), 50, 10.0)
    assert (step.to, step.takes) == ("there" if takes else "else", True)


def test_the_first_match_wins_unless_it_goes_on() -> None:
    table = Table(
        (
            Route(to="archive", goes_on=True),
            Route(to="alarms", where={"celsius": Condition(above=30.0)}, goes_on=True),
            Route(to="archive", kind="temperature"),
            Route(to="never", kind="temperature"),
        )
    )
    assert led(table, seen()) == ["archive", "alarms"]
    assert led(table, seen("motion", payload=b"?")) == ["archive"]
    assert [step.to for step in table.explain(seen(), 50, 0.0)] == ["archive", "alarms", "archive"]


def test_without_routes_everything_goes_to_the_store() -> None:
    assert led(Table(), seen()) == ["store"]
    assert [step.why for step in Table().explain(seen(), 50, 0.0)] == ["no route takes it"]


def test_an_explanation_names_the_first_condition_that_does_not_hold() -> None:
    table = Table(
        (
            Route(to="a", kind="motion"),
            Route(to="b", device="cam9"),
            Route(to="c", size_max_bytes=10),
            Route(to="d", where={"celsius": Condition(below=20.0)}),
            Route(to="e", where={"lux": Condition(above=1.0)}),
        )
    )
    assert [step.why for step in table.explain(seen(), 50, 3.0)] == [
        "its kind is temperature",
        "it comes from cam3",
        "it has 50 bytes, more than 10",
        "its celsius, 31.0, is not below 20",
        "it says nothing of lux",
        "no route takes it",
    ]


def test_what_can_never_take_anything_is_known() -> None:
    last = Route(to="b", kind="motion")
    assert [later.to for later, _ in Table((Route(to="a"), last)).shadowed()] == ["b"]
    assert list(Table((Route(to="a", goes_on=True), last)).shadowed()) == []
    assert list(Table((Route(to="a", kind="*"), last)).shadowed()) == []
    limited = Route(to="a", name="all", rate_limit_per_s=1.0, priority=3)
    assert [later.to for later, _ in Table((limited, last)).shadowed()] == ["b"]


def test_every_route_has_a_name_of_its_own() -> None:
    routes = (Route(to="a"), Route(to="a", name="a-2"), Route(to="a"), Route(to="b"), Route(to="a"))
    assert [route.name for route in Table(routes).all] == [
        *("a", "a-2", "a-3", "b", "a-4"),
        *("unmatched", "dead-letter"),
    ]


def test_hostile_payloads_match_no_value() -> None:
    table = Table((Route(to="a", where={"celsius": Condition(above=0.0)}),))
    for payload in (b"", b"\xc1", b"\x81\xa7celsius\xc0", b"\x81\xa7celsius\xc3", b"\x9f" * 100):
        assert led(table, seen("other", payload=payload)) == ["store"]
