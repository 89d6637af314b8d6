"""The ether on real TAPs: what the models decide is what hosts see, and every frame is accounted for."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from scapy.utils import RawPcapNgReader

from tests.underlay.emulation.ether_rig import Rig, rig
from underlay.emulation.ether import Ether
from underlay.emulation.ether_hops import HopTotals
from underlay.emulation.ether_lag import EtherLag, LagHistogram, LagSummary
from underlay.emulation.ether_wire import Totals
from underlay.errors import RunFailed
from underlay.link import LOST, LinkModel, LinkSpec
from underlay.network import Channel, Device, Link, Network, link_rng
from underlay.trace import Record, read_trace

WIRE = LinkSpec()
IP_BYTES, UDP_BYTES = 20, 8
SEED = 5
PATIENCE_S = 20.0
"""For what comes for certain; only a failing test waits so long."""


class Running:
    """A rig, its ether, and a UDP socket on each device."""

    def __init__(self, rig: Rig, ether: Ether, trace: Path) -> None:
        self.rig = rig
        self.ether = ether
        self.trace = trace
        self.sockets: dict[str, socket.socket] = {}
        self.sent = 0
        for device, namespace in rig.namespaces.items():
            end = namespace.socket()
            end.bind(("", 7000))
            self.sockets[device] = end

    def start(self) -> None:
        """Begin the run; what is sent after this belongs to it."""
        t0_s = time.monotonic() + 0.02
        self.ether.start(t0_s)
        wait_until(lambda: time.monotonic() > t0_s)

    def send(self, source: str, target: str, payload: bytes) -> None:
        self.sockets[source].sendto(payload, (self.rig.ip[target], 7000))
        self.sent += 1

    def broadcast(self, source: str, payload: bytes) -> None:
        """Send a UDP broadcast out of the device's one interface."""
        end = self.sockets[source]
        end.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        _, interface = self.rig.port("air", source)
        end.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, interface.encode())
        end.sendto(payload, ("255.255.255.255", 7000))
        self.sent += 1
        assert end.recv(2048) == payload  # a kernel hears its own broadcasts

    def under_way(self) -> int:
        """Frames in the ether, once it has read all that were sent."""
        wait_until(lambda: sum(port.read for port in self.ether.totals().ports) >= self.sent)
        return sum(hop.under_way for hop in self.ether.totals().hops)

    def received(self, device: str) -> list[bytes]:
        """Payloads that have arrived, once nothing is under way any more."""
        wait_until(lambda: self.under_way() == 0)
        found = []
        with suppress(BlockingIOError):
            while True:
                found.append(self.sockets[device].recv(2048, socket.MSG_DONTWAIT))
        return found

    def records(self, event: str) -> list[Record]:
        """What the ether wrote: all of it after `ether.stop`."""
        return [record for record in read_trace(self.trace) if record["event"] == event]


def wait_until(condition: Callable[[], bool]) -> None:
    """Fails the test if it never comes."""
    end_s = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end_s, "it never happened"
        time.sleep(0.002)


@contextmanager
def running(network: Network, tmp_path: Path, **options: object) -> Iterator[Running]:
    trace = tmp_path / "ether.jsonl"
    with rig(network) as built:
        ether = Ether.fork(network, built.ports, SEED, trace, **options)  # type: ignore[arg-type]
        run = Running(built, ether, trace)
        try:
            yield run
        finally:
            ether.kill()
            for end in run.sockets.values():
                end.close()


def line(*specs: LinkSpec) -> Network:
    """Devices a, b, c, ... one link apart, the same spec both ways."""
    names = "abcdefgh"[: len(specs) + 1]
    links = (Link(a, b, spec, spec) for a, b, spec in zip(names, names[1:], specs, strict=False))
    return Network(tuple(Device(name) for name in names), tuple(links))


def radio(spec: LinkSpec, duty_cycle_ratio: float = 1.0) -> Network:
    """On a channel b hears a and c, which do not hear each other."""
    channel = Channel("air", spec, (("a", "b"), ("b", "c")), duty_cycle_ratio)
    return Network(tuple(Device(name) for name in "abc"), (), (channel,))


def ledger(totals: Totals, source: str, target: str) -> HopTotals:
    (found,) = (hop for hop in totals.hops if (hop.source, hop.target) == (source, target))
    return found


@pytest.mark.emulation
def test_exactly_the_frames_the_model_drops_are_missing(tmp_path: Path) -> None:
    """The receiver misses the frames that the simulation's model, given the same seed, loses, and no
    others."""
    network = line(LinkSpec(delay_ms=1.0, loss_ratio=0.3, burst_frames=3.0))
    frames = 400
    with running(network, tmp_path) as run:
        run.start()
        for number in range(frames):
            run.send("a", "b", number.to_bytes(4))
        seen = {int.from_bytes(payload) for payload in run.received("b")}
        totals = run.ether.stop()
    link = network.links[0]
    model = LinkModel(link.forward, link_rng(SEED, link, "a"))
    passed = {
        number for number in range(frames) if model.offer(float(number), IP_BYTES + UDP_BYTES + 4) != LOST
    }
    assert seen == passed
    hop = ledger(totals, "a", "b")
    assert (hop.offered, hop.dropped, hop.written, hop.under_way) == (
        frames,
        frames - len(seen),
        len(seen),
        0,
    )


