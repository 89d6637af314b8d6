"""One pass over a run's trace, kept as small as the metrics allow.

Owns which records count: observations made in `[warmup_s, stop_s)`, the first arrival of each at each
device, and traffic after the first counted observation (what came before, the set-up, is kept apart).
Knows no metric.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from gateway.messages import NODE as GATEWAY
from topologies.manifest import Manifest
from underlay.faults import AnyFault
from underlay.trace import Record, read_trace


class Made(NamedTuple):
    """An observation: when it was made on the trace's clock, by whom, what."""

    t_s: float
    source: str
    kind: str
    size_bytes: int


class Usage(msgspec.Struct):
    """What one sender put on one link or channel, or what one hearer received; sums of `link-usage`."""

    frames: int = 0
    bytes_on_air: int = 0
    data_bytes: int = 0
    airtime_s: float = 0.0
    received_s: float = 0.0
    lost: int = 0
    queue_dropped: int = 0
    cut: int = 0


class Messages(msgspec.Struct):
    """Messages of one type that all nodes sent; sums of `messages-sent`."""

    payload: bool
    count: int = 0
    bytes: int = 0
    hops: int = 0


class Answer(NamedTuple):
    """A cache's answer to a request."""

    outcome: str
    age_s: float
    max_age_s: float


class Readings:
    """What the metrics need of a trace.

    `made` holds every observation by id; `arrived[id][device]` its first arrival, for all of them; `hops[id]`
    the longest way it took. `usage` and `setup` are traffic by (link, source, target), after and before the
    first counted observation; `messages` and the caches' `answers` are of the former time only. What is
    behind the sink is kept apart: `tier_usage` is the traffic of the storage tier's links at any time,
    `stored` when the tier acknowledged an observation, `missing` how many of those it did not have in the
    end.
    """

    def __init__(self, manifest: Manifest) -> None:
        self.manifest = manifest
        self.made: dict[str, Made] = {}
        self.arrived: defaultdict[str, dict[str, float]] = defaultdict(dict)
        self.hops: dict[str, int] = {}
        self.usage: defaultdict[tuple[str, str, str], Usage] = defaultdict(Usage)
        self.setup: defaultdict[tuple[str, str, str], Usage] = defaultdict(Usage)
        self.tier_usage: defaultdict[tuple[str, str, str], Usage] = defaultdict(Usage)
        self.messages: dict[str, Messages] = {}
        self.stored: dict[str, float] = {}
        self.elsewhere: dict[str, None] = {}
        """What the gateway's routes sent past the storage tier."""
        self.missing: int | None = None
        self.answers: list[Answer] = []
        self.origin_requests = 0
        self.faults: list[tuple[float, AnyFault]] = []
        self.discarded: Counter[str] = Counter()
        self.disconnects = 0
        self.malformed = 0
        self.slow_handlers = 0
        self.ended_processes: list[str] = []
        self.complete = False
        self._began = False
        self._tier = {device.name for device in manifest.devices if device.role == "storage"}

    @staticmethod
    def of(folder: Path) -> Readings:
        """Read `manifest.json` and `trace.jsonl` of a run's folder; raises InputError."""
        readings = Readings(Manifest.read(folder))
        takers: dict[str, Callable[[Record], None]] = {
            "generated": readings._generated,
            "delivered": readings._delivered,
            "stored": readings._stored,
            "routed-elsewhere": readings._routed_elsewhere,
            "read-back": readings._read_back,
            "link-usage": readings._link_usage,
            "messages-sent": readings._messages_sent,
            "served": readings._served,
            "origin-served": readings._origin_served,
            "fault-applied": readings._fault_applied,
            "discarded": readings._discarded,
            "session-changed": readings._session_changed,
            "malformed": readings._malformed,
            "slow-handler": readings._slow_handler,
            "process-ended": readings._process_ended,
            "run-ended": readings._run_ended,
        }
        find = takers.get
        for record in read_trace(folder / "trace.jsonl"):
            take = find(record["event"])
            if take is not None:
                take(record)
        return readings

    def counts(self, made: Made) -> bool:
        """Whether an observation is neither of the warm-up nor of the cool-down."""
        return self.manifest.warmup_s <= made.t_s < self.manifest.stop_s

    def _generated(self, record: Record) -> None:
        made = Made(record["t"], record["device"], record["kind"], record["size_bytes"])
        self.made[record["id"]] = made
        self._began = self._began or self.counts(made)

    def _delivered(self, record: Record) -> None:
        id_ = record["id"]
        self.arrived[id_].setdefault(record["device"], record["t"])
        hops = record.get("hops", 0)
        if hops > self.hops.get(id_, 0):
            self.hops[id_] = hops

    def _stored(self, record: Record) -> None:
        self.stored.setdefault(record["id"], record["t"])

    def _routed_elsewhere(self, record: Record) -> None:
        self.elsewhere[record["id"]] = None

    def _read_back(self, record: Record) -> None:
        self.missing = len(record["missing"])

    def _link_usage(self, record: Record) -> None:
        kept = self.usage if self._began else self.setup
        if record["source"] in self._tier or record["target"] in self._tier:
            kept = self.tier_usage
        usage = kept[record["link"], record["source"], record["target"]]
        usage.frames += record["frames"]
        usage.bytes_on_air += record["bytes_on_air"]
        usage.data_bytes += record["data_bytes"]
        usage.airtime_s += record["airtime_s"]
        usage.received_s += record["received_s"]
        usage.lost += record["lost"]
        usage.queue_dropped += record["queue_dropped"]
        usage.cut += record["cut"]

    def _messages_sent(self, record: Record) -> None:
        if not self._began or record["device"] in self._tier or record.get("node") == GATEWAY:
            return
        name = record["message"]
        messages = self.messages.get(name)
        if messages is None:
            messages = self.messages[name] = Messages(record["payload"])
        messages.count += record["count"]
        messages.bytes += record["bytes"]
        messages.hops += record["hops"]

    def _served(self, record: Record) -> None:
        if self._began:
            self.answers.append(Answer(record["outcome"], record["age_s"], record["max_age_s"]))

    def _origin_served(self, record: Record) -> None:
        self.origin_requests += self._began

    def _fault_applied(self, record: Record) -> None:
        fault: Any = msgspec.convert(record["fault"], AnyFault)
        self.faults.append((record["t"], fault))

    def _discarded(self, record: Record) -> None:
        self.discarded[record["reason"]] += 1

    def _session_changed(self, record: Record) -> None:
        self.disconnects += record["state"] == "disconnected"

    def _malformed(self, record: Record) -> None:
        self.malformed += 1

    def _slow_handler(self, record: Record) -> None:
        self.slow_handlers += 1

    def _process_ended(self, record: Record) -> None:
        last_line = (record.get("last_lines") or [""])[-1]
        what = f"{record['device']}: {record['program']} ended by itself, status {record['status']}"
        self.ended_processes.append(f"{what}: {last_line}" if last_line else what)

    def _run_ended(self, record: Record) -> None:
        self.complete = True
