"""What the captured frames were: bytes on air split by protocol, held against the ether's own counters.

Reads the pcapng files of a run with scapy (the only module that imports it; GPL-2.0-only, see
`docs/dependencies.md`). Frames that the link lost are in the captures and count: they were transmitted.
Frames marked `queue full` or `cut by a fault` never left and do not.

Every byte of an IP packet is attributed once:
- MQTT by control packet type, after TCP reassembly per connection and direction; bytes seen before are
  `tcp retransmission`, headers and segments without data are `tcp overhead`;
- CoAP by class (request, response, empty), its UDP/IP headers as `udp overhead`;
- gossip and other messages of our own by node name; ARP; the link's framing.

Source: MQTT 3.1.1/5 §2.1; RFC 7252 §3; RFC 9293.
"""

from __future__ import annotations

import logging
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from topologies.manifest import LinkInfo, Manifest
from topologies.metrics.comparison import size
from underlay.errors import InputError
from underlay.trace import read_trace

MQTT_PORT = 1883
COAP_PORT = 5683

_RESULT = "captures.json"
_NEVER_LEFT = ("queue full", "cut by a fault")
_ETHERNET_BYTES = 14
_MQTT_TYPES = (
    "reserved", "CONNECT", "CONNACK", "PUBLISH", "PUBACK", "PUBREC", "PUBREL", "PUBCOMP", "SUBSCRIBE",
    "SUBACK", "UNSUBSCRIBE", "UNSUBACK", "PINGREQ", "PINGRESP", "DISCONNECT", "AUTH",
)  # fmt: skip


class Direction(msgspec.Struct, frozen=True):
    """One sender on one link: what the capture holds and what the ether counted."""

    link: str
    source: str
    frames_captured: int
    frames_counted: int
    bytes_captured: int
    """On air, framing included."""
    bytes_counted: int

    @property
    def agrees(self) -> bool:
        """Whether capture and counters say the same, exactly."""
        return (self.frames_captured, self.bytes_captured) == (self.frames_counted, self.bytes_counted)


class CaptureAnalysis(msgspec.Struct, frozen=True):
    """Bytes on air of a whole run, by protocol."""

    by_protocol: dict[str, int]
    """Largest first; the values sum up to all bytes on air."""
    messages: dict[str, int]
    """How many of each kind, counted anew on every link they crossed."""
    directions: tuple[Direction, ...]

    @property
    def agrees(self) -> bool:
        """Whether every direction of every link agrees with the ether's counters."""
        return all(direction.agrees for direction in self.directions)


class Frame(NamedTuple):
    """One captured frame."""

    source: str
    comment: str
    data: bytes
    """From the Ethernet header on."""


def analyse(folder: Path) -> CaptureAnalysis:
    """Analyse the captures of a run, and write `captures.json` beside them.

    Raises InputError where the run was made without captures.
    """
    manifest = Manifest.read(folder)
    files = sorted((folder / "captures").glob("*.pcapng"))
    if not files:
        raise InputError("the run has no captures", file=folder, hint="run it with --pcap")
    links = {link.name: link for link in manifest.links}
    names = {port: name for name, port in manifest.ports.items()}
    split = _Split(names)
    captured: dict[tuple[str, str], list[int]] = defaultdict(lambda: [0, 0])
    for file in files:
        link = links[file.stem]
        for frame in frames(file):
            if frame.comment.startswith(_NEVER_LEFT):
                continue
            packet = memoryview(frame.data)[_ETHERNET_BYTES:]
            framing = _framing_bytes(link, len(packet))
            total = captured[link.name, frame.source]
            total[0] += 1
            total[1] += len(packet) + framing
            split.bytes["link framing"] += framing
            split.packet(file.stem, int.from_bytes(frame.data[12:14]), packet)
    analysis = CaptureAnalysis(
        by_protocol=dict(split.bytes.most_common()),
        messages=dict(split.messages.most_common()),
        directions=_beside_counters(folder, captured),
    )
    (folder / _RESULT).write_bytes(msgspec.json.format(msgspec.json.encode(analysis)) + b"\n")
    return analysis


def read_analysis(folder: Path) -> CaptureAnalysis | None:
    """What `analyse` found of a run; None where there were no captures."""
    path = folder / _RESULT
    return msgspec.json.decode(path.read_bytes(), type=CaptureAnalysis) if path.exists() else None


def protocol_rows(analyses: Mapping[str, CaptureAnalysis]) -> list[tuple[str, list[str]]]:
    """Protocols, those with most bytes first, and in each run their bytes in words."""
    total: Counter[str] = Counter()
    for analysis in analyses.values():
        total.update(analysis.by_protocol)
    return [
        (name, [size(analysis.by_protocol.get(name, 0)) for analysis in analyses.values()])
        for name, bytes_ in total.most_common()
        if bytes_
    ]


def frames(file: Path) -> Iterator[Frame]:
    """The frames of one capture, in the order the ether read them."""
    logging.getLogger("scapy").setLevel(logging.ERROR)
    from scapy.utils import RawPcapNgReader  # heavy, and GPL: only who analyses loads it

    with RawPcapNgReader(str(file)) as reader:
        for data, metadata in reader:
            yield Frame(_source(metadata), _comment(metadata), data)


def _source(metadata: Any) -> str:
    """The sender, from the interface's name `cam1 -> hub`."""
    name = metadata.ifname
    return (name.decode() if isinstance(name, bytes) else str(name)).partition(" -> ")[0]


