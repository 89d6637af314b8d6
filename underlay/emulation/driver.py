"""The generic driver: runs one device's nodes on real sockets, timers, disk and processor.

Owns the turn, in which all the promises of the node contract are kept: take everything that is ready and run
its handlers; append the trace; send what was issued before any write; make ONE group commit for all nodes of
the device; then send what had to wait for it. A node's context is in `hosted`, sockets are in `datagrams`
and `streams`, the disk in `store_log`, long work in `work`; bindings (MQTT, CoAP engines) live in the same
event loop. Does not know who started it: `device` does that.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import msgspec

from underlay.clock import DeviceClock
from underlay.emulation.hosted import BindingHost, Hosted
from underlay.emulation.store_log import Disk
from underlay.emulation.streams import Streams
from underlay.emulation.timers import Timers
from underlay.node import Address, address
from underlay.plan import DevicePlan
from underlay.trace import (
    Event,
    MessagesSent,
    NodeStarted,
    SlowHandler,
    TornWrite,
    TraceFile,
    TraceWriter,
)

TURN_S = 0.02
"""After this long a turn commits and sends, however much is still waiting."""
SLOW_HANDLER_S = 0.01
INBOX_MAX = 2000
"""While more calls than this wait, callers from outside are not listened to."""


class DiskFailed(Exception):
    """A commit failed because a fault said so: the end of the device's nodes, and none of the run's."""


class Incarnation(msgspec.Struct, frozen=True):
    """One life of a device, from power on to power off: what its driver is given."""

    device: str
    number: int
    """Counts from 1."""
    seed: int
    plan: DevicePlan
    addresses: Mapping[str, str]
    """IPv4 address of every device."""
    ports: Mapping[str, int]
    """Of every node name."""
    hops: Mapping[str, int]
    """To every device that can be reached."""
    clock: DeviceClock
    duration_s: float
    """Nothing that happens later is in the trace."""
    usage_interval_s: float
    store: Path
    trace: Path | None
    """None: no trace is written, and nothing is counted for it."""
    log: Path
    trace_bytes_max: int | None = None
    """Of a trace file; when one is full it takes the place of the one before. None: it grows."""
    run: str | None = None
    """The run's name, by which its control socket is found; None: the device is in none."""
    on_loopback: bool = False
    """The device shares the interface with others, and nobody is one hop away."""


