"""TCP's estimates: when to retransmit, and how much may be under way.

Owns the retransmission timeout (RFC 6298, with Linux's floor of 200 ms under the variance) and the congestion
window (CUBIC, RFC 9438; delay-based exit from slow start, HyStart, Ha and Rhee 2011; proportional rate
reduction, RFC 6937). Pure functions of what a connection tells them; windows are in segments.
"""

from __future__ import annotations

from math import ceil, inf

INITIAL_WINDOW = 10.0
"""RFC 6928."""
RTO_INITIAL_S = 1.0
RTO_MAX_S = 120.0
_VARIATION_MIN_S = 0.2
_BETA = 0.7
_C = 0.4
_FRIENDLY = 3.0 * (1.0 - _BETA) / (1.0 + _BETA)


class RttEstimator:
    """Smoothed round-trip time and the timeout that follows from it.

    As in Linux, the variation grows with the largest deviation of a round trip, shrinks slowly, and counts
    a sudden improvement less.
    """

    __slots__ = (
        "_backoff", "_deviation_s", "_largest_s", "_round_from_s", "_variation_s", "latest_s", "min_s",
        "smoothed_s",
    )  # fmt: skip

    def __init__(self) -> None:
        self.smoothed_s = 0.0
        """0 until the first sample."""
        self.latest_s = 0.0
        self.min_s = inf
        self._deviation_s = self._variation_s = self._largest_s = 0.0
        self._round_from_s = 0.0
        self._backoff = 1.0

    @property
    def timeout_s(self) -> float:
        """Seconds after which unacknowledged data is sent again."""
        if not self.smoothed_s:
            return min(RTO_INITIAL_S * self._backoff, RTO_MAX_S)
        return min((self.smoothed_s + self._variation_s) * self._backoff, RTO_MAX_S)

    def sample(self, rtt_s: float, now_s: float) -> None:
        """A segment took `rtt_s` to be acknowledged."""
        self.latest_s = rtt_s
        self.min_s = min(self.min_s, rtt_s)
        if not self.smoothed_s:
            self.smoothed_s = rtt_s
            self._deviation_s = rtt_s / 2.0
            self._largest_s = self._variation_s = max(4.0 * self._deviation_s, _VARIATION_MIN_S)
            self._round_from_s = now_s
            return
        error_s = rtt_s - self.smoothed_s
        self.smoothed_s += error_s / 8.0
        change_s = abs(error_s) - self._deviation_s
        self._deviation_s += (change_s / 8.0 if error_s < 0.0 < change_s else change_s) / 4.0
        self._largest_s = max(self._largest_s, 4.0 * self._deviation_s)
        self._variation_s = max(self._variation_s, self._largest_s)
        if now_s - self._round_from_s >= self.smoothed_s:
            self._variation_s -= (self._variation_s - self._largest_s) / 4.0
            self._largest_s = _VARIATION_MIN_S
            self._round_from_s = now_s

    def back_off(self) -> None:
        """The timeout passed in vain: the next is twice as long."""
        self._backoff *= 2.0

    def acknowledged(self) -> None:
        """New data was acknowledged: no more back-off."""
        self._backoff = 1.0


