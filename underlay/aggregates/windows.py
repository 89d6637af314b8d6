"""Windows of time: which of them a moment belongs to, and when one is complete.

Windows begin at whole multiples of the slide, counted from the Unix epoch, so every worker cuts alike; a
window holds `start <= t < start + size`. Source of the terms: Akidau et al., "The Dataflow Model" (VLDB
2015), §2.2 (tumbling windows are its fixed ones), §2.3 (watermarks).
"""

from __future__ import annotations

from math import floor
from re import fullmatch

import msgspec

UNITS_S = {"ms": 0.001, "s": 1.0, "min": 60.0, "h": 3600.0, "d": 86_400.0}
_OVERLAP_MAX = 1000


class Windows(msgspec.Struct, frozen=True):
    """A way to cut time. Times are seconds."""

    size_s: float
    slide_s: float
    """From one start to the next; that of tumbling windows is their size."""
    lateness_s: float | None = None
    """How far the newest event must be past a window's end for it to be complete; None: all always are."""

    @classmethod
    def of(
        cls, size: str | float, slide: str | float | None = None, lateness: str | float | None = None
    ) -> Windows:
        """From durations as people write them. Raises ValueError.

        >>> Windows.of("1h", "15min")
        Windows(size_s=3600.0, slide_s=900.0, lateness_s=None)
        """
        size_s = duration_s(size)
        slide_s = size_s if slide is None else duration_s(slide)
        if size_s <= 0 or slide_s <= 0:
            raise ValueError(f"a window and its slide are longer than nothing, and these are {size}, {slide}")
        if slide_s > size_s:
            raise ValueError(f"windows of {size} every {slide} would leave times out")
        if size_s / slide_s > _OVERLAP_MAX:
            raise ValueError(
                f"every moment would be in {size_s / slide_s:.0f} windows, more than {_OVERLAP_MAX}"
            )
        return cls(size_s, slide_s, None if lateness is None else duration_s(lateness))

    def starts(self, t_s: float) -> tuple[float, ...]:
        """The starts of all windows that a moment is in, the latest first; whole seconds are ints.

        >>> Windows.of("1h").starts(7199.9), Windows.of(10, 5).starts(12)
        ((3600,), (10, 5))
        """
        index = floor(t_s / self.slide_s)
        while index * self.slide_s > t_s:  # a quotient that was rounded up
            index -= 1
        found = []
        while (start := index * self.slide_s) + self.size_s > t_s:
            found.append(int(start) if start == int(start) else start)
            index -= 1
        return tuple(found)

    def is_open(self, start_s: float, watermark_s: float) -> bool:
        """Whether more may come into a window, where the newest event is at `watermark_s`."""
        return self.lateness_s is not None and watermark_s < start_s + self.size_s + self.lateness_s


def duration_s(given: str | float) -> float:
    """Seconds of a duration: a number of them, or a number and a unit (ms, s, min, h, d). Raises ValueError.

    >>> duration_s("15min"), duration_s(2)
    (900.0, 2.0)
    """
    if not isinstance(given, str):
        return float(given)
    found = fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-z]*)\s*", given)
    unit = found[2] or "s" if found else ""
    if found is None or unit not in UNITS_S:
        raise ValueError(f"{given!r} is no duration: a number and one of {', '.join(UNITS_S)}, such as 15min")
    return float(found[1]) * UNITS_S[unit]
