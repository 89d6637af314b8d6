"""A link's direction as the kernel's own queueing disciplines: what to ask of them, and what they count.

Two netem disciplines, one inside the other, do what `underlay.link.LinkModel` does, in its order. The outer
one queues, serializes (rate, framing) and delays by the delay's constant part; the inner one loses
(Gilbert-Elliott) and adds jitter without reordering. Loss comes after serialization, so that a lost frame has
had its airtime. What netem cannot do is refused, by name.

Owns the translation and the encoding. Knows no network: requests are for an interface by its index, and act
where they are sent. Source: `linux/pkt_sched.h`, `linux/rtnetlink.h`; tc-netem(8); for what the disciplines
do with it, `net/sched/sch_netem.c` of Linux 6.1.
"""

from __future__ import annotations

import socket
import struct
from math import ceil, inf
from typing import NamedTuple

import msgspec

from underlay.emulation.ether_hops import ETHERNET_BYTES
from underlay.emulation.namespace import Namespace
from underlay.emulation.rtnetlink import LOOPBACK, Request, RouteSocket, attribute, attributes, nest
from underlay.errors import InputError
from underlay.link import LinkSpec


class Counters(NamedTuple):
    """What a direction's disciplines did since they were made."""

    frames: int = 0
    """Sent and not lost."""
    ip_bytes: int = 0
    """In these, without Ethernet's header."""
    lost: int = 0
    queue_dropped: int = 0
    waiting: int = 0
    """Now: in the queue or under way."""


def refuse(spec: LinkSpec, key: str) -> None:
    """Raise InputError, naming `key` and the parameter, for what netem cannot do as the model does."""
    if spec.opportunities_ms:
        raise _cannot("follow a recorded trace", f"{key}.opportunities_ms")
    if spec.mtu_bytes < MTU_BYTES and (spec.overhead_bytes or spec.loss_ratio):
        raise _cannot(
            f"frame or lose fragments of {spec.mtu_bytes} bytes (IP packets have up to {MTU_BYTES})",
            f"{key}.mtu_bytes",
        )


def _cannot(what: str, key: str) -> InputError:
    return InputError(f"netem cannot {what}", key=key, hint=HINT)


def as_enforced(spec: LinkSpec) -> LinkSpec:
    """`spec` with the rate the kernel will make of it: whole bytes per second."""
    if spec.rate_kbps == inf:
        return spec
    return msgspec.structs.replace(spec, rate_kbps=_bytes_per_s(spec) / 125.0)


def make(index: int, spec: LinkSpec, life: int = 0) -> list[Request]:
    """Give interface `index` fresh disciplines; whatever waits in those of an earlier life is gone.

    Nothing passes until the last request has been carried out.

    Args:
        life: counts how often that has happened; the disciplines' handles alternate with it.
    """
    outer, inner = _handles(life)
    return [
        _request(index, _ROOT, outer, _CREATE, _everything_lost()),
        _request(index, outer | 1, inner, _CREATE, _inner(spec)),
        _request(index, _ROOT, outer, _CHANGE, _outer(spec)),
    ]


def change(index: int, spec: LinkSpec, life: int = 0) -> list[Request]:
    """Another spec for what comes from now on; what waits keeps its schedule."""
    outer, inner = _handles(life)
    return [
        _request(index, _ROOT, outer, _CHANGE, _outer(spec)),
        _request(index, outer | 1, inner, _CHANGE, _inner(spec)),
    ]


def cut(index: int, life: int = 0) -> list[Request]:
    """Let nothing in and nothing out any more; what is under way is lost when its time comes."""
    outer, inner = _handles(life)
    return [
        _request(index, outer | 1, inner, _CHANGE, _everything_lost()),
        _request(index, _ROOT, outer, _CHANGE, _everything_lost()),
    ]


def read(route_socket: RouteSocket) -> dict[int, Counters]:
    """Counters of all directions that leave this namespace, by interface index."""
    outer: dict[int, _Stage] = {}
    inner: dict[int, _Stage] = {}
    for body in route_socket.dump(_RTM_GETQDISC, _TCMSG.pack(socket.AF_UNSPEC, 0, 0, 0, 0)):
        _, index, handle, parent, _ = _TCMSG.unpack_from(body)
        if handle:
            (outer if parent == _ROOT else inner)[index] = _stage(body)
    return {
        index: Counters(
            frames=stage.frames,
            ip_bytes=stage.bytes - stage.frames * ETHERNET_BYTES,
            lost=inner[index].dropped,
            queue_dropped=stage.dropped - inner[index].dropped,  # the outer one counts both
            waiting=stage.waiting,
        )
        for index, stage in outer.items()
        if index in inner
    }


def counts_its_losses() -> bool:
    """Whether frames that the inner discipline loses leave the outer one's count.

    Before Linux 6.13, and stable kernels repaired then, they stay in it until the queue seems full and
    nothing passes any more.

    Tried on a loopback that nobody uses. Needs root and sch_netem.
    """
    namespace = Namespace.open()
    with namespace.socket() as sender:
        namespace.submit(*make(LOOPBACK, LinkSpec(loss_ratio=1.0)))
        for _ in range(_TRIALS):
            sender.sendto(b"", ("127.0.0.1", 9))
        with namespace.enter(), RouteSocket() as route_socket:
            counters = read(route_socket)[LOOPBACK]
    return counters.lost == _TRIALS and not counters.waiting


# ---------------------------------------------------------------------------------------------------- packing


