"""Long or foreign work of a node (`ctx.run`) in a process of its own, which can be killed.

Owns those processes and the way their results come back. A child is forked from the device's process, so
nothing has to be imported again, and is killed with it.
"""

from __future__ import annotations

import asyncio
import os
import pickle
import signal
from collections.abc import Callable
from contextlib import suppress

from underlay.emulation.processes import close_all_but, default_signals, die_with_parent, run_to_end
from underlay.messages import Message
from underlay.node import Work, WorkFailed

_CHUNK_BYTES = 1 << 16


class Workers:
    """The running work of one node. `on_result` gets the work's message, or WorkFailed."""

    def __init__(self, loop: asyncio.AbstractEventLoop, on_result: Callable[[Message], None]) -> None:
        self._loop = loop
        self._on_result = on_result
        self._running: dict[str, _Worker] = {}

    def start(self, key: str, work: Work) -> None:
        """Start `work`; work of the same key is killed."""
        self.cancel(key)
        read_end, write_end = os.pipe()
        pid = os.fork()
        if pid == 0:
            run_to_end(lambda: _work(work, write_end))
        os.close(write_end)
        os.set_blocking(read_end, False)
        worker = self._running[key] = _Worker(pid, read_end)
        self._loop.add_reader(read_end, self._readable, key, worker)

    def cancel(self, key: str) -> None:
        """Kill it; nothing will come of it."""
        worker = self._running.pop(key, None)
        if worker is not None:
            os.kill(worker.pid, signal.SIGKILL)
            self._end(worker)

    def cancel_all(self) -> None:
        """Kill everything."""
        for key in list(self._running):
            self.cancel(key)

    def _readable(self, key: str, worker: _Worker) -> None:
        with suppress(BlockingIOError):
            while chunk := os.read(worker.fd, _CHUNK_BYTES):
                worker.data += chunk
            del self._running[key]
            self._on_result(_result(key, bytes(worker.data), self._end(worker)))

    def _end(self, worker: _Worker) -> int:
        self._loop.remove_reader(worker.fd)
        os.close(worker.fd)
        _, status = os.waitpid(worker.pid, 0)
        return os.waitstatus_to_exitcode(status)


class _Worker:
    def __init__(self, pid: int, fd: int) -> None:
        self.pid = pid
        self.fd = fd
        self.data = bytearray()


def _work(work: Work, fd: int) -> None:
    """In the child: the outcome as a pickle, a message or the text of what went wrong."""
    die_with_parent()
    default_signals()
    close_all_but(fd)
    try:
        outcome: Message | str = work.call(*work.args)
        data = pickle.dumps(outcome)
    except Exception as error:
        data = pickle.dumps(f"{type(error).__name__}: {error}")
    with open(fd, "wb") as pipe:
        pipe.write(data)


def _result(key: str, data: bytes, status: int) -> Message:
    if not data or status != 0:
        return WorkFailed(key, f"killed by signal {-status}" if status < 0 else f"ended with status {status}")
    outcome = pickle.loads(data)
    if isinstance(outcome, Message):
        return outcome
    return WorkFailed(
        key, outcome if isinstance(outcome, str) else f"returned {type(outcome).__name__}, no message"
    )
