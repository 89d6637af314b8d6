"""Real-time priority: for the ether, whose lateness is every link's, and for whoever measures it.

Owns asking the kernel for it. Where it is refused (a container without the right, a control group without a
real-time share) work goes on with the best niceness to be had, and the measured lag says whether that was
enough.

The kernel keeps 5 % of each second from real-time processes (sched_rt_runtime_us, which is the machine's and
not ours to write): an ether that needs a whole core stands still for 50 ms of each second, and its lag says
so.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress

ETHER_PRIORITY = 10
PROBER_PRIORITY = 5
"""Below the ether: who waits for a frame must not keep it from coming."""


def become_realtime(priority: int) -> bool:
    """SCHED_FIFO for the calling thread from now on; False if only its niceness could be raised, or
    nothing."""
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(priority))
    except OSError:
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, 0, -20)
        return False
    return True


@contextmanager
def realtime(priority: int) -> Iterator[None]:
    """SCHED_FIFO for the calling thread meanwhile, if it can be had."""
    policy, before = os.sched_getscheduler(0), os.sched_getparam(0)
    with suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(priority))
    try:
        yield
    finally:
        os.sched_setscheduler(0, policy, before)
