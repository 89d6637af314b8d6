"""The sending half of a modelled TCP connection.

Owns what was written and is not acknowledged, and when to send it again: losses are found by time (RACK) with
SACK, at the tail by a probe (RFC 8985), and at last by the retransmission timeout (RFC 6298). How much may be
under way is in `congestion`. A repair that proves needless is undone (RFC 3522). Receive windows are not
modelled.
"""

from __future__ import annotations

from collections import deque
from math import inf
from typing import TYPE_CHECKING

from underlay.messages import Message
from underlay.simulation.congestion import Cubic, RttEstimator
from underlay.simulation.tcp_receiver import Ranges

if TYPE_CHECKING:
    from underlay.simulation.streams import Stream

MSS_BYTES = 1448
_DUPLICATES = 3
_TICK_S = 0.002
_DELAYED_ACK_MAX_S = 0.2

NO_REPAIR, FAST, TIMEOUT = range(3)


class Sent:
    """A segment that is not acknowledged yet."""

    __slots__ = ("again", "data", "end", "first_s", "lost", "sacked", "sent_s", "seq")

    def __init__(self, seq: int, end: int, data: bool, now_s: float) -> None:
        self.seq = seq
        self.end = end
        self.data = data
        self.first_s = self.sent_s = now_s
        self.sacked = self.lost = self.again = False


