"""Fault verbs as data: what breaks, when. Both fabrics implement every verb alike.

A crash is a power cut: peers see silence, not a polite close; what the device had not made durable is gone
(or, if it was just being written, there after all), and it stops forwarding. A pause freezes the device's
programs while its kernel lives on. Cuts are in the medium: nobody is told. A disk that fails ends the process
of the device's nodes: the kernel lives on, closes their connections and goes on forwarding.
"""

from __future__ import annotations

import msgspec

from underlay.link import LinkSpec
from underlay.network import Network


class Fault(msgspec.Struct, frozen=True, tag_field="fault"):
    """Base of all verbs."""


class Crash(Fault, frozen=True, tag="crash"):
    """Power cut: processes die, links go silent, volatile state is lost."""

    device: str


class Restart(Fault, frozen=True, tag="restart"):
    """Power returns: a new incarnation of every node, with what was durable."""

    device: str


class Pause(Fault, frozen=True, tag="pause"):
    """The device's programs stand still; arriving packets wait in its kernel."""

    device: str


class Resume(Fault, frozen=True, tag="resume"):
    """A paused device goes on."""

    device: str


class LinkDown(Fault, frozen=True, tag="link-down"):
    """Nothing passes between two neighbouring devices, either way."""

    a: str
    b: str


class LinkUp(Fault, frozen=True, tag="link-up"):
    """Undoes LinkDown and OneWayCut between the two."""

    a: str
    b: str


class OneWayCut(Fault, frozen=True, tag="one-way-cut"):
    """Nothing passes from `source` to `target`; the other way works."""

    source: str
    target: str


class Degrade(Fault, frozen=True, tag="degrade"):
    """Both directions of a link change some parameters (keys of LinkSpec); `Degrade(a, b, {})` restores the
    spec."""

    a: str
    b: str
    changes: dict[str, float] = {}

    def applied_to(self, spec: LinkSpec) -> LinkSpec:
        """`spec` with the changes; raises ValueError where they do not fit."""
        return msgspec.structs.replace(spec, **self.changes)


class Partition(Fault, frozen=True, tag="partition"):
    """Cuts every link and channel pair between the groups; devices in no group form one more group."""

    groups: tuple[tuple[str, ...], ...]


class SlowDisk(Fault, frozen=True, tag="slow-disk"):
    """A commit takes `factor` times as long; 1 restores the disk."""

    device: str
    factor: float


class FailDisk(Fault, frozen=True, tag="fail-disk"):
    """The next commit fails, as on a disk that is full or broken, and the device's nodes end with it. What
    that commit was to make durable may be there or not. `Restart` lets the disk work again, and starts
    them."""

    device: str


class LoseDisk(Fault, frozen=True, tag="lose-disk"):
    """Everything durable is lost: the device's nodes find nothing when they start the next time."""

    device: str


class RotDisk(Fault, frozen=True, tag="rot-disk"):
    """One bit of what the device keeps durably flips. Nobody notices until it is read, at the next start."""

    device: str


class Heal(Fault, frozen=True, tag="heal"):
    """Undoes every Partition, LinkDown and OneWayCut."""


DiskFault = SlowDisk | FailDisk | LoseDisk | RotDisk
AnyFault = (
    Crash | Restart | Pause | Resume | LinkDown | LinkUp | OneWayCut | Degrade | Partition | Heal | DiskFault
)


class TimedFault(msgspec.Struct, frozen=True):
    """A verb on the timeline, `at_s` seconds after the run's start."""

    at_s: float
    fault: AnyFault


def cut_edges(partition: Partition, network: Network) -> list[tuple[str, str]]:
    """The neighbouring pairs that `partition` separates.

    >>> from underlay.network import Device, Link
    >>> wire = LinkSpec()
    >>> links = (Link("a", "b", wire, wire), Link("b", "c", wire, wire))
    >>> line = Network((Device("a"), Device("b"), Device("c")), links)
    >>> cut_edges(Partition((("a", "b"),)), line)
    [('b', 'c')]
    """
    group_of = {device: index for index, group in enumerate(partition.groups) for device in group}
    return [(a, b) for a, b in network.edges() if group_of.get(a, -1) != group_of.get(b, -1)]
