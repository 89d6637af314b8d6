"""Bodies of requests: observations in JSON or msgpack, and back into JSON.

JSON: `{"device": "cam3", "sequence": 17, "kind": "temperature", "t_event": 1357020000, "t_gen": 12.5,
"payload": ...}`, or a list of these. A payload that is a string is base64 (RFC 4648 §4) of the bytes;
anything else is packed with msgpack, as the birdhouses' own readings are: `{"h": 390, "u": "Cel"}`. msgpack:
the encoded observation as devices send it, or an array of them.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from binascii import Error as Base64Error
from typing import Any

import msgspec

from edge.observation import Observation, ObservationId

BATCH_MAX = 1000


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
    t_event: float
    t_gen: float
    payload: Any

    def observation(self, where: str = "") -> Observation:
        """What it means; raises Malformed."""
        return Observation(
            ObservationId(self.device, self.sequence), self.kind, self.t_event, self.t_gen, self._bytes(where)
        )

    def _bytes(self, where: str) -> bytes:
        if not isinstance(self.payload, str):
            return msgspec.msgpack.encode(self.payload)
        try:
            return b64decode(self.payload, validate=True)
        except (Base64Error, ValueError) as error:
            raise Malformed(f"a payload that is a string is base64: {error}", f"{where}.payload") from error


def from_json(body: bytes) -> list[Observation]:
    """Of one document or a list of them; raises Malformed."""
    try:
        given = msgspec.json.decode(body, type=Document | list[Document])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _malformed(error) from error
    if isinstance(given, Document):
        return [given.observation()]
    _check_length(len(given))
    return [document.observation(f"[{n}]") for n, document in enumerate(given)]


def from_msgpack(body: bytes) -> list[Observation]:
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


def shown(payload: bytes) -> Any:
    """A payload that is a msgpack map or array of plain values as these; any other in base64."""
    if payload and (payload[0] >> 4 in (0x8, 0x9) or payload[0] in (0xDC, 0xDE)):
        try:
            value = msgspec.msgpack.decode(payload)
            msgspec.json.encode(value)
        except (msgspec.DecodeError, msgspec.ValidationError, UnicodeDecodeError, TypeError, RecursionError):
            pass
        else:
            return value
    return b64encode(payload).decode()


def _check_length(count: int) -> None:
    if count > BATCH_MAX:
        raise Malformed(f"a batch has {BATCH_MAX} observations at most, and this has {count}")


def _malformed(error: Exception, where: str = "") -> Malformed:
    """msgspec says where as `$[3].t_gen`."""
    problem, _, at = str(error).partition(" - at `$")
    return Malformed(problem.replace("`", ""), where or at.rstrip("`"))