class Cubic:
    """The congestion window of one direction of a connection."""

    __slots__ = (
        "_before", "_delivered", "_epoch_s", "_origin", "_plateau", "_prior", "_reno", "_round_end",
        "_round_min_s", "_round_samples", "_sent", "_w_max", "ssthresh", "window",
    )  # fmt: skip

    def __init__(self) -> None:
        self.window = INITIAL_WINDOW
        self.ssthresh = inf
        self._before = (self.window, self.ssthresh)
        self._w_max = self._plateau = 0.0
        self._epoch_s = -1.0
        self._origin = 0.0
        """Seconds after which the cubic is back at the window of the last loss (K)."""
        self._reno = 0.0
        self._round_end = 0
        self._round_samples = 0
        self._round_min_s = inf
        self._prior = 0.0
        self._delivered = self._sent = 0

    def grow(self, acked: int, now_s: float, rtt: RttEstimator, una: int, next_: int) -> None:
        """`acked` segments were acknowledged while the window limited the sender; no loss is being repaired.

        `una` and `next_` are the sequence numbers acknowledged and next to send: they tell rounds apart.
        """
        if self.window < self.ssthresh:
            self.window = min(self.window + acked, max(self.ssthresh, self.window))
            self._watch_delay(rtt, una, next_)
            return
        if self._epoch_s < 0.0:
            self._epoch_s = now_s
            self._reno = self.window
            self._origin = ((self._w_max - self.window) / _C) ** (1 / 3) if self.window < self._w_max else 0.0
            self._plateau = max(self._w_max, self.window)
        since_s = now_s - self._epoch_s + rtt.min_s
        target = self._plateau + _C * (since_s - self._origin) ** 3
        self._reno += _FRIENDLY * acked / self.window
        target = min(max(target, self._reno), 1.5 * self.window)
        per_ack = max((target - self.window) / self.window, 0.01 / self.window)
        if not self._w_max:
            per_ack = max(per_ack, 0.05)  # nothing is known of the path: grow by one in twenty at least
        self.window += acked * per_ack

    def reduce(self, pipe: int) -> None:
        """A loss was seen: begin a proportional rate reduction to the lower threshold."""
        self._note_loss()
        self._prior = max(self.window, 1.0)
        self._delivered = self._sent = 0
        self.window = pipe + 1.0

    def repair(self, delivered: int, pipe: int) -> None:
        """During the reduction `delivered` segments arrived and `pipe` are under way."""
        self._delivered += delivered
        allowed: float
        if pipe > self.ssthresh:
            allowed = ceil(self._delivered * self.ssthresh / self._prior) - self._sent
        else:
            allowed = min(self.ssthresh - pipe, max(self._delivered - self._sent, delivered) + 1)
        self.window = pipe + max(allowed, 0)

    def sent(self) -> None:
        """A segment left during the reduction."""
        self._sent += 1

    def repaired(self) -> None:
        """Everything that was under way at the loss has arrived."""
        self.window = max(self.ssthresh, 2.0)

    def collapse(self, *, during_repair: bool = False) -> None:
        """The retransmission timeout passed: begin again with one segment, and forget the cubic.

        A loss that was being repaired already has lowered the threshold.
        """
        if not during_repair:
            self._note_loss()
        self.window = 1.0
        self._w_max = 0.0
        self._epoch_s = -1.0

    def undo(self) -> None:
        """What was taken for a loss was a delay (RFC 4015): go on as before."""
        self.window, self.ssthresh = max(self.window, self._before[0]), max(self.ssthresh, self._before[1])

    def idle(self, idle_s: float) -> None:
        """Nothing was under way for that long: the cubic stood still."""
        if self._epoch_s >= 0.0:
            self._epoch_s += idle_s

    def restart(self) -> None:
        """Nothing was sent for longer than the timeout: what was learnt of the path is stale (RFC 2861)."""
        self.ssthresh = max(self.ssthresh, 0.75 * self.window) if self.ssthresh < inf else inf
        self.window = min(self.window, INITIAL_WINDOW)

    def _note_loss(self) -> None:
        self._before = (self.window, self.ssthresh)
        self._w_max = self.window * (1.0 + _BETA) / 2.0 if self.window < self._w_max else self.window
        self.ssthresh = max(2.0, self.window * _BETA)
        self._epoch_s = -1.0

    def _watch_delay(self, rtt: RttEstimator, una: int, next_: int) -> None:
        """HyStart: leave slow start when a round's fastest of eight samples shows a queue."""
        if una >= self._round_end:
            self._round_end, self._round_samples, self._round_min_s = next_, 0, inf
        if self._round_samples < 8:
            self._round_samples += 1
            self._round_min_s = min(self._round_min_s, rtt.latest_s)
        elif self.window >= 16.0 and self._round_min_s > rtt.min_s + min(max(rtt.min_s / 8.0, 0.004), 0.016):
            self.ssthresh = self.window
