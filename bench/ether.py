"""The ether: how late it is at 5,000 and at 50,000 packets a second, and how much TCP one link carries.

Lateness is that of the hosts: the time from handing a frame to the sender's kernel until the receiver's
kernel stamped it, minus the link's delay. At 5,000 packets/s every frame is timed; at 50,000, with a loss
model, a finite rate and counters on all links, those of a few links are, because timing them all would load
the machine more than the ether does; the ether's own lag over all frames is printed beside it. TCP is one
iperf3 stream over one unlimited link.

    `python -m bench.ether [--runs N]`
"""

from __future__ import annotations

import argparse
import json
import os
import select
import socket
import struct
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median

import msgspec

from tests.underlay.emulation.ether_rig import Rig, rig
from underlay.emulation.ether import Ether
from underlay.emulation.ether_process import PROBE_ETHERTYPE
from underlay.emulation.probes import ProbePoint, plan_streams, probe
from underlay.emulation.realtime import PROBER_PRIORITY, realtime
from underlay.link import LinkSpec
from underlay.network import Device, Link, Network

LINKS = 100
DELAY_MS = 20.0
SECONDS = 4.0
SAMPLED_LINKS = 5
CATCH_UP_S = 5e-3
BATCH = 10
"""Packets sent at once where they are many."""


class Lateness(msgspec.Struct, frozen=True):
    """Of one run; the ether's own view beside that of the hosts."""

    packets_per_s: float
    error_p50_ms: float
    error_p99_ms: float
    ether_p99_ms: float
    cpu_ratio: float


def star(links: int, spec: LinkSpec) -> Network:
    """A hub and `links` devices."""
    names = [f"h{number}" for number in range(links)]
    return Network(
        (Device("hub"), *(Device(name) for name in names)),
        tuple(Link("hub", name, spec, spec) for name in names),
    )


def timed_frame_by_frame(packets_per_s: int) -> Lateness:
    """Every frame timed, both directions of every link."""
    network = star(LINKS, LinkSpec(delay_ms=DELAY_MS))
    with rig(network) as built, tempfile.TemporaryDirectory() as folder:
        ether = Ether.fork(network, built.ports, 1, Path(folder) / "trace")
        try:
            ether.start(time.monotonic())
            streams = [
                msgspec.structs.replace(
                    stream,
                    interval_s=2 * LINKS / packets_per_s,
                    frames=int(SECONDS * packets_per_s / (2 * LINKS)),
                )
                for stream in plan_streams(network)
            ]
            seen = probe(built.points(), streams)
            totals = ether.stop()
        finally:
            ether.kill()
    errors_ms = [
        (at_s - sent_s[number]) * 1e3 - DELAY_MS
        for sent_s, arrived in zip(seen.sent_s, seen.received_s, strict=True)
        for (number, _), at_s in arrived.items()
    ]
    assert len(errors_ms) == sum(stream.frames for stream in streams)
    sent = [at_s for times in seen.sent_s for at_s in times]
    return _lateness(errors_ms, len(sent) / (max(sent) - min(sent)), totals.lag.p99_ms, totals.cpu_ratio)


def timed_by_sample(packets_per_s: int) -> Lateness:
    """As many frames as one process can send, a few links timed; loss, rate and counters on."""
    spec = LinkSpec(rate_kbps=100_000.0, delay_ms=DELAY_MS, loss_ratio=0.01, burst_frames=2.0)
    network = star(LINKS, spec)
    with rig(network) as built, tempfile.TemporaryDirectory() as folder:
        ether = Ether.fork(network, built.ports, 1, Path(folder) / "trace")
        try:
            ether.start(time.monotonic())
            # Real-time, or 50,000 a second cannot be sent evenly; it sleeps between batches, so nobody
            # starves.
            with realtime(PROBER_PRIORITY):
                errors_ms, rate = _blast(built, packets_per_s)
            totals = ether.stop()
        finally:
            ether.kill()
    return _lateness(errors_ms, rate, totals.lag.p99_ms, totals.cpu_ratio)


