"""Real programs on devices: brokers, and what users bring along.

Owns laying their files, starting them in their device's namespace, waiting until they serve, and their last
words. A program's folder outlives a crash of the device, as its disk would; files are laid before the first
start only. They run as the user the supervisor runs as, root: ports below 1024 and raw sockets belong to a
machine of one's own.
"""

from __future__ import annotations

import errno
import os
import socket
from pathlib import Path
from subprocess import DEVNULL, STDOUT, Popen
from typing import Any

from underlay.errors import InputError
from underlay.plan import ProgramPlan

LAST_LINES = 10


class Program:
    """A program of a device, over all the device's lives.

    Args:
        host: the device's Mininet host.
        folder: its own; made here.
        log: where its output goes.
    """

    def __init__(self, plan: ProgramPlan, host: Any, ip: str, folder: Path, log: Path) -> None:
        self.plan = plan
        self.log = log
        self.process: Popen[bytes] | None = None
        self._host = host
        self._ip = ip
        self._folder = folder
        folder.mkdir(parents=True)
        for name, text in plan.files.items():
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(self._filled(text))

    def start(self) -> int:
        """Start it; returns its process id. InputError if there is no such program."""
        argv = [self._filled(word) for word in self.plan.argv]
        environment = {
            **os.environ,
            "PATH": f"{os.environ.get('PATH', '')}:/usr/local/sbin:/usr/sbin:/sbin",
            "BIRDHOUSE_DEVICE": self._host.name,
            "BIRDHOUSE_IP": self._ip,
            "BIRDHOUSE_DIR": str(self._folder),
            **{name: self._filled(value) for name, value in self.plan.environment.items()},
        }
        with self.log.open("ab") as log:
            try:
                self.process = self._host.popen(
                    argv, stdin=DEVNULL, stdout=log, stderr=STDOUT, env=environment, cwd=self._folder
                )
            except OSError as problem:
                raise InputError(
                    f"cannot start {argv[0]!r} on {self._host.name}: {problem.strerror}", key=self.plan.name
                ) from problem
        assert self.process is not None
        return self.process.pid

    def probe(self) -> socket.socket:
        """A connection attempt to the port that says the program is ready, to be asked `connected`."""
        assert self.plan.ready_port is not None
        knock: socket.socket = self._host.namespace.socket(kind=socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        knock.connect_ex((self._ip, self.plan.ready_port))
        return knock

    def ended(self) -> int:
        """Its exit status, or minus the signal's number, once it has ended."""
        assert self.process is not None
        return self.process.wait()

    def _filled(self, text: str) -> str:
        return text.replace("{dir}", str(self._folder)).replace("{ip}", self._ip)


def connected(knock: socket.socket) -> bool:
    """Whether the port answered; only locally, where that takes no time."""
    return knock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0 and _peer_known(knock)


def last_lines(log: Path) -> tuple[str, ...]:
    """The end of a log, for whoever asks why something ended."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - 8192))
            return tuple(file.read().decode(errors="replace").splitlines()[-LAST_LINES:])
    except OSError:
        return ()


def _peer_known(knock: socket.socket) -> bool:
    try:
        knock.getpeername()
    except OSError as problem:
        if problem.errno == errno.ENOTCONN:
            return False
        raise
    return True
