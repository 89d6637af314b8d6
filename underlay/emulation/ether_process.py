"""The inside of the ether's process: its priority, its commands, the records it writes.

Owns the trace of the ether (`LinkUsage` and `EtherLag`, every interval and at the end) and when models start
afresh. The runner's end is `ether`.

The process asks for real-time priority (SCHED_FIFO), or else the best niceness it can get: a frame that has
to wait until a node's time slice is over is late. It never collects garbage, since nothing in its loop makes
cycles.
"""

from __future__ import annotations

import ctypes
import gc
import os
import signal
import socket
from collections.abc import Collection, Iterator, Sequence
from itertools import islice
from pathlib import Path
from time import monotonic, process_time

from underlay.emulation.ether_hops import ETHERNET_BYTES, Fate, FrameClass, Media, Tap
from underlay.emulation.ether_lag import EtherLag
from underlay.emulation.ether_loop import EtherLoop
from underlay.emulation.ether_wire import (
    Answer,
    AnyCommand,
    Capture,
    Count,
    Cut,
    Done,
    Failed,
    LogProbes,
    ProbeFate,
    ProbeLog,
    Rehearse,
    Reshape,
    Start,
    Stop,
    Totals,
    receive_command,
    send,
)
from underlay.emulation.pcap import FrameCapture
from underlay.emulation.realtime import ETHER_PRIORITY, become_realtime
from underlay.trace import TraceWriter

PROBE_ETHERTYPE = b"\x88\xb5"
"""Local experimental ethertype 1 (IEEE 802): frames that measure links, and that no protocol takes for its
own."""
PROBE_KEY_BYTES = 8
"""Their first payload bytes, which tell one probe from all others."""

_HOPS_A_SLICE = 16
"""Directions whose records are written before frames get their turn."""
_SLICE_PAUSE_S = 100e-6
_PR_SET_PDEATHSIG = 1


def become_ether(parent: int, keep: Collection[int]) -> None:
    """Turn a freshly forked child into the ether's process.

    It dies with `parent`, keeps the descriptors in `keep` and the three standard ones, and leaves what is
    signalled to the whole group (Ctrl-C) to the runner, who stops it in order.
    """
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    wanted = sorted({0, 1, 2, *keep})
    for low, high in zip(wanted, [*wanted[1:], os.sysconf("SC_OPEN_MAX")], strict=True):
        os.closerange(low + 1, high)
    gc.disable()
    gc.freeze()
    become_realtime(ETHER_PRIORITY)