def _outer(spec: LinkSpec) -> bytes:
    """Queue, rate and the constant part of the delay."""
    rate = _bytes_per_s(spec)
    options = _options(delay_ms=spec.delay_ms - spec.jitter_ms, limit_frames=limit_frames(spec))
    # An interface's packets have Ethernet's header, which is no part of an emulated link.
    framing = _RATE.pack(min(rate, _U32_MAX), spec.overhead_bytes - ETHERNET_BYTES, 0, 0)
    return options + attribute(_TCA_NETEM_RATE, framing) + attribute(_TCA_NETEM_RATE64, _U64.pack(rate))


def _inner(spec: LinkSpec) -> bytes:
    """Jitter and loss."""
    packed = _options(delay_ms=spec.jitter_ms, jitter_ms=spec.jitter_ms, limit_frames=_NO_LIMIT_FRAMES)
    if spec.jitter_ms:
        # netem reorders by due time unless it has a rate; this one is no limit, but keeps the order.
        packed += attribute(_TCA_NETEM_RATE, _RATE.pack(_U32_MAX, 0, 0, 0))
        packed += attribute(_TCA_NETEM_RATE64, _U64.pack(_UNLIMITED_BYTES_PER_S))
    if spec.loss_ratio >= 1.0:
        return _everything_lost()
    leave = min(1.0 / spec.burst_frames, 1.0 - spec.loss_ratio)
    enter = leave * spec.loss_ratio / (1.0 - spec.loss_ratio)
    chain = _GILBERT_ELLIOTT.pack(
        _share(enter), _share(leave), 0, 0
    )  # the bad state loses all, the good none
    return packed + nest(_TCA_NETEM_LOSS, attribute(_NETEM_LOSS_GE, chain))


def _everything_lost() -> bytes:
    return _options(loss_ratio=1.0, limit_frames=_NO_LIMIT_FRAMES)


def limit_frames(spec: LinkSpec) -> int:
    """netem's limit: it counts packets, and those under way with those that wait. In packets of full size."""
    if spec.rate_kbps == inf:
        return _NO_LIMIT_FRAMES
    under_way_bytes = spec.rate_kbps * 0.125 * spec.delay_ms
    return 1 + ceil(spec.queue_bytes / MTU_BYTES) + ceil(under_way_bytes / MTU_BYTES)


def _options(
    *, delay_ms: float = 0.0, jitter_ms: float = 0.0, loss_ratio: float = 0.0, limit_frames: int
) -> bytes:
    packed = _QOPT.pack(0, min(limit_frames, _NO_LIMIT_FRAMES), _share(loss_ratio), 0, 0, 0)
    packed += attribute(_TCA_NETEM_LATENCY64, _S64.pack(round(delay_ms * 1e6)))
    return packed + attribute(_TCA_NETEM_JITTER64, _S64.pack(round(jitter_ms * 1e6)))


def _request(index: int, parent: int, handle: int, flags: int, options: bytes) -> Request:
    body = _TCMSG.pack(socket.AF_UNSPEC, index, handle, parent, 0)
    body += attribute(_TCA_KIND, b"netem\0") + attribute(_TCA_OPTIONS, options)
    return Request(_RTM_NEWQDISC, flags, body, f"set netem on link {index}")


def _handles(life: int) -> tuple[int, int]:
    """Of the outer and the inner discipline."""
    return (0x1_0000, 0x2_0000) if life % 2 == 0 else (0x3_0000, 0x4_0000)


def _bytes_per_s(spec: LinkSpec) -> int:
    return _UNLIMITED_BYTES_PER_S if spec.rate_kbps == inf else max(1, round(spec.rate_kbps * 125.0))


def _share(ratio: float) -> int:
    return round(ratio * _U32_MAX)


class _Stage(NamedTuple):
    frames: int
    bytes: int
    dropped: int
    waiting: int


def _stage(body: bytes) -> _Stage:
    statistics = attributes(attributes(body, _TCMSG.size)[_TCA_STATS2], 0)
    size_bytes, frames = _BASIC.unpack_from(statistics[_TCA_STATS_BASIC])
    waiting, _, dropped = _QUEUE.unpack_from(statistics[_TCA_STATS_QUEUE])
    return _Stage(frames, size_bytes, dropped, waiting)


HINT = 'use the enforcer "ether"'
"""Of everything netem cannot do."""

MTU_BYTES = 1500
"""Of the interfaces: the largest packet that a link is handed."""

_TRIALS = 10
_NO_LIMIT_FRAMES = 1_000_000
_UNLIMITED_BYTES_PER_S = 125 * 10**9
_U32_MAX = 0xFFFF_FFFF
_ROOT = 0xFFFF_FFFF

_RTM_NEWQDISC, _RTM_GETQDISC = 36, 38
_CREATE = 0x400 | 0x100  # NLM_F_CREATE | NLM_F_REPLACE
_CHANGE = 0x100
_TCMSG = struct.Struct("=BxxxiIII")  # tcmsg: family, index, handle, parent, info
_TCA_KIND, _TCA_OPTIONS, _TCA_STATS2 = 1, 2, 7
_TCA_STATS_BASIC, _TCA_STATS_QUEUE = 1, 3
_BASIC = struct.Struct("=QI")  # bytes, packets
_QUEUE = struct.Struct("=III")  # qlen, backlog, drops
_QOPT = struct.Struct("=6I")  # tc_netem_qopt: latency, limit, loss, gap, duplicate, jitter
_RATE = struct.Struct("=IiIi")  # tc_netem_rate: bytes/s, packet overhead, cell size, cell overhead
_GILBERT_ELLIOTT = struct.Struct("=4I")  # tc_netem_gemodel: p, r, h, k1
_U64 = struct.Struct("=Q")
_S64 = struct.Struct("=q")
_TCA_NETEM_LOSS, _TCA_NETEM_RATE, _TCA_NETEM_RATE64 = 5, 6, 8
_TCA_NETEM_LATENCY64, _TCA_NETEM_JITTER64 = 10, 11
_NETEM_LOSS_GE = 2
