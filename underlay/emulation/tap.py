"""TAP interfaces: the ends of an emulated link, each a network card for its host, a descriptor for the ether.

Owns opening them. Opening `/dev/net/tun` inside the namespace makes the interface there, which saves the 16
ms of moving it; making it persistent lets the namespace take it along when it dies, which saves the 16 ms of
removing it when its descriptor is closed.

Source: Linux Documentation/networking/tuntap.rst; `linux/if_tun.h`.
"""

from __future__ import annotations

import fcntl
import os
import struct
from contextlib import suppress

from underlay.emulation.namespace import Namespace
from underlay.errors import Unavailable

DEVICE = "/dev/net/tun"


def open_tap(namespace: Namespace, name: str) -> int:
    """Make a TAP in `namespace`, down and unconfigured.

    Returns:
        A non-blocking descriptor: each read is one Ethernet frame that the host sent, each write one it
        receives.

    Raises:
        Unavailable: this machine has no TUN/TAP, or we may not use it.
    """
    with namespace.inside():
        try:
            fd = os.open(DEVICE, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as problem:
            raise Unavailable(
                f"cannot open {DEVICE}: {problem.strerror}", hint="needs root and the tun module"
            ) from problem
    try:
        fcntl.ioctl(fd, _TUNSETIFINDEX, struct.pack("I", namespace.number(name)))
        fcntl.ioctl(fd, _TUNSETIFF, struct.pack("16sH22x", name.encode(), _IFF_TAP | _IFF_NO_PI))
        fcntl.ioctl(fd, _TUNSETPERSIST, 1)
    except OSError:
        with suppress(OSError):
            os.close(fd)
        raise
    return fd


_TUNSETIFF = 0x4004_54CA
_TUNSETPERSIST = 0x4004_54CB
_TUNSETIFINDEX = 0x4004_54DA
_IFF_TAP = 0x0002
_IFF_NO_PI = 0x1000
