"""Bodies of requests: whatever comes is observations or a sentence, and what was read comes back the same."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.datasets import Measurement, Motion
from edge.observation import Observation, ObservationId
from gateway.api.reading import Malformed, from_json, from_msgpack, to_document
from gateway.readings import meaning

NOW = 1000.0
OBSERVATIONS = st.builds(
    Observation,
    st.builds(ObservationId, st.text(max_size=20), st.integers(-(2**63), 2**63 - 1)),
    st.text(max_size=20),
    st.floats(allow_nan=False, allow_infinity=False),
    st.floats(allow_nan=False, allow_infinity=False),
    st.binary(max_size=200),
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


def result_of(read: Callable[[bytes, float], list[Observation]], body: bytes) -> list[Observation] | str:
    """The observations, or the sentence."""
    try:
        return read(body, NOW) or "an empty batch is one too"
    except Malformed as error:
        return error.problem


@given(st.binary(max_size=300))
def test_any_bytes_are_read_or_refused_with_a_sentence(body: bytes) -> None:
    for read in (from_json, from_msgpack):
        found = result_of(read, body)
        assert found
        assert isinstance(found, str) or all(isinstance(each, Observation) for each in found)


@given(JSON)
def test_any_json_is_read_or_refused_with_a_sentence(document: Any) -> None:
    with pytest.raises(Malformed) as error:  # none of these has the fields
        from_json(json.dumps([document]).encode(), NOW)
    assert error.value.problem


@given(st.lists(OBSERVATIONS, min_size=1, max_size=5))
def test_msgpack_comes_back_as_it_was(some: list[Observation]) -> None:
    assert from_msgpack(msgspec.msgpack.encode(some)) == some
    assert from_msgpack(some[0].encode()) == some[:1]


@given(OBSERVATIONS, st.data())
def test_cut_or_changed_msgpack_is_no_crash(observation: Observation, data: st.DataObject) -> None:
    body = bytearray(msgspec.msgpack.encode([observation]))
    at = data.draw(st.integers(0, len(body) - 1))
    with pytest.raises(Malformed):
        from_msgpack(bytes(body[:at]))
    body[at] = data.draw(st.integers(0, 255))
    assert result_of(from_msgpack, bytes(body))


@given(OBSERVATIONS)
def test_a_document_says_what_the_observation_was(observation: Observation) -> None:
    """Where its payload is shown in base64; one that is shown unpacked may be packed in fewer bytes again."""
    document = to_document(observation)
    if isinstance(document["payload"], str):
        assert from_json(msgspec.json.encode(document), NOW) == [observation]


@pytest.mark.parametrize(
    ("kind", "payload", "value"),
    [
        ("temperature", Measurement(390, "Cel").encode(), {"celsius": 3.9}),
        ("humidity", Measurement(8100, "%RH").encode(), {"percent": 81.0}),
        ("motion", Motion(2300, 6763, 1, 2, 3, 4).encode(), {"seconds": 2.3, "percent": 0.68}),
        ("temperature", b"hot", b64encode(b"hot").decode()),
        ("other", msgspec.msgpack.encode({"a": [1, None]}), {"a": [1, None]}),
        ("other", msgspec.msgpack.encode({"a": b"\xff"}), {"a": b"\xff"}),
        ("other", b"", ""),
        ("other", b"\x81\xa1", b64encode(b"\x81\xa1").decode()),
    ],
)
def test_what_a_reading_says(kind: str, payload: bytes, value: Any) -> None:
    assert meaning(kind, payload) == value


def test_where_a_mistake_is() -> None:
    good = {"device": "a", "sequence": 1, "kind": "k", "payload": 1}
    mistakes: list[tuple[dict[str, Any], str]] = [
        ({"sequence": "1"}, "[1].sequence"),
        ({"sequence": 2**64}, "[1].sequence"),
        ({"sequence": -(2**63) - 1}, "[1].sequence"),
        ({"payload": "?"}, "[1].payload"),
        ({"payload": 2**64}, "[1].payload"),
        ({"payload": {"a": [-(2**63) - 1]}}, "[1].payload"),
    ]
    for changed, where in mistakes:
        with pytest.raises(Malformed) as error:
            from_json(json.dumps([good, good | changed]).encode(), NOW)
        assert error.value.where == where
