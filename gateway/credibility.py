"""Whether an observation can be what it says: what a gateway will not store, whoever brings it.

Pure rules about one observation. What is refused here would be refused the next time too, so it is
acknowledged and becomes a dead letter with the reason. Whether there is room is the spool's question.
"""

from __future__ import annotations

import re
from math import isfinite

import msgspec

from edge.observation import Observation

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}\Z", re.ASCII)
"""Of a device: it becomes part of keys, topics, paths and names."""
KIND = re.compile(r"[a-z0-9][a-z0-9._-]{0,31}\Z", re.ASCII)
SEQUENCE_MAX = 10**10 - 1
"""Ten digits, as wide as a storage key has them."""
EVENT_S_MAX = 9_999_999_999.0
"""The year 2286; the time in a storage key has ten digits before the point."""


class Limits(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is believed."""

    size_bytes_max: int = 60 * 1024
    """Of the encoded observation: one command of the store carries it."""
    future_s_max: float = 86_400.0
    """`t_gen` may be so far ahead of the gateway's clock: device clocks are set badly, not by years."""
    past_s_max: float | None = None
    """And so far behind; None: an observation may have waited for as long as it likes."""


def problem_of(observation: Observation, size_bytes: int, now: float, limits: Limits) -> str:
    """Why it cannot be stored, as a sentence; empty: it can.

    Args:
        observation: decoded, so that its types are right.
        size_bytes: of its encoding.
        now: the gateway's clock, seconds.
        limits: what is believed.

    >>> from edge.observation import ObservationId
    >>> seen = Observation(ObservationId("cam{3}", 1), "temperature", 0.0, 0.0, b"")
    >>> problem_of(seen, 30, 0.0, Limits())
    "'cam{3}' is no name of a device"
    """
    device, sequence = observation.id.device, observation.id.sequence
    if not NAME.match(device):
        return f"{_shown(device)} is no name of a device"
    if not KIND.match(observation.kind):
        return f"{_shown(observation.kind)} is no name of a kind"
    if not 0 <= sequence <= SEQUENCE_MAX:
        return f"its number is {sequence}, which is not between 0 and {SEQUENCE_MAX}"
    if not (isfinite(observation.t_event) and 0.0 <= observation.t_event <= EVENT_S_MAX):
        return f"its t_event is {observation.t_event}, which is not between 0 and {EVENT_S_MAX:.0f}"
    if not isfinite(observation.t_gen):
        return f"its t_gen is {observation.t_gen}"
    if size_bytes > limits.size_bytes_max:
        return f"it has {size_bytes} bytes, and {limits.size_bytes_max} are the most"
    ahead_s = observation.t_gen - now
    if ahead_s > limits.future_s_max:
        return f"it was made {ahead_s:.0f} s from now"
    if limits.past_s_max is not None and -ahead_s > limits.past_s_max:
        return f"it was made {-ahead_s:.0f} s ago"
    return ""


def _shown(text: str) -> str:
    return repr(text if len(text) <= 40 else f"{text[:40]}...")
