"""Probe frames: sent inside one namespace, received inside another with the kernel's own time stamps.

Owns their format, how fast each stream of them is sent so that it can tell its link's rate, and the sockets.
What the observations say about a link is decided in `verification`.

A probe goes to the address of the nearest bridge (IEEE 802.1Q, table 8-1), which no bridge forwards; as a
group address it is a broadcast on a channel.
"""

from __future__ import annotations

import select
import socket
import struct
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from heapq import heapify, heapreplace
from math import ceil, inf

import msgspec

from underlay.emulation.ether_process import PROBE_ETHERTYPE
from underlay.emulation.namespace import Namespace
from underlay.emulation.realtime import PROBER_PRIORITY, realtime
from underlay.emulation.timerfd import Timer
from underlay.link import LinkSpec
from underlay.network import Network

WINDOW_S = 5.4
"""How long every stream lasts: the rate is taken over 5 s, and the first and last frames are late by their
delay."""
FRAMES_FOR_DELAY = 100
"""Fewer arrivals cannot tell a 99th percentile."""
FRAMES_FOR_RATE = 20

_BUDGET_PER_S = 10_000
"""Probes sent over all links: what ether and prober do side by side without being late themselves."""
_PER_STREAM_PER_S = 150
_LONGEST_WINDOW_S = 10.5
_DELAY_MAX_MS = 2_000.0
_SIZE_MIN_BYTES, _SIZE_MAX_BYTES = 46, 1500
_HEAD_START_FRAMES = 3
_HURRY_RATIO = 1.02
"""Offered a little faster than the link can send, so that it never idles."""
_NEAREST_BRIDGE = bytes.fromhex("0180c200000e")
_CLOSERS = 32
_SENDS_A_LOOK = 8
_PATIENCE_S = 2.0
"""How long to wait, after the last probe should have arrived, for what a machine that stood still left
under way."""
_KEY = struct.Struct("<HHI")
_TIMESPEC = struct.Struct("@qq")
_SO_TIMESTAMPNS = 35
_SO_RCVBUFFORCE = 33


class ProbePoint(msgspec.Struct, frozen=True):
    """Where probes can be sent and received: a port, seen from its device."""

    device: str
    medium: str
    namespace: Namespace
    interface: str


class Stream(msgspec.Struct, frozen=True):
    """The probes that one device sends over one medium."""

    medium: str
    source: str
    targets: tuple[str, ...]
    shared: bool
    """A channel, which this and other streams keep busy together."""
    spec: LinkSpec
    """As planned."""
    rehearsed: LinkSpec
    """What the ether runs meanwhile: `spec` in scaled time, at a scaled rate."""
    time_scale: float
    """How many times as fast as planned time runs, at least 1: a slow link sends enough frames to tell."""
    rate_scale: float
    """By how much the rate is reduced, at most 1: a fast link can be kept busy by few frames."""
    size_bytes: int
    """Of a probe, as an IP packet."""
    frames: int
    interval_s: float

    @property
    def limited(self) -> bool:
        """Whether there is a rate to tell; such a medium is kept busy all the time."""
        return self.spec.rate_kbps < inf or bool(self.spec.opportunities_ms)

    @property
    def group(self) -> tuple[str, str]:
        """What the ether rehearses and whose rate is measured: `(medium, source)`, of a channel `(medium,
        "*")`."""
        return self.medium, "*" if self.shared else self.source

    @property
    def longest_s(self) -> float:
        """Until its last probe has arrived for sure."""
        waits_ms = self.rehearsed.delay_ms + self.rehearsed.jitter_ms
        return self.frames * self.interval_s * 1.04 + waits_ms * 1e-3 + 0.1


def plan_streams(network: Network) -> list[Stream]:
    """How to probe every direction at once, each link kept busy.

    A link too slow to send enough frames, or with a delay too long to wait for, runs in a faster time; one
    too fast for its share of the budget runs at a lower rate.
    """
    senders = sum(len(channel.members) for channel in network.channels) + 2 * len(network.links)
    per_s = min(_PER_STREAM_PER_S, _BUDGET_PER_S / max(1, senders))
    streams = []
    for link in network.links:
        for source in (link.a, link.b):
            target = link.other(source)
            streams.append(_stream(link.name, source, (target,), link.spec_from(source), per_s))
    for channel in network.channels:
        heard: dict[str, list[str]] = {member: [] for member in channel.members}
        for a, b in channel.pairs:
            heard[a].append(b)
            heard[b].append(a)
        streams += [
            _stream(channel.name, source, tuple(targets), channel.spec, per_s, len(heard))
            for source, targets in heard.items()
        ]
    return streams


