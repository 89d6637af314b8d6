"""A token bucket: how many a second, and how many at once after a pause.

Pure: whoever asks says what time it is, by the device's own clock. The bucket fills at the rate up to the
burst, and each observation takes one token (Tanenbaum and Wetherall, Computer Networks, 5.4.2). It lives in
memory, full at the start, so that a restart may let one more burst through.
"""

from __future__ import annotations

from math import ceil, floor

_WHOLE = 1e-9
"""Tokens are sums of fractions: so near to a whole one is one."""


class Bucket:
    """Lets `rate_per_s` through, and `burst` at once.

    >>> bucket = Bucket(2.0, 1)
    >>> bucket.take(0.0), bucket.take(0.1), bucket.wait_s(0.1), bucket.take(0.5)
    (True, False, 0.4, True)
    """

    def __init__(self, rate_per_s: float, burst: int | None = None) -> None:
        self._rate_per_s = rate_per_s
        self._burst = float(burst or max(1, ceil(rate_per_s)))
        self._tokens = self._burst
        self._at_s: float | None = None

    def available(self, now: float) -> int:
        """Whole tokens that are there."""
        self._fill(now)
        return floor(self._tokens + _WHOLE)

    def take(self, now: float) -> bool:
        """One token, if there is one."""
        if not self.available(now):
            return False
        self._tokens = max(0.0, self._tokens - 1.0)
        return True

    def give_back(self, tokens: int) -> None:
        """What was taken for nothing."""
        self._tokens = min(self._burst, self._tokens + tokens)

    def wait_s(self, now: float) -> float:
        """Until there is one; 0: there is."""
        if self.available(now):
            return 0.0
        return round((1.0 - self._tokens) / self._rate_per_s, 9)

    def _fill(self, now: float) -> None:
        """A clock that was set back fills nothing, and starts anew."""
        if self._at_s is not None and now > self._at_s:
            self._tokens = min(self._burst, self._tokens + (now - self._at_s) * self._rate_per_s)
        self._at_s = now