class EtherProcess:
    """Runs the loop and does what the runner says."""

    def __init__(
        self,
        media: Media,
        control: socket.socket,
        trace: TraceWriter,
        usage_interval_s: float,
        frame_class: FrameClass | None,
    ) -> None:
        self._media = media
        self._control = control
        self._trace = trace
        self._interval_s = usage_interval_s
        self._loop = EtherLoop(media.taps, frame_class)
        self._loop.on_readable(control.fileno(), self._on_command)
        self._capture: FrameCapture | None = None
        self._probes: list[ProbeFate] | None = None
        self._t0_s: float | None = None
        self._started_cpu_s = self._reported_cpu_s = process_time()
        self._started_s = self._reported_s = monotonic()
        self._peak_cpu_ratio = 0.0
        self._failure = ""
        """Why records or captures cannot be written (a full disk); the next command is told."""

    def run(self) -> None:
        """Until the runner says stop, or is gone."""
        self._loop.run()

    # ----------------------------------------------------------------------------------------------- commands

    def _on_command(self) -> None:
        try:
            command = receive_command(self._control)
        except EOFError:
            self._loop.stop()
            return
        answer: Answer = Done()
        try:
            answer = self._do(command)
        except OSError as problem:
            self._failure = str(problem)
        send(self._control, Failed(self._failure) if self._failure else answer)

    def _do(self, command: AnyCommand) -> Answer:
        match command:
            case Start(t0_s):
                self._loop.at(t0_s, lambda: self._begin(t0_s))
            case Cut(pairs, cut):
                self._media.cut(pairs, cut)
            case Reshape(medium, source, target, spec, nth):
                self._media.reshape(medium, source, target, spec, nth)
            case Rehearse(specs):
                self._media.rehearse({(medium, source): spec for medium, source, spec in specs})
            case Count():
                return self._totals()
            case LogProbes(on):
                probes, self._probes = self._probes or [], [] if on else None
                self._set_witness()
                if not on:
                    return ProbeLog(probes)
            case Capture(folder):
                self._capture = FrameCapture(Path(folder), self._media)
                self._set_witness()
            case Stop():
                self._loop.stop()
                for _ in self._records():
                    pass
                self._trace.flush()
                self._end_capture()
                return self._totals()
        return Done()

    def _begin(self, t0_s: float) -> None:
        self._loop.origin_s = self._t0_s = t0_s
        self._media.restart()
        self._loop.lag.clear()
        self._started_cpu_s = self._reported_cpu_s = process_time()
        self._started_s = self._reported_s = monotonic()
        self._peak_cpu_ratio = 0.0
        self._loop.at(t0_s + self._interval_s, lambda: self._end_interval(t0_s + self._interval_s))

    def _totals(self) -> Totals:
        wall_s = max(1e-9, monotonic() - self._started_s)
        return Totals(
            hops=self._media.hop_totals(),
            ports=self._media.port_totals(),
            lag=self._loop.lag.total(),
            cpu_ratio=(process_time() - self._started_cpu_s) / wall_s,
            peak_cpu_ratio=self._peak_cpu_ratio,
        )

    # ------------------------------------------------------------------------------------------------ records

    def _end_interval(self, due_s: float) -> None:
        self._write_slice(self._records())
        next_s = due_s + self._interval_s
        self._loop.at(next_s, lambda: self._end_interval(next_s))

    def _write_slice(self, records: Iterator[None]) -> None:
        """Write a few records, then let frames pass: a thousand links' records at once would delay them."""
        try:
            written = sum(1 for _ in islice(records, _HOPS_A_SLICE))
        except OSError as problem:
            self._failure = str(problem)
            return
        if written == _HOPS_A_SLICE:
            self._loop.at(monotonic() + _SLICE_PAUSE_S, lambda: self._write_slice(records))

    def _records(self) -> Iterator[None]:
        """Writes the records of the interval that ends now, pausing after each direction."""
        if self._t0_s is None:
            return
        self._write_lag(self._t0_s)
        for usage in self._media.usage():
            if usage is not None:
                self._trace.write(monotonic() - self._t0_s, usage)
            yield
        if self._capture is not None:
            self._capture.flush()
        self._trace.flush()

    def _write_lag(self, t0_s: float) -> None:
        now_s, cpu_s = monotonic(), process_time()
        cpu_ratio = (cpu_s - self._reported_cpu_s) / max(1e-9, now_s - self._reported_s)
        self._reported_s, self._reported_cpu_s = now_s, cpu_s
        self._peak_cpu_ratio = max(self._peak_cpu_ratio, cpu_ratio)
        lag = self._loop.lag.end_interval()
        if lag.frames:
            self._trace.write(now_s - t0_s, EtherLag(lag.frames, lag.p99_ms, lag.max_ms, round(cpu_ratio, 3)))

    # ---------------------------------------------------------------------------------------------- witnesses

    def _set_witness(self) -> None:
        watching = self._capture is not None or self._probes is not None
        self._loop.witness = self._witness if watching else None

    def _witness(self, tap: Tap, frame: bytes, read_s: float, fates: Sequence[Fate]) -> None:
        if self._capture is not None:
            self._capture.frame(tap, frame, read_s, fates)
        if self._probes is not None:
            is_probe = frame[12:14] == PROBE_ETHERTYPE
            key = frame[ETHERNET_BYTES : ETHERNET_BYTES + PROBE_KEY_BYTES] if is_probe else b""
            size_bytes = len(frame) - ETHERNET_BYTES
            self._probes += [
                ProbeFate(hop.medium, hop.source, hop.target, key, size_bytes, read_s, due_s)
                for hop, due_s in fates
            ]

    def _end_capture(self) -> None:
        if self._capture is not None:
            self._capture.close()
            self._capture = None
            self._set_witness()
