"""What a gateway knows of the devices it has heard: how much came, what was last, what it has already.

Memory is bounded: of the numbers that came, gaps are remembered up to a limit, and of the devices as many as
the bounds say. What is forgotten is taken for new when it comes again, which costs a write that changes
nothing, since an observation always has the same key; it is never taken for a duplicate.
"""

from __future__ import annotations

import msgspec

from edge.intervals import Intervals
from edge.observation import Observation
from gateway.credibility import NAME
from gateway.messages import DeviceState, Latest

GAPS_MAX = 1000
DEVICES_MAX = 10_000
KINDS_MAX = 64
"""Of a device."""
PAYLOAD_BYTES_MAX = 1024
"""Larger payloads are not kept here beside the store."""


class _Known:
    """One device."""

    def __init__(self) -> None:
        self.numbers = Intervals()
        self.kept = self.duplicates = self.dead_letters = 0
        self.last_heard = self.newest = 0.0
        self.latest: dict[str, Latest] = {}


class Registry:
    """All devices that were heard of since the gateway started."""

    def __init__(self) -> None:
        self._devices: dict[str, _Known] = {}

    def has(self, observation: Observation) -> bool:
        """Whether one of that id has been kept."""
        known = self._devices.get(observation.id.device)
        return known is not None and observation.id.sequence in known.numbers

    def kept(self, observation: Observation, size_bytes: int, now: float) -> None:
        """It is, or will be once this handler's writes are durable."""
        known = self._known(observation.id.device, now)
        known.kept += 1
        known.numbers.add(observation.id.sequence)
        bounds = known.numbers.bounds()
        if len(bounds) > 2 * (GAPS_MAX + 1):
            known.numbers = Intervals(bounds[2:])
        known.newest = max(known.newest, observation.t_gen)
        before = known.latest.get(observation.kind)
        if (before is None and len(known.latest) < KINDS_MAX) or (
            before is not None and before.t_event <= observation.t_event
        ):
            known.latest[observation.kind] = _latest(observation, size_bytes, now)

    def repeated(self, device: str, now: float) -> None:
        """A duplicate came."""
        self._known(device, now).duplicates += 1

    def refused(self, device: str, now: float) -> None:
        """Something of it became a dead letter. What no device can be called is nobody's."""
        if not NAME.match(device):
            return
        if device in self._devices or len(self._devices) < DEVICES_MAX:
            self._known(device, now).dead_letters += 1

    def states(self, now: float) -> tuple[DeviceState, ...]:
        """By name."""
        return tuple(
            DeviceState(
                name=name,
                kept=known.kept,
                duplicates=known.duplicates,
                dead_letters=known.dead_letters,
                last_heard=known.last_heard,
                age_s=max(0.0, now - known.newest) if known.kept else now,
                latest=tuple(known.latest[kind] for kind in sorted(known.latest)),
            )
            for name, known in sorted(self._devices.items())
        )

    def _known(self, device: str, now: float) -> _Known:
        known = self._devices.get(device)
        if known is None:
            if len(self._devices) >= DEVICES_MAX:  # the one not heard for longest is forgotten
                del self._devices[min(self._devices, key=lambda name: self._devices[name].last_heard)]
            known = self._devices[device] = _Known()
        known.last_heard = now
        return known


def _latest(observation: Observation, size_bytes: int, now: float) -> Latest:
    small = len(observation.payload) <= PAYLOAD_BYTES_MAX
    latest = Latest(
        id=str(observation.id),
        kind=observation.kind,
        t_event=observation.t_event,
        t_gen=observation.t_gen,
        t_kept=now,
        size_bytes=size_bytes,
        key=observation.key(),
    )
    return msgspec.structs.replace(latest, payload=observation.payload) if small else latest