def _stream(
    medium: str, source: str, targets: tuple[str, ...], spec: LinkSpec, per_s: float, members: int = 0
) -> Stream:
    """The stream of one sender, at about `per_s`; `members` share a channel, 0 says that it is a link."""
    senders = max(1, members)
    wanted = FRAMES_FOR_DELAY * 1.2 / max(0.1, 1.0 - spec.loss_ratio)
    window_s = min(_LONGEST_WINDOW_S, max(WINDOW_S, wanted / per_s))
    size_bytes = _SIZE_MIN_BYTES
    able_per_s = inf
    if spec.opportunities_ms:
        size_bytes = max(_SIZE_MIN_BYTES, min(_SIZE_MAX_BYTES, spec.mtu_bytes))
        able_per_s = len(spec.opportunities_ms) / spec.opportunities_ms[-1] * 1e3 / senders
    elif spec.rate_kbps < inf:
        fits_bytes = int(spec.rate_kbps * 125.0 / (per_s * senders)) - spec.overhead_bytes
        size_bytes = max(_SIZE_MIN_BYTES, min(_SIZE_MAX_BYTES, spec.mtu_bytes, fits_bytes))
        able_per_s = 1.0 / (spec.airtime_s(size_bytes) * senders)
    speed_up = 1.0 if able_per_s >= wanted / window_s else per_s / able_per_s
    time_scale = max(1.0, speed_up, (spec.delay_ms + spec.jitter_ms) / _DELAY_MAX_MS)
    rate_scale = 1.0
    sent_per_s = per_s
    if able_per_s < inf:
        excess = able_per_s * time_scale / per_s
        rate_scale = 1.0 if excess <= 1.1 else 1.0 / excess
        sent_per_s = able_per_s * time_scale * rate_scale * _HURRY_RATIO
    return Stream(
        medium=medium,
        source=source,
        targets=targets,
        shared=members > 0,
        spec=spec,
        rehearsed=_scaled(spec, time_scale, rate_scale),
        time_scale=time_scale,
        rate_scale=rate_scale,
        size_bytes=size_bytes,
        frames=ceil(window_s * sent_per_s) + _HEAD_START_FRAMES,
        interval_s=1.0 / sent_per_s,
    )


def _scaled(spec: LinkSpec, time_scale: float, rate_scale: float) -> LinkSpec:
    return msgspec.structs.replace(
        spec,
        rate_kbps=spec.rate_kbps * time_scale * rate_scale,
        delay_ms=spec.delay_ms / time_scale,
        jitter_ms=spec.jitter_ms / time_scale,
        opportunities_ms=tuple(at_ms / (time_scale * rate_scale) for at_ms in spec.opportunities_ms),
    )


class Observations(msgspec.Struct, frozen=True):
    """What the kernels saw; times in seconds of the monotonic clock."""

    sent_s: list[list[float]]
    """By stream and number."""
    received_s: list[dict[tuple[int, str], float]]
    """By stream: of `(number, receiving device)`."""
    clock_step_s: float
    """By how much the wall clock, which the time stamps are in, was moved meanwhile."""
    receiver_drops: int
    """Probes that arrived and found the prober's own socket buffer full."""
    series: int = 0
    """The probes' own."""


def key(stream: int, number: int, series: int = 0) -> bytes:
    """What a probe carries and the ether notes."""
    return _KEY.pack(series, stream, number)


def probe(
    points: Sequence[ProbePoint],
    streams: Sequence[Stream],
    series: int = 0,
    under_way: Callable[[], int] = lambda: 0,
) -> Observations:
    """Send all streams side by side, and wait for what arrives.

    Args:
        series: tells these probes from earlier ones, which a slow link may still deliver.
        under_way: how many frames the enforcer has not delivered yet.
    """
    prober = _Prober(points, streams, series)
    try:
        with realtime(PROBER_PRIORITY):
            return prober.run(under_way)
    finally:
        prober.close()


