"""What a payload says, for people, rules and JSON."""

from __future__ import annotations

from base64 import b64encode
from typing import Any

import msgspec

from edge.datasets import Measurement, Motion
from edge.observation import Observation


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


def meaning(kind: str, payload: bytes) -> Any:
    """What a reading of a birdhouse says, by names with units: `{"celsius": 3.9}`; others as `shown`."""
    try:
        match kind:
            case "temperature" | "humidity":
                measured = Measurement.decode(payload)
                return {_UNITS.get(measured.unit, measured.unit): measured.value_hundredths / 100}
            case "motion" | "motion-bursts":
                motion = Motion.decode(payload)
                return {"seconds": motion.duration_ms / 1000, "percent": round(motion.area_ppm / 10_000, 2)}
    except (msgspec.DecodeError, UnicodeDecodeError):
        pass  # somebody else's payload under that name
    return shown(payload)


def document(observation: Observation) -> dict[str, Any]:
    """An observation in JSON, as destinations outside of the store get it."""
    return {
        "device": observation.id.device,
        "sequence": observation.id.sequence,
        "kind": observation.kind,
        "t_event": observation.t_event,
        "t_gen": observation.t_gen,
        "value": meaning(observation.kind, observation.payload),
    }


_UNITS = {"Cel": "celsius", "%RH": "percent"}
