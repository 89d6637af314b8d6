"""Processes that cannot outlive their run: a PID namespace of its own, death signals, and identity that is no
name.

Owns the few system calls Python 3.11 does not offer. When the first process of a PID namespace ends, the
kernel kills all others in it; when its parent ends, `PR_SET_PDEATHSIG` ends that first one. Together they
clean up after a SIGKILL.

Source: pid_namespaces(7), mount_namespaces(7), prctl(2), proc(5).
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

import msgspec

from underlay.errors import Unavailable

CLONE_NEWNS = 0x0002_0000
CLONE_NEWNET = 0x4000_0000
CLONE_NEWPID = 0x2000_0000
_MS_REC = 0x4000
_MS_PRIVATE = 0x4_0000
_MS_BIND = 0x1000
_PR_SET_PDEATHSIG = 1
_PR_SET_NAME = 15

_libc = ctypes.CDLL(None, use_errno=True)


class Identity(msgspec.Struct, frozen=True):
    """Which process, for good: ids are reused, the pair of id and start time within one boot is not."""

    boot: str
    pid: int
    started: int
    """Clock ticks since boot."""

    @classmethod
    def of(cls, pid: int) -> Identity:
        """Of a living process; ProcessLookupError if there is none of that id."""
        return cls(boot_id(), pid, _started(pid))

    @property
    def alive(self) -> bool:
        """Whether that very process still runs (a zombie does not)."""
        if self.boot != boot_id():
            return False
        try:
            return _started(self.pid) == self.started
        except ProcessLookupError:
            return False


def boot_id() -> str:
    """Differs after every boot of this machine."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def fork_first(main: Callable[[], NoReturn]) -> int:
    """Fork a process that is the first of a new PID namespace and runs `main`; returns its id as seen from
    here.

    It has mounts of its own with a `/proc` that shows its namespace only, and a network namespace of its own,
    and is killed when the calling thread ends.
    """
    own = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
    try:
        _check(_libc.unshare(CLONE_NEWPID), "cannot make a PID namespace")
        try:
            pid = os.fork()
        finally:
            if os.getpid() != 1:  # later children of this process stay in its own namespace
                _check(_libc.setns(own, CLONE_NEWPID), "cannot return to the PID namespace")
    finally:
        os.close(own)
    if pid == 0:
        run_to_end(lambda: _in_own_world(main))
    return pid


def run_to_end(main: Callable[[], object]) -> NoReturn:
    """Run `main` in a forked child and end it there: no exception may unwind into the parent's code."""
    status = 1
    try:
        main()
        status = 0
    except SystemExit as ending:
        status = ending.code if isinstance(ending.code, int) else 1
    except BaseException:
        import traceback

        with suppress(OSError):
            os.write(2, traceback.format_exc().encode())
    finally:
        os._exit(status)


def die_with_parent() -> None:
    """SIGKILL this process as soon as the thread that forked it ends. The caller checks for a parent already
    gone.
    """
    _check(_libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0), "prctl")


def set_name(name: str) -> None:
    """What `ps` and `top` show; at most 15 bytes are kept."""
    _libc.prctl(_PR_SET_NAME, name.encode()[:15], 0, 0, 0)


def bind_mount(source: Path, target: Path) -> None:
    """Make `source` appear at `target`, in this process's mount namespace."""
    _mount(source, target, "", _MS_BIND)


def mount_tmpfs(target: Path, size_bytes: int) -> None:
    """A file system in memory at `target`, in this process's mount namespace."""
    _mount(Path("tmpfs"), target, "tmpfs", 0, f"size={size_bytes}")


def join(fd: int, kind: int) -> None:
    """Enter the namespace that `fd` refers to; for PID namespaces, the next child will be inside."""
    _check(_libc.setns(fd, kind), "cannot enter a namespace")


def leave_mounts() -> None:
    """Give this process mounts of its own, which nobody else sees."""
    _check(_libc.unshare(CLONE_NEWNS), "cannot make a mount namespace")
    _mount(Path("none"), Path("/"), "", _MS_REC | _MS_PRIVATE)


def default_signals() -> None:
    """Undo what a forked child inherited of its parent's handling."""
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def close_all_but(*keep: int) -> None:
    """Close every descriptor above stderr that is not listed."""
    low = 3
    for fd in sorted(keep):
        os.closerange(low, fd)
        low = max(low, fd + 1)
    os.closerange(low, os.sysconf("SC_OPEN_MAX"))


def prepare_log(path: Path) -> None:
    """Make `path` this process's stdout and stderr."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(fd, 1)
    os.dup2(fd, 2)
    os.close(fd)
    # Python's own may write elsewhere: whoever tests or embeds us has replaced them.
    sys.stdout, sys.stderr = (os.fdopen(number, "w", buffering=1, closefd=False) for number in (1, 2))


def _in_own_world(main: Callable[[], NoReturn]) -> None:
    die_with_parent()
    default_signals()
    leave_mounts()
    _mount(Path("proc"), Path("/proc"), "proc", 0)
    _check(_libc.unshare(CLONE_NEWNET), "cannot make a network namespace")
    main()


def _started(pid: int) -> int:
    try:
        # The second field, the name in parentheses, may hold anything; the others follow its last
        # parenthesis.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        raise ProcessLookupError(pid) from None
    if fields[0] in "ZX":
        raise ProcessLookupError(pid)
    return int(fields[19])


def _mount(source: Path, target: Path, kind: str, flags: int, options: str = "") -> None:
    arguments = (
        str(source).encode(),
        str(target).encode(),
        kind.encode() or None,
        flags,
        options.encode() or None,
    )
    _check(_libc.mount(*arguments), f"cannot mount {target}")


def _check(result: int, what: str) -> None:
    if result != 0:
        code = ctypes.get_errno()
        if code in (1, 13):
            raise Unavailable(f"{what}: {os.strerror(code)}", hint="run as root")
        raise OSError(code, f"{what}: {os.strerror(code)}")
