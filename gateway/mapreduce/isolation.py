"""What a stranger's functions may do in a process of their own.

Owns the limits: memory, no core file, and the rights of the person who called `sudo` instead of root's. It is
called in the process that a worker forked for one attempt, and nowhere else: there is no way back.
"""

from __future__ import annotations

import os
import resource
from pathlib import Path


def invoker() -> tuple[int, int] | None:
    """User and group of whoever called `sudo`; None: nobody did, or this is not root."""
    if os.geteuid() != 0:
        return None
    user, group = os.environ.get("SUDO_UID", ""), os.environ.get("SUDO_GID", "")
    return (int(user), int(group)) if user.isdecimal() and group.isdecimal() and int(user) else None


def drop_rights() -> None:
    """Be the invoker from now on."""
    who = invoker()
    if who is not None:
        os.setgroups([])
        os.setgid(who[1])
        os.setuid(who[0])


def limit_memory(memory_mb: int) -> None:
    """No more address space than now and so much; and no core file of a crash."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * os.sysconf("SC_PAGE_SIZE") + (memory_mb << 20)
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    if hard == resource.RLIM_INFINITY or limit < hard:
        resource.setrlimit(resource.RLIMIT_AS, (limit, hard))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