def _comment(metadata: Any) -> str:
    comments = getattr(metadata, "comments", None) or [getattr(metadata, "comment", None) or b""]
    return b"; ".join(comments).decode()


def _framing_bytes(link: LinkInfo, size_bytes: int) -> int:
    return max(1, -(-size_bytes // link.mtu_bytes)) * link.overhead_bytes


def _beside_counters(folder: Path, captured: dict[tuple[str, str], list[int]]) -> tuple[Direction, ...]:
    counted: dict[tuple[str, str], list[int]] = defaultdict(lambda: [0, 0])
    for record in read_trace(folder / "trace.jsonl"):
        if record["event"] == "link-usage" and record.get("frames"):
            total = counted[record["link"], record["source"]]
            total[0] += record["frames"]
            total[1] += record["bytes_on_air"]
    return tuple(
        Direction(link, source, *(n for pair in zip(captured[key], counted[key], strict=True) for n in pair))
        for key in sorted({*captured, *counted})
        for link, source in [key]
    )


class _Split:
    """Attributes the bytes of packets, with the state that TCP reassembly needs."""

    def __init__(self, names: dict[int, str]) -> None:
        self.bytes: Counter[str] = Counter()
        self.messages: Counter[str] = Counter()
        self._names = names
        self._streams: dict[tuple[str, bytes, bytes], _MqttStream] = {}

    def packet(self, medium: str, ethertype: int, packet: memoryview) -> None:
        if ethertype == 0x0806:
            self.bytes["arp"] += len(packet)
        elif ethertype != 0x0800:
            self.bytes["other"] += len(packet)
        elif packet[9] == 6:
            self._tcp(medium, packet)
        elif packet[9] == 17:
            self._udp(packet)
        else:
            self.bytes["icmp" if packet[9] == 1 else "other"] += len(packet)

    def _tcp(self, medium: str, packet: memoryview) -> None:
        header = (packet[0] & 0x0F) * 4
        tcp = packet[header : int.from_bytes(packet[2:4])]
        data = tcp[(tcp[12] >> 4) * 4 :]
        self.bytes["tcp overhead"] += len(packet) - len(data)
        ports = int.from_bytes(tcp[0:2]), int.from_bytes(tcp[2:4])
        if MQTT_PORT not in ports:
            if data:
                name = self._names.get(ports[1]) or self._names.get(ports[0]) or "tcp payload"
                self.bytes[name] += len(data)
            return
        key = medium, bytes(packet[12:20]), bytes(tcp[0:4])
        if tcp[13] & 0x02:
            self._streams[key] = _MqttStream(int.from_bytes(tcp[4:8]) + 1)
        elif data:
            stream = self._streams.setdefault(key, _MqttStream(int.from_bytes(tcp[4:8])))
            self.bytes["tcp retransmission"] += stream.take(int.from_bytes(tcp[4:8]), data, self)

    def _udp(self, packet: memoryview) -> None:
        udp = packet[(packet[0] & 0x0F) * 4 :]
        data = udp[8:]
        self.bytes["udp overhead"] += len(packet) - len(data)
        ports = int.from_bytes(udp[0:2]), int.from_bytes(udp[2:4])
        if COAP_PORT in ports and len(data) >= 4:
            code = data[1]
            kind = "coap empty" if code == 0 else "coap request" if code < 32 else "coap response"
        else:
            kind = self._names.get(ports[1]) or self._names.get(ports[0]) or "udp payload"
        self.bytes[kind] += len(data)
        self.messages[kind] += 1


class _MqttStream:
    """One direction of one connection, as seen on one link."""

    __slots__ = ("_buffer", "_early", "_next", "_remaining", "_type")

    def __init__(self, first_sequence: int) -> None:
        self._next = first_sequence & 0xFFFF_FFFF
        self._early: dict[int, bytes] = {}
        self._buffer = bytearray()
        self._remaining = 0
        self._type = ""

    def take(self, sequence: int, data: memoryview, split: _Split) -> int:
        """Attribute a segment's new bytes; returns how many were seen before."""
        ahead = (sequence - self._next) & 0xFFFF_FFFF
        if ahead >= 1 << 31:
            seen = min(len(data), (1 << 32) - ahead)
            if seen < len(data):
                self._append(data[seen:], split)
            return seen
        if ahead:
            held = self._early.get(sequence, b"")
            self._early[sequence] = max(held, bytes(data), key=len)
            return min(len(held), len(data))
        self._append(data, split)
        return 0

    def _append(self, data: memoryview, split: _Split) -> None:
        self._parse(data, split)
        self._next = (self._next + len(data)) & 0xFFFF_FFFF
        early = self._early.pop(self._next, None)
        if early is not None:
            self._append(memoryview(early), split)

    def _parse(self, data: memoryview, split: _Split) -> None:
        """Walk the control packets; a fixed header may itself be split between segments."""
        at = 0
        while at < len(data):
            if self._remaining:
                step = min(self._remaining, len(data) - at)
                self._remaining -= step
                split.bytes[self._type] += step
                at += step
                continue
            self._buffer.append(data[at])
            at += 1
            if len(self._buffer) > 1 and (not self._buffer[-1] & 0x80 or len(self._buffer) == 5):
                self._type = f"mqtt {_MQTT_TYPES[self._buffer[0] >> 4]}"
                self._remaining = sum((byte & 0x7F) << 7 * i for i, byte in enumerate(self._buffer[1:]))
                split.bytes[self._type] += len(self._buffer)
                split.messages[self._type] += 1
                self._buffer.clear()