@pytest.mark.emulation
def test_usage_is_what_was_sent(tmp_path: Path) -> None:
    """Usage records add up to the frames and bytes of the run; the Ethernet header does not count, framing
    does."""
    spec = LinkSpec(rate_kbps=1000.0, mtu_bytes=100, overhead_bytes=10)
    with running(
        line(spec), tmp_path, usage_interval_s=0.1, frame_class=lambda packet: packet[-1] == 1
    ) as run:
        run.send("a", "b", b"before the run")
        assert run.received("b") == [b"before the run"]
        run.start()
        for _ in range(2):
            for number in range(20):
                run.send("a", "b", bytes(171) + bytes([number % 2]))
            assert len(run.received("b")) == 20
            counted = len(run.records("link-usage"))
            wait_until(lambda counted=counted: len(run.records("link-usage")) > counted)  # type: ignore[misc]
        run.ether.stop()
    usage = run.records("link-usage")
    on_air = IP_BYTES + UDP_BYTES + 172 + 2 * 10
    assert {(record["link"], record["source"], record["target"]) for record in usage} == {("a-b", "a", "b")}
    assert len(usage) > 1
    assert sum(record["frames"] for record in usage) == 40
    assert sum(record["bytes_on_air"] for record in usage) == 40 * on_air
    assert sum(record["data_bytes"] for record in usage) == 20 * on_air
    assert sum(record["airtime_s"] for record in usage) == pytest.approx(40 * on_air * 8e-6)
    assert sum(record["frames"] for record in run.records("ether-lag")) == 40


@pytest.mark.emulation
def test_a_full_queue_drops_the_tail(tmp_path: Path) -> None:
    """Of a burst, the link takes what its queue holds, and loses none of it to what comes later."""
    with running(line(LinkSpec(rate_kbps=10.0, queue_bytes=1000)), tmp_path) as run:
        run.start()
        for number in range(50):
            run.send("a", "b", number.to_bytes(1) * 72)
        seen = [payload[0] for payload in run.received("b")]
        hop = ledger(run.ether.stop(), "a", "b")
    assert seen[:10] == list(range(10))
    # It would take 4 s to send them all: even where the burst was interrupted, the queue was full for most.
    assert seen == sorted(seen)
    assert len(seen) < 50
    assert hop.dropped == 50 - len(seen)


@pytest.mark.emulation
def test_a_cut_is_one_way_and_swallows_what_is_under_way(tmp_path: Path) -> None:
    """Cutting a to b loses frames in flight and later ones, not those of the other way; mending ends it."""
    with running(line(LinkSpec(delay_ms=1500.0)), tmp_path) as run:
        run.start()
        run.send("a", "b", b"in flight")
        run.send("b", "a", b"other way")
        assert run.under_way() == 2
        run.ether.cut([("a", "b")])
        run.send("a", "b", b"too late")
        assert run.received("b") == []
        assert run.received("a") == [b"other way"]
        run.ether.mend([("a", "b")])
        run.send("a", "b", b"mended")
        assert run.received("b") == [b"mended"]
        hop = ledger(run.ether.stop(), "a", "b")
    assert (hop.offered, hop.cut, hop.written, hop.under_way) == (3, 2, 1, 0)
    assert sum(record["cut"] for record in run.records("link-usage")) == 2


@pytest.mark.emulation
def test_a_reshaped_link_is_another_link(tmp_path: Path) -> None:
    """After a degradation the new spec holds, in one direction only."""
    with running(line(WIRE), tmp_path) as run:
        run.start()
        run.ether.reshape("a-b", "a", "b", LinkSpec(loss_ratio=1.0))
        run.send("a", "b", b"lost")
        run.send("b", "a", b"passes")
        assert run.received("a") == [b"passes"]
        assert run.received("b") == []
        run.ether.reshape("a-b", "a", "b", WIRE)
        run.send("a", "b", b"restored")
        assert run.received("b") == [b"restored"]


@pytest.mark.emulation
def test_a_unicast_on_a_channel_is_for_one(tmp_path: Path) -> None:
    """One transmission, heard by its receiver; everyone in range pays for it."""
    with running(radio(LinkSpec(rate_kbps=1000.0)), tmp_path) as run:
        run.start()
        run.send("b", "a", b"for a")
        assert run.received("a") == [b"for a"]
        assert run.received("c") == []
        run.ether.stop()
    usage = {(record["source"], record["target"]): record for record in run.records("link-usage")}
    assert usage.keys() == {("b", "*"), ("b", "a"), ("b", "c")}
    sent = usage["b", "*"]
    assert (sent["frames"], sent["bytes_on_air"]) == (1, IP_BYTES + UDP_BYTES + 5)
    assert usage["b", "c"]["received_s"] == usage["b", "a"]["received_s"] == sent["airtime_s"] > 0.0