def _blast(built: Rig, packets_per_s: int) -> tuple[list[float], float]:
    """Send 100 B packets from every end in turn; the lateness of the sampled, ms, and the rate that was
    reached."""
    points = built.points()
    senders = [_packet_socket(point) for point in points]
    # A sampled device listens on its own namespace's end; the number in the frame says when it was sent.
    sampled = points[1 : 2 * SAMPLED_LINKS : 2]
    receivers = [_packet_socket(point, receives=True) for point in sampled]
    poll = select.epoll()
    for receiver in receivers:
        poll.register(receiver, select.EPOLLIN)
    by_fd = {receiver.fileno(): receiver for receiver in receivers}
    wall_minus_monotonic_s = time.time() - time.monotonic()
    errors_ms: list[float] = []
    sent = 0
    count = int(SECONDS * packets_per_s)
    head = bytes.fromhex("0180c200000e020000000001") + PROBE_ETHERTYPE
    padding = bytes(92)

    def receive() -> None:
        for fd, _ in poll.poll(0):
            try:
                while True:
                    frame, ancillary, _, _ = by_fd[fd].recvmsg(64, 64)
                    seconds, nanoseconds = struct.unpack_from("@qq", ancillary[0][2])
                    at_s = seconds - wall_minus_monotonic_s + nanoseconds * 1e-9
                    errors_ms.append((at_s - struct.unpack_from("<d", frame, 14)[0]) * 1e3 - DELAY_MS)
            except BlockingIOError:
                pass

    try:
        began_s = next_s = time.monotonic()
        while sent < count:
            if (now_s := time.monotonic()) < next_s:
                receive()
                time.sleep(max(0.0, next_s - time.monotonic()))
                continue
            for number in range(sent, sent + BATCH):
                senders[number % len(senders)].send(head + struct.pack("<d", time.monotonic()) + padding)
            sent += BATCH
            # Whoever was kept waiting for long does not catch up in a burst that nobody asked for.
            next_s = max(next_s + BATCH / packets_per_s, now_s - CATCH_UP_S)
        took_s = time.monotonic() - began_s
        while time.monotonic() < began_s + took_s + 0.2:
            receive()
            time.sleep(0.001)
    finally:
        poll.close()
        for end in (*senders, *receivers):
            end.close()
    return errors_ms, sent / took_s


def _packet_socket(point: ProbePoint, receives: bool = False) -> socket.socket:
    end = point.namespace.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    end.setblocking(False)
    end.setsockopt(263, 20, 1)  # PACKET_QDISC_BYPASS: a TAP has no use for it
    if receives:
        end.setsockopt(socket.SOL_SOCKET, 33, 1 << 22)  # SO_RCVBUFFORCE
        end.setsockopt(socket.SOL_SOCKET, 35, 1)  # SO_TIMESTAMPNS
    end.bind((point.interface, int.from_bytes(PROBE_ETHERTYPE) if receives else 0))
    return end


def tcp_mbps() -> float:
    """What iperf3 moves in one direction over one unlimited link."""
    network = star(1, LinkSpec())
    with rig(network) as built, tempfile.TemporaryDirectory() as folder:
        ether = Ether.fork(network, built.ports, 1, Path(folder) / "trace")
        try:
            ether.start(time.monotonic())
            with built.namespaces["hub"].enter():
                server = subprocess.Popen(["iperf3", "--server", "--one-off"], stdout=subprocess.DEVNULL)
            time.sleep(0.3)
            try:
                with built.namespaces["h0"].enter():
                    client = subprocess.run(
                        ["iperf3", "--json", "--time", str(int(SECONDS)), "--client", built.ip["hub"]],
                        capture_output=True,
                        check=True,
                    )
            finally:
                server.kill()
                server.wait()
            ether.stop()
        finally:
            ether.kill()
    return float(json.loads(client.stdout)["end"]["sum_received"]["bits_per_second"]) / 1e6


def _lateness(errors_ms: Sequence[float], rate: float, ether_p99_ms: float, cpu_ratio: float) -> Lateness:
    ordered = sorted(errors_ms)
    return Lateness(rate, median(ordered), ordered[int(0.99 * len(ordered))], ether_p99_ms, cpu_ratio)


def _print(title: str, runs: Sequence[Lateness], target_ms: float) -> None:
    middle = {field: median(getattr(run, field) for run in runs) for field in Lateness.__struct_fields__}
    verdict = "met" if middle["error_p99_ms"] < target_ms else "missed"
    print(
        f"{title}: delay error p50 {middle['error_p50_ms']:.2f} ms, p99 {middle['error_p99_ms']:.2f} ms "
        f"(under {target_ms:g} ms: {verdict}); ether's own p99 {middle['ether_p99_ms']:.2f} ms; "
        f"{middle['packets_per_s']:,.0f} packets/s sent, {100 * middle['cpu_ratio']:.0f} % of a core"
    )


def main() -> None:
    """Print the medians."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=3)
    runs = parser.parse_args().runs
    print(f"{LINKS} links, {os.cpu_count()} cores, medians of {runs} runs")
    _print(" 5,000 packets/s", [timed_frame_by_frame(5_000) for _ in range(runs)], 1.0)
    _print("50,000 packets/s", [timed_by_sample(50_000) for _ in range(runs)], 15.0)
    speeds = [tcp_mbps() for _ in range(runs)]
    verdict = "met" if median(speeds) >= 400 else "missed"
    print(f"TCP over one unlimited link: {median(speeds):.0f} Mbit/s (at least 400: {verdict})")


if __name__ == "__main__":
    main()
