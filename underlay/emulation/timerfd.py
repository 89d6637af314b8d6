"""A timer that epoll can wait for, exact to the kernel's high-resolution clock; epoll's own timeout counts
whole ms.

Owns one timer descriptor of CLOCK_MONOTONIC. Python has `os.timerfd_create` only from 3.13 on, so libc is
called directly; through PyDLL, because the calls never block and giving up the interpreter lock costs more
than they do.

Source: timerfd_create(2).
"""

from __future__ import annotations

import ctypes
import os
import struct
import time

_TFD_TIMER_ABSTIME = 1
_ITIMERSPEC = struct.Struct("@qqqq")  # interval s, ns; value s, ns


class Timer:
    """Becomes readable once, at the time last set.

    Made to be polled edge-triggered: nobody has to read it, setting it anew clears it.
    """

    def __init__(self) -> None:
        self.fd: int = _libc.timerfd_create(time.CLOCK_MONOTONIC, os.O_NONBLOCK | os.O_CLOEXEC)
        if self.fd < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create")
        self._value = ctypes.create_string_buffer(_ITIMERSPEC.size)

    def set(self, at_s: float) -> None:
        """Expire at `at_s` of `time.monotonic()`, at once if that is past."""
        _ITIMERSPEC.pack_into(self._value, 0, 0, 0, *divmod(max(1, int(at_s * 1e9)), 1_000_000_000))
        if _libc.timerfd_settime(self.fd, _TFD_TIMER_ABSTIME, self._value, None) != 0:
            raise OSError(ctypes.get_errno(), "timerfd_settime")

    def close(self) -> None:
        """Give the descriptor back."""
        os.close(self.fd)


_libc = ctypes.PyDLL(None, use_errno=True)
_libc.timerfd_settime.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)
