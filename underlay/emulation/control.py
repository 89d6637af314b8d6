"""Looking inside a network that is up: who runs, what runs where, commands in a device, faults by hand.

Owns the control socket, both ends: the supervisor serves one in its run's state folder, and the functions
here ask it. One request and one answer for each connection, JSON, on a local socket that only its owner may
open. To run a command inside a device, the answer carries descriptors of its namespaces.
"""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec

from underlay.emulation.cleanup import state_directory
from underlay.emulation.processes import CLONE_NEWNET, CLONE_NEWNS, CLONE_NEWPID, join, run_to_end
from underlay.errors import InputError, RunFailed, nearest
from underlay.faults import AnyFault

SOCKET = "control.sock"
PATIENCE_S = 30.0
"""A supervisor answers at once, but for what takes a device down and up again."""
_ANSWER_BYTES = 1 << 20
_NAMESPACES = (CLONE_NEWNS, CLONE_NEWNET, CLONE_NEWPID)
"""In the order in which their descriptors are sent and entered: the mounts while our own `/proc` is still of
use.
"""


class Request(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a client wants: `status`, `enter` (a device), `fault` or `stop`."""

    do: str
    device: str = ""
    fault: AnyFault | None = None


class Answer(msgspec.Struct, frozen=True, omit_defaults=True):
    """What it gets; `problem` says why not."""

    problem: str = ""
    status: dict[str, Any] = {}


class ControlServer:
    """The supervisor's end. `handle(request)` answers, with descriptors to send along."""

    def __init__(self, folder: Path, handle: Callable[[Request], tuple[Answer, Sequence[int]]]) -> None:
        self._handle = handle
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        path = folder / SOCKET
        self._listener.bind(str(path))
        path.chmod(0o600)
        self._listener.listen(16)

    def fileno(self) -> int:
        """For the reactor."""
        return self._listener.fileno()

    def serve(self) -> None:
        """Take one connection and answer it."""
        connection, _ = self._listener.accept()
        with connection, suppress(OSError):
            connection.settimeout(1.0)  # a client that connects and says nothing must not stop the run
            try:
                request = msgspec.json.decode(connection.recv(_ANSWER_BYTES), type=Request)
            except msgspec.DecodeError as error:
                answer, fds = Answer(problem=str(error)), ()
            else:
                answer, fds = self._handle(request)  # type: ignore[assignment]
            socket.send_fds(connection, [msgspec.json.encode(answer)], list(fds))


def runs() -> list[str]:
    """The runs of this machine that are up, newest last."""
    sockets = state_directory().glob(f"*/{SOCKET}")
    return [path.parent.name for path in sorted(sockets, key=lambda path: path.stat().st_mtime)]


def status(run: str | None = None) -> dict[str, Any]:
    """State of a run: its folder, time, devices."""
    answer, _ = _ask(Request("status"), run)
    return answer.status


def inject(fault: AnyFault, run: str | None = None) -> None:
    """Make something fail in a run, now."""
    _ask(Request("fault", fault=fault), run)


def stop(run: str | None = None) -> None:
    """End a run as if its time were up."""
    _ask(Request("stop"), run)


def logs(device: str, run: str | None = None) -> list[Path]:
    """Files with the output of a device's processes."""
    state = status(run)
    if device not in state["devices"]:
        raise _unknown(device, state["devices"])
    folder = Path(state["folder"]) / "logs"
    return sorted(path for path in folder.glob(f"{device}*.log") if path.name[len(device)] in ".-")


def execute(device: str, argv: Sequence[str], run: str | None = None) -> int:
    """Run a command inside a device, on this terminal; returns its exit status."""
    _, fds = _ask(Request("enter", device), run)
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # the command's business
    try:
        pid = os.fork()
        if pid == 0:
            run_to_end(lambda: _inside(fds, argv))
        _, ended = os.waitpid(pid, 0)
    finally:
        signal.signal(signal.SIGINT, before)
        for fd in fds:
            os.close(fd)
    code = os.waitstatus_to_exitcode(ended)
    return 128 - code if code < 0 else code


def namespaces_of(network_fd: int) -> tuple[int, int, int]:
    """What an `enter` is answered with, in the supervisor; the caller closes the first and the last."""
    mounts, processes = (os.open(f"/proc/self/ns/{name}", os.O_RDONLY) for name in ("mnt", "pid"))
    return mounts, network_fd, processes


def _inside(fds: Sequence[int], argv: Sequence[str]) -> None:
    for fd, kind in zip(fds, _NAMESPACES, strict=True):
        join(fd, kind)
    pid = os.fork()  # only a child is inside a PID namespace
    if pid == 0:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        try:
            os.execvp(argv[0], list(argv))
        except OSError as problem:
            os.write(2, f"{argv[0]}: {problem.strerror}\n".encode())
            os._exit(127)
    _, ended = os.waitpid(pid, 0)
    code = os.waitstatus_to_exitcode(ended)
    os._exit(128 - code if code < 0 else code)


def _ask(request: Request, run: str | None) -> tuple[Answer, list[int]]:
    path = state_directory() / (run or _only_run()) / SOCKET
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as client:
        client.settimeout(PATIENCE_S)
        try:
            client.connect(str(path))
            client.send(msgspec.json.encode(request))
            data, fds, _, _ = socket.recv_fds(client, _ANSWER_BYTES, len(_NAMESPACES))
        except TimeoutError as problem:
            raise RunFailed(f"the run {run or ''} has not answered for {PATIENCE_S:g} s") from problem
        except OSError as problem:
            raise InputError(
                f"no run {run!r} is up: {problem.strerror}", hint="birdhouse up SPEC"
            ) from problem
    if not data:
        raise RunFailed("the run ended before it could answer")
    answer = msgspec.json.decode(data, type=Answer)
    if answer.problem:
        raise InputError(answer.problem)
    return answer, fds


def _only_run() -> str:
    found = runs()
    if not found:
        raise InputError("no network is up", hint="birdhouse up SPEC")
    if len(found) > 1:
        raise InputError(f"several networks are up: {', '.join(found)}", hint="say which")
    return found[0]


def _unknown(device: str, known: Sequence[str]) -> InputError:
    near = nearest(device, known)
    return InputError(f"there is no device {device!r}", hint=f"did you mean {near!r}?" if near else None)
