"""A birdhouse's sensors: replay real data sets on a schedule that every architecture shares.

Sample k of a sensor is due at a time that depends on its track and the device's clock alone, whatever
happened before: so the observation set depends on the spec and the seed only, a restarted device goes on
with the right number, and what it missed while it was down stays missed. The dissemination node on the
same device gets each observation as a local message.
"""

from __future__ import annotations

import msgspec

from edge.datasets import Track, track
from edge.events import Generated
from edge.observation import Observation, ObservationId, Observed
from underlay.messages import Protocol
from underlay.network import seeded
from underlay.node import Context, Node, Timer


class SensorConfig(msgspec.Struct, frozen=True):
    """One sensor of a device."""

    kind: str
    period_s: float
    """Between observations on average, seconds of the device's clock; motion keeps its own pattern."""
    start_s: float
    """First observation."""
    stop_s: float
    """No observation is made from then on (the run's cool-down)."""
    index: int
    """Which of the deterministic tracks through the data set (station, offset) this device replays."""
    seed: int
    """The run's: bursts of motion are drawn anew from it in every incarnation, and so are the same."""
    replay_speed: float = 1.0
    """Data-set seconds that pass per second of the run."""

    @property
    def step_s(self) -> float:
        """Data-set seconds between samples."""
        return self.period_s * self.replay_speed


class Sensors(Node):
    """All sensors of one device, whose observations are numbered together: by when they are due, sensors of
    the same moment in their order. So numbers have gaps only where the device was down."""

    protocol = Protocol("sensors")

    def __init__(self, sensors: tuple[SensorConfig, ...], *deliver_to: str) -> None:
        self._sensors = sensors
        self._deliver_to = deliver_to
        self._tracks: list[Track] = []

    def on_start(self, ctx: Context) -> None:
        self._tracks = [
            track(sensor.kind, sensor.index, seeded(sensor.seed, "sensor", ctx.device, sensor.kind))
            for sensor in self._sensors
        ]
        for i, sensor in enumerate(self._sensors):
            elapsed_s = max(0.0, ctx.now - sensor.start_s) * sensor.replay_speed
            self._schedule(ctx, i, self._tracks[i].first_due(elapsed_s, sensor.step_s))

    def on_timer(self, ctx: Context, timer: Timer) -> None:
        assert isinstance(timer, tuple)
        i, k = timer
        sensor = self._sensors[i]
        sample = self._tracks[i].sample(k, sensor.step_s)
        observation = Observation(
            id=ObservationId(ctx.device, self._sequence(i, k)),
            kind=sensor.kind,
            t_event=sample.t_event,
            t_gen=ctx.now,
            payload=sample.payload,
        )
        size_bytes = len(observation.encode())
        ctx.emit(Generated(str(observation.id), sensor.kind, size_bytes, observation.t_event))
        for node in self._deliver_to:
            ctx.send(f"{ctx.device}/{node}", Observed(observation))
        self._schedule(ctx, i, k + 1)

    def _schedule(self, ctx: Context, i: int, k: int) -> None:
        due_s = self._due_s(i, k)
        if due_s < self._sensors[i].stop_s:
            ctx.set_timer((i, k), due_s - ctx.now)

    def _due_s(self, i: int, k: int) -> float:
        sensor = self._sensors[i]
        return sensor.start_s + self._tracks[i].elapsed_s(k, sensor.step_s) / sensor.replay_speed

    def _sequence(self, i: int, k: int) -> int:
        """How many observations of the device are due before sample k of sensor i."""
        due_s = self._due_s(i, k)
        return k + sum(self._earlier(j, due_s, i) for j in range(len(self._sensors)) if j != i)

    def _earlier(self, j: int, due_s: float, i: int) -> int:
        """Samples of sensor j that come before one of sensor i due at `due_s`."""
        sensor = self._sensors[j]
        elapsed_s = (due_s - sensor.start_s) * sensor.replay_speed
        k = self._tracks[j].first_due(max(0.0, elapsed_s), sensor.step_s)
        # Near to it, as rounding may have it; exactly, by the times that timers are set to.
        while k > 0 and (self._due_s(j, k - 1), j) > (due_s, i):
            k -= 1
        while (self._due_s(j, k), j) < (due_s, i):
            k += 1
        return k
