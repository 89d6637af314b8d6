"""What this machine can run, found out by trying, and what would make the rest possible.

Owns the probes. Each tries the very thing a run will do, in a namespace of its own; nothing is left behind
and nothing outside is touched.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import struct
from collections.abc import Callable
from contextlib import suppress
from typing import Literal, NoReturn

import msgspec

from underlay.emulation.cgroups import ROOT as CGROUPS
from underlay.emulation.namespace import Namespace
from underlay.emulation.processes import fork_first
from underlay.emulation.rtnetlink import LOOPBACK, NetlinkError, Request, RouteSocket
from underlay.emulation.tap import DEVICE as TUN
from underlay.emulation.tap import open_tap
from underlay.errors import BirdhouseError, Unavailable

Need = Literal["emulation", "star", "extra"]


class Finding(msgspec.Struct, frozen=True):
    """The answer of one probe."""

    name: str
    good: bool
    detail: str
    need: Need
    """What is impossible without it: every emulated run, only those of the star, or nothing but a
    convenience.
    """
    remedy: str = ""
    """What to do, where it is not good."""


def examine() -> list[Finding]:
    """Try everything; in an order in which the first bad one explains those after it."""
    return [probe() for probe in _PROBES]


def choose_enforcer(asked: str, *, shared: bool) -> tuple[Literal["ether", "netem"], str]:
    """Who will enforce links here, and why.

    Args:
        asked: `auto`, `ether` or `netem`.
        shared: whether the network has a channel.

    Raises Unavailable with what would make it possible.
    """
    for finding in examine():
        if not finding.good and finding.need == "emulation":
            raise Unavailable(f"{finding.name}: {finding.detail}", hint=finding.remedy)
    if asked != "netem":  # also for `auto`: only the ether can say of each frame what became of it
        return "ether", "TUN/TAP is here, so the ether can run the links' own models"
    if shared:
        raise Unavailable("netem cannot be a shared channel", key="fabric.enforcer", hint='use "ether"')
    require_netem()
    return "netem", "the kernel's netem delays and loses, without a record of single frames"


def require_netem() -> None:
    """Raises Unavailable where the kernel's netem is missing or miscounts."""
    found = _netem()
    if not found.good:
        raise Unavailable(found.detail, key="fabric.enforcer", hint=found.remedy)


# ------------------------------------------------------------------------------------------------- the probes


def _root() -> Finding:
    good = _is_root()
    detail = "we are root" if good else f"we are user {os.geteuid()}"
    return Finding("root", good, detail, "emulation", "run it with sudo")


def _is_root() -> bool:
    return os.geteuid() == 0


def _mininet() -> Finding:
    good = importlib.util.find_spec("mininet") is not None
    detail = "the Python package can be imported" if good else "the Python package is not installed"
    return Finding("Mininet", good, detail, "emulation", "make setup")


def _namespaces() -> Finding:
    def probe() -> str:
        Namespace.open().close()
        pid = fork_first(_leave)
        _, status = os.waitpid(pid, 0)
        return "" if status == 0 else "a process namespace could be made but not used"

    detail = "network, process and mount namespaces can be made"
    return _tried("namespaces", probe, detail, "run on a machine of your own: this container forbids them")


def _taps() -> Finding:
    def probe() -> str:
        namespace = Namespace.open()
        os.close(open_tap(namespace, "probe"))
        namespace.close()
        return ""

    return _tried(
        "TUN/TAP", probe, f"{TUN} gives interfaces", "modprobe tun; in a container, pass /dev/net/tun"
    )


def _tried(name: str, probe: Callable[[], str], detail: str, remedy: str) -> Finding:
    try:
        problem = probe()
    except (OSError, BirdhouseError) as error:
        problem = str(error)
    remedy = remedy if _is_root() else "run it with sudo"  # what else there is to do shows only then
    return Finding(name, not problem, problem or detail, "emulation", remedy)