class Driver:
    """One device's nodes and bindings, in the running event loop.

    `await start(t0_s)` starts them; everything after that happens in callbacks. An exception of a handler
    ends the loop.
    """

    def __init__(self, life: Incarnation, loop: asyncio.AbstractEventLoop, trace: TraceFile | None) -> None:
        self.life = life
        self.loop = loop
        self.hops = life.hops
        self.failure: asyncio.Future[None] = loop.create_future()
        """Holds the exception of a handler; never completes otherwise."""
        self.timers = Timers(loop)
        self._t0_s: float | None = None
        self._started = False
        self._trace = TraceWriter(trace) if trace is not None else None
        self._disk_slowness = 1.0
        self._disk_fails = False
        self._disk = Disk(life.store)
        self._devices = {ip: device for device, ip in life.addresses.items()}
        self._nodes_by_port = {port: name for name, port in life.ports.items()}
        self._inbox: deque[tuple[Hosted, Callable[..., None], tuple[Any, ...]]] = deque()
        self._early: list[tuple[Callable[..., None], tuple[Any, ...]]] = []
        self._late: list[tuple[Callable[..., None], tuple[Any, ...]]] = []
        self._unflushed: dict[Streams, None] = {}
        self._turn_due = False
        self._sent: dict[tuple[str, str, bool], list[int]] = {}
        self.hosts = {plan.name: BindingHost(self, plan) for plan in life.plan.bindings}
        self.nodes = {plan.name: Hosted(self, plan, self._disk) for plan in life.plan.nodes}

    # --------------------------------------------------------------------------------------------------- life

    async def open(self) -> None:
        """Bind the nodes' ports and start the bindings, so that whoever starts earlier is heard."""
        for hosted in self.nodes.values():
            await hosted.open()
        for host in self.hosts.values():
            await host.engine.start(host)

    def start(self, t0_s: float) -> None:
        """Power on, at `t0_s`, the monotonic time of the run's start, or now if that is past."""
        self._t0_s = t0_s
        self.timers.set(("start",), max(0.0, t0_s - monotonic()), self._start_nodes)

    def _start_nodes(self, _token: int) -> None:
        if self._disk.torn:
            self.trace(TornWrite(), None)
        # Whoever started earlier may have been heard already: that comes after the nodes' own beginning.
        heard, self._inbox = self._inbox, deque()
        self._started = True
        for hosted in self.nodes.values():
            self.trace(NodeStarted(self.life.number), hosted.plan.name)
            self.call(hosted, hosted.node.on_start, hosted)
        self._inbox += heard
        if self._trace is not None:
            self._count_usage()

    def fail(self, error: BaseException) -> None:
        """Something that is no node's fault to bear went wrong: a bug, or a disk that is full."""
        if not self.failure.done():
            self.failure.set_exception(error)

    async def close(self) -> None:
        """A polite end, when the run is over."""
        self._flush_usage()
        for host in self.hosts.values():
            await host.engine.close()
        for hosted in self.nodes.values():
            await hosted.close()
        self._disk.close()

    # ----------------------------------------------------------------------------------------------- the turn

    def call(self, hosted: Hosted, handler: Callable[..., None], *arguments: Any) -> None:
        """Run `handler` in the next turn."""
        self._inbox.append((hosted, handler, arguments))
        if not self._turn_due and self._started:
            self._turn_due = True
            self.loop.call_soon(self._turn)

    def send(self, hosted: Hosted, action: Callable[..., None], *arguments: Any) -> None:
        """Do `action` at the end of this turn, after the commit if the node wrote in it."""
        (self._late if hosted.store.dirty else self._early).append((action, arguments))

    def when_durable(self, action: Callable[..., None], *arguments: Any) -> None:
        """Do `action` after this turn's commit."""
        self._late.append((action, arguments))

    def _turn(self) -> None:
        try:
            end_s = monotonic() + TURN_S
            while self._inbox:
                hosted, handler, arguments = self._inbox.popleft()
                if self._run(hosted, handler, arguments) > end_s:
                    break
                if not self._inbox:
                    self._send_early()  # what nodes of this device are told they hear in this turn
            self._send_early()
            if self._disk.dirty:
                self._commit()
            self._do(self._late)
        except Exception as error:
            self.fail(error)
            return
        if not self.busy():
            for hosted in self.nodes.values():
                hosted.listen_again()
        self._turn_due = bool(self._inbox)
        if self._inbox:
            self.loop.call_soon(self._turn)

    def _send_early(self) -> None:
        """Send what was issued before any write; the trace knows of it first."""
        if self._trace is not None:
            self._trace.flush()
        self._do(self._early)

    def disturb_disk(self, slowness: float, fails: bool) -> None:
        """A fault: from now on a commit takes `slowness` times as long, or the next one fails."""
        self._disk_slowness, self._disk_fails = slowness, fails

    def _commit(self) -> None:
        if self._disk_fails:
            raise DiskFailed("a fault said so")
        started_s = monotonic()
        self._disk.commit()
        if self._disk_slowness > 1.0:
            sleep((monotonic() - started_s) * (self._disk_slowness - 1.0))

    def busy(self) -> bool:
        """Whether more waits to be done than should come in from outside."""
        return len(self._inbox) > INBOX_MAX

    def _run(self, hosted: Hosted, handler: Callable[..., None], arguments: tuple[Any, ...]) -> float:
        started_s = monotonic()
        handler(*arguments)
        ended_s = monotonic()
        if ended_s - started_s > SLOW_HANDLER_S:
            name = getattr(handler, "__name__", "handler")
            self.trace(SlowHandler(name, round((ended_s - started_s) * 1e3, 1)), hosted.plan.name)
        return ended_s

    def _do(self, actions: list[tuple[Callable[..., None], tuple[Any, ...]]]) -> None:
        for action, arguments in actions:
            action(*arguments)
        actions.clear()
        for streams in self._unflushed:
            streams.flush()
        self._unflushed.clear()

    def flush_later(self, streams: Streams) -> None:
        """Messages wait in these streams until whatever else is to be sent now is queued too."""
        self._unflushed[streams] = None

    # --------------------------------------------------------------------------------- clock, trace, counters

    def t(self) -> float:
        """Global seconds since the run's start; 0 before it."""
        return monotonic() - self._t0_s if self._t0_s is not None else 0.0

    def trace(self, event: Event, node: str | None) -> None:
        """Append to the trace, as a node or (None) the device; the next turn or flush hands it to the
        operating system."""
        t_s = self.t()
        if self._trace is not None and t_s <= self.life.duration_s:
            self._trace.write(t_s, event, self.life.device, node)

    def count(
        self, sender: str, message: str, payload: bool, size_bytes: int, hops: int, times: int = 1
    ) -> None:
        """Count for `MessagesSent`; `hops` and `size_bytes` are those of one message."""
        if self._trace is None or self.t() > self.life.duration_s:
            return
        counter = self._sent.setdefault((sender, message, payload), [0, 0, 0])
        counter[0] += times
        counter[1] += times * size_bytes
        counter[2] += times * hops

    def _count_usage(self, _token: int = 0) -> None:
        interval_s = self.life.usage_interval_s
        if self.t() > 0:
            self._flush_usage()
        self.timers.set(("usage",), interval_s - self.t() % interval_s, self._count_usage)

    def _flush_usage(self) -> None:
        if self._trace is None:
            return
        t_s = min(self.t(), self.life.duration_s)
        for (sender, message, payload), (count, size_bytes, hops) in self._sent.items():
            self._trace.write(
                t_s, MessagesSent(message, count, size_bytes, payload, hops), self.life.device, sender
            )
        self._sent.clear()
        self._trace.flush()

    # ---------------------------------------------------------------------------------------------- addresses

    def locate(self, peer: Address) -> tuple[str, int] | None:
        """Where the node of that address listens, or None."""
        device, _, node = peer.partition("/")
        ip, port = self.life.addresses.get(device), self.life.ports.get(node)
        return (ip, port) if ip is not None and port is not None else None

    def address_at(self, ip: str, port: int) -> Address | None:
        """The node that sends from there, or None."""
        device, node = self._devices.get(ip), self._nodes_by_port.get(port)
        return address(device, node) if device is not None and node is not None else None

    def device_at(self, ip: str) -> str | None:
        """The device with that address."""
        return self._devices.get(ip)
