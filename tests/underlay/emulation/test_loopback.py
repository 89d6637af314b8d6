"""Devices as processes of this machine: they find each other, keep what was durable, and leave nothing."""

from __future__ import annotations

import os
import select
import signal
import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from time import monotonic, sleep, time

import msgspec
import pytest

from tests.underlay.emulation.lab import Broken, Echo, Framed, FramedAnswer
from underlay.emulation.loopback import Hosts, Site, loopback_addresses, serve
from underlay.emulation.processes import Identity, default_signals, run_to_end
from underlay.emulation.streams import Hello
from underlay.errors import InputError, RunFailed
from underlay.faults import FailDisk, LoseDisk, RotDisk, SlowDisk
from underlay.messages import Message
from underlay.node import Context, Node
from underlay.plan import DevicePlan, NodePlan
from underlay.trace import read_trace

PORT = 7000


class Relay(Echo):
    """Asks `peer` what it is asked, and answers what it is answered; a question of 0 gets its clock."""

    def __init__(self, peer: str) -> None:
        self._peer = peer
        self._askers: list[str] = []

    def on_message(self, ctx: Context, sender: str, message: Message) -> None:
        if isinstance(message, Framed):
            if message.n == 0:
                ctx.send(sender, FramedAnswer(int(ctx.now)))
                return
            self._askers.append(sender)
            ctx.send(self._peer, message)
        elif isinstance(message, FramedAnswer):
            ctx.send(self._askers.pop(0), message)


class Counter(Echo):
    """Answers each question with how many it has heard, over all its lives."""

    def on_message(self, ctx: Context, sender: str, message: Message) -> None:
        heard = int(ctx.store.get(b"heard") or b"0") + 1
        ctx.store.put(b"heard", b"%d" % heard)
        ctx.send(sender, FramedAnswer(heard))