@pytest.mark.emulation
def test_a_broadcast_on_a_channel_is_sent_once(tmp_path: Path) -> None:
    """Everyone in range hears it, who is out of range does not, and a cut keeps it from one hearer only."""
    with running(radio(LinkSpec(rate_kbps=1000.0)), tmp_path) as run:
        run.start()
        run.broadcast("b", b"all")
        assert run.received("a") == run.received("c") == [b"all"]
        run.broadcast("a", b"only b")
        assert run.received("b") == [b"only b"]
        assert run.received("c") == []
        run.ether.cut([("b", "c")])
        run.broadcast("b", b"not c")
        assert run.received("a") == [b"not c"]
        assert run.received("c") == []
        run.ether.stop()
    usage = run.records("link-usage")
    assert sum(record["frames"] for record in usage if record["source"] == "b") == 2
    assert sum(record["cut"] for record in usage) == 1


@pytest.mark.emulation
def test_captures_hold_every_frame_and_mark_the_lost(tmp_path: Path) -> None:
    """Frames in the file are those offered; those that did not arrive say why."""
    with running(line(LinkSpec(loss_ratio=0.5), WIRE), tmp_path) as run:
        run.start()
        run.ether.capture(tmp_path / "pcap")
        for number in range(100):
            run.send("a", "b", number.to_bytes(1))
        arrived = len(run.received("b"))
        run.ether.cut([("a", "b")])
        run.send("a", "b", b"cut")
        run.send("b", "a", b"back")
        assert run.received("a") == [b"back"]
        run.ether.stop()
    with RawPcapNgReader(str(tmp_path / "pcap" / "a-b.pcapng")) as reader:
        # scapy's types know only the first version of its metadata.
        read: Iterator[tuple[bytes, Any]] = iter(reader)
        frames = [(frame, meta.comments or [], meta.ifname) for frame, meta in read]
    forward = [(frame, comments) for frame, comments, interface in frames if interface == b"a -> b"]
    assert [frame[-1] for frame, _ in forward[:100]] == list(range(100))
    assert sum(comments == [b"lost on the air"] for _, comments in forward) == 100 - arrived
    assert forward[100][0].endswith(b"cut")
    assert forward[100][1] == [b"cut by a fault"]
    assert [interface for frame, _, interface in frames if frame.endswith(b"back")] == [b"b -> a"]
    assert (tmp_path / "pcap" / "b-c.pcapng").exists()


@pytest.mark.emulation
def test_a_dead_ether_is_reported(tmp_path: Path) -> None:
    """Whoever commands an ether that was killed learns it."""
    with running(line(WIRE), tmp_path) as run:
        os.kill(run.ether.pid, signal.SIGKILL)
        with pytest.raises(RunFailed, match="ended by itself"):
            run.start()


@pytest.mark.emulation
def test_a_full_disk_is_reported() -> None:
    """An ether that cannot write its records says why, at the latest when it is stopped."""
    with rig(line(WIRE)) as built:
        ether = Ether.fork(built.network, built.ports, SEED, Path("/dev/full"))
        try:
            ether.start(time.monotonic())
            end = built.namespaces["a"].socket()
            end.sendto(b"x", (built.ip["b"], 7000))
            end.close()
            with pytest.raises(RunFailed, match="No space left on device"):
                ether.stop()
        finally:
            ether.kill()


@pytest.mark.emulation
def test_the_ether_ends_when_the_runner_is_gone(tmp_path: Path) -> None:
    """No ether outlives a runner that was killed."""
    with rig(line(WIRE)) as built:
        reader, writer = os.pipe()
        runner = os.fork()
        if runner == 0:
            ether = Ether.fork(built.network, built.ports, SEED, tmp_path / "ether.jsonl")
            os.write(writer, ether.pid.to_bytes(4))
            signal.pause()
        ether_pid = os.pidfd_open(int.from_bytes(os.read(reader, 4)))
        os.close(reader)
        os.close(writer)
        os.kill(runner, signal.SIGKILL)
        os.waitpid(runner, 0)
        try:
            assert ended(ether_pid, PATIENCE_S)
        finally:
            os.close(ether_pid)


def ended(pidfd: int, wait_s: float) -> bool:
    import select

    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(wait_s * 1e3))


def test_lag_percentiles_count_every_frame() -> None:
    """Percentiles of an interval and in total; resolution 10 us, rounded up."""
    lag = LagHistogram()
    lag.current.update({4: 99, 200: 1})
    assert lag.end_interval() == LagSummary(frames=100, p50_ms=0.05, p99_ms=0.05, max_ms=2.01)
    lag.current[300] = 100
    assert lag.total() == LagSummary(frames=200, p50_ms=2.01, p99_ms=3.01, max_ms=3.01)
    lag.clear()
    assert lag.total().frames == 0


def test_the_event_of_lag_has_its_documented_name() -> None:
    """Reports look for `ether-lag`."""
    assert EtherLag.__struct_config__.tag == "ether-lag"
