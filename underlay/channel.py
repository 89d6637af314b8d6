"""A shared radio channel: half-duplex, one rate for all, a broadcast sent once and heard by all in range.

Owns the medium (who may transmit when, the duty cycle, per-sender queue); each hearer's loss, delay and
jitter are its own. Collisions and spatial reuse are not modelled: the channel serializes all transmissions
of its members, as an ideal CSMA would, and the report says so.
"""

from __future__ import annotations

from random import Random

from underlay.link import LOST, QUEUE_FULL, LinkSpec, LossProcess


class ChannelModel:
    """State of one channel.

    `transmit` reserves the medium once; `hear` then decides for every hearer separately.
    Counters per sender: `frames`, `bytes_on_air`, `data_bytes`, `airtime_s`, `queue_dropped`; per
    (sender, hearer): `lost`.
    """

    __slots__ = (
        "_busy_until_s",
        "_hearers",
        "_quiet_until_s",
        "airtime_s",
        "bytes_on_air",
        "data_bytes",
        "duty_cycle_ratio",
        "frames",
        "lost",
        "queue_dropped",
        "spec",
    )

    def __init__(self, spec: LinkSpec, duty_cycle_ratio: float = 1.0) -> None:
        self.spec = spec
        self.duty_cycle_ratio = duty_cycle_ratio
        self._busy_until_s = 0.0
        self._quiet_until_s: dict[str, float] = {}
        self._hearers: dict[tuple[str, str], _Hearer] = {}
        self.frames: dict[str, int] = {}
        self.bytes_on_air: dict[str, int] = {}
        self.data_bytes: dict[str, int] = {}
        self.airtime_s: dict[str, float] = {}
        self.queue_dropped: dict[str, int] = {}
        self.lost: dict[tuple[str, str], int] = {}

    def add_hearer(self, sender: str, hearer: str, rng: Random, spec: LinkSpec | None = None) -> None:
        """Let `hearer` hear `sender`, with its own loss, delay and jitter (default: the channel's)."""
        self._hearers[sender, hearer] = _Hearer(spec or self.spec, rng)
        self.lost.setdefault((sender, hearer), 0)

    def hearers(self, sender: str) -> list[str]:
        """Who is in range of `sender`, in the order they were added."""
        return [hearer for s, hearer in self._hearers if s == sender]

    def transmit(self, sender: str, now_s: float, size_bytes: int, data: bool = False) -> float:
        """When the transmission of an IP packet ends, or QUEUE_FULL; `data` as in `LinkModel.offer`.

        Waits for the medium and for the sender's duty cycle: after an airtime of a the sender keeps quiet for
        a (1/d - 1) (ETSI EN 300 220-1, per-transmission reading of the duty-cycle limit d).
        """
        start_s = max(now_s, self._busy_until_s, self._quiet_until_s.get(sender, 0.0))
        if start_s > now_s and (start_s - now_s) * self.spec.rate_kbps * 125.0 > self.spec.queue_bytes:
            self.queue_dropped[sender] = self.queue_dropped.get(sender, 0) + 1
            return QUEUE_FULL
        airtime_s = self.spec.airtime_s(size_bytes)
        end_s = start_s + airtime_s
        self._busy_until_s = end_s
        if self.duty_cycle_ratio < 1.0:
            self._quiet_until_s[sender] = end_s + airtime_s * (1.0 / self.duty_cycle_ratio - 1.0)
        self.frames[sender] = self.frames.get(sender, 0) + 1
        on_air = self.spec.bytes_on_air(size_bytes)
        self.bytes_on_air[sender] = self.bytes_on_air.get(sender, 0) + on_air
        if data:
            self.data_bytes[sender] = self.data_bytes.get(sender, 0) + on_air
        self.airtime_s[sender] = self.airtime_s.get(sender, 0.0) + airtime_s
        return end_s

    def hear(self, sender: str, hearer: str, end_s: float, size_bytes: int) -> float:
        """When `hearer` has the packet whose transmission ended at `end_s`, or LOST."""
        arrival_s = self._hearers[sender, hearer].arrival_s(end_s, self.spec.fragments(size_bytes))
        if arrival_s == LOST:
            self.lost[sender, hearer] += 1
        return arrival_s


class _Hearer:
    __slots__ = ("_delay_s", "_jitter_s", "_last_arrival_s", "_loss", "_random")

    def __init__(self, spec: LinkSpec, rng: Random) -> None:
        self._random = rng.random
        self._delay_s = (spec.delay_ms - spec.jitter_ms) * 1e-3
        self._jitter_s = 2e-3 * spec.jitter_ms
        self._last_arrival_s = 0.0
        self._loss = LossProcess(spec.loss_ratio, spec.burst_frames, rng) if spec.loss_ratio else None

    def arrival_s(self, end_s: float, fragments: int) -> float:
        if self._loss is not None and self._loss.lost(fragments):
            return LOST
        arrival_s = max(end_s + self._delay_s + self._jitter_s * self._random(), self._last_arrival_s)
        self._last_arrival_s = arrival_s
        return arrival_s