class Caller:
    """A program outside the network."""

    def __init__(self, ip: str) -> None:
        self._socket = socket.create_connection((ip, PORT), timeout=10.0)
        self._send(msgspec.msgpack.encode(Hello("")))

    def ask(self, n: int) -> int:
        self._send(Echo.protocol.encode(Framed(n)))
        (length,) = struct.unpack("!I", self._read(4))
        answer = Echo.protocol.decode(self._read(length))
        assert isinstance(answer, FramedAnswer)
        return answer.n

    def ask_until_reset(self) -> None:
        with suppress(ConnectionError):
            while True:
                self.ask(0)

    def close(self) -> None:
        self._socket.close()

    def _send(self, data: bytes) -> None:
        self._socket.sendall(struct.pack("!I", len(data)) + data)

    def _read(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            part = self._socket.recv(size - len(data))
            if not part:
                raise ConnectionResetError
            data += part
        return data


@pytest.fixture
def site(tmp_path: Path) -> Callable[..., Site]:
    """Makes a site of devices with one node `echo` each, at addresses of this process's own."""
    first = f"127.{1 + os.getpid() % 250}.{os.getpid() // 250 % 250}.1"

    def make(trace_bytes_max: int | None = None, **nodes: Callable[[], Node]) -> Site:
        devices = {name: DevicePlan(nodes=(NodePlan("echo", node, PORT),)) for name, node in nodes.items()}
        return Site(tmp_path, devices, loopback_addresses(devices, first), trace_bytes_max)

    return make


@pytest.fixture
def call() -> Iterator[Callable[[str], Caller]]:
    made: list[Caller] = []

    def to(ip: str) -> Caller:
        made.append(Caller(ip))
        return made[-1]

    yield to
    for caller in made:
        caller.close()


def test_devices_find_each_other_and_show_unix_time(
    site: Callable[..., Site], call: Callable[[str], Caller]
) -> None:
    here = site(front=partial(Relay, "back/echo"), back=Counter)
    with Hosts(here) as hosts:
        hosts.start()
        caller = call(here.addresses["front"])
        assert [caller.ask(1), caller.ask(1)] == [1, 2]
        assert abs(caller.ask(0) - time()) < 60.0
        assert not (here.folder / "front" / "trace.jsonl").exists()


def test_what_was_durable_survives_a_kill_and_the_next_life_is_a_new_incarnation(
    site: Callable[..., Site], call: Callable[[str], Caller]
) -> None:
    here = site(trace_bytes_max=1_000_000, a=Counter)
    with Hosts(here) as hosts:
        for life in (1, 2, 3):
            hosts.start("a")
            assert call(here.addresses["a"]).ask(1) == life
            hosts.kill("a")
        hosts.disturb_disk(LoseDisk("a"))
        hosts.start("a")
        assert call(here.addresses["a"]).ask(1) == 1
        with pytest.raises(InputError, match="is running"):
            hosts.disturb_disk(LoseDisk("a"))
    records = read_trace(here.folder / "a" / "trace.jsonl")
    assert [r["incarnation"] for r in records if r["event"] == "node-started"] == [1, 2, 3, 4]


def test_a_polite_end_and_a_kill_leave_no_process(site: Callable[..., Site]) -> None:
    here = site(a=Echo, b=Echo)
    with Hosts(here) as hosts:
        hosts.start()
        lives = [Identity.of(hosts.pid(device)) for device in hosts.running]
        hosts.stop("a")
        assert hosts.running == ("b",)
    assert not any(life.alive for life in lives)


def test_processes_do_not_outlive_who_started_them(site: Callable[..., Site]) -> None:
    here = site(a=Echo)
    read_end, write_end = os.pipe()
    pid = os.fork()
    if pid == 0:
        hosts = Hosts(here)
        hosts.start()
        os.write(write_end, b"%d" % hosts.pid("a"))
        signal.pause()
        os._exit(0)
    life = Identity.of(int(os.read(read_end, 20)))
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    patience_s = monotonic() + 10.0
    while life.alive:
        assert monotonic() < patience_s
        sleep(0.01)
    os.close(read_end)
    os.close(write_end)


def test_who_cannot_start_says_why(site: Callable[..., Site]) -> None:
    here = site(a=Echo)
    with (
        socket.create_server((here.addresses["a"], PORT)),
        Hosts(here) as hosts,
        pytest.raises(RunFailed, match=r"a does not start: OSError.*in use"),
    ):
        hosts.start()


def test_a_process_that_ends_by_itself_is_noticed(site: Callable[..., Site]) -> None:
    here = site(a=Broken, b=Echo)
    with Hosts(here) as hosts:
        hosts.start()
        (ended,) = hosts.ended(wait_s=10.0)
        assert (ended.device, ended.status) == ("a", 1)
        assert "this node is broken on purpose" in ended.last_lines[-1]
        assert hosts.running == ("b",)


def test_a_failing_disk_ends_the_process_before_it_answers_and_the_next_life_has_what_was_acknowledged(
    site: Callable[..., Site], call: Callable[[str], Caller]
) -> None:
    here = site(a=Counter)
    with Hosts(here) as hosts:
        hosts.start()
        caller = call(here.addresses["a"])
        hosts.disturb_disk(SlowDisk("a", 3.0))
        assert [caller.ask(0), caller.ask(0)] == [1, 2]
        hosts.disturb_disk(FailDisk("a"))
        caller.ask_until_reset()
        (ended,) = hosts.ended(wait_s=10.0)
        assert "DiskFailed" in ended.last_lines[-1]
        hosts.start()
        assert call(here.addresses["a"]).ask(0) > 2


def test_a_rotten_disk_is_noticed_by_whoever_reads_it(
    site: Callable[..., Site], call: Callable[[str], Caller]
) -> None:
    here = site(a=Counter)
    with Hosts(here) as hosts:
        hosts.start()
        assert call(here.addresses["a"]).ask(0) == 1
        hosts.kill("a")
        hosts.disturb_disk(RotDisk("a"))
        hosts.start()
        with pytest.raises(ConnectionError):
            call(here.addresses["a"]).ask(0)
        (ended,) = hosts.ended(wait_s=10.0)
        assert "Damaged" in ended.last_lines[-1]


def test_a_paused_process_answers_when_it_goes_on(
    site: Callable[..., Site], call: Callable[[str], Caller]
) -> None:
    here = site(a=Counter)
    with Hosts(here) as hosts:
        hosts.start()
        caller = call(here.addresses["a"])
        assert caller.ask(1) == 1
        hosts.pause("a")
        hosts.resume("a")
        assert caller.ask(1) == 2


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
def test_a_device_alone_in_its_process_serves_until_it_is_told(
    number: signal.Signals, site: Callable[..., Site], call: Callable[[str], Caller]
) -> None:
    here = site(a=Counter)
    read_end, write_end = os.pipe()
    pid = os.fork()
    if pid == 0:
        default_signals()
        run_to_end(lambda: serve(here, "a", ready=lambda: os.close(write_end)))
    os.close(write_end)
    select.select([read_end], [], [], 10.0)
    assert call(here.addresses["a"]).ask(1) == 1
    os.kill(pid, number)
    _, status = os.waitpid(pid, 0)
    os.close(read_end)
    assert os.waitstatus_to_exitcode(status) == 0


def test_a_trace_keeps_the_recent_past_only(site: Callable[..., Site], call: Callable[[str], Caller]) -> None:
    here = site(trace_bytes_max=2000, a=Echo)
    with Hosts(here) as hosts:
        hosts.start()
        caller = call(here.addresses["a"])
        for n in range(100):
            caller.ask(n)
        hosts.stop()
    recent = here.folder / "a" / "trace.jsonl"
    assert recent.stat().st_size <= 2000
    before = recent.with_name("trace.jsonl.1")
    assert before.stat().st_size <= 2000
    numbers = [r["n"] for path in (before, recent) for r in read_trace(path) if r["event"] == "noted"]
    assert numbers == list(range(numbers[0], 100))
