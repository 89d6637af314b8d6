"""The ether's loop: reads frames from TAPs, asks the models when they arrive, writes them at that time.

Owns the heap of frames under way, the timer and the order in which work is done; the physics and the counters
are `ether_hops`, commands and records are `ether`. A frame is due at the time its model says, not so much
after the wake-up that found it: lateness is measured and never adds up.

The two inner loops run 50,000 times a second: in them a frame costs two system calls, one call of its model,
one push and one pop.
"""

from __future__ import annotations

import os
import select
from collections.abc import Callable, Sequence
from heapq import heappop, heappush
from itertools import count
from time import monotonic
from typing import Any

from underlay.emulation.ether_hops import CUT, ETHERNET_BYTES, Fate, FrameClass, Hop, LinkHop, Tap
from underlay.emulation.ether_lag import BUCKETS_PER_S, LagHistogram
from underlay.emulation.timerfd import Timer

BURST_FRAMES = 32
"""Read from one TAP before the others get their turn."""
_SLEPT_S = 20e-6
"""A poll that took longer has waited: what it reports came in just now."""

Witness = Callable[[Tap, bytes, float, Sequence[Fate]], None]
"""Told of every frame: where it came from, what it is, when it was read, and what becomes of it."""

_Entry = tuple[float, int, Hop | None, Any, float]
"""When it is due, a number that keeps equals in order, the hop and its frame (or None and an action), and how
long the frame may have waited to be read."""

write = os.write
"""How a frame is handed to its receiver. A name of its own, so that a test can put a lying link in its
place."""


class EtherLoop:
    """Moves frames until `stop`.

    Attributes:
        origin_s: the models' time zero, seconds of `time.monotonic()`.
        witness: told of every frame, if not None.
    """

    def __init__(self, taps: Sequence[Tap], frame_class: FrameClass | None = None) -> None:
        self.origin_s = monotonic()
        self.witness: Witness | None = None
        self.lag = LagHistogram()
        self._taps = {tap.fd: tap for tap in taps}
        self._frame_class = frame_class
        self._on_readable: dict[int, Callable[[], None]] = {}
        self._number = count().__next__
        self._heap: list[_Entry] = []
        self._stopped = False
        self._timer = Timer()
        self._poll = select.epoll()
        self._poll.register(self._timer.fd, select.EPOLLIN | select.EPOLLET)
        for fd in self._taps:
            self._poll.register(fd, select.EPOLLIN)

    def on_readable(self, fd: int, action: Callable[[], None]) -> None:
        """Call `action` whenever `fd` can be read."""
        self._on_readable[fd] = action
        self._poll.register(fd, select.EPOLLIN)

    def at(self, due_s: float, action: Callable[[], None]) -> None:
        """Call `action` at `due_s`, between frames."""
        heappush(self._heap, (due_s, self._number(), None, action, 0.0))

    def stop(self) -> None:
        """Let `run` return; what is under way stays there."""
        self._stopped = True

    def run(self) -> None:
        """Move frames."""
        heap, taps, poll, timer = self._heap, self._taps, self._poll.poll, self._timer
        on_readable = self._on_readable
        size = len(taps) + 8
        timer_s = -1.0
        polled_s = monotonic()
        while True:
            before_s = monotonic()
            timeout: float = -1
            if heap:
                due_s = heap[0][0]
                if due_s <= before_s:
                    timeout = 0
                elif due_s != timer_s:
                    timer.set(due_s)
                    timer_s = due_s
            ready = poll(timeout, size)
            now_s = monotonic()
            # A frame found now came after the poll before this one, or just now if this one slept.
            earliest_s = now_s if now_s - before_s > _SLEPT_S else polled_s
            polled_s = now_s
            if heap and heap[0][0] <= now_s:
                self._deliver()
            for fd, _ in ready:
                tap = taps.get(fd)
                if tap is not None:
                    if tap.hop is not None:
                        self._take(tap, tap.hop, earliest_s)
                    else:
                        self._take_for_all(tap, earliest_s)
                    if heap and heap[0][0] <= monotonic():
                        self._deliver()
                elif fd in on_readable:
                    on_readable[fd]()
                    if self._stopped:
                        return

    def _take(self, tap: Tap, hop: LinkHop, earliest_s: float) -> None:
        """Read what waits at the end of a link."""
        fd, size, clock, push, heap, number = (
            tap.fd,
            tap.frame_bytes,
            monotonic,
            heappush,
            self._heap,
            self._number,
        )
        offer, origin_s, witness, frame_class = (
            hop.model.offer,
            self.origin_s,
            self.witness,
            self._frame_class,
        )
        read = os.read
        frames = 0
        try:
            while frames < BURST_FRAMES:
                frame = read(fd, size)
                frames += 1
                now_s = clock()
                if hop.is_cut:
                    hop.cut += 1
                    due_s = CUT
                else:
                    data = frame_class is not None and frame_class(memoryview(frame)[ETHERNET_BYTES:])
                    due_s = offer(now_s - origin_s, len(frame) - ETHERNET_BYTES, data)
                    if due_s >= 0.0:
                        due_s += origin_s
                        push(heap, (due_s, number(), hop, frame, now_s - earliest_s))
                    else:
                        hop.dropped += 1
                if witness is not None:
                    witness(tap, frame, now_s, ((hop, due_s),))
        except BlockingIOError:
            pass
        tap.read += frames
        hop.offered += frames

    def _take_for_all(self, tap: Tap, earliest_s: float) -> None:
        """Read what a member of a channel sends. Channels are slow: no need to hurry."""
        if tap.antenna is None:
            return
        for _ in range(BURST_FRAMES):
            try:
                frame = os.read(tap.fd, tap.frame_bytes)
            except BlockingIOError:
                return
            tap.read += 1
            now_s = monotonic()
            fates = tap.antenna.carry(frame, now_s - self.origin_s, self._frame_class)
            scheduled = [(hop, due_s + self.origin_s if due_s >= 0.0 else due_s) for hop, due_s in fates]
            for hop, due_s in scheduled:
                if due_s >= 0.0:
                    heappush(self._heap, (due_s, self._number(), hop, frame, now_s - earliest_s))
            if self.witness is not None:
                self.witness(tap, frame, now_s, scheduled)

    def _deliver(self) -> None:
        """Write every frame that is due, and run every action."""
        heap, clock, pop, put, lags = self._heap, monotonic, heappop, write, self.lag.current
        now_s = clock()
        while heap and heap[0][0] <= now_s:
            due_s, _, hop, frame, waited_s = pop(heap)
            if hop is None:
                frame()
                lags = self.lag.current
                now_s = clock()
            elif hop.is_cut:
                hop.cut_late += 1
            else:
                try:
                    put(hop.out_fd, frame)
                except OSError:
                    hop.refused += 1
                    continue
                now_s = clock()
                hop.written += 1
                bucket = int((now_s - due_s + waited_s) * BUCKETS_PER_S)
                lags[bucket] = lags.get(bucket, 0) + 1