class _Prober:
    def __init__(self, points: Sequence[ProbePoint], streams: Sequence[Stream], series: int) -> None:
        self._streams = streams
        self._series = series
        self._sent_s: list[list[float]] = [[] for _ in streams]
        self._received_s: list[dict[tuple[int, str], float]] = [{} for _ in streams]
        self._timer = Timer()
        self._poll = select.epoll()
        self._poll.register(self._timer.fd, select.EPOLLIN | select.EPOLLET)
        self._sockets: dict[tuple[str, str], socket.socket] = {}
        self._devices: dict[int, tuple[socket.socket, str]] = {}
        ethertype = int.from_bytes(PROBE_ETHERTYPE)
        for point in points:
            # Bound to nothing until it knows its interface, or it would hear them all.
            end = point.namespace.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
            self._sockets[point.medium, point.device] = end
            end.setblocking(False)
            end.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, 1 << 22)
            end.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
            end.bind((point.interface, ethertype))
            self._devices[end.fileno()] = end, point.device
            self._poll.register(end.fileno(), select.EPOLLIN)

    def close(self) -> None:
        self._poll.close()
        self._timer.close()
        # The kernel waits for a grace period with each packet socket that is closed, but not for each in
        # turn.
        with ThreadPoolExecutor(_CLOSERS) as closers:
            for end in self._sockets.values():
                closers.submit(end.close)

    def run(self, under_way: Callable[[], int]) -> Observations:
        before_s = _wall_minus_monotonic_s()
        start_s = time.monotonic() + 0.02
        # Streams begin one after the other within an interval: all at once would be a burst that no run has.
        agenda = [
            (start_s + stream.interval_s * place / len(self._streams), place)
            for place, stream in enumerate(self._streams)
        ]
        heapify(agenda)
        heads = [self._head(stream) for stream in self._streams]
        end_s = start_s + max((stream.longest_s for stream in self._streams), default=0.0)
        while (due_s := min(agenda[0][0], end_s) if agenda else end_s) < inf:
            now_s = time.monotonic()
            if now_s >= end_s:
                break
            if due_s > now_s:
                self._timer.set(due_s)
                self._receive(-1, before_s)
                continue
            for _ in range(_SENDS_A_LOOK):
                due_s, place = agenda[0]
                if due_s > now_s:
                    break
                heapreplace(agenda, (self._send(place, heads[place], due_s), place))
            self._receive(0, before_s)
        while under_way() and time.monotonic() < end_s + _PATIENCE_S:
            self._receive(0.01, before_s)
        self._receive(0, before_s)
        return Observations(
            sent_s=self._sent_s,
            received_s=self._received_s,
            clock_step_s=_wall_minus_monotonic_s() - before_s,
            receiver_drops=sum(self._drops(end) for end in self._sockets.values()),
            series=self._series,
        )

    def _send(self, place: int, head: tuple[socket.socket, bytes, bytes], due_s: float) -> float:
        """Send the stream's next probe, and at first a few ahead; returns when the one after is due."""
        stream, sent_s = self._streams[place], self._sent_s[place]
        end, header, padding = head
        for _ in range(_HEAD_START_FRAMES if stream.limited and not sent_s else 1):
            sent_s.append(time.monotonic())
            end.send(header + key(place, len(sent_s) - 1, self._series) + padding)
        return due_s + stream.interval_s if len(sent_s) < stream.frames else inf

    def _receive(self, timeout: float, wall_minus_monotonic_s: float) -> None:
        for fd, _ in self._poll.poll(timeout):
            if fd not in self._devices:
                continue
            end, device = self._devices[fd]
            try:
                while True:
                    frame, ancillary, _, _ = end.recvmsg(64, 64)
                    series, place, number = _KEY.unpack_from(frame, 14)
                    if series != self._series:
                        continue
                    seconds, nanoseconds = _TIMESPEC.unpack_from(ancillary[0][2])
                    at_s = seconds - wall_minus_monotonic_s + nanoseconds * 1e-9
                    self._received_s[place].setdefault((number, device), at_s)
            except BlockingIOError:
                pass

    def _head(self, stream: Stream) -> tuple[socket.socket, bytes, bytes]:
        end = self._sockets[stream.medium, stream.source]
        source_mac = end.getsockname()[4]
        header = _NEAREST_BRIDGE + source_mac + PROBE_ETHERTYPE
        return end, header, bytes(stream.size_bytes - _KEY.size)

    @staticmethod
    def _drops(end: socket.socket) -> int:
        packet_statistics = 6
        _, drops = struct.unpack("=II", end.getsockopt(263, packet_statistics, 8))
        return int(drops)


def _wall_minus_monotonic_s() -> float:
    """The distance of the two clocks, from the reading least disturbed."""
    readings = []
    for _ in range(20):
        before_ns = time.monotonic_ns()
        wall_ns = time.time_ns()
        after_ns = time.monotonic_ns()
        readings.append((after_ns - before_ns, wall_ns - (before_ns + after_ns) // 2))
    return min(readings)[1] * 1e-9