class Sender:
    """What one end sends."""

    __slots__ = (
        "_agenda", "_alarm_s", "_congestion", "_deadline_s", "_flight", "_flushing", "_last_sent_s",
        "_limited", "_lost", "_needed", "_newest", "_newest_rtt_s", "_probed", "_repair", "_repair_end",
        "_repair_from_s", "_sacked", "_spans", "_stream", "_timeout_from_s", "_una", "_written", "next",
        "rtt",
    )  # fmt: skip

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._agenda = stream.agenda
        self.rtt = RttEstimator()
        self._congestion = Cubic()
        self._una = self.next = self._written = 0
        self._spans: deque[tuple[int, bool]] = deque()
        """Unsent messages: the byte after the last, and whether users' observations are in it."""
        self._flight: deque[Sent] = deque()
        self._sacked = self._lost = 0
        self._newest = (-inf, 0)
        """When the last sent of the delivered segments left, and its end."""
        self._repair = NO_REPAIR
        self._repair_end = 0
        self._repair_from_s = 0.0
        self._needed = 0
        """Segments sent again in this repair and not reported as duplicates (RFC 2883)."""
        self._newest_rtt_s = 0.0
        self._probed = self._limited = self._flushing = False
        self._last_sent_s = self._timeout_from_s = 0.0
        self._deadline_s = self._alarm_s = inf

    @property
    def waiting(self) -> int:
        """Bytes written and not acknowledged."""
        return self._written - self._una

    def write(self, message: Message | None, size_bytes: int, data: bool) -> None:
        """Append a message (None: a hello); what is written at one instant leaves together."""
        self._written += size_bytes
        self._spans.append((self._written, data))
        self._stream.outbox.append((self._written, message))
        if not self._flushing:
            self._flushing = True
            self._agenda.soon(self._flush)

    def push(self) -> None:
        """Send what the window allows: lost segments first, then new ones."""
        if not self._stream.is_open:
            return
        congestion, now_s = self._congestion, self._agenda.now
        if not self._flight:
            self._timeout_from_s = now_s
            if self._written > self.next:
                congestion.idle(now_s - self._last_sent_s)
                if now_s - self._last_sent_s > self.rtt.timeout_s:
                    congestion.restart()
        self._limited = False
        while self._lost or self._written > self.next:
            if self._pipe + 1 > max(congestion.window, 1.0):
                self._limited = True
                break
            if self._lost:
                self._resend(next(sent for sent in self._flight if sent.lost))
            else:
                self._send_new()
        self._set_alarm()

    def acknowledged(self, ack: int, sacks: Ranges, echo_s: float) -> None:
        """The other end has everything before `ack`, and `sacks`; it answers what left at `echo_s`."""
        flight = self._flight
        if not flight:
            return
        before, window_full = len(flight), self._limited
        advanced = ack > self._una
        delivered = self._take_acknowledged(ack, echo_s) + (self._take_sacked(sacks) if sacks else 0)
        if advanced:
            self._una = ack
            self._timeout_from_s = self._agenda.now
            self._probed = False
            self.rtt.acknowledged()
            if self._repair and echo_s < self._repair_from_s:
                self._undo()
        if self._repair and sacks and sacks[0][1] <= ack:
            self._needed -= 1
            if self._needed <= 0:
                self._undo()
        lost_before = self._lost
        if self._sacked or self._repair:
            self._mark_lost()
        self._adapt(delivered, before, window_full, self._lost > lost_before)
        self.push()

    # ------------------------------------------------------------------------------------------------ helpers

    @property
    def _pipe(self) -> int:
        """Segments believed to be under way (RFC 6675)."""
        return len(self._flight) - self._sacked - self._lost

    def _flush(self, _: object, __: object) -> None:
        self._flushing = False
        self.push()

    def _send_new(self) -> None:
        end = min(self.next + MSS_BYTES, self._written)
        reached, data = self.next, False
        while reached < end:
            reached, carries_data = self._spans[0]
            data |= carries_data
            if reached <= end:
                self._spans.popleft()
        sent = Sent(self.next, end, data, self._agenda.now)
        self._flight.append(sent)
        self.next = end
        self._transmit(sent)

    def _resend(self, sent: Sent) -> None:
        self._lost -= sent.lost
        self._needed += 1
        sent.lost = False
        sent.again = True
        sent.sent_s = self._agenda.now
        self._transmit(sent)

    def _transmit(self, sent: Sent) -> None:
        self._last_sent_s = self._agenda.now
        if self._repair == FAST:
            self._congestion.sent()
        self._stream.transmit(sent.seq, sent.end, sent.data)

    def _take_acknowledged(self, ack: int, echo_s: float) -> int:
        flight, now_s = self._flight, self._agenda.now
        delivered = 0
        sampled = not (flight and flight[0].end <= ack)
        while flight and flight[0].end <= ack:
            sent = flight.popleft()
            self._lost -= sent.lost
            self._sacked -= sent.sacked
            if not sent.sacked:
                delivered += 1
                if not sent.again and not sampled:
                    sampled = True
                    self.rtt.sample(now_s - sent.sent_s, now_s)
                self._note_delivered(sent)
        if not sampled:  # all were sent again: only the echo tells which copy arrived
            self.rtt.sample(now_s - echo_s, now_s)
        return delivered

    def _take_sacked(self, sacks: Ranges) -> int:
        delivered = 0
        for sent in self._flight:
            if not sent.sacked and any(low <= sent.seq and sent.end <= high for low, high in sacks):
                sent.sacked = True
                self._lost -= sent.lost
                sent.lost = False
                self._sacked += 1
                delivered += 1
                self._note_delivered(sent)
        return delivered

    def _begin_repair(self, kind: int) -> None:
        self._repair, self._repair_end, self._repair_from_s = kind, self.next, self._agenda.now
        self._needed = 0

    def _undo(self) -> None:
        """First copies arrived (RFC 3522), or all sent again came twice (RFC 2883): nothing was lost."""
        self._congestion.undo()
        self._repair = NO_REPAIR
        self._lost = 0
        for sent in self._flight:
            sent.lost = False

    def _note_delivered(self, sent: Sent) -> None:
        """A copy sent again is only believed to be the one delivered if a round trip has passed."""
        rtt_s = self._agenda.now - sent.sent_s
        believed = not sent.again or rtt_s >= self.rtt.min_s
        if believed and (sent.sent_s, sent.end) > self._newest:
            self._newest = (sent.sent_s, sent.end)
            self._newest_rtt_s = rtt_s

    def _mark_lost(self) -> float:
        """What left before something that arrived is lost, after a while; returns seconds until more is."""
        reordering_s = 0.0 if self._repair or self._sacked >= _DUPLICATES else self.rtt.min_s / 4.0
        now_s = self._agenda.now
        wait_s = inf
        for sent in self._flight:
            if not sent.sacked and not sent.lost and (sent.sent_s, sent.end) < self._newest:
                left_s = sent.sent_s + self._newest_rtt_s + reordering_s - now_s
                if left_s <= 1e-9:
                    sent.lost = True
                    self._lost += 1
                else:
                    wait_s = min(wait_s, left_s)
        return wait_s

    def _adapt(self, delivered: int, before: int, window_full: bool, lost_more: bool) -> None:
        """Adapt the window to `delivered` of the `before` segments that were under way."""
        congestion = self._congestion
        if self._repair and self._una >= self._repair_end:
            if self._repair == FAST:
                congestion.repaired()
            self._repair = NO_REPAIR
        if self._repair == FAST:
            congestion.repair(delivered, self._pipe)
        elif lost_more and not self._repair:
            self._begin_repair(FAST)
            congestion.reduce(self._pipe)
        elif delivered and (window_full or congestion.window < min(2.0 * before, congestion.ssthresh)):
            congestion.grow(delivered, self._agenda.now, self.rtt, self._una, self.next)

    # ------------------------------------------------------------------------------------------------- timers

    def _set_alarm(self) -> None:
        """For whichever comes first: reordering, a tail probe, the timeout, the user's patience."""
        if not self._flight:
            self._deadline_s = inf
            return
        now_s = self._agenda.now
        deadline_s = self._timeout_from_s + self.rtt.timeout_s
        if self._sacked:
            deadline_s = min(deadline_s, now_s + self._mark_lost())
        elif not self._probed and not self._repair:
            ack_delay_s = _DELAYED_ACK_MAX_S if len(self._flight) == 1 else _TICK_S
            deadline_s = min(deadline_s, now_s + 2.0 * self.rtt.smoothed_s + ack_delay_s)
        patience_s = self._flight[0].first_s + self._stream.user_timeout_s
        self._deadline_s = max(now_s, min(deadline_s, patience_s))
        if self._deadline_s < self._alarm_s:
            self._alarm_s = self._deadline_s
            self._agenda.at(self._alarm_s, self._ring, self._alarm_s)

    def _ring(self, at_s: float, _: object) -> None:
        if at_s != self._alarm_s:
            return
        self._alarm_s = inf
        if not self._stream.is_open or not self._flight:
            return
        if self._agenda.now < self._deadline_s:
            self._alarm_s = self._deadline_s
            self._agenda.at(self._alarm_s, self._ring, self._alarm_s)
        else:
            self._expire()

    def _expire(self) -> None:
        now_s = self._agenda.now
        if now_s >= self._flight[0].first_s + self._stream.user_timeout_s:
            self._stream.close()
        elif now_s >= self._timeout_from_s + self.rtt.timeout_s and (
            self._probed or self._repair or self._sacked
        ):
            self._time_out()
        elif self._sacked:
            self._find_lost()
        else:
            self._probe()

    def _probe(self) -> None:
        """Send something new, or the last segment again: its acknowledgement shows what is missing."""
        self._probed = True
        if self._written > self.next:
            self._send_new()
        else:
            self._resend(self._flight[-1])
        self._timeout_from_s = self._agenda.now
        self._set_alarm()

    def _find_lost(self) -> None:
        self._mark_lost()
        self._adapt(0, len(self._flight), False, self._lost > 0)
        self.push()

    def _time_out(self) -> None:
        self.rtt.back_off()
        if self._repair != TIMEOUT:
            self._congestion.collapse(during_repair=self._repair == FAST)
            self._begin_repair(TIMEOUT)
        self._repair_end = self.next
        for sent in self._flight:
            sent.lost = not sent.sacked
        self._lost = len(self._flight) - self._sacked
        self._timeout_from_s = self._agenda.now
        self.push()
