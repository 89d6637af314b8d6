"""One pure model of a link's direction: what every enforcer (simulation, ether) asks about each frame.

Owns rate, queue, framing, delay, jitter and loss of one direction; knows no clock and no sockets. The frame's
size is that of its IP packet; the link adds its own framing per fragment. Loss is Gilbert-Elliott with a
lossless good state and a lossy bad state (Gilbert 1960; Elliott 1963): mean rate `loss_ratio` and mean burst
length `burst_frames` give the transition probabilities r = 1/B and p = r L / (1 - L).
Frames of one direction are never reordered: jitter delays a frame, and those behind it wait.
"""

from __future__ import annotations

from bisect import bisect_right
from math import inf, log, log1p
from random import Random

import msgspec

LOST = -1.0
"""`LinkModel.offer`: the frame was sent, and lost on the air."""
QUEUE_FULL = -2.0
"""`LinkModel.offer`: the frame never left, the sender's queue was full."""


class LinkSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One direction of a link, as data."""

    rate_kbps: float = inf
    """Net rate of the medium, kbit/s; infinite means unlimited."""
    delay_ms: float = 0.0
    """One-way delay after serialization, ms."""
    jitter_ms: float = 0.0
    """Uniform in +-jitter_ms around delay_ms."""
    loss_ratio: float = 0.0
    """Mean share of fragments lost, 0..1."""
    burst_frames: float = 1.0
    """Mean length of a loss burst in fragments, >= 1. Never less than that of independent losses,
    1 / (1 - loss_ratio), so that 1, the default, is independent loss."""
    queue_bytes: int = 75_000
    """Bytes that may wait before the link; a frame that would exceed it is dropped (tail drop)."""
    mtu_bytes: int = 1500
    """Largest IP packet part one fragment carries; larger packets are fragmented by the link
    (6LoWPAN-like)."""
    overhead_bytes: int = 0
    """Framing added to every fragment (headers, preamble as bytes, link-layer acknowledgement)."""
    opportunities_ms: tuple[float, ...] = ()
    """Optional recorded trace of delivery opportunities (ms from its start, ascending; one fragment each),
    repeated with the period of its last entry (Mahimahi, USENIX ATC 2015). Replaces `rate_kbps`."""

    def __post_init__(self) -> None:
        for name, low, high in _BOUNDS:
            value = getattr(self, name)
            if not low <= value <= high:
                raise ValueError(f"{name} = {value} is outside {low}..{high}")
        if self.rate_kbps <= 0:
            raise ValueError("rate_kbps must be above 0")
        if self.jitter_ms > self.delay_ms:
            raise ValueError(f"jitter_ms = {self.jitter_ms} exceeds delay_ms = {self.delay_ms}")
        if self.opportunities_ms and (
            list(self.opportunities_ms) != sorted(self.opportunities_ms) or self.opportunities_ms[-1] <= 0
        ):
            raise ValueError("opportunities_ms must ascend and end above 0")

    def fragments(self, size_bytes: int) -> int:
        """Link frames that an IP packet of that size becomes."""
        return max(1, -(-size_bytes // self.mtu_bytes))

    def arrival_ratio(self, size_bytes: int) -> float:
        """Share of IP packets of that size of which no fragment is lost."""
        if self.loss_ratio >= 1.0:
            return 0.0
        leave = min(1.0 / self.burst_frames, 1.0 - self.loss_ratio)
        enter = leave * self.loss_ratio / (1.0 - self.loss_ratio)
        return float((1.0 - self.loss_ratio) * (1.0 - enter) ** (self.fragments(size_bytes) - 1))

    def bytes_on_air(self, size_bytes: int) -> int:
        """Bytes transmitted for an IP packet of that size, framing included."""
        return size_bytes + self.fragments(size_bytes) * self.overhead_bytes

    def airtime_s(self, size_bytes: int) -> float:
        """Seconds the medium is busy with an IP packet of that size."""
        return self.bytes_on_air(size_bytes) * 8e-3 / self.rate_kbps


_BOUNDS: tuple[tuple[str, float, float], ...] = (
    ("delay_ms", 0.0, 600_000.0),
    ("jitter_ms", 0.0, 600_000.0),
    ("loss_ratio", 0.0, 1.0),
    ("burst_frames", 1.0, 1e6),
    ("queue_bytes", 1, 1 << 40),
    ("mtu_bytes", 8, 65_535),
    ("overhead_bytes", 0, 10_000),
)


class LossProcess:
    """Gilbert-Elliott loss, one step a fragment.

    How long each state lasts is drawn when it begins: geometric, as the chain's own steps would make it, and
    mostly one subtraction a fragment.

    Args:
        loss_ratio: mean share lost, 0..1 (1 loses everything).
        burst_frames: mean length of a run of losses, at least that of independent ones.
        rng: this direction's own random stream.
    """

    __slots__ = ("_bad", "_left", "_log_stay_bad", "_log_stay_good", "_random")

    def __init__(self, loss_ratio: float, burst_frames: float, rng: Random) -> None:
        self._random = rng.random
        leave = min(1.0 / burst_frames, 1.0 - loss_ratio)
        enter = 1.0 if loss_ratio >= 1.0 else leave * loss_ratio / (1.0 - loss_ratio)
        self._log_stay_bad = _log_of_staying(leave)
        self._log_stay_good = _log_of_staying(enter)
        self._bad = self._random() < loss_ratio
        self._left = self._sojourn()

    def lost(self, fragments: int) -> bool:
        """Whether any of the next `fragments` frames is lost, which loses the packet they carry."""
        if self._left > fragments:
            self._left -= fragments
            return self._bad
        any_lost = False
        for _ in range(fragments):
            any_lost |= self._bad
            self._left -= 1
            if self._left == 0:
                self._bad = not self._bad
                self._left = self._sojourn()
        return any_lost

    def _sojourn(self) -> float:
        """Frames that the state which begins lasts, at least 1."""
        log_stay = self._log_stay_bad if self._bad else self._log_stay_good
        if log_stay == 0.0:
            return inf
        return 1 + log(1.0 - self._random()) // log_stay


def _log_of_staying(probability_to_go: float) -> float:
    return log1p(-probability_to_go) if probability_to_go < 1.0 else -inf


class LinkModel:
    """State of one direction of a link. `offer` is the hot path of both fabrics.

    Counters are cumulative and public: `frames` and `bytes_on_air` transmitted (lost ones included),
    `airtime_s`, `data_bytes` (the part that enforcers attribute to users' data), `lost`, `queue_dropped`,
    `cut` (dropped by a fault).
    """

    __slots__ = (
        "_busy_until_s", "_delay_s", "_jitter_s", "_last_arrival_s", "_loss", "_mtu_bytes",
        "_opportunities_ms", "_overhead_bytes", "_queue_s", "_random", "_s_per_byte", "airtime_s",
        "bytes_on_air", "cut", "data_bytes", "frames", "lost", "queue_dropped", "spec",
    )  # fmt: skip

    def __init__(self, spec: LinkSpec, rng: Random) -> None:
        self._busy_until_s = 0.0
        self._last_arrival_s = 0.0
        self.frames = self.bytes_on_air = self.data_bytes = self.lost = self.queue_dropped = self.cut = 0
        self.airtime_s = 0.0
        self.configure(spec, rng)

    def configure(self, spec: LinkSpec, rng: Random) -> None:
        """Take on another spec (a `Degrade` fault); what is queued or under way keeps its schedule."""
        self.spec = spec
        self._random = rng.random
        self._s_per_byte = 8e-3 / spec.rate_kbps
        self._delay_s = (spec.delay_ms - spec.jitter_ms) * 1e-3
        self._jitter_s = 2e-3 * spec.jitter_ms
        self._opportunities_ms = spec.opportunities_ms
        self._queue_s = spec.queue_bytes * self._s_per_byte
        if trace_ms := spec.opportunities_ms:  # on average; each carries up to a whole fragment
            self._queue_s = spec.queue_bytes / spec.mtu_bytes * trace_ms[-1] * 1e-3 / len(trace_ms)
        self._mtu_bytes = spec.mtu_bytes
        self._overhead_bytes = spec.overhead_bytes
        self._loss = LossProcess(spec.loss_ratio, spec.burst_frames, rng) if spec.loss_ratio else None

    def offer(self, now_s: float, size_bytes: int, data: bool = False) -> float:
        """Send an IP packet of `size_bytes` at `now_s`; its arrival time, or `LOST` or `QUEUE_FULL`.

        `data` says that it carries users' observations. Times must not go backwards between calls.
        """
        fragments = 1 if size_bytes <= self._mtu_bytes else -(-size_bytes // self._mtu_bytes)
        on_air = size_bytes + fragments * self._overhead_bytes
        start_s = self._busy_until_s
        if start_s <= now_s:
            start_s = now_s
        elif start_s - now_s > self._queue_s:
            self.queue_dropped += 1
            return QUEUE_FULL
        if self._opportunities_ms:
            sent_s = self._after_opportunities(start_s, fragments)
            self.airtime_s += sent_s - start_s
        else:
            airtime_s = on_air * self._s_per_byte
            sent_s = start_s + airtime_s
            self.airtime_s += airtime_s
        self._busy_until_s = sent_s
        self.frames += 1
        self.bytes_on_air += on_air
        if data:
            self.data_bytes += on_air
        if self._loss is not None and self._loss.lost(fragments):
            self.lost += 1
            return LOST
        arrival_s = sent_s + self._delay_s
        if self._jitter_s:
            arrival_s += self._jitter_s * self._random()
            if arrival_s < self._last_arrival_s:
                arrival_s = self._last_arrival_s
            self._last_arrival_s = arrival_s
        return arrival_s

    def _after_opportunities(self, start_s: float, fragments: int) -> float:
        """When the `fragments`-th delivery opportunity after `start_s` ends."""
        trace = self._opportunities_ms
        period_ms = trace[-1]
        whole, rest_ms = divmod(start_s * 1e3, period_ms)
        index = bisect_right(trace, rest_ms) + fragments - 1
        return (whole * period_ms + (index // len(trace)) * period_ms + trace[index % len(trace)]) * 1e-3