def _netem() -> Finding:
    from underlay.emulation import netem_qdisc

    if not _has_discipline("netem", struct.pack("=6I", 0, 1000, 0, 0, 0, 0)):
        remedy = 'modprobe sch_netem, or use the enforcer "ether", which does without'
        return Finding("netem", False, "this kernel has no sch_netem", "extra", remedy)
    good = netem_qdisc.counts_its_losses()
    detail = "sch_netem is here" if good else "this kernel's sch_netem loses count of the frames it loses"
    return Finding("netem", good, detail, "extra", 'Linux 6.13 has it right; use the enforcer "ether"')


def _htb() -> Finding:
    options = struct.pack("=HH5I", 24, 2, 3, 10, 0, 0, 0)
    good = _has_discipline("htb", options)
    detail = "sch_htb is here" if good else "this kernel has no sch_htb"
    return Finding("HTB", good, detail, "extra", "modprobe sch_htb; only Mininet's own TCLink wants it")


def _has_discipline(name: str, options: bytes) -> bool:
    """Whether the kernel takes this queueing discipline on a loopback that nobody uses."""
    text = name.encode() + b"\0"
    kind = struct.pack("=HH", 4 + len(text), _TCA_KIND) + text + b"\0" * (-len(text) % 4)
    body = struct.pack("=BxxxiIII", 0, LOOPBACK, 0x10000, _TC_ROOT, 0) + kind
    body += struct.pack("=HH", 4 + len(options), _TCA_OPTIONS) + options
    request = Request(_RTM_NEWQDISC, _NLM_F_CREATE, body, f"add {name}")
    with suppress(NetlinkError, BirdhouseError, OSError):
        namespace = Namespace.open()
        with namespace.enter(), RouteSocket() as route_socket:
            route_socket.apply([request])
        return True
    return False


def _mosquitto() -> Finding:
    path = shutil.which("mosquitto", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
    detail = path or "no such program"
    return Finding("mosquitto", path is not None, detail, "star", "make setup, or: apt-get install mosquitto")


def _mnexec() -> Finding:
    path = shutil.which("mnexec")
    detail = path or "no such program; Mininet's own node classes start their shells with it, ours do not"
    return Finding("mnexec", path is not None, detail, "extra", "make setup, or: apt-get install mininet")


def _control_groups() -> Finding:
    hierarchies = [CGROUPS / name for name in ("cpu", "memory") if (CGROUPS / name).is_dir()] or [CGROUPS]
    good = _is_root() and all(os.access(path, os.W_OK) for path in hierarchies)
    detail = (
        "CPU share and memory of a device can be limited" if good else "control groups are read-only here"
    )
    return Finding(
        "control groups", good, detail, "extra", "mount them writable; without, nothing is limited"
    )


def _realtime() -> Finding:
    """Tried in a child: a process that ran at real-time priority would keep it."""
    pid = os.fork()
    if pid == 0:
        status = 1
        with suppress(OSError):
            os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
            status = 0
        os._exit(status)
    _, ended = os.waitpid(pid, 0)
    detail = "the ether may go first" if ended == 0 else "refused: on a busy machine links will be late"
    return Finding(
        "real-time priority", ended == 0, detail, "extra", "allow SCHED_FIFO (ulimit -r, CAP_SYS_NICE)"
    )


def _cores() -> Finding:
    cores = len(os.sched_getaffinity(0))
    detail = f"{cores} core{'s' if cores != 1 else ''}"
    return Finding(
        "processors", cores >= 2, detail, "extra", "with 2 the ether is not in the way of the nodes"
    )


def _leave() -> NoReturn:
    os._exit(0)


_PROBES = (
    _root, _mininet, _namespaces, _taps, _mosquitto, _cores, _realtime, _control_groups, _mnexec, _netem,
    _htb,
)  # fmt: skip

_RTM_NEWQDISC = 36
_NLM_F_CREATE = 0x400
_TCA_KIND, _TCA_OPTIONS = 1, 2
_TC_ROOT = 0xFFFF_FFFF
