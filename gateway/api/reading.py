"""Bodies of requests: observations in JSON or msgpack, and back into JSON.

JSON: `{"device": "cam3", "sequence": 17, "kind": "temperature", "t_event": 1357020000, "t_gen": 12.5,
"payload": ...}`, or a list of these. A payload that is a string is base64 (RFC 4648 §4) of the bytes;
anything else is packed with msgpack, as the birdhouses' own readings are: `{"h": 390, "u": "Cel"}`. Times
may be left out. msgpack: the encoded observation as devices send it, or an array of them.
"""

from __future__ import annotations

from base64 import b64decode
from binascii import Error as Base64Error
from typing import Any

import msgspec

from edge.observation import Observation, ObservationId
from gateway.readings import shown

BATCH_MAX = 1000
_INTEGERS = range(-(2**63), 2**64)
"""That msgpack has."""


class Malformed(Exception):
    """No observation: what is wrong, and where."""

    def __init__(self, problem: str, where: str = "") -> None:
        super().__init__(problem)
        self.problem = problem
        self.where = where


class Document(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An observation in JSON."""

    device: str
    sequence: int
    kind: str
    payload: Any
    t_gen: float | None = None
    """None: now, by the gateway's clock."""
    t_event: float | None = None
    """None: when it was made."""

    def observation(self, now: float, where: str = "") -> Observation:
        """What it means; raises Malformed."""
        t_gen = now if self.t_gen is None else self.t_gen
        t_event = t_gen if self.t_event is None else self.t_event
        if self.sequence not in _INTEGERS:
            raise Malformed("a number has 64 bits at most", f"{where}.sequence")
        return Observation(
            ObservationId(self.device, self.sequence), self.kind, t_event, t_gen, self._bytes(where)
        )

    def _bytes(self, where: str) -> bytes:
        if not isinstance(self.payload, str):
            try:
                return msgspec.msgpack.encode(self.payload)
            except (OverflowError, RecursionError) as error:
                raise Malformed("a number has 64 bits at most", f"{where}.payload") from error
        try:
            return b64decode(self.payload, validate=True)
        except (Base64Error, ValueError) as error:
            raise Malformed(f"a payload that is a string is base64: {error}", f"{where}.payload") from error


def from_json(body: bytes, now: float) -> list[Observation]:
    """Of one document or a list of them, at `now` by the gateway's clock; raises Malformed."""
    try:
        given = msgspec.json.decode(body, type=Document | list[Document])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _malformed(error) from error
    if isinstance(given, Document):
        return [given.observation(now)]
    _check_length(len(given))
    return [document.observation(now, f"[{n}]") for n, document in enumerate(given)]


def from_msgpack(body: bytes, _now: float = 0.0) -> list[Observation]:
    """Of one encoded observation or an array of them; raises Malformed."""
    try:
        parts = msgspec.msgpack.decode(body, type=list[msgspec.Raw])
        # One observation begins with its id, an array of two; a batch with an observation, an array of five.
        if parts and len(msgspec.msgpack.decode(parts[0], type=list[msgspec.Raw])) == 2:
            return [Observation.decode(body)]
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _malformed(error) from error
    _check_length(len(parts))
    found = []
    for n, part in enumerate(parts):
        try:
            found.append(Observation.decode(bytes(part)))
        except msgspec.DecodeError as error:
            raise _malformed(error, f"[{n}]") from error
    return found


def to_document(observation: Observation) -> dict[str, Any]:
    """As JSON has it: a reading's payload unpacked, any other in base64."""
    return {
        "device": observation.id.device,
        "sequence": observation.id.sequence,
        "kind": observation.kind,
        "t_event": observation.t_event,
        "t_gen": observation.t_gen,
        "payload": shown(observation.payload),
    }


def _check_length(count: int) -> None:
    if count > BATCH_MAX:
        raise Malformed(f"a batch has {BATCH_MAX} observations at most, and this has {count}")


def _malformed(error: Exception, where: str = "") -> Malformed:
    """msgspec says where as `$[3].t_gen`."""
    problem, _, at = str(error).partition(" - at `$")
    return Malformed(problem.replace("`", ""), where or at.rstrip("`"))
