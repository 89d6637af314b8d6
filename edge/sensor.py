"""A birdhouse's sensors: replay real data sets on a schedule that every architecture shares.

Observation k of a sensor is due at `start_s + k * period_s` of the device's clock, whatever happened
before: so the observation set depends on the spec and the seed only, a restarted device goes on with the
right number, and what it missed while it was down stays missed. The dissemination node on the same device
gets each observation as a local message.
"""

from __future__ import annotations

from math import ceil

import msgspec

from edge.datasets import Track, track
from edge.events import Generated
from edge.observation import Observation, ObservationId, Observed
from underlay.messages import Protocol
from underlay.node import Context, Node, Timer


class SensorConfig(msgspec.Struct, frozen=True):
    """One sensor of a device."""

    kind: str
    period_s: float
    """Between observations, seconds of the device's clock."""
    start_s: float
    """First observation."""
    stop_s: float
    """No observation is made from then on (the run's cool-down)."""
    index: int
    """Which of the deterministic tracks through the data set (station, offset) this device replays."""
    replay_speed: float = 1.0
    """Data-set seconds that pass per second of the run."""


class Sensors(Node):
    """All sensors of one device. Sequence numbers are shared: sensor i of n makes the numbers k * n + i."""

    protocol = Protocol("sensors")

    def __init__(self, sensors: tuple[SensorConfig, ...], deliver_to: str) -> None:
        self._sensors = sensors
        self._deliver_to = deliver_to
        self._tracks: list[Track] = []

    def on_start(self, ctx: Context) -> None:
        self._tracks = [track(sensor.kind, sensor.index, ctx.rng) for sensor in self._sensors]
        for i, sensor in enumerate(self._sensors):
            first = max(0, ceil((ctx.now - sensor.start_s) / sensor.period_s))
            self._schedule(ctx, i, first)

    def on_timer(self, ctx: Context, timer: Timer) -> None:
        assert isinstance(timer, tuple)
        i, k = timer
        sensor = self._sensors[i]
        sample = self._tracks[i].sample(k, sensor.period_s * sensor.replay_speed)
        observation = Observation(
            id=ObservationId(ctx.device, k * len(self._sensors) + i),
            kind=sensor.kind,
            t_event=sample.t_event,
            t_gen=ctx.now,
            payload=sample.payload,
        )
        size_bytes = len(observation.encode())
        ctx.emit(Generated(str(observation.id), sensor.kind, size_bytes, observation.t_event))
        ctx.send(f"{ctx.device}/{self._deliver_to}", Observed(observation))
        self._schedule(ctx, i, k + 1)

    def _schedule(self, ctx: Context, i: int, k: int) -> None:
        sensor = self._sensors[i]
        due_s = sensor.start_s + k * sensor.period_s
        if due_s < sensor.stop_s:
            ctx.set_timer((i, k), due_s - ctx.now)
