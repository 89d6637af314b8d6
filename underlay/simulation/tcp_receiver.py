"""The receiving half of a modelled TCP connection.

Owns what has arrived, when complete messages go to the node, and when to acknowledge: at once while the
connection is young, after two full segments, for anything out of order, and when the node has read a message
that two short segments or one-way traffic brought; otherwise after 40 ms, unless an answer carries the
acknowledgement (RFC 1122 §4.2.3.2, RFC 2018, and Linux's quick-acknowledgement and interactive modes).
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from underlay.simulation.streams import Stream

DELAYED_ACK_S = 0.04
_QUICK_ACKS = 16
_MSS_GUESS_BYTES = 536
_SACKS_MAX = 3

Ranges = tuple[tuple[int, int], ...]


class Receiver:
    """What one end has received."""

    __slots__ = (
        "_acknowledged", "_again", "_beyond", "_due_s", "_interactive", "_last_s", "_mss_bytes", "_quick",
        "_short", "_stream", "_unacknowledged", "echo_s", "next",
    )  # fmt: skip

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self.next = 0
        """Everything before this byte has arrived."""
        self._beyond: list[tuple[int, int]] = []
        """Ranges received after a hole, the latest first."""
        self._again: Ranges = ()
        """What arrived a second time since the last acknowledgement (RFC 2883)."""
        self._unacknowledged = 0
        self._short = 0
        """Segments among them that end a message: the node has read them."""
        self._acknowledged = 0
        self._due_s = inf
        self._quick = 0
        self._interactive = False
        self._last_s = -inf
        self._mss_bytes = _MSS_GUESS_BYTES
        self.echo_s = -inf
        """When the segment left that the next acknowledgement answers (RFC 7323 §4.3)."""

    def take(self, seq: int, end: int, sent_s: float) -> None:
        """Bytes `seq` to `end` arrived, which left at `sent_s`."""
        agenda = self._stream.agenda
        if agenda.now - self._last_s > self._stream.sender.rtt.timeout_s:
            self._quick = _QUICK_ACKS
        self._last_s = agenda.now
        self._mss_bytes = max(self._mss_bytes, end - seq)
        self._short += end - seq < self._mss_bytes
        if seq <= self._acknowledged:
            self.echo_s = sent_s
        if seq > self.next or end <= self.next:
            if seq > self.next:
                self._keep(seq, end)
            else:
                self._again = ((seq, end),)
            self._quick, self._interactive = _QUICK_ACKS, False
            self._acknowledge_now()
            return
        filled = bool(self._beyond)
        self._advance(end)
        self._unacknowledged += end - seq
        if self._interactive:
            due = self._short > 1
        else:
            due = self._short > 0 or self._quick > 0
        if due or filled or self._unacknowledged > self._mss_bytes:
            self._acknowledge_now()
        elif self._due_s == inf:
            self._due_s = agenda.now + DELAYED_ACK_S
            agenda.at(self._due_s, self._acknowledge_late, self._due_s)
        self._stream.deliver(self.next)

    def acknowledge(self, with_data: bool) -> tuple[int, Ranges]:
        """What a segment that leaves now says about what was received."""
        self._unacknowledged = self._short = 0
        self._acknowledged = self.next
        self._due_s = inf
        self._quick -= self._quick > 0
        if with_data and self._stream.agenda.now - self._last_s < DELAYED_ACK_S:
            self._interactive = True
        again, self._again = self._again, ()
        return self.next, (*again, *self._beyond)[:_SACKS_MAX]

    def _keep(self, seq: int, end: int) -> None:
        apart = []
        for low, high in self._beyond:
            if high < seq or end < low:
                apart.append((low, high))
            else:
                seq, end = min(seq, low), max(end, high)
        self._beyond = [(seq, end), *apart]

    def _advance(self, end: int) -> None:
        self.next = end
        for low, high in sorted(self._beyond):
            if low <= self.next:
                self.next = max(self.next, high)
        self._beyond = [(low, high) for low, high in self._beyond if high > self.next]

    def _acknowledge_now(self) -> None:
        position = self._stream.sender.next
        self._stream.transmit(position, position, False)

    def _acknowledge_late(self, due_s: float, _: object) -> None:
        if self._due_s == due_s and self._stream.is_open:
            self._interactive = False
            self._acknowledge_now()
